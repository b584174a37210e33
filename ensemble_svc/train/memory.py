"""How much memory a process has held at most.

On Linux the kernel keeps the largest resident size; writing 5 to ``clear_refs`` starts it anew (proc(5)).
"""

from __future__ import annotations

from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes held since the last reset: resident for a CPU, allocated for a GPU; None where unknown."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return _field("VmHWM")


def held_bytes(device: torch.device) -> int | None:
    """Bytes held now, counted likewise."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return _field("VmRSS")


def reset_peak(device: torch.device) -> None:
    """Let the next peak be counted from now on, where the machine can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _RESET.write_text("5")
    except OSError:
        return


def _field(name: str) -> int | None:
    if not _STATUS.is_file():
        return None
    for line in _STATUS.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None
