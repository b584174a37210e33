"""Where a packed step spends its time: ``python -m benchmarks.profile [WORK …]``, Markdown on stdout.

For each work the milliseconds of a step on one core, on all cores that share each operation, and in strands;
then the operations that take the most on one core, as torch's profiler counts them.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ensemble_svc  # noqa: F401 - first, since it sets how idle threads wait

# isort: split
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.members import CORES
from benchmarks.probes.inside import BarePack, bare_pack
from benchmarks.work import WORKS, Work
from ensemble_svc.plan.strands import Strands
from ensemble_svc.train import pack as packs

STEPS, ROUNDS, ROWS = 20, 7, 12
NAMES = {
    "aten::bmm": "matrix products, backward",
    "aten::baddbmm": "matrix products, forward",
    "aten::_fused_adamw_": "AdamW",
    "aten::threshold_backward": "relu, backward",
    "aten::clamp_min": "relu, forward",
    "aten::convolution_backward": "convolutions, backward",
    "aten::mkldnn_convolution": "convolutions, forward",
}


def main(names: Sequence[str]) -> None:
    """Print the tables."""
    for name in names or ("digits16",):
        work = WORKS[name]
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            pack = bare_pack(work, Path(folder))
            _print_ways(work, pack)
            _print_operations(pack)


def _print_ways(work: Work, pack: BarePack) -> None:
    members = work.members
    ways = {
        "one core": (1, Strands(1, 1)),
        f"{CORES} cores share each operation": (CORES, Strands(1, CORES)),
        f"{CORES} strands of one core": (CORES, Strands(min(CORES, members), 1)),
    }
    print(f"### {work.title}\n\n| a step on | ms |\n| --- | --- |")
    for words, (threads, division) in ways.items():
        torch.set_num_threads(threads)
        with _divided(division):
            print(f"| {words} | {1e3 * _step_seconds(pack):.2f} |")
    print()


def _print_operations(pack: BarePack) -> None:
    torch.set_num_threads(1)
    block = pack.block(STEPS)
    with _divided(Strands(1, 1)), profile(activities=[ProfilerActivity.CPU]) as found:
        pack.steps(block)
    events = sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print("| operation, on one core | calls a step | share |\n| --- | --- | --- |")
    for event in events[:ROWS]:
        told = NAMES.get(event.key, event.key)
        print(f"| {told} | {event.count / STEPS:.0f} | {event.self_cpu_time_total / total:.0%} |")
    print()


def _step_seconds(pack: BarePack) -> float:
    block, spent = pack.block(STEPS), list[float]()
    pack.steps(block)
    for _ in range(ROUNDS):
        began = time.perf_counter()
        pack.steps(block)
        spent.append((time.perf_counter() - began) / STEPS)
    return statistics.median(spent)


@contextmanager
def _divided(division: Strands) -> Iterator[None]:
    """Let packs be divided so in the block, whatever the rule says."""
    before = packs.strands
    packs.strands = lambda *_, **__: division  # type: ignore[assignment]
    try:
        yield
    finally:
        packs.strands = before


if __name__ == "__main__":
    main(sys.argv[1:])
