"""Share of the machine's own batched-matmul rate that a packed training step reaches.

Operations of a step are counted as 6 x parameters x rows. The rate to reach is that of the nine matmuls of the
same step (three layers, forward and both gradients) on the same shapes, alone, in the same process, into memory
that is there already, by the faster of two ways: all cores on each product, or each core on its members' part.

Shapes: K members, B rows, I and O units of a layer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from threading import Event

import ensemble_svc  # noqa: F401 - first, since it sets how idle threads wait

# isort: split
import torch

from benchmarks.members import CORES
from benchmarks.probes.inside import BarePack, bare_pack
from benchmarks.probes.measure import Measures, arguments, interleaved, seconds_of, write
from benchmarks.work import WORKS, Work
from ensemble_svc.train.strand import beside

Product = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Factors, and where the product goes."""


def measure(work: Work, *, steps: int, repeats: int) -> Measures:
    """Share, rates and milliseconds with all cores and with one thread."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        pack = bare_pack(work, Path(folder))
        found: dict[str, tuple[str, float]] = {}
        for label, threads in (("all cores", CORES), ("one thread", 1)):
            torch.set_num_threads(threads)
            measured = _at_these_threads(work, pack, steps=steps, repeats=repeats)
            found |= {f"{name}, {label}": value for name, value in measured.items()}
        return found


def _at_these_threads(work: Work, pack: BarePack, *, steps: int, repeats: int) -> Measures:
    block, threads = pack.block(steps), torch.get_num_threads()
    pack.steps(block)
    ways: dict[str, Callable[[], float]] = {
        "pack": lambda: seconds_of(lambda: pack.steps(block)) / steps,
        "bmm": lambda: seconds_of(lambda: _products(pack, work.batch, 1, threads, steps)) / steps,
        "bmm beside": lambda: seconds_of(lambda: _products(pack, work.batch, threads, 1, steps)) / steps,
    }
    step_s = interleaved(ways, repeats=repeats)
    operations = _operations(pack, work.batch)
    step_s["bmm"] = min(step_s["bmm"], step_s["bmm beside"])
    return {
        "share": ("", step_s["bmm"] / step_s["pack"]),
        "step": ("ms", step_s["pack"] * 1e3),
        "step's rate": ("GFLOP/s", operations / step_s["pack"] / 1e9),
        "bmm rate": ("GFLOP/s", operations / step_s["bmm"] / 1e9),
    }


def _weights(pack: BarePack) -> list[torch.Tensor]:
    """The stacked matrices [K, O, I]."""
    return [weight.detach() for weight in pack.module.weights.values() if weight.dim() == 3]


def _operations(pack: BarePack, rows: int) -> int:
    """Operations of a step by the matmuls' weights; the biases, one in a hundred, are left out on both sides."""
    return 6 * rows * sum(weight.numel() for weight in _weights(pack))


def _products(pack: BarePack, rows: int, parts: int, threads: int, steps: int) -> None:
    """The nine products of so many steps, the members in parts that so many threads each work on."""
    beside([partial(_multiply, calls, steps) for calls in _calls(pack, rows, parts)], threads)


def _multiply(calls: Sequence[Product], steps: int, _: Event) -> None:
    for _step in range(steps):
        for left, right, out in calls:
            torch.bmm(left, right, out=out)


@cache
def _calls(pack: BarePack, rows: int, parts: int) -> list[list[Product]]:
    """For each part of the members: outputs, gradients of inputs and of weights of every layer."""
    found: list[list[Product]] = [[] for _ in range(parts)]
    for whole_KOI in _weights(pack):
        for calls, weight_KOI in zip(found, whole_KOI.tensor_split(parts), strict=True):
            members, num_out, num_in = weight_KOI.shape
            x_KBI, g_KBO = torch.randn(members, rows, num_in), torch.randn(members, rows, num_out)
            calls += [
                (x_KBI, weight_KOI.mT, torch.empty(members, rows, num_out)),
                (g_KBO, weight_KOI, torch.empty(members, rows, num_in)),
                (g_KBO.mT, x_KBI, torch.empty(members, num_out, num_in)),
            ]
    return found


if __name__ == "__main__":
    (name, out), tiny = arguments()
    chosen = WORKS[name].tiny() if tiny else WORKS[name]
    write(measure(chosen, steps=5 if tiny else 100, repeats=1 if tiny else 7), out)
