"""Rules of a search space: laws one can draw from, choices they can stand under, configurations that lie in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ensemble_svc.errors import did_you_mean
from ensemble_svc.spec.anatomy import Shape
from ensemble_svc.spec.askers import Grid, Sobol, Tpe
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.domainrules import broken
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.faults import explain
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.spaces import Dim, laws_within, looks_like_law, numbers_of
from ensemble_svc.spec.wording import shown

MOST_SOBOL_KEYS = 21_201
"""Dimensions that the sequence has."""
_SPACE: KeyPath = ("search", "space")


def space_clashes(search: SearchSpec) -> Iterator[Clash]:
    """What is wrong with the space, whatever keys it has."""
    if not search.space:
        yield Clash((_SPACE,), "{} has no key to search; give one, such as training.optimizer.lr")
    faults = [fault for key, domain in search.space.items() for fault in _law(search, domain, (*_SPACE, key))]
    yield from faults
    if not faults:
        yield from _circles(search)
        yield from _algorithm(search)


def _law(search: SearchSpec, domain: Domain, where: KeyPath) -> Iterator[Clash]:
    """One law, what it stands under, and the laws within the items of its choice."""
    faults = list(broken(domain))
    yield from (Clash(((*where, *below),), words) for below, words in faults)
    for key, values in (domain.when or {}).items():
        if words := _under(search, key, values, own=str(where[2])):
            yield Clash(((*where, "when", key),), words)
    if domain.when == {}:
        yield Clash(((*where, "when"),), "{} holds no condition; give one, or drop the key")
    for number, item in enumerate(domain.choice or ()):
        place = (*where, "choice", number)
        yield from _unread(item, place)
        for path, law in laws_within(item):
            yield from _law(search, law, (*place, *path))
    if domain.choice and not faults:
        yield from _alike(domain, where)


def _under(search: SearchSpec, key: str, values: object, *, own: str) -> str:
    """What is wrong with a condition on another key; nothing where all is well."""
    if key not in search.space:
        return f"is no key of search.space.{did_you_mean(key[:100], search.space)}"
    items = search.space[key].choice
    if key == own:
        return "is the key itself; a law stands under another one"
    if items is None:
        return "has no choice; a law can only stand under one of the items of a choice"
    if not numbers_of(values, items):
        known = ", ".join(shown(item) for item in items[:8])
        return f"{shown(values)} is none of the items of '{escaped(key)}': {known}"
    return ""


def _unread(value: object, place: KeyPath) -> Iterator[Clash]:
    """What is meant as a law within an item of a choice and is none."""
    if looks_like_law(value):
        try:
            Domain.model_validate(value)
        except ValidationError as error:
            for finding in explain(error, value, Shape(Domain)):
                yield Clash(((*place, *finding.path),), finding.message)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _unread(item, (*place, key))
    elif isinstance(value, tuple | list):
        for number, item in enumerate(value):
            yield from _unread(item, (*place, number))


def _alike(domain: Domain, where: KeyPath) -> Iterator[Clash]:
    """Two items that only the laws within them tell apart."""
    (dim, *_) = SearchSpec(space={str(where[2]): domain.model_copy(update={"when": None})}).flat.dims
    plain = dim.domain.choice or ()
    for number, item in enumerate(domain.choice or ()):
        first = plain.index(plain[number])
        if first < number and (any(laws_within(item)) or any(laws_within(dim.whole[first]))):
            words = f"and item {first} differ in nothing but the laws within them; make one item of the two"
            yield Clash(((*where, "choice", number),), words)


def _circles(search: SearchSpec) -> Iterator[Clash]:
    for dim in search.flat.dims:
        if dim in search.flat.above(dim):
            words = "a law cannot stand under a choice that stands under it"
            yield Clash(((*_SPACE, *dim.where, "when"),), words)


def _algorithm(search: SearchSpec) -> Iterator[Clash]:
    """A grid has an end of values, and a sequence of dimensions."""
    dims = search.flat.dims
    if isinstance(search.algorithm, Sobol) and len(dims) > MOST_SOBOL_KEYS:
        yield Clash((_SPACE,), f"{len(dims):,} keys; the sequence has {MOST_SOBOL_KEYS:,} dimensions")
    if isinstance(search.algorithm, Tpe) and search.algorithm.sampler == "gp" and search.flat.parents:
        words = "'gp' knows keys that every trial has, and some of this space stand under choices; use tpe"
        yield Clash((("search", "algorithm", "sampler"), _SPACE), words)
    if not isinstance(search.algorithm, Grid):
        return
    for dim in dims:
        if dim.domain.num_values is None:
            (law,) = dim.domain.laws
            words = f"{law} has no end of values, and a grid has them all; use choice, randint, quniform or qloguniform"
            yield Clash(((*_SPACE, *dim.where, law), ("search", "algorithm")), words)


def first_clashes(search: SearchSpec) -> Iterator[Clash]:
    """Configurations to begin with that are not in the space."""
    if search.first and isinstance(search.algorithm, Grid):
        yield Clash((("search", "first"), ("search", "algorithm")), "a grid tries every configuration anyway")
        return
    known = list(dict.fromkeys(dim.key for dim in search.flat.dims))
    for number, given in enumerate(search.first):
        where: KeyPath = ("search", "first", number)
        for key in given:
            if key not in known:
                yield Clash(((*where, key),), f"is no key of search.space.{did_you_mean(key[:100], known)}")
        yield from _configuration(search, given, where)


def _configuration(search: SearchSpec, given: Mapping[str, Any], where: KeyPath) -> Iterator[Clash]:
    """Whether one configuration has each key that its choices leave, and no other."""
    found, used = dict[str, Any](), set[str]()
    for dim in search.flat.dims:
        if not dim.is_drawn(found, search.flat.by_name):
            continue
        used.add(dim.key)
        if dim.key not in given:
            words = f"'{escaped(dim.key)}' is missing; a configuration gives every key of the space"
            yield Clash((where,), words)
        elif not dim.domain.holds(given[dim.key]):
            words = f"{shown(given[dim.key])} is not in the space: {shown(dim.domain.model_dump())}"
            yield Clash(((*where, dim.key),), words)
        else:
            found[dim.name] = given[dim.key]
    for dim in search.flat.dims:
        if dim.key in given and dim.key not in used and _settled(dim, found):
            yield Clash(
                ((*where, dim.key),), f"is not drawn under {_above(dim, search)} as given here; drop it"
            )


def _settled(dim: Dim, found: Mapping[str, Any]) -> bool:
    """Whether the choices that a dimension stands under are right themselves."""
    return all(one.dim in found for one in dim.under)


def _above(dim: Dim, search: SearchSpec) -> str:
    return ", ".join(f"'{escaped(search.flat.by_name[one.dim].key)}'" for one in dim.under)
