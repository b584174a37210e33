"""What the members of a job vary: which keys, with which values, and where a searched key stands under a choice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ensemble_svc.errors import SpecError, did_you_mean
from ensemble_svc.spec.anatomy import shape_at
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.override import put, split_path
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.spaces import Dim, Space, filled
from ensemble_svc.spec.wording import shown
from ensemble_svc.spec.yaml import frozen


def sections(job: JobSpec) -> dict[str, Any]:
    """The part of the job that may vary, as a job file would hold it."""
    data: dict[str, Any] = frozen(
        job.model_dump(include={"model": True, "training": True, "data": {"augment"}})
    )
    return data


def part_of(data: Mapping[str, Any], section: str) -> Any:
    """What of a section may vary: of the data, the augmentation."""
    return data["data"]["augment"] if section == "data" else data[section]


class Given(NamedTuple):
    """A key that varies."""

    where: KeyPath
    """Where that is said."""
    key: str
    values: Sequence[tuple[KeyPath, Any]]
    """Those that tell whether all are allowed, each with its place below ``where``; none of a domain that holds
    nothing, which another rule speaks of."""
    dim: Dim | None = None


def every_given(job: JobSpec) -> Iterator[Given]:
    """Every key that varies; one of a search that stands under a choice after it."""
    for key, values in job.ensemble.vary.items():
        items = [((index,), value) for index, value in enumerate(values)]
        yield Given(("ensemble", "vary", key), key, items)
    for dim in job.search.flat.dims if job.search else ():
        ends = dim.domain.ends() if len(dim.domain.laws) == 1 else []
        if dim.domain.choice is not None:
            ends = [(("choice", index), filled(item)) for index, item in enumerate(dim.whole)]
        yield Given(("search", "space", *dim.where), dim.key, ends, dim)


def under(data: dict[str, Any], space: Space, dim: Dim | None) -> dict[str, Any]:
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


def item_with(given: Given, space: Space, data: dict[str, Any]) -> tuple[str, str] | None:
    """The choice of the space, and the first of its items, that would have a key which the job has not."""
    for parent in space.dims:
        if given.key.startswith(f"{parent.key}."):
            for whole, plain in zip(parent.whole, parent.domain.choice or (), strict=True):
                there = put(data, split_path(parent.key, data), frozen(filled(whole)))
                if vary_path(given.key, there) is not None:
                    return escaped(parent.key), shown(plain).strip("'")
    return None


def never_at_odds(one: Given, other: Given, space: Space) -> bool:
    """Whether two keys of a search that lie within one another are never at odds."""
    if one.dim is None or other.dim is None:
        return False
    return (
        one.dim in space.above(other.dim)
        or other.dim in space.above(one.dim)
        or space.apart(one.dim, other.dim)
    )


def vary_path(key: str, data: Mapping[str, Any]) -> KeyPath | None:
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


def near_key(key: str, data: Mapping[str, Any]) -> str:
    known = list(_keys(data))
    ends = [path for path in known if path.endswith(f".{key}")]
    near = f" Did you mean '{ends[0]}'?" if ends else did_you_mean(key[:100], known)
    return f".{near}" if near else ", and only those can vary"


def _keys(data: Mapping[str, Any], start: str = "") -> Iterator[str]:
    for key, value in data.items():
        yield f"{start}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{start}{key}.")
