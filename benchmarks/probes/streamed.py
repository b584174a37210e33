"""An ensemble's mixture and all its metrics from a file of its members' predictions, against reading the file.

The members' usual metrics (accuracy, NLL, Brier score, ECE) are measured on the way. The file is written, and read
through numpy a member at a time. Before a reading from disk Linux is asked to drop the file's pages
(``posix_fadvise``); the readings from memory find them where the reading before left them. Memory is the peak
resident set of a process that measures the file once, the libraries included.

Shapes: K members, N rows, C classes.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import ensemble_svc  # noqa: F401 - first, since it sets how idle threads wait

# isort: split
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.probes.measure import Measures, arguments, seconds_of, status, write
from ensemble_svc.evaluate.metrics import METRICS
from ensemble_svc.streamed import measure_streamed

SIZES = (100, 1_000_000, 10)
ALL = tuple(name for name, metric in METRICS.items() if "classification" in metric.needs)
GIB = 2**30


def measure(num_members: int, num_rows: int, num_classes: int) -> Measures:
    """Peak memory, and the time over that of reading the bytes once, from disk and from memory."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        path = Path(name) / "predictions.safetensors"
        target_N = write_members(path, num_members, num_rows, num_classes)

        def ours() -> object:
            return measure_streamed(path, target_N, names=ALL)

        def numpys() -> None:
            with path.open("rb") as file:
                while len(np.fromfile(file, dtype=np.float32, count=num_rows * num_classes)):
                    pass

        disk = {way: _from_disk(path, action) for way, action in (("numpy", numpys), ("ours", ours))}
        memory = {way: seconds_of(action) for way, action in (("numpy", numpys), ("ours", ours))}
        peak = _peak_of(path, target_N)
    return {
        "peak memory": ("GiB", peak / GIB),
        "time over one reading by numpy, from disk": ("", disk["ours"] / disk["numpy"]),
        "time over one reading by numpy, from memory": ("", memory["ours"] / memory["numpy"]),
        "from disk": ("s", disk["ours"]),
        "numpy's reading, from disk": ("s", disk["numpy"]),
        "from memory": ("s", memory["ours"]),
        "numpy's reading, from memory": ("s", memory["numpy"]),
    }


def write_members(path: Path, num_members: int, num_rows: int, num_classes: int) -> Tensor:
    """Random members that know something, written one after another; returns the classes [N]."""
    draw = torch.Generator().manual_seed(0)
    target_N = torch.randint(num_classes, (num_rows,), generator=draw)
    size = num_members * num_rows * num_classes * 4
    facts = {
        "dtype": "F32",
        "shape": [num_members, num_rows, num_classes],
        "data_offsets": [0, size],
    }
    header = json.dumps({"log_probs": facts}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _ in range(num_members):
            logits_NC = torch.randn(num_rows, num_classes, generator=draw).mul_(2)
            logits_NC[torch.arange(num_rows), target_N] += 3
            file.write(logits_NC.log_softmax(1).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    return target_N


def _peak_of(path: Path, target_N: Tensor) -> int:
    """Bytes that a process of its own holds at most, which measures the file and does nothing else."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured_once, (path, target_N.numpy()))


def _measured_once(path: Path, target_N: NDArray[np.int64]) -> int:
    measure_streamed(path, torch.from_numpy(target_N), names=ALL)
    return status("VmHWM")


def _from_disk(path: Path, action: Callable[[], object]) -> float:
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    return seconds_of(action)


if __name__ == "__main__":
    (out,), tiny = arguments()
    write(measure(*((3, 1000, 10) if tiny else SIZES)), out)
