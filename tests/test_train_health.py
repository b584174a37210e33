"""Health in training: looking changes no bit, packed looks as alone, sick members are named, and restarts resume."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from law_runs import assert_same_bits, job_of, payload_of, results

from ensemble_svc.plan.progress import Progress
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.attempt import Attempt, slowed
from ensemble_svc.train.distributed import fit_together
from ensemble_svc.train.fit import fit

CONVNET = {"name": "convnet", "channels": (4, 8), "norm": "batch"}
DEEP = {"name": "mlp", "hidden": (16, 8), "norm": "batch", "dropout": 0.2}


class Killed(Exception):
    """Stands for a death in the middle of a slot."""


def trained(
    job: JobSpec, run: Path, *, report: Any = lambda progress: None, commit_every_s: float = 1e9
) -> dict[int, Stack]:
    """As the job says of health."""
    payload, plan = payload_of(job, run, commit_every_s)
    for slot in plan.slots:
        fit(replace(payload, health=job.compute.health == "auto"), slot, report)
    return results(run)


def health(run: Path) -> dict[int, Any]:
    """Each member's health.json by index."""
    found = {}
    for event in sealed(run).values():
        found[event["index"]] = json.loads((run / "members" / event["member"] / "health.json").read_text())
    return found


def histories(run: Path) -> dict[int, list[tuple[float, ...]]]:
    import pandas as pd

    found = {}
    for event in sealed(run).values():
        table = pd.read_parquet(run / "members" / event["member"] / "history.parquet")
        found[event["index"]] = list(table.drop(columns="seconds").itertuples(index=False, name=None))
    return found


class TestLooking:
    @pytest.mark.parametrize("pack", ["auto", "off"])
    @pytest.mark.parametrize("model", [DEEP, CONVNET], ids=["mlp", "convnet"])
    def test_changes_no_bit(self, model, pack, tmp_path):
        runs = {
            looks: job_of(model=model, training__epochs=4, compute__pack=pack, compute__health=looks)
            for looks in ("auto", "off")
        }
        one, other = (trained(job, tmp_path / looks) for looks, job in runs.items())
        assert_same_bits(one, other)
        assert histories(tmp_path / "auto") == histories(tmp_path / "off")
        assert all(found["samples"] for found in health(tmp_path / "auto").values())
        assert not any(found["samples"] for found in health(tmp_path / "off").values())

    def test_is_rare_and_sees_the_last_epoch(self, tmp_path):
        job = job_of(training__epochs=11, ensemble__vary={"training.epochs": (11, 7, 11)})
        trained(job, tmp_path)
        seen = {k: [s["epoch"] for s in found["samples"]] for k, found in health(tmp_path).items()}
        assert seen == {0: [1, 2, 4, 7, 8, 11], 1: [1, 2, 4, 7], 2: [1, 2, 4, 7, 8, 11]}

    @pytest.mark.parametrize("activation", ["relu", "tanh", "prelu", "maxout", "sigmoid"])
    @pytest.mark.parametrize("norm", ["none", "batch"])
    def test_a_packed_member_looks_as_it_does_alone(self, activation, norm, tmp_path):
        model = {"name": "mlp", "hidden": (12, 6), "activation": activation, "norm": norm}
        for pack in ("auto", "off"):
            trained(job_of(model=model, compute__pack=pack), tmp_path / pack)
        together, apart = health(tmp_path / "auto"), health(tmp_path / "off")
        assert together.keys() == apart.keys() == {0, 1, 2}
        for index, own in apart.items():
            assert together[index]["layers"] == own["layers"]
            for one, other in zip(together[index]["samples"], own["samples"], strict=True):
                for name in one.keys() - {"epoch"}:
                    told, wanted = ([-1 if x is None else x for x in of[name]] for of in (one, other))
                    assert told == pytest.approx(wanted, rel=0.02, abs=1e-3), name

    def test_a_step_is_that_of_its_definition(self, tmp_path):
        """Plain gradient descent: the last step over the weights is rate x gradient, at the batch of all rows."""
        job = job_of(
            training__epochs=1,
            training__batch_size="full",
            training__optimizer={"name": "sgd", "lr": 1e-4, "momentum": 0.0},
            training__schedule="constant",
            ensemble__members=2,
        )
        trained(job, tmp_path)
        for found in health(tmp_path).values():
            sample = found["samples"][0]
            for moved, gradient, weight in zip(
                sample["update"], sample["gradient"], sample["weight"], strict=True
            ):
                # The gradient is that of 64 of the rows, hence only about.
                assert moved == pytest.approx(1e-4 * gradient / weight, rel=0.5)

    def test_bags_of_a_stream_differ_in_size(self, tmp_path):
        job = job_of(
            data={"source": "digits", "stream": "on", "validation": 0.0, "test": 0.97},
            ensemble={"members": 6, "resample": "bootstrap"},
            training__epochs=1,
        )
        trained(job, tmp_path)
        assert [len(found["samples"]) for found in health(tmp_path).values()] == [1] * 6

    def test_resumed_sees_what_the_undisturbed_saw(self, tmp_path):
        job = job_of(model=DEEP, training__epochs=6)
        trained(job, tmp_path / "a", commit_every_s=0)

        def dying(progress: Progress) -> None:
            if progress.epoch == 3:
                raise Killed

        with pytest.raises(Killed):
            trained(job, tmp_path / "b", report=dying, commit_every_s=0)
        trained(job, tmp_path / "b", commit_every_s=0)
        assert health(tmp_path / "a") == health(tmp_path / "b")
        assert histories(tmp_path / "a") == histories(tmp_path / "b")  # by position: columns keep their order


