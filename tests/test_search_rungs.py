"""Trials of several packs and structures are ranked together, whoever trained them, and go on in new packs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kept_ray import KeptRay
from search_runs import (
    HIDDEN,
    MIXED,
    RATE,
    SPACE,
    STILL,
    Killed,
    assert_same_weights,
    job_of,
    killed_at,
    train,
    weights,
)
from torch import nn

from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import Session
from ensemble_svc.spec.catalogue import REGISTRIES
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.model import PythonModel
from ensemble_svc.spec.schedulers import Halving, Hyperband
from ensemble_svc.store import outlook
from ensemble_svc.store.reached import Reached
from ensemble_svc.store.run import Run

HALVING = {"name": "halving", "factor": 2, "min_epochs": 1}
HYPERBAND = {"name": "hyperband", "factor": 2}


def ranked(scheduler: dict[str, Any], space: dict[str, Any], *, trials: int = 8, **sections: Any) -> JobSpec:
    training = {"epochs": 5, "batch_size": 128, **sections.pop("training", {})}
    compute = {"commit_every_s": 0.0, **sections.pop("compute", {})}
    search = {"space": space, "trials": trials, "scheduler": scheduler}
    return job_of(search, training=training, compute=compute, **sections)


def decisions(run: Run) -> list[tuple[int, bool, str]]:
    return [(m["epochs"], m["stopped"], m["reason"]) for m in run.manifest()["members"]]


def assert_alike(run: Run, other: Run) -> None:
    """The same decisions, and weights to float tolerance."""
    assert decisions(run) == decisions(other)
    assert_same_weights(run, other)


def sizes(run: Run) -> list[list[int]]:
    """Members of the packs that started, between one decision of the driver and the next."""
    found: list[list[int]] = [[]]
    for event in run.journal.of_kind("start", "rung"):
        if event["event"] == "rung":
            found.append([])
        else:
            found[-1].append(len(event["members"]))
    return found


@pytest.mark.parametrize("scheduler", [HALVING, HYPERBAND], ids=lambda s: s["name"])
def test_structures_and_packs_of_any_size_are_ranked_together(scheduler: Any, tmp_path: Path) -> None:
    """Law 1 for a search: trials alone, in packs of 3, and one pack of each structure; the same trials stop."""
    alone = train(ranked(scheduler, MIXED, compute={"pack": "off"}), tmp_path / "alone")
    for pack in (3, "auto"):
        run = train(ranked(scheduler, MIXED, compute={"pack": pack}), tmp_path / str(pack))
        assert_alike(run, alone)
    assert len({member["epochs"] for member in alone.manifest()["members"]}) > 2
    assert {member["status"] for member in alone.manifest()["members"]} == {"done"}


def test_survivors_are_gathered_into_one_pack_which_then_ranks_itself(tmp_path: Path) -> None:
    """As one pack that never left itself: 7 trials are packs of 3, 2 and 2, then one of 3; four stop."""
    apart = train(ranked(HALVING, STILL, trials=7, compute={"pack": 3}), tmp_path / "apart")
    whole = train(ranked(HALVING, STILL, trials=7), tmp_path / "whole")
    assert_alike(apart, whole)
    assert sorted(map(sorted, sizes(apart))) == [[2, 2, 3], [2, 2, 3]]
    assert sizes(whole) == [[7]]
    for run in (apart, whole):
        reached = Reached(run.path)
        reached.update()
        assert [(rung.epoch, rung.came, rung.went_on) for rung in outlook.rungs(reached)][:2] == [
            (1, 7, 3),
            (2, 3, 1),
        ]
        assert not any(row.open for row in reached.packs.values())


@pytest.mark.parametrize(
    "section",
    [
        *(
            {"optimizer": name}
            for registry in REGISTRIES
            if registry.kind == "optimizer"
            for name in registry.by_name
        ),
        {"average": "ema"},
        {"average": "last_n"},
        {"average": "best_n"},
        {"schedule": {"name": "plateau", "patience": 1}},
        {"early_stopping": {"patience": 2}},
    ],
    ids=str,
)
def test_everything_a_member_holds_goes_with_it(section: dict[str, Any], tmp_path: Path) -> None:
    """Optimiser, averages, best weights, the history that a schedule looks at: also from a member alone to a pack."""
    space = {RATE: {"loguniform": [1e-4, 1e-2]}}
    apart = train(ranked(HALVING, space, trials=5, training=section, compute={"pack": 2}), tmp_path / "apart")
    whole = train(ranked(HALVING, space, trials=5, training=section), tmp_path / "whole")
    assert_alike(apart, whole)
    assert 1 in sizes(apart)[0]


@pytest.mark.parametrize("pack", [3, "auto"])
def test_killed_between_and_within_rungs_it_goes_on_to_the_same_bits(pack: Any, tmp_path: Path) -> None:
    """Law 3: dropout draws inside a step, so the packs must be composed as they were."""
    job = ranked(HALVING, {**SPACE, HIDDEN: {"choice": [[8], [4, 4]]}}, compute={"pack": pack})
    whole = train(job, tmp_path / "whole")
    for number in (1, 2, 4, 6, 9):
        with pytest.raises(Killed):
            train(job, tmp_path / str(number), killed_at(number))
        again = train(job, tmp_path / str(number))
        assert weights(again) == weights(whole)
        assert decisions(again) == decisions(whole)


def test_killed_at_every_event_of_the_journal(tmp_path: Path) -> None:
    """The same, with the run's folder as it was when any line of the journal was the last one."""
    job = ranked(HALVING, MIXED, trials=4, compute={"pack": 1}, training={"epochs": 3})
    whole = train(job, tmp_path / "whole")
    lines = whole.journal.path.read_bytes().splitlines(keepends=True)
    kinds = [event["event"] for event in whole.journal.events()]
    for number in [k for k, kind in enumerate(kinds) if kind in ("paused", "rung")]:
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "journal.jsonl").write_bytes(b"".join(lines[: number + 1]))
        (folder / "job.yaml").write_bytes((whole.path / "job.yaml").read_bytes())
        again = train(job, folder)
        assert decisions(again) == decisions(whole)
        assert_alike(again, whole)


