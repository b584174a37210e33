"""Members of the ensemble that share a training: snapshots, draws of SWAG, networks with dropout."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from law_runs import (
    BASE,
    Killed,
    assert_close,
    assert_same_bits,
    both,
    dying,
    job_of,
    payload_of,
    results,
    train,
)
from test_train_averages import SPE, history, iterate, part, recorded
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts
from torch.optim.swa_utils import update_bn

from ensemble_svc import pipeline
from ensemble_svc.aggregate.averaging import RunningAverage
from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.aggregate.swag import Swag as Moments
from ensemble_svc.deciding import best_on_validation
from ensemble_svc.errors import SpecError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.nn.build import build
from ensemble_svc.nn.masks import dropping
from ensemble_svc.optim.schedule import factor
from ensemble_svc.plan.plan import MemberSpec, draw_seed
from ensemble_svc.predictor import Ensemble
from ensemble_svc.reselecting import reselect
from ensemble_svc.spec.aggregate import AggregateSpec
from ensemble_svc.spec.averages import Swa, Swag
from ensemble_svc.spec.job import EvaluateSpec, JobSpec, NoResample
from ensemble_svc.spec.load import load_job, parse_job
from ensemble_svc.spec.model import ConvNet, Mlp
from ensemble_svc.spec.schedules import Cyclic
from ensemble_svc.spec.training import TrainingSpec
from ensemble_svc.spec.virtual import cycle_ends
from ensemble_svc.store.members import candidates, sealed
from ensemble_svc.store.run import Run
from ensemble_svc.train.assemble import assemble, stack
from ensemble_svc.train.averages import averages_of
from ensemble_svc.train.forward import predict, predict_dropped
from ensemble_svc.train.iterates import Iterates, Snapshots, Spread, iterates_of
from ensemble_svc.train.recipe import Recipe
from ensemble_svc.train.step import Batch
from ensemble_svc.train.strand import Strand

KINDS: dict[str, dict[str, Any]] = {
    "snapshots": {
        "training__schedule": {"name": "cyclic", "cycles": 3},
        "training__epochs": 6,
        "ensemble__snapshots": 2,
    },
    "fge": {
        "training__average": {"name": "swa", "start": 0.3, "every": 2, "high": 1.0, "low": 0.1},
        "training__epochs": 6,
        "ensemble__snapshots": 2,
    },
    "swag": {
        "training__average": {"name": "swag", "start": 0.3, "rank": 2, "samples": 3},
        "training__epochs": 6,
    },
    "mc_dropout": {"ensemble__mc_samples": 3, "training__epochs": 3},
}
"""What a job says to get each kind, with members of different lengths of training where it can be."""
NUMBER = {"snapshots": 2, "fge": 2, "swag": 3, "mc_dropout": 3}
kinds = pytest.mark.parametrize("kind", KINDS)


def job_for(kind: str, **changes: Any) -> JobSpec:
    norm = {"name": "mlp", "hidden": (16,), "norm": "batch", "dropout": 0.2}
    return job_of(**{"model": norm, **KINDS[kind], **changes})


def member_of(training: TrainingSpec, index: int = 0, **more: Any) -> MemberSpec:
    return MemberSpec(
        index=index,
        job_seed=0,
        task="classification",
        data_hash="d",
        split_hash="s",
        preprocess=(),
        augment=(),
        standardize_target=False,
        resample=NoResample(),
        model=Mlp(),
        training=training,
        **more,
    )


class TestCycles:
    @settings(max_examples=60)
    @given(cycles=st.integers(1, 9), length=st.integers(1, 30), floor=st.floats(0, 1))
    def test_the_schedule_is_torchs_own(self, cycles, length, floor) -> None:
        total, rate = cycles * length, 0.3
        rule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
        theirs = CosineAnnealingWarmRestarts(rule, T_0=length, eta_min=floor * rate)
        for step in range(total):
            own = factor(Cyclic(cycles=cycles, floor=floor), step, total)
            assert own * rate == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
            rule.step()
            theirs.step()

    @given(cycles=st.integers(1, 9), length=st.integers(1, 9))
    def test_its_cycles_end_with_the_epochs_before_the_rate_rises(self, cycles, length) -> None:
        schedule, epochs = Cyclic(cycles=cycles), cycles * length
        rates = [factor(schedule, step, epochs * SPE, SPE) for step in range(epochs * SPE)]
        rises = [e for e in range(1, epochs) if rates[e * SPE] > rates[e * SPE - 1] or length * SPE == 1]
        assert [*rises, epochs] == list(schedule.ends(epochs))

    def test_those_of_an_average_take_the_place_of_the_schedules(self) -> None:
        swa = Swa(start=0.5, every=2)
        training = TrainingSpec(epochs=10, schedule=Cyclic(cycles=5), average=swa)
        assert cycle_ends(training) == (7, 9)
        assert [swa.num_cycles(e, 10) for e in range(11)] == [
            sum(end <= e for end in (7, 9)) for e in range(11)
        ]


class TestIterates:
    @settings(max_examples=30)
    @given(cycles=st.lists(st.integers(1, 4), min_size=1, max_size=4), num=st.integers(1, 3))
    def test_snapshots_are_the_weights_at_the_ends_of_the_last_cycles(self, cycles, num) -> None:
        """A loop that stores all iterates; members leave the stack as they end."""
        epochs = [c * 2 for c in cycles]
        members = [
            member_of(TrainingSpec(epochs=e, schedule=Cyclic(cycles=c)), k, snapshots=num)
            for k, (c, e) in enumerate(zip(cycles, epochs, strict=True))
        ]
        found, number = iterates_of(members, iterate(0, len(members))), len(members)
        assert isinstance(found, Snapshots)
        for epoch in range(1, max(epochs) + 1):
            standing = [k for k in range(number) if epochs[k] >= epoch]
            weights = {name: value[standing] for name, value in iterate(SPE * epoch, number).items()}
            found.take_epoch(epoch, weights, standing, None)
        for k, own in enumerate(cycles):
            taken = [2 * c for c in range(1, own + 1)][-num:]
            for place, epoch in enumerate(taken):
                for name, value in found.states(place, {}).items():
                    assert torch.equal(value[k], iterate(SPE * epoch, number)[name][k])

    @settings(max_examples=30)
    @given(data=st.data(), number=st.integers(1, 3), rank=st.sampled_from([0, 2, 3, 50]))
    def test_the_spread_is_swags_own(self, data, number, rank) -> None:
        """Against the moments of all iterates at the ends of cycles, in float64, and draws from them."""
        rules = [
            Swag(start=data.draw(st.floats(0, 0.6)), every=data.draw(st.integers(1, 2)), rank=rank)
            for _ in range(number)
        ]
        members = [member_of(TrainingSpec(epochs=8, average=rule), k) for k, rule in enumerate(rules)]
        recipe = Recipe(tuple(members), SPE, torch.device("cpu"), lead=members[0])
        averages, found = averages_of(recipe, iterate(0, number)), iterates_of(members, iterate(0, number))
        assert averages is not None
        assert isinstance(found, Spread)
        for epoch in range(1, 9):
            averages.take_epoch(epoch, iterate(SPE * epoch, number))
            found.take_epoch(epoch, iterate(SPE * epoch, number), range(number), averages)
        mean = averages.served(iterate(SPE * 8, number), SPE * 8)
        drawn = found.states(1, mean)
        for k, (rule, member) in enumerate(zip(rules, members, strict=True)):
            theirs = Moments(rank)
            for epoch in rule.ends(8):
                theirs = theirs.update({n: v[k] for n, v in iterate(SPE * epoch, number).items()})
            wanted = theirs.sample(torch.Generator().manual_seed(draw_seed(member, 1)))
            for name, value in wanted.items():
                torch.testing.assert_close(drawn[name][k], value, rtol=1e-5, atol=1e-5)

    @given(seed=st.integers(0, 99))
    @settings(max_examples=10)
    def test_without_scale_every_draw_is_the_mean(self, seed) -> None:
        member = member_of(TrainingSpec(epochs=5, average=Swag(start=0, rank=2, scale=0.0)))
        found, averages = swag_of(member)
        mean = averages.served(iterate(0, 1), SPE * 5)
        assert all(torch.equal(value, mean[name]) for name, value in found.states(seed, mean).items())

    def test_draws_differ_and_come_again(self) -> None:
        found, averages = swag_of(member_of(TrainingSpec(epochs=5, average=Swag(start=0, rank=2))))
        mean = averages.served(iterate(0, 1), SPE * 5)
        first, again, other = (found.states(number, mean)["matrix"] for number in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def swag_of(member: MemberSpec) -> tuple[Iterates, Any]:
    recipe = Recipe((member,), SPE, torch.device("cpu"), lead=member)
    averages, found = averages_of(recipe, iterate(0, 1)), iterates_of([member], iterate(0, 1))
    assert averages is not None
    assert found is not None
    for epoch in range(1, member.training.epochs + 1):
        averages.take_epoch(epoch, iterate(SPE * epoch, 1))
        found.take_epoch(epoch, iterate(SPE * epoch, 1), [0], averages)
    return found, averages


NETWORKS = {
    "mlp": (Mlp(hidden=(9, 7), dropout=0.4), (6,)),
    "convnet": (ConvNet(channels=(4, 6), dropout=0.3, channel_dropout=0.3), (2, 8, 8)),
}


class TestMasks:
    @pytest.mark.parametrize("name", NETWORKS)
    @settings(max_examples=15, deadline=None)
    @given(cut=st.integers(1, 11), seed=st.integers(0, 2**62))
    def test_a_row_is_predicted_alike_in_whatever_piece_it_comes(self, name, cut, seed) -> None:
        model, shape = NETWORKS[name]
        net = build(model, shape, 3).eval()
        x = torch.randn(12, *shape)
        with torch.no_grad(), dropping(net, seed) as begin:
            begin()
            whole = net(x)
            pieces = []
            for piece in x.split(cut):
                begin()
                pieces.append(net(piece))
        torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-5, atol=1e-5)

    def test_its_mixture_over_draws_is_that_of_a_draw_per_row(self) -> None:
        """Mean and spread over draws of each row's outputs, to the error of 3000 draws."""
        model, shape = NETWORKS["mlp"]
        net, x = build(model, shape, 3).eval(), torch.randn(4, *shape)
        fixed = []
        with torch.no_grad():
            for seed in range(3000):
                with dropping(net, seed) as begin:
                    begin()
                    fixed.append(net(x))
            net.train()
            free = torch.stack([net(x) for _ in range(3000)])
        own = torch.stack(fixed)
        error = free.std(0) / 3000**0.5
        assert ((own.mean(0) - free.mean(0)).abs() < 6 * error).all()
        torch.testing.assert_close(own.std(0), free.std(0), rtol=0.1, atol=0.01)

    def test_the_network_is_left_as_it_was(self) -> None:
        model, shape = NETWORKS["convnet"]
        net, x = build(model, shape, 3).eval(), torch.randn(5, *shape)
        before = net(x)
        with dropping(net, 1) as begin:
            begin()
            assert not torch.equal(net(x), before)
        assert torch.equal(net(x), before)

    def test_without_dropout_every_draw_is_the_network_to_the_bit(self) -> None:
        member = member_of(TrainingSpec())
        net = build(Mlp(hidden=(9,), dropout=0.0), (6,), 3).eval()
        weights, x = stack([net.state_dict()]), torch.randn(20, 6)
        loss = Recipe((member,), 1, torch.device("cpu"), lead=member).loss
        plain = predict(net, weights, loss, x, scale_K={})["log_probs"]
        drawn = predict_dropped(net, weights, loss, x, scale_K={}, draws=[(0, 5), (0, 6)])["log_probs"]
        assert torch.equal(drawn, plain.expand_as(drawn))


