"""The jobs of the lecture, trained once each, and what is read off their members."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ensemble_svc import pipeline
from ensemble_svc.health.checkup import Checkup, check
from ensemble_svc.local import LocalExecutor
from ensemble_svc.planning import members_of, prepare, rows_of
from ensemble_svc.spec.load import load_job
from ensemble_svc.store.run import Run

JOBS = Path(__file__).parents[2] / "jobs" / "lecture"
TENTH = 10
T = TypeVar("T")


@dataclass(frozen=True)
class Trained:
    """One member of a job as it ended."""

    index: int
    varied: dict[str, Any]
    """Its hyper-parameters, by dotted path."""
    status: str
    history: dict[str, list[float]]
    """Values after each epoch, by column."""
    metrics: dict[str, dict[str, float]]
    """By split."""

    @property
    def done(self) -> bool:
        """Whether it did not diverge."""
        return self.status == "done"

    @property
    def last_loss(self) -> float:
        """Training loss of the last epoch; infinite for a member that diverged."""
        return self.history["train_loss"][-1] if self.done else math.inf

    @property
    def accuracy(self) -> float:
        """On the test rows; 0 for a member that diverged."""
        return self.metrics["test"]["accuracy"] if self.done else 0.0

    def epochs_to(self, loss: float) -> float:
        """Epochs until the training loss is first below ``loss``; infinite if it never is."""
        below = (epoch for epoch, value in enumerate(self.history["train_loss"], 1) if value < loss)
        return next(below, math.inf)


class Bench:
    """Trains jobs of the lecture where they are asked for.

    Args:
        quick: a tenth of the epochs, to see that all of it runs.
    """

    def __init__(self, folder: Path, *, quick: bool = False) -> None:
        self.folder, self.quick = folder, quick
        self._runs: dict[str, Run] = {}

    def run(self, name: str) -> Run:
        """The finished run of a job."""
        if name not in self._runs:
            job = load_job(JOBS / f"{name}.yaml", ("compute.executor=local",))
            if self.quick:
                epochs = max(2, job.training.epochs // TENTH)
                job = load_job(JOBS / f"{name}.yaml", (f"training.epochs={epochs}", "ensemble.quorum=0.01"))
            executor = LocalExecutor(retries=0)
            self._runs[name] = pipeline.train(
                job, out=self.folder / name, directory=self.folder, executor=executor
            )
        return self._runs[name]

    def members(self, name: str) -> list[Trained]:
        """The members of a job, in order."""
        run = self.run(name)
        return [self._member(run, entry) for entry in run.manifest()["members"]]

    def checkup(self, name: str) -> Checkup:
        """What ``inspect`` sees of a job's first member."""
        job = load_job(JOBS / f"{name}.yaml")
        prepared = prepare(job, Path.cwd())
        member = members_of(job, prepared)[0]
        return check(member, prepared.dataset, prepared.schema, rows_of(member, prepared))

    def _member(self, run: Run, entry: dict[str, Any]) -> Trained:
        history = run.history(entry["id"]) if entry["files"] else {}
        return Trained(
            index=entry["index"],
            varied=entry["hyperparameters"],
            status=entry["status"],
            history={name: list(map(float, history[name])) for name in history},
            metrics=entry["metrics"],
        )


def by(members: Iterable[Trained], *keys: str) -> dict[tuple[Any, ...], list[Trained]]:
    """Members with equal values of the keys; a choice stands as its name and options."""
    found: dict[tuple[Any, ...], list[Trained]] = {}
    for member in members:
        found.setdefault(tuple(word(member.varied.get(key)) for key in keys), []).append(member)
    return found


def word(value: Any) -> Any:
    """A varied value as a reader writes it: a choice without options is its name."""
    if isinstance(value, dict):
        options = [
            f"{key} {item:g}" if isinstance(item, float) else f"{key} {item}"
            for key, item in value.items()
            if key != "name"
        ]
        return " ".join([str(value.get("name", "")), *options]).strip()
    if isinstance(value, list | tuple):
        return ", ".join(str(word(item)) for item in value) or "none"
    return value


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; no error of one value, or where one is infinite."""
    known = len(values) > 1 and all(map(math.isfinite, values))
    error = statistics.stdev(values) / len(values) ** 0.5 if known else math.nan
    return statistics.fmean(values), error


def with_error(values: Sequence[float], *, factor: float = 1.0, places: int = 1) -> str:
    """``mean ± standard error`` in words."""
    mean, error = mean_and_error([value * factor for value in values])
    return f"{mean:.{places}f} ± {error:.{places}f}"


def mean_curve(members: Sequence[Trained], column: str) -> list[float]:
    """The members' mean after each epoch."""
    curves = [member.history[column] for member in members if member.done]
    return [statistics.fmean(values) for values in zip(*curves, strict=False)]


def best_of(groups: dict[T, list[Trained]], score: Callable[[Trained], float]) -> T:
    """The key whose members have the smallest mean score."""
    return min(groups, key=lambda key: statistics.fmean(score(member) for member in groups[key]))
