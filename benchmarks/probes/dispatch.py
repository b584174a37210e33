"""What a trial costs that trains nothing: ``python -m benchmarks.probes.dispatch WAY NUMBER OUT``.

WAY is ``plain`` (a function of Tune that reports once and returns, a process for each trial), ``reused`` (the same,
processes reused), ``ours`` (our executor with slots whose fit reports one epoch and returns) or ``packed`` (a whole
search of ours whose trials train one epoch in packs, for the memory of its driver).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune

from benchmarks.members import CORES
from benchmarks.probes.measure import Measures, arguments, seconds_of, write
from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import MemberSpec, Pack, Slot
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.spec.load import parse_job


def measure(way: str, number: int) -> Measures:
    """Seconds of so many trials with Ray up, and the driver's peak resident memory."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    if way in ("plain", "reused"):
        os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "auto"  # ours is set where our package is imported
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ray.init(
            "local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, _temp_dir=f"{folder}/r"
        )
        try:
            seconds = seconds_of(lambda: WAYS[way](number, Path(folder)))
        finally:
            ray.shutdown()
    each = 1000 * seconds / number
    return {"training": ("s", seconds), "each trial": ("ms", each), "peak": ("MiB", peak_mib())}


def peak_mib() -> float:
    """The most memory that this process held at once."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _plain(number: int, folder: Path, *, reuse: bool) -> None:
    tune.Tuner(
        tune.with_resources(_report, {"cpu": 1}),
        param_space={"member": tune.grid_search(list(range(number)))},
        tune_config=tune.TuneConfig(reuse_actors=reuse),
        run_config=tune.RunConfig(name="bench", storage_path=str(folder / "tune"), verbose=0),
    ).fit()


def _report(config: dict[str, Any]) -> None:
    tune.report({"loss": float(config["member"])})


def _ours(number: int, folder: Path) -> None:
    executor = RayExecutor(folder / "tune")
    slots = [_slot(member) for member in _members(number)]
    executor.run(slots, _fit, None, on_progress=lambda *_: None, on_failure=lambda *_: None)


def _packed(number: int, folder: Path) -> None:
    job = parse_job(
        {
            "name": "packed",
            "data": {"source": "digits", "preprocess": ["standardize"]},
            "model": {"name": "mlp", "hidden": [8]},
            "training": {"epochs": 1, "batch_size": 256},
            "search": {"space": SPACE, "trials": number},
            "aggregate": {"select": {"name": "top_k", "k": 8}},
            "evaluate": {"resamples": 100},
            "compute": {"health": "off", "measure": "off"},
        }
    )
    pipeline.train(job, out=folder / "run", directory=folder, executor=RayExecutor(folder / "run" / "tune"))


SPACE = {"training.optimizer.lr": {"loguniform": [1e-4, 0.1]}, "model.dropout": {"uniform": [0, 0.5]}}


def _members(number: int) -> tuple[MemberSpec, ...]:
    job = parse_job(
        {"name": "noop", "data": {"source": "digits"}, "search": {"space": SPACE, "trials": number}}
    )
    return make_members(job, "d" * 64, "s" * 64)


def _slot(member: MemberSpec) -> Slot:
    return Slot(pack=Pack(members=(member,)), cpus=1, gpus=0.0, reason="a trial that trains nothing")


def _fit(_: None, slot: Slot, report: Report) -> None:
    members = tuple(MemberProgress(m.id, "done", 1, 0.0, "nll", 0.0) for m in slot.pack.members)
    report(Progress(slot.pack.id, 1, 1, members, 0.0))


WAYS: dict[str, Callable[[int, Path], None]] = {
    "plain": partial(_plain, reuse=False),
    "reused": partial(_plain, reuse=True),
    "ours": _ours,
    "packed": _packed,
}

if __name__ == "__main__":
    (way, number, out), _ = arguments()
    write(measure(way, int(number)), out)