class TestInTraining:
    @kinds
    def test_packed_they_are_as_alone(self, kind, tmp_path: Path) -> None:
        """Without dropout in training, which draws for the pack; that of Monte Carlo is of weights that stay put."""
        changes: dict[str, Any] = {"ensemble__vary": {"training.epochs": (6, 3, 9)}}
        changes["training__optimizer"] = {"name": "sgd", "lr": 1e-12 if kind == "mc_dropout" else 0.02}
        if kind != "mc_dropout":
            changes["model"] = {"name": "mlp", "hidden": (16,), "norm": "batch"}
        job = job_for(kind, **changes)
        assert len(payload_of(job, tmp_path / "plan")[1].slots) == 1
        together, apart = both(job, tmp_path)
        assert_close(together, apart)

    @kinds
    @pytest.mark.parametrize("pack", ["auto", "off"])
    @pytest.mark.parametrize("epoch", [2, 4])
    def test_killed_and_started_again_they_end_with_the_same_bits(self, kind, pack, epoch, tmp_path) -> None:
        """Among members that end at different times."""
        job = job_for(kind, compute__pack=pack, ensemble__vary={"training.epochs": (6, 6, 9)})
        undisturbed = train(job, tmp_path / "a", commit_every_s=0)
        with pytest.raises(Killed):
            train(job, tmp_path / "b", report=dying(epoch), commit_every_s=0)
        assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))

    @pytest.mark.parametrize("kind", ["snapshots", "fge", "swag"])
    def test_halved_in_the_middle_they_end_as_those_of_the_whole(self, kind, tmp_path, monkeypatch) -> None:
        """One member of four has left the stack by then."""
        job = job_for(
            kind,
            model={"name": "mlp", "hidden": (16,), "norm": "batch"},
            training__optimizer={"name": "sgd", "lr": 0.02},
            ensemble__members=4,
            ensemble__vary={"training.epochs": (6, 3, 9, 6)},
        )
        undisturbed, step = train(job, tmp_path / "whole"), Strand.step

        def limited(self: Strand, batch: Batch) -> Tensor:
            if len(batch.x_KB) > 2 and self.optimizer.num_steps >= 50:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return step(self, batch)

        monkeypatch.setattr(Strand, "step", limited)
        notes = list[str]()
        assert_close(
            train(job, tmp_path / "halved", lambda p: notes.append(p.note), commit_every_s=0), undisturbed
        )
        assert any("going on with packs of 2 and 2" in note for note in notes)

    @pytest.mark.parametrize("kind", ["snapshots", "fge"])
    def test_a_snapshot_is_the_member_as_it_was(self, kind, tmp_path, monkeypatch) -> None:
        stored = recorded(monkeypatch)
        train(job_for(kind), tmp_path)
        ends = {"snapshots": (4, 6), "fge": (3, 5)}[kind]
        for k, found in results(tmp_path).items():
            for number, end in enumerate(ends, 1):
                for name, value in part(f"snapshot-{number}", found).items():
                    assert torch.equal(value, stored[end - 1][name][k])

    def test_the_last_snapshot_is_the_trained_member(self, tmp_path) -> None:
        train(job_for("snapshots"), tmp_path)
        for found in results(tmp_path).values():
            last, weights = part("snapshot-2", found), part("weights", found)
            assert all(torch.equal(last[name], value) for name, value in weights.items())

    def test_statistics_of_draws_are_those_of_a_pass_over_the_training_rows(self, tmp_path) -> None:
        job = job_for("swag")
        train(job, tmp_path)
        payload, plan = payload_of(job, tmp_path)
        x = torch.from_numpy(payload.dataset.x[payload.split.train])
        for member in plan.members:
            for number in range(1, 4):
                net = assemble(member, payload.schema)
                found = part(f"snapshot-{number}", results(tmp_path)[member.index])
                net.load_state_dict(found)
                update_bn(x.split(64), net)
                for name, value in net.state_dict().items():
                    torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)

    @kinds
    def test_each_is_measured(self, kind, tmp_path) -> None:
        """And the last snapshot's metrics are those of the last epoch."""
        train(job_for(kind), tmp_path)
        for event in sealed(tmp_path).values():
            assert list(candidates(event)) == [f"{event['member']}#{s + 1}" for s in range(NUMBER[kind])]
            assert all(set(m) == {"validation", "test"} for m in candidates(event).values())
            if kind == "snapshots":
                last = history(tmp_path, event["member"])[-1]
                assert event["virtual"][-1]["validation"]["nll"] == pytest.approx(last["val_nll"], rel=1e-5)