def test_trials_that_diverge_are_sealed_and_not_ranked(tmp_path: Path) -> None:
    broken = {RATE: {"choice": [0.001, 0.003, 1e30, 0.01]}}
    job = ranked(
        HALVING,
        broken,
        trials=6,
        training={"optimizer": {"name": "sgd"}},
        compute={"pack": 2},
        ensemble={"quorum": 0.1},
    )
    members = train(job, tmp_path / "run").manifest()["members"]
    assert {m["status"] for m in members} == {"done", "diverged"}
    assert all((m["status"] == "diverged") == (m["hyperparameters"][RATE] == 1e30) for m in members)


def test_more_trials_leave_the_ranked_ones_as_they_are(tmp_path: Path) -> None:
    before = weights(train(ranked(HALVING, MIXED, trials=4, compute={"pack": 2}), tmp_path / "run"))
    run = train(ranked(HALVING, MIXED, trials=8, compute={"pack": 2}), tmp_path / "run")
    assert before.items() <= weights(run).items()
    assert sum(member["epochs"] == 5 for member in run.manifest()["members"]) == 2


def small(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A network of one's own."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(input_shape), 8), nn.Tanh(), nn.Linear(8, num_outputs)
    )


def test_networks_of_ones_own_are_ranked_though_each_trains_alone(tmp_path: Path) -> None:
    job = ranked(HALVING, STILL, trials=4, training={"epochs": 3})
    own = PythonModel(factory=f"{__name__}:small")
    run = train(job.model_copy(update={"model": own}), tmp_path / "run")
    assert sorted(member["epochs"] for member in run.manifest()["members"]) == [1, 1, 2, 3]
    assert {size for some in sizes(run) for size in some} == {1}


BROKEN: list[bool] = []
"""Holds something while no step can be taken."""


