"""Laws of the seal of many members: killed at any moment, each is sealed and whole, or not sealed."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_svc.errors import StoreError
from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store import atomic, journal
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import Result, intact, read_tensors, seal, sealed

TRACED = {atomic.__file__, journal.__file__}
"""Where every call to the system is made; what runs inside an expression makes none."""


def specs(num: int) -> tuple[MemberSpec, ...]:
    job = JobSpec.model_validate(
        {"name": "seal", "data": {"source": "digits"}, "model": "mlp", "ensemble": {"members": num}}
    )
    return make_members(job, "data", "split")


def result_of(member: MemberSpec) -> Result:
    return Result(
        member,
        weights={"w": torch.full((3,), float(member.index))},
        averaged=None,
        predictions={"test": {"mean": torch.zeros(4)}},
        history=[{"epoch": 1, "train_loss": 0.5}],
        rows=np.arange(5),
        health={"status": "done"},
        facts={"status": "done", "pack": "p"},
    )


def seal_left(run: Path, wanted: Sequence[MemberSpec]) -> None:
    """What a slot that is started again does: seal the members that are not sealed yet."""
    done = sealed(run)
    seal(run, [result_of(member) for member in wanted if member.digest not in done])


def moments(run: Path, act: Callable[[], None], kept: Path) -> Iterator[Path]:
    """Each different state of a folder before a line of the store's code: where a kill there would have left it.

    A kill takes no power away and undoes no call, so what it leaves is what the calls before it have done.
    """
    states: list[Path] = []
    seen: list[object] = []

    def look() -> None:
        now = sorted((path.relative_to(run), _body(path)) for path in run.rglob("*"))
        if not seen or seen[-1] != now:
            seen.append(now)
            states.append(shutil.copytree(run, kept / str(len(states))))

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in TRACED or frame.f_code.co_name.startswith("<"):
            return None
        if event == "line":
            look()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    look()
    yield from states


def _body(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.parametrize("batch_bytes", [1, 2**20], ids=["one by one", "together"])
def test_killed_between_any_two_lines_each_member_is_whole_or_not_sealed(batch_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # a kill takes no power away
    wanted, numbers, run = specs(2), list[int](), tmp_path / "run"
    run.mkdir()
    results = [result_of(member) for member in wanted]
    for left in moments(run, partial(seal, run, results, batch_bytes=batch_bytes), tmp_path / "left"):
        events = sealed(left)
        assert [intact(left, event) for event in events.values()] == [None] * len(events)
        numbers.append(len(events))
        seal_left(left, wanted)
        again = sealed(left)
        assert all(again[digest] == event for digest, event in events.items())
        for member in wanted:
            assert intact(left, again[member.digest]) is None
            found = read_tensors(left, again[member.digest]["files"], member.id, "weights.safetensors")
            assert torch.equal(found["w"], torch.full((3,), float(member.index)))
    assert len(numbers) > 20
    assert numbers == sorted(numbers)
    assert set(numbers) == ({0, 1, 2} if batch_bytes == 1 else {0, 2})


def test_a_line_torn_anywhere_leaves_the_first_members_sealed(tmp_path, monkeypatch):
    """The events of a pack are one write: whatever part of it reached the disk, whole lines count."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here is read from the disk
    wanted = specs(3)
    seal_left(tmp_path, wanted)
    book = tmp_path / "journal.jsonl"
    body = book.read_bytes()
    ends = [i + 1 for i, byte in enumerate(body) if byte == ord("\n")]
    assert len(ends) == 3
    near = {end + step for end in (0, *ends) for step in (-1, 0, 1)}
    for length in sorted({*range(0, len(body), 101), *near} & set(range(len(body) + 1))):
        book.write_bytes(body[:length])
        assert list(sealed(tmp_path)) == [m.digest for m in wanted][: sum(end <= length for end in ends)]
        seal_left(tmp_path, wanted)
        assert list(sealed(tmp_path)) == [member.digest for member in wanted]
        assert all(intact(tmp_path, event) is None for event in sealed(tmp_path).values())


def test_members_that_are_sealed_share_the_waits_for_the_disk(tmp_path, monkeypatch):
    """A sync for each file, each new folder and the journal; none of them twice."""
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: (synced.append(handle), real(handle))[1])
    seal_left(tmp_path, specs(8))
    files, folders = 8 * 5, 8 + 2  # members, members/<id> and the run
    assert len(synced) == files + folders + 2  # the journal, and its name in the run folder


def test_a_full_disk_leaves_sealed_members_and_no_litter(tmp_path):
    """A real file-size limit, as a full disk behaves, met by the third member's large file."""
    wanted = specs(3)
    seal_left(tmp_path, wanted[:2])
    before = sealed(tmp_path)
    large = result_of(wanted[2])
    large.weights["w"] = torch.zeros(500_000)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
        try:
            seal(tmp_path, [large])
        except StoreError as fault:
            os._exit(7 if "weights.safetensors" in str(fault) else 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert sealed(tmp_path) == before
    assert not list(tmp_path.rglob(".tmp-*"))
    seal_left(tmp_path, wanted)
    assert len(sealed(tmp_path)) == 3


def test_events_appended_together_are_those_appended_in_turn(tmp_path):
    facts = [{"n": i, "text": "ü" * i} for i in range(5)]
    together, in_turn = Journal(tmp_path / "a.jsonl"), Journal(tmp_path / "b.jsonl")
    told = together.append_all("x", facts)
    for some in facts:
        in_turn.append("x", **some)
    assert list(together.events()) == told
    assert [{**e, "time": 0} for e in told] == [{**e, "time": 0} for e in in_turn.events()]
