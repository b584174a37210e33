"""Jobs whose every value is right and that still cannot be what was meant; and what members vary.

``ensemble.vary`` deals the values of each of its keys to the members in turn, and ``search`` draws values for
each trial, so a job stands for as many recipes as it has members, and each of them must keep the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from math import lcm
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.spec.anatomy import JOB, shape_at
from ensemble_svc.spec.augment import Augment
from ensemble_svc.spec.compose import KeyPath, dotted
from ensemble_svc.spec.draws import drawn
from ensemble_svc.spec.faults import explain, overlaps
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import Model
from ensemble_svc.spec.override import put, split_path
from ensemble_svc.spec.rules import Clash, clashes
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.spaces import Space
from ensemble_svc.spec.training import TrainingSpec
from ensemble_svc.spec.varying import (
    Given,
    every_given,
    item_with,
    near_key,
    never_at_odds,
    part_of,
    sections,
    under,
    vary_path,
)
from ensemble_svc.spec.yaml import frozen

MAX_RECIPES = 256
"""Members whose recipes are checked for contradictions; further ones repeat or recombine values."""

_PARTS: Final[dict[str, TypeAdapter[Any]]] = {
    "model": TypeAdapter(Model),
    "training": TypeAdapter(TrainingSpec),
    "data": TypeAdapter(tuple[Augment, ...]),
}
"""What of each section may vary."""


def contradictions(job: JobSpec) -> list[Fault]:
    """Every rule between keys that ``job`` breaks; empty for a job that makes sense."""
    return [Fault(dotted(clash.paths[0]), clash.message) for clash in all_clashes(job)]


def all_clashes(job: JobSpec) -> Iterator[Clash]:
    """The rules that the job breaks as it stands, and those that what its members vary breaks."""
    own = list(clashes(job))
    yield from own
    if faults := list(_vary_faults(job)):
        told = {clash.paths[0] for clash in own}
        yield from (fault for fault in faults if fault.paths[0] not in told)
    elif not any(clash.paths[0][0] == "search" for clash in own) and (job.ensemble.vary or job.search):
        yield from _recipe_clashes(job, {clash.message for clash in own})


class Varied(NamedTuple):
    """A member's own recipe."""

    model: Model
    training: TrainingSpec
    augment: tuple[Augment, ...]
    keys: dict[str, Any]
    """In what it departs from the job, by dotted path."""


def resolve_vary(job: JobSpec, index: int) -> Varied:
    """The recipe of member ``index``.

    Values are dealt in turn: member i has value ``i % len(values)`` of each key of ``ensemble.vary``. Those of a
    search are drawn for its trial.

    Raises:
        SpecError: keys or values that ``contradictions`` would have refused.
    """
    varied = {key: frozen(values[index % len(values)]) for key, values in job.ensemble.vary.items()}
    if job.search is not None:
        varied |= drawn(job, index // job.search.seeds_per_trial)
    if not varied:
        return Varied(job.model, job.training, job.data.augment, varied)
    data = sections(job)
    for key, value in sorted(varied.items(), key=_depth):
        data = put(data, split_path(key, data), value)
    try:
        model, training, augment = (_PARTS[key].validate_python(part_of(data, key)) for key in _PARTS)
        return Varied(model, training, augment, varied)
    except ValidationError as error:
        raise SpecError(f"member {index} is given values that are not allowed: {error}") from error


def _depth(item: tuple[str, Any]) -> int:
    """A choice is put in place before its options."""
    return item[0].count(".")


def _vary_faults(job: JobSpec) -> Iterator[Clash]:
    """Keys that do not exist, that lie within one another, or whose values are not allowed."""
    seen = list[tuple[KeyPath, Given]]()
    space = job.search.flat if job.search else Space({})
    for given in every_given(job):
        data = under(sections(job), space, given.dim)
        path = vary_path(given.key, data)
        if path is None:
            words = f"no such key in model, training or data.augment{near_key(given.key, data)}"
            if item := item_with(given, space, sections(job)):
                words = f"is a key of some items of {item[0]} alone; add when: {{{item[0]}: {item[1]}}}"
            yield Clash((given.where,), words)
            continue
        if within := [
            one for start, one in seen if overlaps(start, [path]) and not never_at_odds(one, given, space)
        ]:
            yield Clash((given.where,), _twice(within[0].where, given.where))
        seen.append((path, given))
        if not given.values and given.where[0] == "ensemble":
            yield Clash((given.where,), "[] holds no value; give at least one, or drop the key")
        for below, value in given.values:
            yield from _value_faults(frozen(value), path, data, where=(*given.where, *below))


def _twice(other: KeyPath, where: KeyPath) -> str:
    """What is wrong with a key that varies within another one, or with it."""
    if other[2] == where[2]:
        return f"is in {dotted(other[:2])} too; give it in one place"
    name = f"'{escaped(str(other[2]))}'"
    section = "" if other[0] == where[0] else f" of {dotted(other[:2])}"
    return f"lies within {name}{section}, which varies too; vary one of them"


def _value_faults(value: Any, path: KeyPath, data: Mapping[str, Any], *, where: KeyPath) -> Iterator[Clash]:
    section = str(path[0])
    changed = put(data, path, value)
    start: KeyPath = ("data", "augment") if section == "data" else (section,)
    part = part_of(changed, section)
    try:
        _PARTS[section].validate_python(part)
    except ValidationError as error:
        for finding in explain(error, part, shape_at(changed, start) or JOB):
            found = (*start, *finding.path)
            prefix = "" if found in (path, (*path, "name")) else f"{dotted(found)}: "
            yield Clash((where,), f"{prefix}{finding.message}")


def _recipe_clashes(job: JobSpec, known: set[str]) -> Iterator[Clash]:
    """Rules that a member's recipe breaks though the job's own does not; each is told once."""
    period = lcm(*(len(values) for values in job.ensemble.vary.values()))
    period = job.ensemble.members if job.search else period
    for index in islice(range(job.ensemble.members), min(period, MAX_RECIPES)):
        own = resolve_vary(job, index)
        augmented = job.data.model_copy(update={"augment": own.augment})
        recipe = job.model_copy(update={"model": own.model, "training": own.training, "data": augmented})
        for clash in clashes(recipe):
            if clash.message not in known:
                known.add(clash.message)
                words = f"member {index} would have {dotted(clash.paths[0])}: {clash.message}"
                yield Clash((_cause(clash, job), *clash.paths), words)


def _cause(clash: Clash, job: JobSpec) -> KeyPath:
    """The varied key that a recipe's contradiction comes from."""
    data, varied = sections(job), list(every_given(job))
    for path in clash.paths:
        for given in varied:
            if overlaps(split_path(given.key, data), [path]):
                return given.where
    return varied[0].where[:2]
