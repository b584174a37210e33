"""What looking at the members' layers costs: its share of a job's training time.

    python -m benchmarks.health jobs/digits.yaml

The job is trained in this process on one core, several times with ``compute.health`` auto and off in turn. The
share is that of the time inside the examiner; the times of both are shown beside it. Times are those of this
thread, which others on the machine do not lengthen.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ensemble_svc.plan.executor import Resources
from ensemble_svc.planning import Prepared, make_plan, prepare
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import load_job
from ensemble_svc.train.examine import Examiner
from ensemble_svc.train.fit import fit
from ensemble_svc.train.payload import Payload

REPEATS = 5


class Stopwatch:
    """Adds up the time spent in the functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.thread_time() - began

        return timed


def train(job: JobSpec, prepared: Prepared, *, health: bool) -> float:
    """Seconds of training the job's members."""
    plan = make_plan(job, prepared, Resources(cpus=1))
    with tempfile.TemporaryDirectory() as run:
        payload = Payload(prepared.dataset, prepared.split, prepared.schema, run, 1e9, health=health)
        began = time.thread_time()
        for slot in plan.slots:
            fit(payload, slot, lambda progress: None)
        return time.thread_time() - began


def main(path: str, *overrides: str) -> None:
    """Print the share and the times."""
    job = load_job(Path(path), overrides)
    prepared = prepare(job, Path.cwd())
    watch = Stopwatch()
    Examiner.before = watch.around(Examiner.before)  # type: ignore[method-assign]
    Examiner.after = watch.around(Examiner.after)  # type: ignore[method-assign]
    train(job, prepared, health=True)
    looked, off, shares = [], [], []
    for _ in range(REPEATS):
        watch.seconds = 0.0
        looked.append(train(job, prepared, health=True))
        shares.append(watch.seconds / (looked[-1] - watch.seconds))
        off.append(train(job, prepared, health=False))
    print(f"inside the examiner: {median(shares):.2%} of the training (median of {REPEATS})")
    print(f"whole training: {median(looked):.3f} s with, {median(off):.3f} s without")


if __name__ == "__main__":
    main(*sys.argv[1:])