class TestNamed:
    def test_zeros_never_beat_guessing_and_are_told_why(self, tmp_path):
        job = job_of(model={"name": "mlp", "hidden": (16,), "activation": "tanh", "init": "zeros"})
        trained(job, tmp_path)
        for found in health(tmp_path).values():
            assert found["sick"].startswith("never better than guessing")
            assert "stay alike for ever" in found["findings"][0]["sentence"]
            assert found["status"] == "done"

    @pytest.mark.parametrize("loss", ["mse", "gaussian_nll"])
    @pytest.mark.parametrize("pack", ["auto", "off"])
    def test_mixed_numbers_do_not_hide_a_network_that_guesses(self, pack, loss, tmp_path):
        """Beside one that learns; the first one's constant has a loss on mixed targets far below guessing's."""
        job = job_of(
            task="regression",
            data={"source": "diabetes", "preprocess": ("standardize",)},
            model={"name": "mlp", "hidden": (16,), "activation": "tanh", "init": "zeros"},
            training__loss=loss,
            training__epochs=6,
            training__regularizers=({"name": "mixup", "alpha": 1.0},),
            training__optimizer={"name": "adamw", "lr": 0.01},
            ensemble__members=2,
            ensemble__vary={"model.init": ("zeros", "he")},
            compute__pack=pack,
        )
        trained(job, tmp_path)
        found = health(tmp_path)
        assert found[0]["sick"].startswith("no better than guessing")
        assert found[0]["findings"][0]["kind"] == "guessing"
        assert found[1]["sick"] is None
        assert min(row[1] for row in histories(tmp_path)[0]) < (0.9 if loss == "mse" else 1.4)

    def test_guessing_is_by_each_members_own_loss(self, tmp_path):
        job = job_of(
            data={"source": "breast_cancer", "preprocess": ("standardize",)},
            model={"name": "mlp", "hidden": (16,), "activation": "tanh", "init": "zeros"},
            training__loss={"name": "cross_entropy", "label_smoothing": 0.0},
            ensemble__vary={"training.loss.label_smoothing": (0.0, 0.5)},
        )
        told = []
        for pack in ("auto", "off"):
            trained(
                job.model_copy(update={"compute": job.compute.model_copy(update={"pack": pack})}),
                tmp_path / pack,
            )
            told.append({k: found["sick"] for k, found in health(tmp_path / pack).items()})
        assert told[0] == told[1]
        assert len(set(told[0].values())) > 1

    def test_divergence_says_where_and_at_what_rate(self, tmp_path):
        job = job_of(
            training__optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9},
            ensemble__vary={"training.optimizer.lr": (0.05, 1e30, 0.05)},
        )
        trained(job, tmp_path)
        found = health(tmp_path)
        assert (found[1]["status"], found[1]["sick"]) == ("diverged", found[1]["reason"])
        sentence = found[1]["findings"][0]["sentence"]
        assert "epoch 1" in sentence
        assert "e+2" in sentence or "1e+30" in sentence
        assert found[0]["sick"] is None


RATES = (0.5, 8.0, 4.0, 64.0)
"""Well; diverges, but not at a quarter of it; comes to nothing, but not at half of it; diverges whatever is done."""


def unsteady(rates: tuple[float, ...] = RATES, **changes: Any) -> JobSpec:
    return job_of(
        **{
            "training__optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.0},
            "training__schedule": "constant",
            "training__epochs": 4,
            "ensemble": {"members": len(rates), "vary": {"training.optimizer.lr": rates}},
        }
        | changes
    )


def restarting(**changes: Any) -> JobSpec:
    return unsteady(training__on_sick="restart", **changes)


