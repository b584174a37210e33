"""A run in MLflow: one run for the ensemble, and one under it for each member."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from ensemble_svc.spec.trackers import Mlflow
from ensemble_svc.tracking.book import Book, Page, parameters

MARK, SEAL, DIGEST, CHOSEN = (f"ensemble_svc.{name}" for name in ("run", "seal", "member", "chosen"))
"""Tags by which a later call finds again what it has written."""
PARENT, NAME = "mlflow.parentRunId", "mlflow.runName"
RUNS_AT_ONCE, METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 800, 100
"""What MLflow gives or takes in one call: of all together it takes 1,000."""
VALUE_UP_TO = 500
T = TypeVar("T")


def write_mlflow(book: Book, tracker: Mlflow, run: Path) -> None:
    """Bring the store up to date with the run: what is there stays, what is new or was half written is written.

    Raises:
        MlflowException: the store cannot be reached or refuses.
    """
    from mlflow.tracking import MlflowClient  # here, since it is an extra and takes seconds to load

    store = _Store(MlflowClient(tracking_uri=tracker.uri or beside(run)), tracker.experiment or book.job.name)
    parent = store.ensemble(book)
    known = {one.data.tags.get(DIGEST): one for one in store.found(f"tags.`{PARENT}` = '{parent}'")}
    for page in book.pages:
        store.member(page, parent, book, known.get(page.digest))


def beside(run: Path) -> str:
    """The store of a run folder whose job names none."""
    return f"sqlite:///{run.absolute().parent / 'mlflow.db'}"


class _Store:
    """One experiment of a store."""

    def __init__(self, client: Any, experiment: str) -> None:
        self._client = client
        found = client.get_experiment_by_name(experiment)
        self._experiment = found.experiment_id if found else client.create_experiment(experiment)

    def found(self, words: str) -> Iterator[Any]:
        """The runs of which this holds."""
        token: str | None = None
        while True:
            some = self._client.search_runs(
                [self._experiment], words, max_results=RUNS_AT_ONCE, page_token=token
            )
            yield from some
            token = some.token
            if not token:
                return

    def ensemble(self, book: Book) -> str:
        """The id of the ensemble's run, with its newest numbers in it."""
        own = next(self.found(f"tags.`{MARK}` = '{book.mark}'"), None)
        if own is None:
            tags = {MARK: book.mark, NAME: book.name}
            own = self._client.create_run(self._experiment, _ms(book.began), tags)
        number: str = own.info.run_id
        if SEAL not in own.data.tags:
            self._describe(number, parameters(book.job), own.data.params)
        if own.data.tags.get(SEAL) != book.seal:
            finals = [(name, value, _ms(book.ended), book.number) for name, value in book.finals.items()]
            self._measure(number, finals)
            self._client.set_tag(number, SEAL, book.seal)
            self._client.set_terminated(number, "FINISHED", _ms(book.ended))
        return number

    def member(self, page: Page, parent: str, book: Book, known: Any | None) -> None:
        """A member's run; one of an earlier training, or that was not written to its end, is replaced."""
        if known is not None and (known.data.tags.get(SEAL) != page.seal or known.info.status == "RUNNING"):
            self._client.delete_run(known.info.run_id)
            known = None
        if known is None:
            self._write(page, parent, book)
        elif known.data.tags.get(CHOSEN) != str(page.chosen):
            self._client.set_tag(known.info.run_id, CHOSEN, str(page.chosen))

    def _write(self, page: Page, parent: str, book: Book) -> None:
        """In few calls, since each is a transaction."""
        from mlflow.entities import Param, RunTag

        tags = {PARENT: parent, NAME: page.id, DIGEST: page.digest, CHOSEN: str(page.chosen)}
        began = min((point.time for point in page.points), default=book.began)
        told = tags | {"status": page.status, "reason": page.reason}
        number: str = self._client.create_run(self._experiment, _ms(began), told).info.run_id
        points = [(point.name, point.value, _ms(point.time), point.step) for point in page.points]
        last = max((point.step for point in page.points), default=0)
        finals = [(f"final/{name}", value, _ms(page.ended), last) for name, value in page.finals.items()]
        *early, rest = list(_metrics([*points, *finals])) or [[]]
        for some in early:
            self._client.log_batch(number, metrics=some)
        params = [Param(_key(key), value[:VALUE_UP_TO]) for key, value in page.values.items()][
            :PARAMS_AT_ONCE
        ]
        self._client.log_batch(number, metrics=rest, params=params, tags=[RunTag(SEAL, page.seal)])
        self._client.set_terminated(
            number, "FINISHED" if page.status == "done" else "FAILED", _ms(page.ended)
        )

    def _describe(self, number: str, values: Mapping[str, str], known: Mapping[str, str]) -> None:
        """Write the parameters that are not there yet: one that is may not change."""
        from mlflow.entities import Param

        named = {_key(key): value[:VALUE_UP_TO] for key, value in values.items()}
        params = [Param(key, value) for key, value in named.items() if key not in known]
        for some in _parts(params, PARAMS_AT_ONCE):
            self._client.log_batch(number, params=some)

    def _measure(self, number: str, points: Sequence[tuple[str, float, int, int]]) -> None:
        for some in _metrics(points):
            self._client.log_batch(number, metrics=some)


def _metrics(points: Sequence[tuple[str, float, int, int]]) -> Iterator[list[Any]]:
    """Name, value, time and step of each, as MLflow has them, in parts that it takes in one call."""
    from mlflow.entities import Metric

    return _parts([Metric(_key(name), *rest) for name, *rest in points], METRICS_AT_ONCE)


def _key(name: str) -> str:
    """The name with what MLflow takes in keys."""
    return re.sub(r"[^\w\-./ :]", "_", name)[:250]


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _parts(values: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(values)
    while some := list(islice(rest, size)):
        yield some
