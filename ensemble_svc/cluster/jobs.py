"""Submitted jobs: the same ``train``, run by a cluster, seen from anywhere.

The job file's folder travels with the job; data, secrets and this package do not. Nothing passes through
a shell unquoted, and no secret enters a job's environment, arguments or log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from ensemble_svc.cluster.auth import find_token
from ensemble_svc.cluster.reach import check_jobs
from ensemble_svc.errors import ClusterError

STOP_WAIT_S = 30
"""Seconds between SIGINT and SIGKILL; Ray's own 3 are too few to commit."""
LARGEST_FOLDER_BYTES = 100 * 2**20
LEFT_BEHIND = (".git", ".venv", "venv", "__pycache__", ".mypy_cache", ".ruff_cache", "runs", ".env")
"""Names in the job's folder that do not travel."""
FINISHED = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED})

Entrypoint = Callable[[str, str, Sequence[str]], Sequence[str]]
"""(job file inside its folder, run folder, overrides) → argument vector."""


@dataclass(frozen=True)
class Job:
    """A submitted job as the cluster sees it."""

    id: str
    status: str
    """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
    finished: bool
    message: str
    exit_code: int | None
    """Of ``train``; None while it runs or when it was killed."""
    started: float | None
    """Seconds since 1970, like ``ended``."""
    ended: float | None
    command: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Jobs:
    """The job service of one cluster."""

    address: str
    """``http://host:port`` of its dashboard."""
    token_file: Path | None = None
    """Its token; found as ``auth.find_token`` says when absent."""
    insecure: bool = False
    """Allow a cluster that lets everybody in."""

    def submit(
        self,
        job_file: Path,
        *,
        out: str,
        overrides: Sequence[str] = (),
        working_dir: Path | None = None,
        interpreter: str = sys.executable,
        entrypoint: Entrypoint | None = None,
        about: Mapping[str, str] | None = None,
    ) -> str:
        """Send the job file with its folder and start it.

        Args:
            out: absolute path or URL of the run folder, as the cluster's machines see it.
            overrides: ``key=value``, as for ``--set``.
            working_dir: folder that travels; the job file's when absent.
            interpreter: absolute path of a Python on the cluster that has this package.
            entrypoint: another command than ``train``.
            about: more to be shown of the job in Ray's dashboard, besides its file and its run folder.

        Returns:
            The job's id.

        Raises:
            ClusterError: a folder too large, a run folder that would be lost with the job, no access.
        """
        folder = (working_dir or job_file.parent).resolve()
        name = _inside(job_file.resolve(), folder)
        _refuse_relative(out)
        _refuse_large(folder)
        command = list((entrypoint or train_command(interpreter))(name, out, overrides))
        with _faults(self.address):
            return self._client().submit_job(
                entrypoint=shlex.join(command),
                submission_id=f"{_slug(job_file.stem)}-{secrets.token_hex(4)}",
                runtime_env=_runtime_env(folder),
                metadata={"job": name, "out": out, **(about or {})},
            )

    def recent(self) -> tuple[Job, ...]:
        """Every submitted job the cluster remembers, newest first."""
        with _faults(self.address):
            found = [_job(details) for details in self._client().list_jobs() if details.submission_id]
        return tuple(sorted(found, key=lambda job: -(job.started or 0)))

    def find(self, job_id: str) -> Job:
        """One job.

        Raises:
            ClusterError: the cluster does not know it.
        """
        with _faults(self.address, job_id):
            return _job(self._client().get_job_info(job_id))

    def logs(self, job_id: str, *, follow: bool = False) -> Iterator[str]:
        """What the job has printed, in pieces; with ``follow`` until it ends."""
        with _faults(self.address, job_id):
            client = self._client()
            client.get_job_info(job_id)
            if follow:
                yield from _follow(client, job_id)
            else:
                yield client.get_job_logs(job_id)

    def stop(self, job_id: str) -> bool:
        """Ask the job to commit and end; it is killed after ``STOP_WAIT_S``. False if it had ended."""
        with _faults(self.address, job_id):
            return bool(self._client().stop_job(job_id))

    def _client(self) -> JobSubmissionClient:
        token = check_jobs(self.address, find_token(self.token_file), insecure=self.insecure)
        return JobSubmissionClient(self.address.rstrip("/"), headers=token.header if token else {})


