"""What a trial costs that trains nothing: ``python -m benchmarks.probes.dispatch WAY NUMBER OUT``.

WAY is ``plain`` (a function of Tune that reports once and returns, a process for each trial), ``reused`` (the same,
processes reused) or ``ours`` (our executor with slots whose fit reports one epoch and returns).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from benchmarks.members import CORES
from benchmarks.probes.measure import Measures, arguments, seconds_of, write
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import MemberSpec, Pack, Slot
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.spec.load import parse_job


def measure(way: str, number: int) -> Measures:
    """Seconds of so many trials with Ray up, and the driver's peak resident memory."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    run: Callable[[int, Path], None] = _ours if way == "ours" else _plain
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ray.init(
            "local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, _temp_dir=f"{folder}/r"
        )
        try:
            seconds = seconds_of(
                lambda: run(number, Path(folder), *([way == "reused"] if run is _plain else []))
            )
        finally:
            ray.shutdown()
    return {
        "training": ("s", seconds),
        "each trial": ("ms", 1000 * seconds / number),
        "peak": ("MiB", peak_mib()),
    }


def peak_mib() -> float:
    """The most memory that this process held at once."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def _plain(number: int, folder: Path, reuse: bool) -> None:
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


def _members(number: int) -> tuple[MemberSpec, ...]:
    space = {"training.optimizer.lr": {"loguniform": [1e-4, 0.1]}, "model.dropout": {"uniform": [0, 0.5]}}
    job = parse_job(
        {"name": "noop", "data": {"source": "digits"}, "search": {"space": space, "trials": number}}
    )
    return make_members(job, "d" * 64, "s" * 64)


def _slot(member: MemberSpec) -> Slot:
    return Slot(pack=Pack(members=(member,)), cpus=1, gpus=0.0, reason="a trial that trains nothing")


def _fit(_: None, slot: Slot, report: Report) -> None:
    members = tuple(MemberProgress(m.id, "done", 1, 0.0, "nll", 0.0) for m in slot.pack.members)
    report(Progress(slot.pack.id, 1, 1, members, 0.0))


if __name__ == "__main__":
    (way, number, out), _ = arguments()
    write(measure(way, int(number)), out)
