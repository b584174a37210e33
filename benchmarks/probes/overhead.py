"""What ours costs over bare loops that take the same packed steps on the same batches.

Three ways, in turn, in one process: the pipeline's training (Lightning, books, callbacks, seals, predictions); the
module's own step in a bare loop; a vmapped step written by hand with torch's fused AdamW.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import ensemble_svc  # noqa: F401 - first, since it sets how idle threads wait

# isort: split
import torch

from benchmarks.data import load
from benchmarks.job import threads_of, training_seconds, write_job
from benchmarks.members import CORES
from benchmarks.probes.handwritten import train_by_hand
from benchmarks.probes.inside import bare_pack
from benchmarks.probes.measure import Measures, arguments, interleaved, seconds_of, write
from benchmarks.work import WORKS, Work
from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.store.run import Run


def measure(work: Work, *, repeats: int) -> Measures:
    """Seconds of each way, and ours over the bare ones."""
    data, ours = load(work), _Ours(work)

    def by_hand() -> float:
        torch.set_num_threads(ours.threads)
        return seconds_of(lambda: train_by_hand(work, data))

    ways: dict[str, Callable[[], float]] = {
        "ours": ours,
        "bare": lambda: _bare(work, ours.threads),
        "hand": by_hand,
    }
    interleaved(ways, repeats=1)
    ours.epochs_s.clear()
    median = interleaved(ways, repeats=repeats)
    epochs_s = sorted(ours.epochs_s)[len(ours.epochs_s) // 2]
    return {
        "ours, planning to seals": ("s", median["ours"]),
        "ours, its epochs": ("s", epochs_s),
        "module's step, bare loop": ("s", median["bare"]),
        "step by hand, bare loop": ("s", median["hand"]),
        "Lightning's epochs over the module's bare loop": ("", epochs_s / median["bare"] - 1),
        "Lightning's epochs over the loop by hand": ("", epochs_s / median["hand"] - 1),
        "whole training over the module's bare loop": ("", median["ours"] / median["bare"] - 1),
    }


class _Ours:
    """The pipeline's training as a way; keeps its threads, and the seconds of its epochs within Lightning."""

    def __init__(self, work: Work) -> None:
        self.work, self.threads = work, CORES
        self.epochs_s: list[float] = []

    def __call__(self) -> float:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            job = write_job(self.work, load(self.work), folder, pack="all")
            run = pipeline.train(job, out=folder / "run", directory=folder, executor=LocalExecutor())
            self.epochs_s.append(_epoch_seconds(run))
            self.threads = threads_of(run)
            return training_seconds(run)


def _epoch_seconds(run: Run) -> float:
    """Seconds of a pack's epochs, which its members share."""
    first = run.manifest()["members"][0]["id"]
    return float(run.history(first)["seconds"].sum())


def _bare(work: Work, threads: int) -> float:
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        pack = bare_pack(work, Path(folder))
        return seconds_of(lambda: pack.train(work.epochs))


if __name__ == "__main__":
    (name, out), tiny = arguments()
    chosen = WORKS[name].tiny() if tiny else WORKS[name]
    write(measure(chosen, repeats=1 if tiny else 3), out)
