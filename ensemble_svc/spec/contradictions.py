"""Jobs whose every value is right and that still cannot be what was meant; and what members vary.

``ensemble.vary`` deals the values of each of its keys to the members in turn, and ``search`` draws values for
each trial, so a job stands for as many recipes as it has members, and each of them must keep the rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from ensemble_svc.spec.spaces import Dim, Space, filled
from ensemble_svc.spec.training import TrainingSpec
from ensemble_svc.spec.wording import shown
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
    for key, value in sorted(varied.items(), key=_depth):
        data = put(data, split_path(key, data), value)
    try:
        model, training, augment = (_PARTS[key].validate_python(_part(data, key)) for key in _PARTS)
        return Varied(model, training, augment, varied)
    except ValidationError as error:
        raise SpecError(f"member {index} is given values that are not allowed: {error}") from error


def _depth(item: tuple[str, Any]) -> int:
    """A choice is put in place before its options."""
    return item[0].count(".")


def _sections(job: JobSpec) -> dict[str, Any]:
    """The part of the job that may vary, as a job file would hold it."""
    data: dict[str, Any] = frozen(
        job.model_dump(include={"model": True, "training": True, "data": {"augment"}})
    )
    return data


def _part(data: Mapping[str, Any], section: str) -> Any:
    """What of a section may vary: of the data, the augmentation."""
    return data["data"]["augment"] if section == "data" else data[section]


class _Given(NamedTuple):
    """A key that varies."""

    where: KeyPath
    """Where that is said."""
    key: str
    values: Sequence[tuple[KeyPath, Any]]
    """Those that tell whether all are allowed, each with its place below ``where``; none of a domain that holds
    nothing, which another rule speaks of."""
    dim: Dim | None = None


def _vary_faults(job: JobSpec) -> Iterator[Clash]:
    """Keys that do not exist, that lie within one another, or whose values are not allowed."""
    seen = list[tuple[KeyPath, _Given]]()
    space = job.search.flat if job.search else Space({})
    for given in _varied(job):
        data = _under(_sections(job), space, given.dim)
        path = _vary_path(given.key, data)
        if path is None:
            words = f"no such key in model, training or data.augment{_near_key(given.key, data)}"
            if item := _item_with(given, space, _sections(job)):
                words = f"is a key of some items of {item[0]} alone; add when: {{{item[0]}: {item[1]}}}"
            yield Clash((given.where,), words)
            continue
        if within := [
            one for start, one in seen if overlaps(start, [path]) and not _ordered(one, given, space)
        ]:
            yield Clash((given.where,), _twice(within[0].where, given.where))
        seen.append((path, given))
        if not given.values and given.where[0] == "ensemble":
            yield Clash((given.where,), "[] holds no value; give at least one, or drop the key")
        for below, value in given.values:
            yield from _value_faults(frozen(value), path, data, where=(*given.where, *below))


def _varied(job: JobSpec) -> Iterator[_Given]:
    """Every key that varies; one of a search that stands under a choice after it."""
    for key, values in job.ensemble.vary.items():
        items = [((index,), value) for index, value in enumerate(values)]
        yield _Given(("ensemble", "vary", key), key, items)
    for dim in job.search.flat.dims if job.search else ():
        ends = dim.domain.ends() if len(dim.domain.laws) == 1 else []
        if dim.domain.choice is not None:
            ends = [(("choice", index), filled(item)) for index, item in enumerate(dim.whole)]
        yield _Given(("search", "space", *dim.where), dim.key, ends, dim)


def _under(data: dict[str, Any], space: Space, dim: Dim | None) -> dict[str, Any]:
    """The sections as they are where a dimension is drawn: its choices fallen on the first items that allow it."""
    if dim is None:
        return data
    choices = {one.dim: one for some in (dim, *space.above(dim)) for one in some.under}
    parents = [space.by_name[name] for name in choices if name in space.by_name]
    for parent in sorted(parents, key=lambda parent: parent.key.count(".")):
        number = min(choices[parent.name].numbers, default=0)
        if number >= len(parent.whole):
            continue
        try:
            data = put(data, split_path(parent.key, data), frozen(filled(parent.whole[number])))
        except SpecError:
            continue
    return data


def _item_with(given: _Given, space: Space, data: dict[str, Any]) -> tuple[str, str] | None:
    """The choice of the space, and the first of its items, that would have a key which the job has not."""
    for parent in space.dims:
        if given.key.startswith(f"{parent.key}."):
            for whole, plain in zip(parent.whole, parent.domain.choice or (), strict=True):
                there = put(data, split_path(parent.key, data), frozen(filled(whole)))
                if _vary_path(given.key, there) is not None:
                    return escaped(parent.key), shown(plain).strip("'")
    return None


def _ordered(one: _Given, other: _Given, space: Space) -> bool:
    """Whether two keys of a search that lie within one another are never at odds."""
    if one.dim is None or other.dim is None:
        return False
    return (
        one.dim in space.above(other.dim)
        or other.dim in space.above(one.dim)
        or space.apart(one.dim, other.dim)
    )


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
        for given in varied:
            if overlaps(split_path(given.key, data), [path]):
                return given.where
    return varied[0].where[:2]
