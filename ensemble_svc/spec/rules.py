"""Rules between keys, each a generator of the keys that contradict each other and a sentence on why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Any, Final

from ensemble_svc.spec.clash import Clash as Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.computerules import compute
from ensemble_svc.spec.data import PythonSource
from ensemble_svc.spec.datarules import fractions, preprocess, source, stream, tables
from ensemble_svc.spec.decisions import decision_clashes
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import PythonModel
from ensemble_svc.spec.searchrules import search_clashes
from ensemble_svc.spec.single import single_clashes
from ensemble_svc.spec.starts import start_clashes
from ensemble_svc.spec.taskrules import task_clashes
from ensemble_svc.spec.trainrules import (
    auto_rate,
    averages,
    early_stopping,
    measures,
    mixing,
    network,
    recipe,
    schedule,
    sparsity,
)
from ensemble_svc.spec.virtual import virtual_clashes
from ensemble_svc.spec.wording import shown


def clashes(job: JobSpec) -> Iterator[Clash]:
    """The rules that ``job`` itself breaks, whatever its members vary."""
    for rule in _RULES:
        yield from rule(job)


def _numbers(job: JobSpec) -> Iterator[Clash]:
    """Options whose type is the user's own: no digest, and no file, can hold an infinite number."""
    own: dict[KeyPath, Any] = {("ensemble", "vary"): job.ensemble.vary}
    for key, domain in (job.search.space if job.search else {}).items():
        own["search", "space", key, "choice"] = domain.choice
    if isinstance(job.data.source, PythonSource):
        own["data", "source", "options"] = job.data.source.options
    if isinstance(job.model, PythonModel):
        own["model", "options"] = job.model.options
    for start, value in own.items():
        for path, number in _infinite(value, start):
            yield Clash((path,), f"{shown(number)} is not allowed; must be a finite number")


def _infinite(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, float]]:
    if isinstance(value, float) and not isfinite(value):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _infinite(item, (*path, key))
    elif isinstance(value, tuple | list):
        for index, item in enumerate(value):
            yield from _infinite(item, (*path, index))


_RULES: Final[tuple[Callable[[JobSpec], Iterator[Clash]], ...]] = (
    fractions,
    source,
    preprocess,
    tables,
    mixing,
    task_clashes,
    early_stopping,
    averages,
    virtual_clashes,
    single_clashes,
    start_clashes,
    measures,
    decision_clashes,
    search_clashes,
    recipe,
    network,
    sparsity,
    schedule,
    auto_rate,
    stream,
    compute,
    _numbers,
)