def whole(job: JobSpec, out: Path) -> Run:
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor())


def whole_job(kind: str, **changes: Any) -> JobSpec:
    job = job_for(kind, data={"source": "digits", "test": 0.4}, evaluate={"resamples": 100}, **changes)
    return job.model_copy(update={"compute": job.compute.model_copy(update={"executor": "local"})})


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory) -> Run:
    """A finished run of each kind, which no test may change."""
    return whole(whole_job(request.param), tmp_path_factory.mktemp(request.param) / "run")


class TestTheWholeWay:
    def test_the_ensemble_is_of_all_of_them(self, run) -> None:
        manifest = run.manifest()
        number = len(manifest["members"][0]["virtual"])
        ids = [f"{m['id']}#{s + 1}" for m in manifest["members"] for s in range(number)]
        assert manifest["candidates"] == list(manifest["ensemble"]["members"]) == ids
        assert len(run.metrics()["test"]["members"]["each"]) == len(ids)

    def test_loaded_it_predicts_what_is_stored(self, run) -> None:
        stored = run.predictions("test")
        x = rows_of(run, stored)
        members = Ensemble.load(run.path).members(x)
        for name, value in members.items():
            torch.testing.assert_close(value, stored[name], rtol=1e-4, atol=1e-4)
        pooled = combine({"log_probs": stored["log_probs"]})["log_probs"].exp()
        np.testing.assert_allclose(Ensemble.load(run.path).predict(x).mean, pooled, atol=1e-5)

    def test_some_of_them_can_be_loaded_in_any_order(self, run) -> None:
        stored, ids = run.predictions("test"), run.manifest()["candidates"]
        some = [ids[-1], ids[0], ids[2]]
        found = Ensemble.load(run.path, members=some).members(rows_of(run, stored))["log_probs"]
        wanted = stored["log_probs"][[len(ids) - 1, 0, 2]]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)

    def test_members_are_no_copies(self, run) -> None:
        log_probs = run.predictions("test")["log_probs"]
        apart = (log_probs[:, None] - log_probs[None]).abs().amax((2, 3))
        assert (apart + torch.eye(len(apart)) > 1e-4).all()

    def test_the_best_on_validation_is_one_of_them(self, run) -> None:
        manifest, stored = run.manifest(), run.predictions("validation")
        metrics = [m for entry in manifest["members"] for m in candidates(entry).values()]
        nll = (
            -stored["log_probs"]
            .gather(2, stored["target"].view(1, -1, 1).expand(len(metrics), -1, 1))
            .mean((1, 2))
        )
        assert best_on_validation(run.job(), metrics) == int(nll.argmin())


