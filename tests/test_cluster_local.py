"""The reference executor, and the values that all executors pass."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from cluster_slots import EPOCHS, Payload, fit_slot, make_slot
from hypothesis import given
from hypothesis import strategies as st

from ensemble_svc.errors import PlanError, SpecError
from ensemble_svc.local import LocalExecutor, this_machine
from ensemble_svc.plan.executor import Node, Resources, refuse_oversized
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import MemberProgress, Progress, from_row, to_row

NUMBERS = st.none() | st.floats(allow_nan=False)
MEMBERS = st.builds(
    MemberProgress,
    id=st.text(),
    status=st.sampled_from(["pending", "training", "stopped", "done", "diverged", "failed"]),
    epoch=st.integers(0, 10**6),
    train_loss=NUMBERS,
    metric_name=st.text(),
    metric=NUMBERS,
)
PROGRESS = st.builds(
    Progress,
    pack=st.text(),
    epoch=st.integers(0, 10**6),
    epochs=st.integers(1, 10**6),
    members=st.lists(MEMBERS, max_size=5).map(tuple),
    seconds=st.floats(0, 1e9),
)


@given(PROGRESS)
def test_progress_survives_a_flat_row_and_a_process_border(progress: Progress) -> None:
    row = to_row(progress)
    assert all(isinstance(value, str | int | float | None) for value in row.values())
    assert from_row(row | {"done": True, "pid": 1}) == progress
    assert pickle.loads(pickle.dumps(progress)) == progress


def run_local(
    slots: list[Slot], payload: Payload, retries: int
) -> tuple[list[tuple[str, int]], list[tuple[str, str, bool]]]:
    heard: list[tuple[str, int]] = []
    failed: list[tuple[str, str, bool]] = []
    LocalExecutor(retries).run(
        slots,
        fit_slot,
        payload,
        on_progress=lambda slot, progress: heard.append((slot.pack.id, progress.epoch)),
        on_failure=lambda slot, reason, again: failed.append((slot.pack.id, reason, again)),
    )
    return heard, failed


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_slot_that_always_fails_is_tried_once_and_then_retries_times(tmp_path: Path, retries: int) -> None:
    bad, good = make_slot(0), make_slot(1)
    heard, failed = run_local([bad, good], Payload(str(tmp_path), acts={bad.pack.id: "unreadable"}), retries)
    reason = "OSError: [Errno 28] No space left on device"
    assert failed == [(bad.pack.id, reason, again) for again in [True] * retries + [False]]
    assert heard == [(bad.pack.id, epoch) for epoch in [1, 2] * (retries + 1)] + [
        (good.pack.id, epoch) for epoch in range(1, EPOCHS + 1)
    ]


def test_a_failure_that_passes_is_made_good(tmp_path: Path) -> None:
    slot = make_slot(0)
    heard, failed = run_local([slot], Payload(str(tmp_path), acts={slot.pack.id: "diverge once"}), 1)
    assert failed == [(slot.pack.id, "the loss of member 4 is not finite", True)]
    assert [epoch for _, epoch in heard] == [1, 2, 1, 2, 3]


def test_a_fault_that_no_retry_can_mend_ends_the_run(tmp_path: Path) -> None:
    slot = make_slot(0)
    with pytest.raises(SpecError, match="adamw"):
        run_local([slot], Payload(str(tmp_path), acts={slot.pack.id: "refuse"}), 5)
    assert len(list(tmp_path.iterdir())) == 1


@given(
    machines=st.lists(
        st.builds(Node, st.just("n"), st.integers(1, 8), st.sampled_from([0.0, 1.0, 4.0])), min_size=1
    ),
    cpus=st.integers(1, 10),
    gpus=st.sampled_from([0.0, 0.25, 1.0, 2.0, 5.0]),
)
def test_a_slot_is_refused_exactly_when_no_single_machine_holds_it(
    machines: list[Node], cpus: int, gpus: float
) -> None:
    resources = Resources(sum(n.cpus for n in machines), sum(n.gpus for n in machines), tuple(machines))
    slot = make_slot(0, cpus=cpus, gpus=gpus)
    if any(cpus <= n.cpus and gpus <= n.gpus for n in machines):
        refuse_oversized([slot], resources)
    else:
        with pytest.raises(PlanError, match=f"{cpus} CPUs and {gpus:g} GPUs"):
            refuse_oversized([slot], resources)


def test_one_and_a_half_gpus_are_refused_with_the_whole_numbers_beside_it() -> None:
    with pytest.raises(PlanError, match="1 or 2"):
        refuse_oversized([make_slot(0, gpus=1.5)], Resources(8, 8.0))


def test_hidden_gpus_and_forbidden_cores_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert this_machine().gpus == 0
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert this_machine().cpus == 1
    finally:
        os.sched_setaffinity(0, before)