def train_command(interpreter: str) -> Entrypoint:
    """The command of a job: ``train`` on the cluster that runs it."""

    def command(name: str, out: str, overrides: Sequence[str]) -> Sequence[str]:
        sets = [part for override in overrides for part in ("--set", override)]
        run = ["-m", "ensemble_svc", "train", f"./{name}", "--address", "auto", "--out", out]
        return [interpreter, *run, *sets]

    return command


def _runtime_env(folder: Path) -> dict[str, Any]:
    stop = {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
    return {"working_dir": str(folder), "excludes": list(LEFT_BEHIND), "env_vars": stop}


def _inside(job_file: Path, folder: Path) -> str:
    if not job_file.is_file():
        raise ClusterError(f"{job_file}: there is no such file.")
    if not job_file.is_relative_to(folder):
        raise ClusterError(f"the job file {job_file} must lie in the folder that travels with it, {folder}.")
    return job_file.relative_to(folder).as_posix()


def _refuse_relative(out: str) -> None:
    if "://" not in out and not out.startswith("/"):
        raise ClusterError(
            f"--out {out} is relative, and a job's own folder is gone when its cluster is. Name an absolute "
            "path that every machine of the cluster sees."
        )


def _refuse_large(folder: Path) -> None:
    total = 0
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_BEHIND]
        total += sum(os.lstat(os.path.join(path, name)).st_size for name in files if name not in LEFT_BEHIND)
        if total > LARGEST_FOLDER_BYTES:
            raise ClusterError(
                f"the job's folder {folder} holds more than {LARGEST_FOLDER_BYTES >> 20} MiB, and all of it "
                "would travel. Put the job file and its modules in a folder of their own, and data where the "
                "cluster can read it."
            )


def _slug(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem)[:60] or "job"


def _job(details: JobDetails) -> Job:
    return Job(
        id=details.submission_id or "",
        status=str(details.status.value),
        finished=details.status in FINISHED,
        message=_first_line(details.message or ""),
        exit_code=details.driver_exit_code,
        started=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        command=details.entrypoint,
        metadata=dict(details.metadata or {}),
    )


def _follow(client: JobSubmissionClient, job_id: str) -> Iterator[str]:
    """Ray's asynchronous tail as a plain iterator."""
    loop = asyncio.new_event_loop()
    pieces = client.tail_job_logs(job_id)
    try:
        while True:
            yield loop.run_until_complete(anext(pieces))
    except StopAsyncIteration:
        return
    finally:
        loop.run_until_complete(pieces.aclose())  # type: ignore[attr-defined]
        loop.close()


@contextmanager
def _faults(address: str, job_id: str | None = None) -> Iterator[None]:
    """Ray's, requests' and aiohttp's faults as ours, and Ray's chatter off the screen."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield
    except AuthenticationError as fault:
        raise ClusterError(f"the cluster at {address} refused the token.") from fault
    except (requests.RequestException, aiohttp.ClientError, ConnectionError) as fault:
        raise ClusterError(f"the cluster at {address} was lost: {fault}") from fault
    except RuntimeError as fault:
        if job_id is not None and ("404" in str(fault) or "does not exist" in str(fault)):
            raise ClusterError(f"the cluster at {address} knows no job '{job_id}'.") from fault
        raise ClusterError(f"the cluster at {address} answered: {_first_line(str(fault))}") from fault


def _first_line(message: str) -> str:
    """Ray appends up to 20,000 characters of the log to what it says."""
    return next(iter(message.partition(", last available logs")[0].splitlines()), "").strip()
