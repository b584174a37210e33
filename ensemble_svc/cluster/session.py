"""Connecting: an embedded Ray of our own, or a cluster that is already there."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address

from ensemble_svc.cluster import sweeper
from ensemble_svc.cluster.auth import authenticated, find_token, make_token_file
from ensemble_svc.cluster.reach import check_head
from ensemble_svc.errors import ClusterError
from ensemble_svc.local import this_machine

OBJECT_STORE_BYTES = 2 * 2**30
SMALLEST_STORE_BYTES = 100 * 2**20
PREFIX = "ensemble-svc-"
LONGEST_TEMP = 40
"""Ray's sockets lie some 60 characters below, and a socket's path ends at 107."""


@dataclass(frozen=True)
class Session:
    """A live connection to a Ray cluster."""

    address: str
    """``host:port`` of its head."""
    embedded: bool
    """Whether it was started here and ends with the session."""
    dashboard: str | None = None
    """URL of its dashboard, when there is one."""


@contextmanager
def connect(
    address: str | None = None,
    *,
    directory: Path | None = None,
    token_file: Path | None = None,
    num_cpus: int | None = None,
    num_gpus: int | None = None,
    dashboard: bool = False,
    object_store_bytes: int | None = None,
    preload: str = "",
) -> Iterator[Session]:
    """Connect this process to a cluster, and end on leaving what was started here, nothing else.

    Inside a process that is connected already this is that connection.

    Args:
        address: None starts an embedded Ray; ``host:port`` or ``auto`` is a cluster that runs, of which
            this machine must be a node.
        directory: the job's folder; the user's modules are imported from it in the workers.
        token_file: the token of a cluster that runs; found as ``auth.find_token`` says when absent.
        num_cpus: of an embedded Ray; this machine's when absent.
        num_gpus: likewise.
        dashboard: whether an embedded Ray serves its dashboard on the loopback (one second more).
        object_store_bytes: size of an embedded Ray's shared memory.
        preload: a module that each worker of an embedded Ray imports as it starts.

    Raises:
        ClusterError: unreachable, a missing or wrong token, another version, or Ray did not start.
    """
    if ray.is_initialized():
        yield Session(ray.get_runtime_context().gcs_address, embedded=False)
        return
    with ExitStack() as stack:
        if address is None:
            settings = _embedded(stack, directory)
            settings |= {
                "num_cpus": num_cpus or this_machine().cpus,
                "num_gpus": num_gpus,
                "include_dashboard": dashboard,
                "object_store_memory": object_store_bytes or _store_bytes(),
                "_system_config": {"preload_python_modules": [preload]} if preload else None,
            }
        else:
            settings = _existing(stack, address, directory, token_file)
        stack.callback(ray.shutdown)
        context = _start(settings, address)
        url = context.dashboard_url if dashboard or address is not None else None
        yield Session(context.address_info["gcs_address"], address is None, url or None)


def _start(settings: dict[str, Any], address: str | None) -> Any:
    try:
        with _own_sigterm():
            return ray.init(logging_level=logging.ERROR, log_to_driver=False, **settings)
    except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as fault:
        why = " ".join(str(fault).split())[:400]
        if address is None:
            raise ClusterError(f"an embedded Ray did not start: {why}") from fault
        raise ClusterError(
            f"the cluster at {address} cannot be joined: {why}. train runs on a node of the cluster; from "
            "elsewhere use submit."
        ) from fault


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Who has seen to SIGTERM goes on to: Ray would leave the process in the middle of what it does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as left:  # of Ray's handler, while Ray starts
        if callable(before) and left.code == signal.SIGTERM:
            before(signal.SIGTERM, None)
        raise
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _embedded(stack: ExitStack, directory: Path | None) -> dict[str, Any]:
    """A private folder with a token of its own; the workers inherit this process's environment."""
    folder = stack.enter_context(_private_folder())
    stack.enter_context(authenticated(make_token_file(folder / "token")))
    if directory is not None:
        stack.enter_context(_python_path(directory))
    return {"_temp_dir": str(folder / "ray"), "address": "local"}


def _existing(
    stack: ExitStack, address: str, directory: Path | None, token_file: Path | None
) -> dict[str, Any]:
    head = _resolve(address)
    stack.enter_context(authenticated(check_head(head, find_token(token_file))))
    if directory is None or directory.resolve() == Path.cwd():
        return {"address": head}
    path = f"{directory.resolve()}{os.pathsep}${{PYTHONPATH}}"
    return {"address": head, "runtime_env": {"env_vars": {"PYTHONPATH": path}}}


def _resolve(address: str) -> str:
    if "://" in address:
        raise ClusterError(
            f"'{address}' is not where train connects: it is written host:port (the head's port, 6379 "
            "by default) or auto. From outside the cluster use submit with http://host:8265."
        )
    try:
        head = canonicalize_bootstrap_address(address)
    except (ConnectionError, ValueError, OSError) as fault:
        raise ClusterError(
            f"no cluster at '{address}' (written host:port, or auto on a node): {fault}"
        ) from fault
    if head is None or not head.rpartition(":")[2].isdigit():
        raise ClusterError(f"'{address}' is not an address; it is written host:port, or auto on a node.")
    return head


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder that only this user can enter, with a short path; gone afterwards even if we are killed."""
    base = Path(tempfile.gettempdir())
    base = base if len(str(base)) <= LONGEST_TEMP else Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=base)).resolve()
    command = [sys.executable, "-I", sweeper.__file__, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield folder


def _store_bytes() -> int:
    """Shared memory for the data set, bounded by what the machine gives to it."""
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.exists() else SMALLEST_STORE_BYTES
    return max(SMALLEST_STORE_BYTES, min(OBJECT_STORE_BYTES, int(0.8 * free)))


@contextmanager
def _python_path(directory: Path) -> Iterator[None]:
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(directory.resolve()), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