class Fragile(nn.Sequential):
    """A network that cannot always train."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and BROKEN:
            raise RuntimeError("broken")
        return super().forward(x)


def fragile(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Fragile(nn.Flatten(), nn.Linear(math.prod(input_shape), num_outputs))


def test_a_slot_that_fails_for_good_holds_up_no_other(tmp_path: Path) -> None:
    """Its trial is ranked last; the same command again trains it up to there, and leaves the others as they are."""
    job = ranked(HALVING, STILL, trials=4, training={"epochs": 3}, ensemble={"quorum": 0.5})
    job = job.model_copy(update={"model": PythonModel(factory=f"{__name__}:fragile")})
    listener = pipeline.Listener(
        progress=lambda slot, told: (
            BROKEN.append(True) if (slot.pack.members[0].index, told.epoch) == (0, 1) else None
        ),
        failure=lambda slot, reason, again: BROKEN.clear(),
    )
    before = train(job, tmp_path / "run", listener).manifest()["members"]
    assert [member["status"] for member in before] == ["done", "failed", "done", "done"]
    assert sum(member["stopped"] for member in before if member["status"] == "done") == 2
    after = train(job, tmp_path / "run").manifest()["members"]
    assert (after[1]["status"], after[1]["epochs"], after[1]["stopped"]) == ("done", 1, True)
    assert [after[k]["files"] for k in (0, 2, 3)] == [before[k]["files"] for k in (0, 2, 3)]


@pytest.fixture(scope="module")
def session(kept_ray: KeptRay) -> Session:
    return kept_ray(num_cpus=2)


@pytest.mark.ray
def test_ray_ranks_and_trains_what_this_process_does(
    session: Session, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Law 2, bit for bit; and Tune prints nothing of its own."""
    job = ranked(HALVING, MIXED, trials=6, compute={"pack": 2, "cpus_per_slot": 1})
    local = train(job, tmp_path / "local")
    executor = RayExecutor(tmp_path / "ray" / "tune", job.compute.retries)
    run = pipeline.train(job, out=tmp_path / "ray", directory=Path.cwd(), executor=executor)
    assert weights(run) == weights(local)
    assert decisions(run) == decisions(local)
    assert "Last result" not in "".join(capfd.readouterr())


def ladder(scheduler: Halving | Hyperband, epochs: int) -> Ladder:
    return Ladder(scheduler, "nll", 1, epochs)


@given(st.integers(2, 5), st.integers(1, 4), st.integers(1, 100))
def test_brackets_are_those_of_the_paper(factor: int, least: int, epochs: int) -> None:
    """Li et al. 2018, algorithm 1: bracket s starts ceil((s_max + 1) / (s + 1) * eta^s) trials at R / eta^s."""
    hyperband = Hyperband(factor=factor, min_epochs=least)
    brackets, numbers = hyperband.brackets(epochs), hyperband.sizes(epochs)
    most = len(brackets) - 1
    assert most == max((s for s in range(9) if least * factor**s <= epochs), default=0)
    for s, rungs, number in zip(range(most, -1, -1), brackets, numbers, strict=True):
        assert rungs == tuple(int(epochs / factor**left) for left in range(s, 0, -1))
        assert rungs == tuple(sorted(set(rungs)))
        assert number == -(-(most + 1) * factor**s // (s + 1))
    dealt = [ladder(hyperband, epochs).bracket(trial)[1] for trial in range(2 * sum(numbers))]
    assert [dealt.count(b) for b in range(most + 1)] == [2 * number for number in numbers]
    for count in range(1, sum(numbers)):
        for bracket, number in enumerate(numbers):
            assert abs(dealt[:count].count(bracket) - count * number / sum(numbers)) < len(numbers)


@given(
    st.dictionaries(st.integers(0, 200), st.floats(allow_nan=False, allow_infinity=False), min_size=1),
    st.sampled_from([1, 3, 9]),
)
def test_brackets_are_ranked_apart(losses: Mapping[int, float], epoch: int) -> None:
    found = ladder(Hyperband(), 27).stopped(losses, epoch)
    for bracket, rungs in enumerate(Hyperband().brackets(27)):
        own = {t: loss for t, loss in losses.items() if ladder(Hyperband(), 27).bracket(t)[1] == bracket}
        kept = [trial for trial in own if trial not in found]
        assert len(kept) == (max(1, len(own) // 3) if own and epoch in rungs else len(own))
        assert all(own[t] >= max(own[k] for k in kept) for t in own if t in found)
