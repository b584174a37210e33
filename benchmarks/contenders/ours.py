"""Ours, called as a user calls it: a job, an executor and ``pipeline.train``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ensemble_svc.train.fit  # noqa: F401 - Lightning is loaded before the clock starts, as others' libraries are
from benchmarks.data import Rows
from benchmarks.job import threads_of, training_seconds, write_job
from benchmarks.members import Trained
from benchmarks.work import Work
from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import ray_executor
from ensemble_svc.local import LocalExecutor
from ensemble_svc.plan.executor import Executor
from ensemble_svc.spec.job import JobSpec


def train(work: Work, data: Rows, *, pack: str, executor: str = "local") -> Trained:
    """Train the work's job.

    Args:
        pack: off, auto, or all for one pack of all members.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        job = write_job(work, data, folder, pack=pack, executor=executor)
        with _place(job, folder / "run") as there:
            run = pipeline.train(job, out=folder / "run", directory=folder, executor=there)
        return Trained(run.predictions("test")["log_probs"].exp(), training_seconds(run), threads_of(run))


@contextmanager
def _place(job: JobSpec, run: Path) -> Iterator[Executor]:
    """The executor that the job asks for; an embedded Ray is up when the block begins."""
    if job.compute.executor == "local":
        yield LocalExecutor()
    else:
        with ray_executor(job, address=None, run=run) as there:
            yield there
