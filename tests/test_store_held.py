"""What attempts at packs held their devices for, by the journal: each second once, however packs were regathered."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_runs import RATE, SPACE, Killed, killed_at, train
from search_runs import job_of as search_of

from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import Pack, Slot
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store import journal as journals
from ensemble_svc.store.held import device_seconds, seconds_by_pack, spans_in
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.run import Run

HALVING = {"name": "halving", "factor": 3, "min_epochs": 4}


def ranked(**compute: Any) -> JobSpec:
    """Nine trials, of which three come past the rung at epoch 4 and one past that at 12."""
    search = {"space": {RATE: SPACE[RATE]}, "trials": 9, "scheduler": HALVING}
    return search_of(search, training={"epochs": 16, "batch_size": 16}, compute=compute)


def trained_s(run: Run) -> dict[str, float]:
    """Seconds of every member's epochs."""
    return {m["id"]: float(run.history(m["id"])["seconds"].sum()) for m in run.manifest()["members"]}


def check(run: Run) -> None:
    manifest, own = run.manifest(), trained_s(run)
    for member in manifest["members"]:
        assert member["seconds"] >= own[member["id"]] * (1 - 1e-9)
    starts = run.journal.of_kind("start")
    spans = spans_in(run.journal)
    assert [list(span.members) for span in spans] == [start["members"] for start in starts]
    total = sum(pack["seconds"] for pack in manifest["packs"])
    assert total == pytest.approx(sum(span.seconds for span in spans))
    devices = {start["devices"] for start in starts}
    assert len(devices) == 1
    assert manifest["actual"]["device_hours"] == pytest.approx(total * devices.pop() / 3600, rel=1e-6)
    assert manifest["actual"]["seconds"] <= sum(manifest["seconds"].values())


@pytest.mark.parametrize("pack", ["auto", 3])
def test_time_before_a_rung_counts_for_members_packs_and_the_run(tmp_path: Path, pack: Any) -> None:
    run = train(ranked(pack=pack, commit_every_s=60.0), tmp_path / "run")
    check(run)
    actual = run.manifest()["actual"]
    assert actual["seconds"] >= max(trained_s(run).values())
    assert len(run.journal.of_kind("forecast")) == len(run.journal.of_kind("trained")) == 1


def test_a_run_that_was_killed_counts_what_it_told(tmp_path: Path) -> None:
    job = ranked(pack=3, commit_every_s=0.0)
    with pytest.raises(Killed):
        train(job, tmp_path / "run", killed_at(14))
    run = train(job, tmp_path / "run")
    own = trained_s(run)
    for member in run.manifest()["members"]:
        assert member["seconds"] >= own[member["id"]] * (1 - 1e-9)
    total = sum(pack["seconds"] for pack in run.manifest()["packs"])
    assert total >= max(own.values())
    assert total == pytest.approx(sum(span.seconds for span in spans_in(run.journal)))


class Clock:
    """The time as the journal is told it."""

    def __init__(self) -> None:
        self.now = 1e9

    def time(self) -> float:
        return self.now


members = st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True)
lasts = st.floats(0.01, 1e4)
DAY_S = 86400.0


@given(
    st.lists(st.tuples(members, lasts, st.sampled_from(["sealed", "paused", "failed", "killed"])), max_size=8)
)
def test_each_second_counts_once_however_members_are_gathered(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[tuple[list[int], float, str]]
) -> None:
    """Slots of two members; what trains meanwhile are halves and survivors. A day passes after each attempt."""
    journal, clock = Journal(tmp_path_factory.mktemp("run") / "journal.jsonl"), Clock()
    specs = make_members(search_of({"trials": 6}), "d" * 64, "s" * 64)
    slots = [Slot(pack=Pack(members=tuple(specs[k : k + 2])), cpus=2, gpus=0.0, reason="") for k in (0, 2, 4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journals, "time", clock)
        for number, (own, seconds, end) in enumerate(attempts):
            ids, pack = [specs[k].id for k in own], f"pack-{number % 3}"
            journal.append("start", pack=pack, members=ids, devices=3.0)
            clock.now += seconds
            journal.append("commit", pack=pack)
            if end == "killed":
                clock.now += DAY_S
                journal.append("begin")
                journal.append("retry", pack=pack, members=ids, reason="")
            else:
                journal.append(end, pack=pack)
            clock.now += DAY_S
    spans = spans_in(journal)
    total = sum(seconds for _, seconds, _ in attempts)
    assert [span.seconds for span in spans] == pytest.approx(
        [seconds for _, seconds, _ in attempts], abs=1e-5
    )
    assert sum(seconds_by_pack(spans, slots).values()) == pytest.approx(total, abs=1e-4)
    assert device_seconds(spans, slots) == pytest.approx(3.0 * total, abs=1e-4)
    for span in spans:
        span.devices = None
    assert device_seconds(spans, slots) == pytest.approx(2.0 * total, abs=1e-4), "as planned"


def test_a_slot_that_starts_anew_leaves_no_gap(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    times = [
        journal.append(kind, pack="p", members=["m"], **facts)["time"]
        for kind, facts in (("start", {}), ("start", {"restarts": 1}), ("sealed", {}))
    ]
    assert [span.seconds for span in spans_in(journal)] == [b - a for a, b in pairwise(times)]
