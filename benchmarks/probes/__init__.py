"""Measures of ours alone: each file's child writes ``{measure: {"unit": …, "value": …}}``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Probe:
    """Something measured in a fresh process, or the whole command that one is."""

    name: str
    title: str
    module: str
    arguments: tuple[str, ...] = ()
    needs_data: bool = False
    """Reads the folder that ENSEMBLE_DATA names."""


PROBES = {
    probe.name: probe
    for probe in (
        Probe("rate64", "share of the bmm rate that a packed step of 64 MLP reaches", "rate", ("digits64",)),
        Probe("overhead16", "ours over bare loops of the packed step, 16 MLP", "overhead", ("digits16",)),
        Probe("overhead64", "ours over bare loops of the packed step, 64 MLP", "overhead", ("digits64",)),
        Probe("memory_mlp", "peak memory of a pack of 64 MLP", "memory", ("digits64",)),
        Probe("memory_convnet", "peak memory of a pack of 8 convnets", "memory", ("convnet8",)),
        Probe("memory_lenet", "peak memory of a pack of 10 LeNet-5", "memory", ("lenet10",), needs_data=True),
        Probe(
            "streamed",
            "100 members x 1,000,000 rows x 10 classes: combined, all metrics, from disk",
            "streamed",
        ),
        Probe("greedy", "greedy selection, 50 picks of 200 members x 50,000 rows x 10 classes", "greedy"),
        Probe("resamples", "1,000 resamples of the gain, 10 members x 50,000 rows x 10 classes", "resamples"),
        Probe(
            "energy", "100 members on 20 splits of UCI energy, the whole command", "energy", needs_data=True
        ),
    )
}
