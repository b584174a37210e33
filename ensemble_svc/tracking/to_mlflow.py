"""A run in MLflow: one run for the ensemble, and one under it for each member.

What was told while the run went on is gone on with: only what is missing is added.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock

from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.trackers import Mlflow
from ensemble_svc.tracking.naming import parameters

if TYPE_CHECKING:
    from ensemble_svc.tracking.book import Book, Page

MARK, SEAL, DIGEST, CHOSEN, REPORT = (
    f"ensemble_svc.{name}" for name in ("run", "seal", "member", "chosen", "report")
)
"""Tags by which a later call finds again what it has written."""
STATUS, REASON = "status", "reason"
PARENT, NAME = "mlflow.parentRunId", "mlflow.runName"
RUNS_AT_ONCE, METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 800, 100
"""What MLflow gives or takes in one call: of all together it takes 1,000."""
VALUE_UP_TO = 500
MAKING, MAKING_S = ".mlflow.lock", 60.0
"""Lock of a storage folder under which its store is opened: two who make its tables at once would both fail."""
FAILED = "failed"
"""The seal of a member that failed: it may train again."""
DIGITS = 1e-5
"""Relative difference of a number told at the end of an epoch, of six digits, to the same in the history."""
T = TypeVar("T")


def write_mlflow(book: Book, tracker: Mlflow, run: Path) -> None:
    """Bring the store up to date with the run: what is there stays, what is new or was half written is added.

    Raises:
        MlflowException: the store cannot be reached or refuses.
    """
    store = Store.of(tracker, run, book.job.name)
    parent = store.opened(book.mark, book.name, book.job, book.began)
    known = store.members(parent.info.run_id)
    for page in book.pages:
        store.member(page, parent.info.run_id, book, known.get(page.digest))
    store.ensemble(parent, book, run / "report.html")


def beside(run: Path) -> str:
    """The store of a run folder whose job names none."""
    return f"sqlite:///{run.absolute().parent / 'mlflow.db'}"


class Store:
    """One experiment of a store.

    Args:
        files: where a new experiment keeps its files; where the server says, when absent.
    """

    def __init__(self, client: Any, experiment: str, files: Path | None = None) -> None:
        self.client = client
        found = client.get_experiment_by_name(experiment)
        where = files.as_uri() if files else None
        self._experiment = found.experiment_id if found else client.create_experiment(experiment, where)

    @classmethod
    def of(cls, tracker: Mlflow, run: Path, job: str) -> Store:
        """The experiment that a job asks for.

        Raises:
            MlflowException: the store cannot be reached.
        """
        from mlflow.tracking import MlflowClient  # here, since it is an extra and takes seconds to load

        name, storage = tracker.experiment or job, run.absolute().parent
        if tracker.uri:
            return cls(MlflowClient(tracking_uri=tracker.uri), name)
        with FileLock(storage / MAKING, timeout=MAKING_S):
            return cls(MlflowClient(tracking_uri=beside(run)), name, storage / "mlartifacts" / name)

    def found(self, words: str) -> Iterator[Any]:
        """The runs of which this holds."""
        token: str | None = None
        while True:
            some = self.client.search_runs(
                [self._experiment], words, max_results=RUNS_AT_ONCE, page_token=token
            )
            yield from some
            token = some.token
            if not token:
                return

    def members(self, parent: str) -> dict[str, Any]:
        """The runs of an ensemble's members by digest."""
        found = self.found(f"tags.`{PARENT}` = '{parent}'")
        return {one.data.tags[DIGEST]: one for one in found if DIGEST in one.data.tags}

    def opened(self, mark: str, name: str, job: JobSpec, began: float) -> Any:
        """The ensemble's run with its parameters; made where there is none."""
        own = next(self.found(f"tags.`{MARK}` = '{mark}'"), None)
        if own is None:
            own = self.client.create_run(self._experiment, ms(began), {MARK: mark, NAME: name})
        self._describe(own.info.run_id, parameters(job), own.data.params)
        return own

    def ensemble(self, own: Any, book: Book, report: Path) -> None:
        """The ensemble's newest numbers and its report in its run."""
        number, tags = own.info.run_id, own.data.tags
        if tags.get(SEAL) != book.seal:
            finals = [(name, value, ms(book.ended), book.number) for name, value in book.finals.items()]
            self._measure(number, finals)
            self.client.set_tag(number, SEAL, book.seal)
        if book.report and tags.get(REPORT) != book.report:
            self.client.log_artifact(number, str(report))
            self.client.set_tag(number, REPORT, book.report)
        if tags.get(STATUS) != "finished" or own.info.status != "FINISHED":
            self.client.set_tag(number, STATUS, "finished")
            self.client.set_terminated(number, "FINISHED", ms(book.ended))

    def created(self, parent: str, name: str, digest: str, began: float, **tags: str) -> str:
        """A new run for a member; returns its id."""
        told = {PARENT: parent, NAME: name, DIGEST: digest, **tags}
        number: str = self.client.create_run(self._experiment, ms(began), told).info.run_id
        return number

    def member(self, page: Page, parent: str, book: Book, known: Any | None) -> None:
        """A member's run, whole; one of an earlier training is replaced, one that was begun is gone on with."""
        seal = known.data.tags.get(SEAL) if known else None
        if known and seal == page.seal and known.info.status != "RUNNING":
            if known.data.tags.get(CHOSEN) != str(page.chosen):
                self.client.set_tag(known.info.run_id, CHOSEN, str(page.chosen))
            return
        told = self._told(known) if known else {}
        if known and not (seal in (None, FAILED, page.seal) and _agrees(told, page)):
            self.client.delete_run(known.info.run_id)
            known, told = None, {}
        began = min((point.time for point in page.points), default=book.began)
        number = known.info.run_id if known else self.created(parent, page.id, page.digest, began)
        self._complete(number, page, told, known.data.params if known else {})

    def told_steps(self, known: Any, name: str) -> dict[int, float]:
        """What a run has of one metric, by step."""
        if key(name) not in known.data.metrics:
            return {}
        points = self.client.get_metric_history(known.info.run_id, key(name))
        return {point.step: point.value for point in points}

    def _told(self, known: Any) -> dict[tuple[str, int], float]:
        """All numbers that a member's run has, by name and step."""
        names = list(known.data.metrics)
        return {(name, at): value for name in names for at, value in self.told_steps(known, name).items()}

    def _complete(
        self, number: str, page: Page, told: Mapping[tuple[str, int], float], params: Mapping[str, str]
    ) -> None:
        """Add what is missing, in few calls, since each is a transaction."""
        from mlflow.entities import RunTag

        last = max((point.step for point in page.points), default=0)
        points = [(point.name, point.value, ms(point.time), point.step) for point in page.points]
        points += [(f"final/{name}", value, ms(page.ended), last) for name, value in page.finals.items()]
        *early, rest = list(_metrics([p for p in points if (key(p[0]), p[3]) not in told])) or [[]]
        for some in early:
            self.client.log_batch(number, metrics=some)
        tags = {STATUS: page.status, REASON: page.reason, CHOSEN: str(page.chosen), SEAL: page.seal}
        self.client.log_batch(
            number,
            metrics=rest,
            params=described(page.values, params)[:PARAMS_AT_ONCE],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )
        self.client.set_terminated(number, ending(page.status), ms(page.ended))

    def _describe(self, number: str, values: Mapping[str, str], known: Mapping[str, str]) -> None:
        """Write the parameters that are not there yet: one that is may not change."""
        for some in parts(described(values, known), PARAMS_AT_ONCE):
            self.client.log_batch(number, params=some)

    def _measure(self, number: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        for some in _metrics(points):
            self.client.log_batch(number, metrics=some)


def ending(status: str) -> str:
    """How MLflow says that a member has ended."""
    return "FINISHED" if status in ("done", "stopped") else "FAILED"


def described(values: Mapping[str, str], known: Mapping[str, str]) -> list[Any]:
    """The parameters that are not known yet, as MLflow has them."""
    from mlflow.entities import Param

    named = {key(name): value[:VALUE_UP_TO] for name, value in values.items()}
    return [Param(name, value) for name, value in named.items() if name not in known]


def _agrees(told: Mapping[tuple[str, int], float], page: Page) -> bool:
    """Whether all that was told of a member is true of it as it ended; one that failed shows nothing to compare."""
    if page.seal == FAILED:
        return True
    last = max((point.step for point in page.points), default=0)
    own = {(key(point.name), point.step): point.value for point in page.points}
    own |= {(key(f"final/{name}"), last): value for name, value in page.finals.items()}
    return all(at in own and math.isclose(value, own[at], rel_tol=DIGITS) for at, value in told.items())


def _metrics(points: Sequence[tuple[str, float, int, int]]) -> Iterator[list[Any]]:
    """Name, value, time and step of each, as MLflow has them, in parts that it takes in one call."""
    from mlflow.entities import Metric

    return parts([Metric(key(name), *rest) for name, *rest in points], METRICS_AT_ONCE)


def key(name: str) -> str:
    """The name with what MLflow takes in keys."""
    return re.sub(r"[^\w\-./ :]", "_", name)[:250]


def ms(seconds: float) -> int:
    """The time as MLflow has it."""
    return round(1000 * seconds)


def parts(values: Sequence[T], size: int) -> Iterator[list[T]]:
    """The values in their order, so many at a time; nothing of none."""
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some
