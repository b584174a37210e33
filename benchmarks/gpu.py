"""Packs on a GPU: ``python -m benchmarks.gpu [--repeats N] [--out FILE]``, or ``make bench-gpu``.

Everything runs through ``compute.executor: local``, so neither Ray nor a data set is needed: the rows are drawn, noisy
copies of one pattern per class, and every run's accuracy is written beside its time. ``--device cpu --tiny``
goes through the same code in seconds on any machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ensemble_svc.train.fit  # noqa: F401 - first, since it sets how idle threads wait

# isort: split
import torch

from benchmarks.children import load_average
from benchmarks.data import Rows
from benchmarks.job import document, training_seconds, write_rows
from benchmarks.machine import describe
from benchmarks.probes.inside import operations_per_row
from benchmarks.probes.measure import seconds_of
from benchmarks.work import Work
from ensemble_svc import pipeline
from ensemble_svc.errors import SpecError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job

RESULT = Path(__file__).parent / "results" / "gpu.json"
CLASSES, TEST_ROWS = 10, 500
MIXED = "bf16-mixed"


@dataclass(frozen=True)
class Load:
    """K members of one network on drawn rows."""

    name: str
    model: Mapping[str, Any]
    shape: tuple[int, ...]
    rows: int
    epochs: int
    batch: int
    members: int
    precision: str = "32-true"

    def tiny(self) -> Load:
        """The same in a second on a CPU."""
        narrow = {"depth": 8, "width": 4} if self.model["name"] == "resnet" else {}
        model = {**self.model, **narrow}
        return replace(self, model=model, rows=96, epochs=1, batch=32, members=2)


MLP = Load("64 MLP", {"name": "mlp", "hidden": [128, 128]}, (64,), 1437, epochs=100, batch=64, members=64)
LENET = Load("32 LeNet-5", {"name": "lenet"}, (1, 28, 28), 10_000, epochs=10, batch=256, members=32)
RESNET = Load(
    "8 ResNets of ResNet-18's size",
    {"name": "resnet", "depth": 20, "width": 64},
    (3, 32, 32),
    10_000,
    epochs=1,
    batch=128,
    members=8,
    precision=MIXED,
)
"""Depth 20 and width 64: 0.65 billion multiply-adds per image; ResNet-18 for small images has 0.56."""


@dataclass(frozen=True)
class Outcome:
    """One run."""

    seconds: float
    accuracy: float
    memory_mib: float


class Bench:
    """Runs loads on one device and collects what was measured."""

    def __init__(self, device: str, *, repeats: int) -> None:
        self.device, self.repeats = device, repeats
        self.measures: dict[str, dict[str, Any]] = {}
        self.precision: dict[str, str] = {}
        """What each load was trained in."""

    def against_one(self, load: Load) -> None:
        """A pack of K members against one member alone."""
        one = replace(load, members=1)
        self._warm_up(load, ("all",))
        for _ in range(self.repeats):
            alone, pack = self._run(one, "off"), self._run(load, "all")
            self._note(load.name, {"one": alone, "pack": pack})
            self._add(f"{load.name} over one", "", pack.seconds / alone.seconds)

    def against_sequence(self, load: Load, peak: float) -> None:
        """A pack, and what auto chooses, against the same members one after another."""
        ways = {"pack": "all", "auto": "auto", "one after another": "off"}
        self._warm_up(load, tuple(ways.values()))
        job, images = self._job(load, "all"), load.members * load.rows * load.epochs
        operations = images * operations_per_row(job, load.shape, CLASSES)
        for _ in range(self.repeats):
            found = {way: self._run(load, pack) for way, pack in ways.items()}
            self._note(load.name, found)
            for way, outcome in found.items():
                self._add(f"{load.name}: {way}", "images/s", images / outcome.seconds)
                share = operations / outcome.seconds / peak
                self._add(f"{load.name}: {way}, share of the bf16 rate", "", share)
            ratio = found["one after another"].seconds / found["auto"].seconds
            self._add(f"{load.name}: auto against one after another", "", ratio)

    def bf16_rate(self, size: int) -> float:
        """Operations per second of a large matmul in bfloat16: the peak that can be reached."""
        left, right = (torch.randn(size, size, device=self.device).bfloat16() for _ in range(2))

        def multiply() -> None:
            for _ in range(20):
                left @ right
            self._wait()

        multiply()
        rate = 20 * 2 * size**3 / min(seconds_of(multiply) for _ in range(5))
        self._add("bf16 matmul rate", "TFLOP/s", rate / 1e12)
        return rate

    def _run(self, load: Load, pack: str) -> Outcome:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            write_rows(drawn_rows(load), folder)
            job = self._job(load, pack)
            run = pipeline.train(job, out=folder / "run", directory=folder, executor=LocalExecutor())
            accuracy = run.metrics()["test"]["ensemble"]["accuracy"]
            memory = torch.cuda.max_memory_allocated() if self.device == "cuda" else 0
            return Outcome(training_seconds(run), accuracy, memory / 2**20)

    def _job(self, load: Load, pack: str) -> JobSpec:
        """The load as a job; in plain float32 where its precision is not offered, which the result says."""
        compute = {
            "pack": load.members if pack == "all" else pack,
            "executor": "local",
            "device": self.device,
        }
        work = Work("gpu", load.name, "digits", "mlp", load.members, load.epochs, load.batch)
        plain = document(work, load.model, compute)
        mixed = {**plain, "training": {**plain["training"], "precision": load.precision}}
        try:
            job = parse_job(mixed)
        except SpecError:
            job = parse_job(plain)
        self.precision[load.name] = job.training.precision
        return job

    def _warm_up(self, load: Load, packs: tuple[str, ...]) -> None:
        """Let the device load its kernels and choose its convolutions."""
        for pack in packs:
            self._run(replace(load, epochs=1, rows=2 * load.batch), pack)

    def _note(self, name: str, found: Mapping[str, Outcome]) -> None:
        for way, outcome in found.items():
            self._add(f"{name}: {way}, training", "s", outcome.seconds)
            self._add(f"{name}: {way}, accuracy", "", outcome.accuracy)
            self._add(f"{name}: {way}, memory", "MiB", outcome.memory_mib)
            print(f"{name}: {way}: {outcome.seconds:.2f} s, accuracy {outcome.accuracy:.3f}", flush=True)

    def _add(self, name: str, unit: str, value: float) -> None:
        self.measures.setdefault(name, {"unit": unit, "values": []})["values"].append(value)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def drawn_rows(load: Load) -> Rows:
    """Rows of ten classes: a pattern of the class and noise of the same size."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, *load.shape, generator=generator)

    def some(number: int) -> Iterator[torch.Tensor]:
        y = torch.arange(number) % CLASSES
        yield patterns[y] + torch.randn(number, *load.shape, generator=generator)
        yield y

    return Rows(*some(load.rows), *some(min(TEST_ROWS, load.rows)))


def main() -> None:
    """Measure all three loads and write the result."""
    options = _arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "no CUDA device here; to see that it runs: python -m benchmarks.gpu --device cpu --tiny"
        )
    load = load_average()
    mlp, lenet, resnet = ((x.tiny() if options.tiny else x) for x in (MLP, LENET, RESNET))
    bench = Bench(options.device, repeats=options.repeats)
    peak = bench.bf16_rate(128 if options.tiny else 8192)
    bench.against_one(mlp)
    bench.against_one(lenet)
    bench.against_sequence(resnet, peak)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    result = {
        "kind": "probe",
        "name": "gpu",
        "title": device,
        "machine": {**describe(), "device": device},
        "rounds": [{"load_average": load}],
        "precision": bench.precision,
        "measures": bench.measures,
    }
    out = options.out or RESULT
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {out.name}; python -m benchmarks.table prints it")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="seconds on any machine, to see that all runs")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="by default benchmarks/results/gpu.json")
    options = parser.parse_args()
    if options.device == "cpu" and options.out is None:
        parser.error("--device cpu measures nothing worth keeping; say with --out where to write it")
    return options


if __name__ == "__main__":
    main()