def rows_of(run: Run, stored: dict[str, Tensor]) -> np.ndarray[Any, Any]:
    payload, _ = payload_of(run.job(), run.path)
    place = {int(row): i for i, row in enumerate(payload.dataset.row)}
    return payload.dataset.x[[place[int(row)] for row in stored["row"]]]


def test_a_training_is_compared_with_what_it_stands_for(run) -> None:
    """By hand, from the stored predictions."""
    for split in ("validation", "test"):
        stored, found = run.predictions(split), run.metrics()[split]["trainings"]
        true = stored["target"].view(1, -1, 1)
        trained, members = stored["trained.log_probs"].double(), stored["log_probs"].double()
        number, each = len(trained), len(members) // len(trained)
        assert (found["number"], found["members_of_each"]) == (number, each) == (3, each)
        mixtures = members.exp().unflatten(0, (number, each)).mean(1).log()
        for name, log_probs in (("network", trained), ("mixture", mixtures)):
            nll_K = -log_probs.gather(2, true.expand(number, -1, 1)).mean((1, 2))
            assert found[name]["nll"] == pytest.approx(nll_K.mean().item(), rel=1e-6)
        worth = found["equivalents"]["nll"]["members"]
        assert worth is None or 1 <= worth <= number
        assert (worth == 1) == (found["mixture"]["nll"] >= found["network"]["nll"])