class TestSick:
    def test_warn_keeps_all_but_the_diverged(self, tmp_path):
        trained(unsteady(), tmp_path)
        found = health(tmp_path)
        assert [found[k]["status"] for k in range(4)] == ["done", "diverged", "done", "diverged"]
        assert [bool(found[k]["sick"]) for k in range(4)] == [False, True, True, True]
        assert [found[k]["restarts"] for k in range(4)] == [0, 0, 0, 0]

    def test_exclude_leaves_them_out_with_the_reason(self, tmp_path):
        trained(unsteady(training__on_sick="exclude"), tmp_path)
        found = health(tmp_path)
        assert [found[k]["status"] for k in range(4)] == ["done", "diverged", "excluded", "diverged"]
        assert found[2]["reason"].startswith("never better than guessing")

    def test_restart_halves_the_rate_at_most_twice(self, tmp_path):
        notes = list[str]()
        trained(restarting(), tmp_path, report=lambda progress: notes.append(progress.note))
        found = health(tmp_path)
        assert [found[k]["restarts"] for k in range(4)] == [0, 2, 1, 2]
        assert [found[k]["rate_factor"] for k in range(4)] == [1.0, 0.25, 0.5, 0.25]
        assert [found[k]["status"] for k in range(4)] == ["done", "done", "done", "diverged"]
        assert [bool(found[k]["sick"]) for k in range(4)] == [False, False, False, True]
        assert [note for note in notes if "starting again at 0.5" in note]
        assert not list((tmp_path / "packs").iterdir())

    def test_a_restarted_member_is_one_of_that_rate(self, tmp_path):
        """Same seed, half the rate; and the others are what they are without it."""
        trained(restarting(compute__pack="off"), tmp_path / "a")
        trained(unsteady((0.5, 2.0, 2.0, 16.0), compute__pack="off"), tmp_path / "b")
        assert_same_bits(results(tmp_path / "a"), results(tmp_path / "b"))

    def test_harms_no_other_member(self, tmp_path):
        with_restarts, without = (
            trained(job, tmp_path / name) for name, job in {"a": restarting(), "b": unsteady()}.items()
        )
        assert_same_bits({0: with_restarts[0]}, {0: without[0]})

    @pytest.mark.parametrize("pack", ["auto", "off"])
    def test_killed_anywhere_and_resumed_is_undisturbed(self, pack, tmp_path):
        rates = RATES if pack == "auto" else RATES[1:2]
        job = restarting(
            compute__pack=pack, ensemble={"members": len(rates), "vary": {"training.optimizer.lr": rates}}
        )
        reports = list[Progress]()
        trained(job, tmp_path / "a", report=reports.append, commit_every_s=0)
        undisturbed = results(tmp_path / "a")
        for death in range(len(reports)):
            left = [death]

            def dying(progress: Progress, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed

            run = tmp_path / f"killed-{death}"
            with pytest.raises(Killed):
                trained(job, run, report=dying, commit_every_s=0)
            trained(job, run, commit_every_s=0)
            assert_same_bits(undisturbed, results(run))
            assert health(tmp_path / "a") == health(run)

    def test_progress_speaks_of_the_plans_members(self, tmp_path):
        reports = list[Progress]()
        trained(restarting(), tmp_path, report=reports.append)
        ids = {event["member"] for event in sealed(tmp_path).values()}
        packs = {event["pack"] for event in sealed(tmp_path).values()}
        assert {member.id for progress in reports for member in progress.members} <= ids
        assert {progress.pack for progress in reports} == packs

    def test_a_slowed_member_is_another_to_the_store_and_the_same_to_its_seed(self, tmp_path):
        member = next(payload_of(restarting(), tmp_path)[1].members)
        slower = slowed(member, 0.5)
        assert slower.digest != member.digest
        assert slower.training.optimizer.lr == member.training.optimizer.lr / 2
        assert (slower.index, slower.job_seed, slower.model) == (member.index, member.job_seed, member.model)

    def test_starts_are_told_in_the_journal(self, tmp_path):
        trained(restarting(), tmp_path)
        starts = Journal(tmp_path / "journal.jsonl").of_kind("start")
        assert [(len(e["members"]), e.get("rate_factor", 1.0)) for e in starts] == [
            (4, 1.0),
            (3, 0.5),
            (2, 0.25),
        ]

    def test_a_start_anew_is_of_the_members_named(self, tmp_path):
        slot = payload_of(restarting(), tmp_path)[1].slots[0]
        again = Attempt(slot, slot.pack.members).again([1, 3]).again([1])
        assert again.members == (slot.pack.members[3],)
        assert again.rate_factor == 0.25
        assert again.pack.members[0].training.optimizer.lr == 16.0


def test_a_member_of_several_processes_starts_anew_in_new_ones(tmp_path):
    job = unsteady((4.0,), training__on_sick="restart", training__epochs=2)
    payload, plan = payload_of(job, tmp_path)
    slot = plan.slots[0].model_copy(update={"processes": 2, "cpus": 2})
    fit_together(payload, slot, lambda progress: None)
    found = health(tmp_path)[0]
    assert (found["restarts"], found["rate_factor"], found["sick"]) == (1, 0.5, None)
    assert not list((tmp_path / "packs").iterdir())
