"""What the measurements are held against: the ratios that were to be reached before anything was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, dict[str, Any]]
"""Results by the name of their work or probe."""
OURS = "ours_auto"


@dataclass(frozen=True)
class Row:
    """One line of the table of targets."""

    what: str
    wanted: str
    measured: str
    met: bool


@dataclass(frozen=True)
class Speedup:
    """Another's training time over ours."""

    work: str
    other: str
    at_least: float

    def row(self, results: Results) -> Row | None:
        """None where either was not measured."""
        times = training_times(results, self.work)
        if OURS not in times or self.other not in times:
            return None
        entries = results[self.work]["contenders"]
        ratio = statistics.median(times[self.other]) / statistics.median(times[OURS])
        what = f"{results[self.work]['title']}: ours, auto, against {entries[self.other]['title']}"
        return Row(what, f"≥ {self.at_least:g}x", f"{ratio:.1f}x", ratio >= self.at_least)


@dataclass(frozen=True)
class NoneBetter:
    """The best contender's training time over the better of ours, auto, with and without Ray."""

    work: str
    at_least: float = 0.95

    def row(self, results: Results) -> Row | None:
        """None where no other was measured."""
        times = {name: statistics.median(v) for name, v in training_times(results, self.work).items()}
        ours = {name: s for name, s in times.items() if name.startswith(OURS)}
        others = {name: s for name, s in times.items() if name not in ours}
        if not ours or not others:
            return None
        best, mine = min(others, key=others.__getitem__), min(ours, key=ours.__getitem__)
        titles = {name: entry["title"] for name, entry in results[self.work]["contenders"].items()}
        what = f"{results[self.work]['title']}: {titles[mine]}, against the best, {titles[best]}"
        ratio = others[best] / ours[mine]
        return Row(what, f"≥ {self.at_least:g}x", f"{ratio:.2f}x", ratio >= self.at_least)


@dataclass(frozen=True)
class Bound:
    """A probe's measure within a bound."""

    probe: str
    measure: str
    at_most: float | None = None
    at_least: float | None = None
    percent: bool = False

    def row(self, results: Results) -> Row | None:
        """None where it was not measured at its full size."""
        found = results.get(self.probe, {})
        measures = found.get("measures", {})
        if self.measure not in measures or found.get("tiny"):
            return None
        value, unit = statistics.median(measures[self.measure]["values"]), measures[self.measure]["unit"]
        low, high = self.at_least, self.at_most
        met = (low is None or value >= low) and (high is None or value <= high)
        bound = f"≥ {self._shown(low, unit)}" if low is not None else f"≤ {self._shown(high or 0.0, unit)}"
        return Row(f"{results[self.probe]['title']}: {self.measure}", bound, self._shown(value, unit), met)

    def _shown(self, value: float, unit: str) -> str:
        return f"{value:.0%}" if self.percent else f"{value:.3g} {unit}".strip()


TARGETS: tuple[Speedup | NoneBetter | Bound, ...] = (
    Speedup("digits16", "tune", 50),
    Speedup("digits16", "tune_reuse", 10),
    Speedup("digits16", "lightning", 4.5),
    Speedup("digits16", "loop", 2.5),
    Speedup("digits16", "loop_default", 2.5),
    Speedup("digits64", "loop", 3),
    Speedup("digits64", "loop_default", 3),
    Bound("rate64", "share, all cores", at_least=0.6, percent=True),
    Bound("rate64", "share, one thread", at_least=0.6, percent=True),
    Bound("energy", "command, ray", at_most=20),
    Bound("energy", "command, local", at_most=20),
    NoneBetter("lenet10"),
    NoneBetter("convnet8"),
    Bound("memory_mlp", "peak / bound", at_most=1),
    Bound("memory_convnet", "peak / bound", at_most=1),
    Bound("memory_lenet", "peak / bound", at_most=1),
    Bound("overhead16", "Lightning's epochs over the module's bare loop", at_most=0.1, percent=True),
    Bound("overhead16", "Lightning's epochs over the loop by hand", at_most=0.1, percent=True),
    Bound("overhead64", "Lightning's epochs over the module's bare loop", at_most=0.1, percent=True),
    Bound("overhead64", "Lightning's epochs over the loop by hand", at_most=0.1, percent=True),
    Bound("batch_eval", "ratio", at_least=0.8),
    Bound("streamed", "peak memory", at_most=1),
    Bound("streamed", "time over one reading by numpy, from disk", at_most=2),
    Bound("greedy", "nll", at_most=60),
    Bound("greedy", "accuracy", at_most=60),
    Bound("greedy", "brier", at_most=60),
    Bound("resamples", "whole table", at_most=5),
    Bound("gpu", "64 MLP over one", at_most=2),
    Bound("gpu", "32 LeNet-5 over one", at_most=3),
    Bound("gpu", "8 ResNets of ResNet-18's size: auto against one after another", at_least=1),
)


def rows(results: Results) -> Iterator[Row]:
    """A row for each target whose measurements are there."""
    for target in TARGETS:
        if row := target.row(results):
            yield row


def training_times(results: Results, work: str) -> dict[str, list[float]]:
    """Seconds of the training phase of each contender that finished every round."""
    contenders = results.get(work, {}).get("contenders", {})
    return {
        name: entry["training_s"]
        for name, entry in contenders.items()
        if entry.get("training_s") and "failed" not in entry
    }