def test_the_trained_network_is_what_a_run_without_them_has(tmp_path: Path) -> None:
    plain = whole(whole_job("snapshots", ensemble__snapshots=0), tmp_path / "plain")
    with_ = whole(whole_job("snapshots"), tmp_path / "with")
    one, other = plain.predictions("test")["log_probs"], with_.predictions("test")["trained.log_probs"]
    assert torch.equal(one, other)
    text = (with_.path / "report.html").read_text()
    assert "The 2 members of one training have an NLL of" in text
    assert "members of one training" not in (plain.path / "report.html").read_text()


def test_some_trainings_can_be_members_and_others_stand_for_some(tmp_path: Path) -> None:
    varied = {"training.average": ("none", {"name": "swag", "start": 0.0, "samples": 2})}
    run = whole(whole_job("swag", training__average="none", ensemble__vary=varied), tmp_path / "run")
    first, second, third = (entry["id"] for entry in run.manifest()["members"])
    assert run.manifest()["candidates"] == [first, f"{second}#1", f"{second}#2", third]
    stored = run.predictions("test")
    assert "trainings" not in run.metrics()["test"]
    found = Ensemble.load(run.path).members(rows_of(run, stored))["log_probs"]
    torch.testing.assert_close(found, stored["log_probs"], rtol=1e-4, atol=1e-4)


