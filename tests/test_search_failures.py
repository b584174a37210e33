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
from search_runs import STILL, Killed, job_of, train
from torch import nn

from ensemble_svc import course
from ensemble_svc.errors import QuorumError
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


def rungs_of(run: Run) -> dict[int, tuple[set[str], set[str], list[str]]]:
    """By epoch: the digests of those that went on, of those that stopped, and who was lost before it."""
    found: dict[int, tuple[set[str], set[str], list[str]]] = {}
    for event in run.journal.of_kind("rung"):
        on, out, lost = found.setdefault(event["epoch"], (set(), set(), []))
        on.update(event["on"])
        out.update(event["out"])
        lost += event["lost"]
    return found


def unlucky(run: Path, index: int, epoch: int, killed_at: int | None = None) -> Listener:
    """The slot of a member fails for good after an epoch, if it has not before; the driver is killed at an event."""
    seen = 0

    def progress(slot: Slot, told: Progress) -> None:
        nonlocal seen
        seen += 1
        is_it = [member.index for member in slot.pack.members] == [index] and told.epoch == epoch
        if is_it and not Run(run).journal.of_kind("failed"):
            BROKEN.append(True)
        if seen == killed_at:
            raise Killed

    return Listener(progress=progress, failure=lambda *_: BROKEN.clear())


def apart(**search: Any) -> JobSpec:
    """Eight trials in slots of their own, of which half stop after epoch 2, and half of the rest after 4."""
    halving = {"name": "halving", "factor": 2, "min_epochs": 2}
    wanted = {"trials": 8, "scheduler": halving, "candidates": "all", **search}
    return alone(wanted, training={"epochs": 5}, compute={"commit_every_s": 0.0, "pack": 1})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(apart(), tmp_path_factory.mktemp("sound") / "run")


def test_a_trial_that_failed_is_ranked_last_where_it_failed_and_holds_up_nobody(
    tmp_path: Path, undisturbed: Run
) -> None:
    """The best of all fails: the others are ranked as though it had come in last."""
    first = undisturbed.journal.of_kind("rung")[0]
    members = {m["digest"]: m for m in undisturbed.manifest()["members"]}
    index = members[first["on"][0]]["index"]
    run = train(apart(), tmp_path / "run", unlucky(tmp_path / "run", index, 1))
    found, (on, out, lost) = rungs_of(run), rungs_of(run)[2]
    assert [int(name.partition("-")[0]) for name in lost] == [index]
    assert len(on) == len(first["on"]) == 4
    assert set(first["on"]) - on == {first["on"][0]}
    assert len(on | out) == 8
    assert len(found[4][0]) == 2
    entry = run.manifest()["members"][index]
    assert entry["status"] == "failed"
    decided = found
    again = train(apart(), tmp_path / "run")
    assert rungs_of(again) == decided
    entry = again.manifest()["members"][index]
    assert (entry["status"], entry["epochs"], entry["stopped"]) == ("done", 2, True)
    assert entry["reason"] == "halving: failed before epoch 2, so ranked last"


@pytest.mark.parametrize("epoch", [1, 3])
def test_every_later_start_decides_the_same_of_a_trial_that_failed(
    epoch: int, tmp_path: Path, undisturbed: Run
) -> None:
    """Killed at ends of epochs before and after the failure, up to the end."""
    job, rung = apart(), undisturbed.journal.of_kind("rung")[0]
    index = next(m["index"] for m in undisturbed.manifest()["members"] if m["digest"] == rung["on"][1])
    whole = train(job, tmp_path / "whole", unlucky(tmp_path / "whole", index, epoch))
    assert sum(len(lost) for _, _, lost in rungs_of(whole).values()) == 1
    for at in (3, 12, 19):
        run = tmp_path / f"killed-{at}"
        with pytest.raises(Killed):
            train(job, run, unlucky(run, index, epoch, killed_at=at))
        BROKEN.clear()
        again = train(job, run, unlucky(run, index, epoch))
        assert rungs_of(again) == rungs_of(whole)
        assert chosen_among(again) == chosen_among(whole)


def chosen_among(run: Run) -> dict[str, tuple[int, str]]:
    """How each trial that did not fail ended."""
    found = {m["id"]: (m.get("epochs", 0), m["reason"]) for m in run.manifest()["members"]}
    return {name: end for name, end in found.items() if "failed" not in end[1] and "broken" not in end[1]}


def test_where_nobody_came_to_a_rung_nothing_is_decided_and_all_are_tried_again(
    tmp_path: Path, undisturbed: Run
) -> None:
    job, run = apart(), tmp_path / "run"
    BROKEN.append(True)
    with pytest.raises(QuorumError):
        train(job, run)
    assert not Run(run).journal.of_kind("rung")
    BROKEN.clear()
    assert rungs_of(train(job, run)) == rungs_of(undisturbed)
