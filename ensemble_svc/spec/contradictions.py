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

from ensemble_svc.errors import Fault, SpecError, did_you_mean
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
from ensemble_svc.spec.training import TrainingSpec
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
    data = _sections(job)
    for key, value in varied.items():
        data = put(data, split_path(key, data), value)
    try:
        model, training, augment = (_PARTS[key].validate_python(_part(data, key)) for key in _PARTS)
        return Varied(model, training, augment, varied)
    except ValidationError as error:
        raise SpecError(f"member {index} is given values that are not allowed: {error}") from error


def _sections(job: JobSpec) -> dict[str, Any]:
    """The part of the job that may vary, as a job file would hold it."""
    data: dict[str, Any] = frozen(
        job.model_dump(include={"model": True, "training": True, "data": {"augment"}})
    )
    return data


def _part(data: Mapping[str, Any], section: str) -> Any:
    """What of a section may vary: of the data, the augmentation."""
    return data["data"]["augment"] if section == "data" else data[section]


def _vary_faults(job: JobSpec) -> Iterator[Clash]:
    """Keys that do not exist, that lie within one another, or whose values are not allowed."""
    data, seen = _sections(job), dict[KeyPath, KeyPath]()
    for where, values in _varied(job).items():
        key = str(where[2])
        path = _vary_path(key, data)
        if path is None:
            yield Clash((where,), f"no such key in model, training or data.augment{_near_key(key, data)}")
            continue
        if within := [other for start, other in seen.items() if overlaps(start, [path])]:
            yield Clash((where,), _twice(within[0], where))
        seen[path] = where
        if not values and where[0] == "ensemble":
            yield Clash((where,), "[] holds no value; give at least one, or drop the key")
        for below, value in values:
            yield from _value_faults(frozen(value), path, data, where=(*where, *below))


def _varied(job: JobSpec) -> dict[KeyPath, list[tuple[KeyPath, Any]]]:
    """Every key that varies, where it is given, with the values that tell whether all are allowed.

    A domain that holds nothing has none; another rule speaks of it.
    """
    found: dict[KeyPath, list[tuple[KeyPath, Any]]] = {}
    for key, values in job.ensemble.vary.items():
        found["ensemble", "vary", key] = [((index,), value) for index, value in enumerate(values)]
    for key, domain in (job.search.space if job.search else {}).items():
        found["search", "space", key] = domain.ends() if len(domain.laws) == 1 else []
    return found


def _twice(other: KeyPath, where: KeyPath) -> str:
    """What is wrong with a key that varies within another one, or with it."""
    if other[2] == where[2]:
        return f"is in {dotted(other[:2])} too; give it in one place"
    name = f"'{escaped(str(other[2]))}'"
    section = "" if other[0] == where[0] else f" of {dotted(other[:2])}"
    return f"lies within {name}{section}, which varies too; vary one of them"


def _vary_path(key: str, data: Mapping[str, Any]) -> KeyPath | None:
    """The key path, a choice's name standing for the choice; None where the job has no such key."""
    try:
        path = split_path(key, data)
        put(data, path, None)
    except SpecError:
        return None
    allowed = path[0] in data and (path[0] != "data" or path[1:2] == ("augment",))
    if not allowed or shape_at(data, path) is None:
        return None
    parent = shape_at(data, path[:-1])
    return path[:-1] if path[-1] == "name" and parent and parent.choices else path


def _value_faults(value: Any, path: KeyPath, data: Mapping[str, Any], *, where: KeyPath) -> Iterator[Clash]:
    section = str(path[0])
    changed = put(data, path, value)
    start: KeyPath = ("data", "augment") if section == "data" else (section,)
    part = _part(changed, section)
    try:
        _PARTS[section].validate_python(part)
    except ValidationError as error:
        for finding in explain(error, part, shape_at(changed, start) or JOB):
            found = (*start, *finding.path)
            prefix = "" if found in (path, (*path, "name")) else f"{dotted(found)}: "
            yield Clash((where,), f"{prefix}{finding.message}")


def _near_key(key: str, data: Mapping[str, Any]) -> str:
    known = list(_keys(data))
    ends = [path for path in known if path.endswith(f".{key}")]
    near = f" Did you mean '{ends[0]}'?" if ends else did_you_mean(key[:100], known)
    return f".{near}" if near else ", and only those can vary"


def _keys(data: Mapping[str, Any], start: str = "") -> Iterator[str]:
    for key, value in data.items():
        yield f"{start}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{start}{key}.")


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
    data, varied = _sections(job), list(_varied(job))
    for path in clash.paths:
        for where in varied:
            if overlaps(split_path(str(where[2]), data), [path]):
                return where
    return varied[0][:2]