def test_a_snapshot_ensemble_is_better_than_its_last_snapshot(tmp_path: Path) -> None:
    """In NLL, over three seeds of the job that is shipped; the trainings are seeded, so this is no luck of the day."""
    job = load_job(
        Path(__file__).parents[1] / "jobs" / "snapshots.yaml",
        ("compute.executor=local", "evaluate.resamples=100"),
    )
    gains = []
    for seed in range(3):
        run = whole(job.model_copy(update={"seed": seed}), tmp_path / str(seed))
        test = run.metrics()["test"]
        assert len(run.manifest()["members"]) == 1
        assert len(test["members"]["each"]) == 5
        gains.append(test["members"]["each"][-1]["nll"] - test["ensemble"]["nll"])
    assert np.mean(gains) > 0.01


def test_selection_and_calibration_work_on_them_as_on_any(run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    run = Run(tmp_path / "run")
    asked = AggregateSpec.model_validate(
        {"select": {"name": "greedy", "picks": 5}, "calibrate": "temperature"}
    )
    decision = reselect(run, run.job().model_copy(update={"aggregate": asked}), directory=Path.cwd())
    assert set(decision.members) < set(run.manifest()["candidates"])
    stored = run.predictions("test")
    assert Ensemble.load(run.path).members(rows_of(run, stored))["log_probs"].shape[0] == len(
        decision.members
    )


@pytest.mark.parametrize("loss", ["mse", "gaussian_nll"])
@kinds
def test_numbers_are_predicted_with_a_noise_of_their_own(kind, loss, tmp_path: Path) -> None:
    job = whole_job(
        kind,
        task="regression",
        training__loss=loss,
    ).model_copy(update={"data": job_of(data={"source": "diabetes", "test": 0.4}).data})
    asked = EvaluateSpec(resamples=100, metrics=("rmse", "nll", "crps", "width90"))
    run = whole(job.model_copy(update={"evaluate": asked}), tmp_path / "run")
    assert run.metrics()["test"]["trainings"]["mixture"].keys() == {"rmse", "nll"}
    assert run.metrics()["test"]["ensemble"].keys() == set(asked.metrics)
    stored = run.predictions("test")
    found = Ensemble.load(run.path).members(rows_of(run, stored))
    for name, value in found.items():
        torch.testing.assert_close(value, stored[name], rtol=1e-3, atol=1e-3)
    if kind in ("snapshots", "fge") and loss == "mse":
        assert len(stored["log_variance"][:, 0, 0].unique()) == len(stored["log_variance"])


def test_draws_of_dropout_0_are_the_plain_member(tmp_path: Path) -> None:
    """Some members have dropout, others none."""
    varied = {"ensemble__vary": {"model.dropout": (0.0, 0.3)}}
    plain = whole(whole_job("mc_dropout", ensemble__mc_samples=0, **varied), tmp_path / "plain")
    drawn = whole(whole_job("mc_dropout", **varied), tmp_path / "drawn")
    one = plain.predictions("test")["log_probs"]
    many = drawn.predictions("test")["log_probs"].unflatten(0, (3, 3))
    torch.testing.assert_close(many[0], one[0].expand_as(many[0]), rtol=1e-5, atol=1e-6)
    assert (many[1] - one[1]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ensemble": {"snapshots": 2}}, "give schedule: cyclic"),
        (
            {"ensemble": {"snapshots": 6}, "training": {"schedule": "cyclic", "epochs": 30}},
            "more than the 5 cycles",
        ),
        (
            {"ensemble": {"snapshots": 2}, "training": {"schedule": "cyclic", "epochs": 12}},
            "do not end with epochs",
        ),
        (
            {
                "ensemble": {"snapshots": 2},
                "training": {"schedule": "cyclic", "early_stopping": {"metric": "nll"}},
            },
            "cut off the cycles",
        ),
        ({"ensemble": {"mc_samples": 5}}, "no member has any"),
        ({"ensemble": {"mc_samples": 5, "vary": {"model.dropout": [0.0, 0.0]}}}, "no member has any"),
        ({"training": {"average": {"name": "swag", "every": 5}}}, "two ends at least"),
        ({"training": {"average": {"name": "swag", "rank": 1}}}, "spans no covariance"),
        ({"training": {"average": "swag", "early_stopping": {"metric": "nll"}}}, "cut off the iterates"),
        (
            {
                "training": {"average": "swag"},
                "model": {"name": "mlp", "dropout": 0.1},
                "ensemble": {"mc_samples": 2},
            },
            "come of one of them",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes, words) -> None:
    with pytest.raises(SpecError, match=words):
        parse_job({"name": "x", "data": {"source": "digits"}, **changes})


def test_members_that_vary_in_dropout_need_it_once() -> None:
    ensemble = {"mc_samples": 5, "vary": {"model.dropout": [0.0, 0.1]}}
    job = {"name": "x", "data": {"source": "digits"}, "ensemble": ensemble}
    assert parse_job(job).ensemble.mc_samples == 5


@settings(max_examples=20)
@given(number=st.integers(1, 5))
def test_a_mean_and_its_spread_have_the_same_count(number) -> None:
    """``RunningAverage`` of the moments has the weight that ``Swag`` counts by."""
    average = RunningAverage(number, {"w": torch.zeros(2)}, {"w": torch.float32})
    assert Moments(0, average, average).count == number


@kinds
def test_several_tasks_are_answered_by_each(kind, tmp_path: Path) -> None:
    job = load_job(Path(__file__).parents[1] / "jobs" / "multitask.yaml")
    small = whole_job(kind, ensemble__members=2)
    training = small.training.model_copy(
        update={"loss": job.training.loss, "task_weights": job.training.task_weights}
    )
    parts = {"training": training, "ensemble": small.ensemble, "compute": small.compute, "model": small.model}
    run = whole(job.model_copy(update={**parts, "evaluate": small.evaluate}), tmp_path / "run")
    stored = run.predictions("test")
    found = Ensemble.load(run.path).members(rows_of(run, stored))
    assert {"progression/mean", "progression/log_variance", "sex/log_probs"} == set(found)
    for name, value in found.items():
        assert len(value) == 2 * NUMBER[kind]
        torch.testing.assert_close(value, stored[name], rtol=1e-3, atol=1e-3)


@kinds
def test_streamed_they_are_as_held_on_the_device(kind, tmp_path: Path) -> None:
    """The rows are the same; the order of a pack's stream is its own, so the weights stay put."""
    still = {"training__optimizer": {"name": "sgd", "lr": 1e-12}, "model": {"name": "mlp", "dropout": 0.2}}
    held = train(job_for(kind, **still), tmp_path / "held")
    streamed = train(job_for(kind, **still, data={**BASE["data"], "stream": "on"}), tmp_path / "streamed")
    assert_close(streamed, held)
