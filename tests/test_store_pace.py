"""The time that is left of a recorded search whose packs shrink at rungs, against the time that it went on to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replaying import replayed
from search_runs import job_of

from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import MemberSpec, Pack, Slot
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.outlook import left_s
from ensemble_svc.store.progress import note_progress

EPOCHS, RUNGS = 90, (10, 30)
SEARCH = {"trials": 16, "scheduler": {"name": "halving", "factor": 3, "min_epochs": 10}}


@dataclass
class Recorder:
    """A search of 16 trials in packs of at most 8, one after another, written as a driver and its slots write it."""

    run: Path
    own_s: float
    """Of an epoch of any pack."""
    member_s: float
    start_s: float
    clock: float = 1e9
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.run / "journal.jsonl")

    def search(self) -> None:
        job = job_of(SEARCH, training={"epochs": EPOCHS})
        text = job.model_dump_json()
        self.journal.append("begin", job=text, directory="/", job_sha256="", data_hash="", split_hash="")
        left, since = make_members(job, "d", "s"), 0
        for until in (*RUNGS, None):
            slots = [_slot(left[k : k + 8], since, until) for k in range(0, len(left), 8)]
            self.journal.append("plan", slots=[slot.model_dump_json() for slot in slots])
            for slot in slots:
                self._train(slot, since, until or EPOCHS)
            if until is not None:
                on, out = left[: len(left) // 3], left[len(left) // 3 :]
                reasons = {m.digest: "halving" for m in out}
                self.journal.append("rung", epoch=until, on=[m.digest for m in on], out=reasons)
                left, since = on, until

    def _train(self, slot: Slot, since: int, until: int) -> None:
        members = slot.pack.members
        self.journal.append("start", pack=slot.pack.id, members=[m.id for m in members])
        spent = self.start_s
        self.clock += self.start_s
        for epoch in range(since + 1, until + 1):
            step = self.own_s + self.member_s * len(members)
            spent, self.clock = spent + step, self.clock + step
            status = "done" if epoch == EPOCHS else "training"
            told = tuple(MemberProgress(m.id, status, epoch, 1.0, "nll", 1.0) for m in members)
            note_progress(self.run, Progress(slot.pack.id, epoch, EPOCHS, told, seconds=spent))
        if until < EPOCHS:
            self.journal.append("paused", pack=slot.pack.id, metric={m.digest: 1.0 for m in members})


def _slot(members: list[MemberSpec], since: int, until: int | None) -> Slot:
    return Slot(pack=Pack(members=tuple(members)), cpus=1, gpus=0, reason="", since=since, until=until)


def looks(run: Path, own_s: float, member_s: float, start_s: float) -> Iterator[tuple[int, float, float]]:
    """At each end of an epoch: the epoch, the seconds that are thought to be left, and those that were."""
    run.mkdir()
    recorder = Recorder(run, own_s, member_s, start_s)
    clock = SimpleNamespace(time=lambda: recorder.clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ensemble_svc.store.journal.time", clock)
        patch.setattr("ensemble_svc.store.progress.time", clock)
        recorder.search()
    for at, found in replayed(run, run.parent / "grows"):
        epoch = max((member.epoch for member in found.ordered()), default=0)
        if (left := left_s(found, at)) is not None and 1 < epoch < EPOCHS:
            yield epoch, left, recorder.clock - at


@settings(max_examples=12, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0, 2))
def test_a_small_pack_is_not_thought_to_be_as_much_faster_as_it_has_fewer_members(
    tmp_path_factory: pytest.TempPathFactory, own: float, start_s: float
) -> None:
    """Whatever share of a pack's epoch is its own: within a factor of two, and close once two sizes have trained."""
    total = 0.0
    path = tmp_path_factory.mktemp("pace")
    for epoch, left, true in looks(path / "run", own, (1 - own) / 8, start_s):
        total = total or true
        assert 0.5 * true - 0.1 * total <= left <= 2.5 * true + 0.1 * total
        if epoch > RUNGS[0] + 2:
            assert left == pytest.approx(true, rel=0.1, abs=0.05 * total)
