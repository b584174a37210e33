"""What this machine offers, for ``doctor``."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile

from rich.table import Table

from ensemble_svc.local import this_machine
from ensemble_svc.store.begin import versions

ADVISED = {"ray": (2, 56), "lightning": (2, 6, 6), "torch": (2, 9)}
"""Oldest versions without a known hole that matters here."""


def machine_table() -> Table:
    """Cores, memory, disks, packages, and anything that needs attention."""
    table = Table("what", "found", "advice", title="this machine", title_justify="left")
    place = this_machine()
    table.add_row("CPU cores", str(place.cpus), "")
    table.add_row("GPUs", f"{place.gpus:g}", "" if place.gpus else "none: members train on the CPU")
    table.add_row("memory", f"{_memory_gib():.1f} GiB", "")
    free = shutil.disk_usage(tempfile.gettempdir()).free / 2**30
    table.add_row(
        "free in the temporary folder", f"{free:.1f} GiB", "" if free > 2 else "Ray needs about 2 GiB"
    )
    shm = shutil.disk_usage("/dev/shm").free / 2**30 if os.path.isdir("/dev/shm") else 0.0
    table.add_row(
        "shared memory", f"{shm:.1f} GiB", "" if shm > 0.5 else "small: give the container --shm-size"
    )
    table.add_row(
        "Python", platform.python_version(), "" if sys.version_info >= (3, 11) else "3.11 or later is needed"
    )
    for name, version in versions().items():
        if name != "python":
            table.add_row(name, version, _advice(name, version))
    return table


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _advice(name: str, version: str) -> str:
    floor = ADVISED.get(name, ())
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())
    return f"{'.'.join(map(str, floor))} or later is advised" if floor and numbers < floor else ""
