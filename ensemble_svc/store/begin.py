"""The first thing a run's driver does: make sure that the folder is, or can become, this job's."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ensemble_svc.errors import OtherJob
from ensemble_svc.spec.job import SCHEMA_VERSION, JobSpec
from ensemble_svc.spec.load import dump_job
from ensemble_svc.store.atomic import write_atomic
from ensemble_svc.store.journal import Journal

FREE = (
    "compute",
    "evaluate",
    "aggregate",
    "ensemble.members",
    "ensemble.quorum",
    "data.source",
    "search.budget",
    "search.candidates",
    "search.refit",
    "search.trials",
)
"""Keys that may change between two starts: none of them alters a member (the data's hash speaks for the source)."""

PACKAGES = ("ensemble-svc", "torch", "lightning", "ray", "torchmetrics", "numpy", "safetensors")


def begin(run: Path, job: JobSpec, *, data_hash: str, split_hash: str, directory: Path) -> None:
    """Record a start of the job in its folder; the caller holds the run's lock.

    Raises:
        OtherJob: as ``check_folder``.
        StoreError: the folder cannot be written.
    """
    check_folder(run, job, data_hash=data_hash, split_hash=split_hash)
    sha = write_atomic(run / "job.yaml", dump_job(job).encode())
    Journal(run / "journal.jsonl").append(
        "begin",
        schema_version=SCHEMA_VERSION,
        job=job.model_dump_json(),
        job_sha256=sha,
        data_hash=data_hash,
        split_hash=split_hash,
        directory=str(directory),
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=versions(),
    )


def check_folder(run: Path, job: JobSpec, *, data_hash: str, split_hash: str) -> None:
    """Make sure that the job may begin in the folder; writes nothing.

    Raises:
        OtherJob: the folder holds another job, other data or another split, or files of no run.
    """
    begun = Journal(run / "journal.jsonl").of_kind("begin")
    if begun:
        _refuse_other(run, begun[-1], job, data_hash, split_hash)
    else:
        _refuse_foreign(run, job)


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def changes(old: JobSpec, new: JobSpec, free: Sequence[str] = FREE) -> list[str]:
    """``key: old → new`` for every key but the free ones; by default those in which two jobs train other members."""
    before, after = dict(_flat("", old.model_dump(mode="json"))), dict(_flat("", new.model_dump(mode="json")))
    keys = sorted(key for key in before.keys() | after.keys() if not _free(key, free))
    return [f"{k}: {before.get(k)} → {after.get(k)}" for k in keys if before.get(k) != after.get(k)]


def _refuse_other(run: Path, begun: Mapping[str, Any], job: JobSpec, data_hash: str, split_hash: str) -> None:
    old = JobSpec.from_json(begun["job"])
    found = changes(old, job)
    if begun["data_hash"] != data_hash:
        found.append("the data: its rows are not those of the first start")
    elif begun["split_hash"] != split_hash:
        found.append("the split: its rows are not those of the first start")
    if found:
        shown = "\n  ".join(found[:12])
        raise OtherJob(
            f"{run} holds a run that differs from this job:\n  {shown}\n"
            "Undo the change, give another folder with --out, or another name."
        )


def _refuse_foreign(run: Path, job: JobSpec) -> None:
    """Refuse files of no run; what a start that was killed at once has left is not foreign."""
    foreign = sorted(p.name for p in run.iterdir() if not p.name.startswith(".")) if run.is_dir() else []
    ours = {"journal.jsonl"}
    if (run / "job.yaml").is_file() and (run / "job.yaml").read_bytes() == dump_job(job).encode():
        ours.add("job.yaml")
    foreign = [name for name in foreign if name not in ours]
    if foreign:
        raise OtherJob(
            f"{run} is not empty and holds no run (it has {', '.join(foreign[:5])}); give another folder with --out"
        )


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else key, item)
    else:
        yield prefix, value


def _free(key: str, free: Sequence[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in free)
