"""Training what a course has left, before it is known what comes after it."""

from __future__ import annotations

from ensemble_svc.course import Course
from ensemble_svc.listening import Listener
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.train.start import fit_own


def train_left(course: Course, executor: Executor, listener: Listener) -> None:
    """Train the slots that are left."""
    if not course.left.slots:
        return
    listener.planned(course.left, ())

    def failed(slot: Slot, reason: str, again: bool) -> None:
        course.failed(slot, reason, again)
        listener.failure(slot, reason, again)

    def heard(slot: Slot, progress: Progress) -> None:
        course.heard(progress)
        listener.progress(slot, progress)

    placed = executor.racing(course.races) if course.races else executor
    placed.run(course.left.slots, fit_own, course.payloads, on_progress=heard, on_failure=failed)
