"""Searches of which a slot fails for good: what did train is chosen from, ranked and trained again as ever."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from search_runs import RATE, SPACE, job_of, train
from torch import nn

from ensemble_svc import course
from ensemble_svc.listening import Listener
from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import MemberSpec, Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.search.ranking import trial_losses
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.model import PythonModel
from ensemble_svc.spec.schedulers import Halving
from ensemble_svc.spec.search import AGAIN
from ensemble_svc.store.journal import Event
from ensemble_svc.store.run import Run
from ensemble_svc.train.ledger import Entry
from ensemble_svc.train.rungs import Rungs

STILL = {RATE: SPACE[RATE], "training.optimizer.weight_decay": {"loguniform": [1e-4, 1.0]}}
BROKEN: list[bool] = []
"""Holds something while no step can be taken."""


@pytest.fixture(autouse=True)
def _sound() -> Iterator[None]:
    yield
    BROKEN.clear()


class Fragile(nn.Sequential):
    """A network that cannot always train."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and BROKEN:
            raise RuntimeError("broken")
        return super().forward(x)


def fragile(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Fragile(nn.Flatten(), nn.Linear(math.prod(input_shape), num_outputs))


def alone(search: dict[str, Any], **sections: Any) -> JobSpec:
    """A job whose members each train in a slot of their own."""
    job = job_of({"space": STILL, **search}, ensemble={"quorum": 0.1}, **sections)
    return job.model_copy(update={"model": PythonModel(factory=f"{__name__}:fragile")})


def failing_at(index: int) -> Listener:
    """Makes the slot of a member fail once, after an epoch."""
    seen: list[bool] = []

    def progress(slot: Slot, told: Progress) -> None:
        if slot.pack.members[0].index == index and not seen:
            seen.append(True)
            BROKEN.append(True)

    return Listener(progress=progress, failure=lambda *_: BROKEN.clear())


def test_a_trial_of_which_one_seed_failed_is_among_those_that_are_chosen_from(tmp_path: Path) -> None:
    job = alone({"trials": 3, "seeds_per_trial": 2, "refit": {"seeds": 2}})
    run = train(job, tmp_path / "run", failing_at(0))
    (event,) = run.journal.of_kind("refit")
    assert len(run.manifest()["members"]) == 6 + 2 * len(event["trials"])
    assert {member["status"] for member in run.manifest()["members"]} == {"done"}


def test_what_is_trained_again_is_ranked_with_nobody_though_a_trial_failed(tmp_path: Path) -> None:
    halving = {"name": "halving", "factor": 2}
    search = {"trials": 4, "scheduler": halving, "refit": {"seeds": 2}, "candidates": "all"}
    run = train(alone(search, training={"epochs": 4}), tmp_path / "run", failing_at(0))
    again = [m for m in run.manifest()["members"] if m["index"] >= AGAIN]
    assert len(again) >= 2
    assert {(member["epochs"], member["reason"]) for member in again} == {(4, "")}


def test_a_command_reads_each_sealed_member_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many rounds the search has."""
    read: list[str] = []
    intact = course.intact

    def counted(run: Path, event: Event) -> str | None:
        read.append(event["member"])
        return intact(run, event)

    monkeypatch.setattr(course, "intact", counted)
    search = {"algorithm": {"name": "optuna", "batch": 2, "startup": 2}}
    before = train(job_of({**search, "trials": 4}), tmp_path / "run").manifest()["members"]
    assert not read
    train(job_of({**search, "trials": 8}), tmp_path / "run")
    assert sorted(read) == [member["id"] for member in before]


def test_a_damaged_trial_of_a_search_in_rounds_is_trained_again(tmp_path: Path) -> None:
    job = job_of({"trials": 4, "algorithm": {"name": "optuna", "batch": 2, "startup": 2}})
    whole = train(job, tmp_path / "run").manifest()["members"]
    (tmp_path / "run" / "members" / whole[0]["id"] / "weights.safetensors").write_bytes(b"")
    again = train(job, tmp_path / "run")
    assert [event["member"] for event in again.journal.of_kind("unsealed")] == [whole[0]["id"]]
    assert again.tensors(whole[0]["id"], "weights.safetensors")
    assert len(Run(tmp_path / "run").journal.of_kind("asked")) == 2


@cache
def sixteen(on_sick: str) -> tuple[MemberSpec, ...]:
    return make_members(job_of({"trials": 16}, training={"on_sick": on_sick}), "data", "split")


@dataclass
class _Ledger:
    """What rungs read of a ledger."""

    members: list[MemberSpec]
    entries: list[Entry]


@pytest.mark.parametrize("on_sick", ["exclude", "restart"])
@given(
    st.lists(st.tuples(st.floats(0, 9), st.sampled_from(["training", "diverged"])), min_size=4, max_size=16),
    st.integers(1, 3),
)
def test_a_trial_that_lost_a_member_is_worst_in_a_pack_and_across_packs(
    on_sick: str, found: list[tuple[float, str]], seeds: int
) -> None:
    """And whether its pack has the lost member or not."""
    members = sixteen(on_sick)[: len(found)]
    ladder = Ladder(Halving(factor=2), "nll", seeds, 9)
    living = {
        m.digest: loss for m, (loss, status) in zip(members, found, strict=True) if status == "training"
    }
    seals = {
        m.digest: {"status": status}
        for m, (_, status) in zip(members, found, strict=True)
        if m.digest not in living
    }
    losses = trial_losses(ladder, members, living, seals)
    lost = {
        k // seeds for k, (_, status) in enumerate(found) if status == "diverged" and on_sick != "restart"
    }
    assert {trial for trial, loss in losses.items() if math.isnan(loss)} == lost & losses.keys()
    wanted = set(ladder.stopped(losses, 1))
    for apart in (False, True):
        entries = [Entry(status, history=[{"val_nll": loss}]) for loss, status in found]
        here = [k for k, (_, status) in enumerate(found) if not apart or status == "training"]
        ledger: Any = _Ledger([members[k] for k in here], [entries[k] for k in here])
        Rungs(ladder, sick=frozenset(lost) if apart else frozenset()).close(ledger, 1)
        stopped = {members[k].index // seeds for k in here if entries[k].status == "stopped"}
        assert stopped == wanted
