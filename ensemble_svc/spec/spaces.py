"""A search space laid flat: each law with the key that it sets, and the choices under which it is drawn.

A law stands under a choice in either of two ways, which come to the same: within an item of it, or with ``when``.

    training.optimizer: {choice: [{name: sgd, momentum: {uniform: [0, 0.99]}}, adamw]}

    training.optimizer: {choice: [sgd, adamw]}
    training.optimizer.momentum: {uniform: [0, 0.99], when: {training.optimizer: sgd}}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from ensemble_svc.registry import frozen
from ensemble_svc.spec.domains import LAWS, Domain

KeyPath = tuple[str | int, ...]
Found = dict[str, Any]
"""The values that were drawn, by dimension."""


@dataclass(frozen=True)
class Under:
    """A choice that must have fallen on one of some items."""

    dim: str
    numbers: frozenset[int]


@dataclass(frozen=True, eq=False)
class Dim:
    """One dimension of a space."""

    name: str
    """The key; of a law within an item of a choice with the item's number, ``training.optimizer[0].momentum``."""
    key: str
    """What it sets, by dotted path."""
    where: KeyPath
    """Where its law is given, below ``search.space``."""
    domain: Domain
    """Its law; the items of a choice are without the laws within them."""
    under: tuple[Under, ...]
    whole: tuple[Any, ...] = ()
    """The items of a choice as they are given, the laws within them included."""

    def is_drawn(self, found: Found, dims: Mapping[str, Dim]) -> bool:
        """Whether it is there, given the values of the dimensions before it."""
        return all(
            one.dim in found and dims[one.dim].domain.number(found[one.dim]) in one.numbers
            for one in self.under
        )


class Space:
    """The dimensions of a space in an order in which each comes after those that it depends on."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        flat = [
            dim for key, domain in domains.items() for dim in _laid(key, key, (key,), domain, domains, ())
        ]
        self.dims = tuple(_ordered(flat))
        self.by_name = {dim.name: dim for dim in self.dims}
        self.parents = frozenset(one.dim for dim in self.dims for one in dim.under)
        """The dimensions that others depend on."""
        self._counts: dict[tuple[int, tuple[tuple[str, int], ...]], int] = {}

    @property
    def laws(self) -> dict[str, dict[str, Any]]:
        """The law of every key that it sets, those within the items of its choices included.

        Where a key is drawn by one law under one choice and by another under the next, the first stands for both.
        """
        found: dict[str, dict[str, Any]] = {}
        for dim in self.dims:
            found.setdefault(dim.key, dim.domain.model_dump(mode="json"))
        return found

    def draw(self, value: Callable[[Dim], Any]) -> dict[str, Any]:
        """The values by key, each dimension that is there asked for its own."""
        found: Found = {}
        for dim in self.dims:
            if dim.is_drawn(found, self.by_name):
                found[dim.name] = value(dim)
        return {self.by_name[name].key: own for name, own in found.items()}

    def placed(self, values: Mapping[str, Any]) -> Found:
        """The values of a configuration, given by key, by dimension; the inverse of ``draw``."""
        found: Found = {}
        for dim in self.dims:
            if dim.key in values and dim.is_drawn(found, self.by_name):
                found[dim.name] = values[dim.key]
        return found

    def above(self, dim: Dim) -> Iterator[Dim]:
        """The dimensions that this one depends on, also through others; those of a circle once."""
        seen, open_ = set[str](), [one.dim for one in dim.under]
        while open_:
            name = open_.pop()
            if name not in seen and name in self.by_name:
                seen.add(name)
                yield self.by_name[name]
                open_ += [one.dim for one in self.by_name[name].under]

    def apart(self, one: Dim, other: Dim) -> bool:
        """Whether the two are never drawn together."""
        own = {u.dim: u.numbers for dim in (one, *self.above(one)) for u in dim.under}
        return any(
            not u.numbers & own.get(u.dim, u.numbers)
            for dim in (other, *self.above(other))
            for u in dim.under
        )

    @property
    def num_cells(self) -> int:
        """Configurations of a grid."""
        return self._count(0, {})

    def cell(self, number: int) -> dict[str, Any]:
        """A configuration of the grid by its number from 0; the last key changes fastest."""
        found: Found = {}
        for position, dim in enumerate(self.dims):
            if not dim.is_drawn(found, self.by_name):
                continue
            values = (dim.domain.value(v) for v in range(dim.domain.num_values or 1))
            if dim.name not in self.parents:
                index, number = divmod(number, self._count(position + 1, found))
                found[dim.name] = dim.domain.value(index)
                continue
            for value in values:
                found[dim.name] = value
                if number < (rest := self._count(position + 1, found)):
                    break
                number -= rest
        return {self.by_name[name].key: own for name, own in found.items()}

    def _count(self, position: int, found: Found) -> int:
        """Cells of the dimensions from a position on, given the values before it.

        Only the choices that these dimensions stand under matter, which is what is kept.
        """
        named = dict.fromkeys(
            one.dim for dim in self.dims[position:] for one in dim.under if one.dim in found
        )
        known = (position, tuple((name, self.by_name[name].domain.number(found[name])) for name in named))
        if known not in self._counts:
            self._counts[known] = self._counted(position, found)
        return self._counts[known]

    def _counted(self, position: int, found: Found) -> int:
        total = 1
        for later in range(position, len(self.dims)):
            dim = self.dims[later]
            if not dim.is_drawn(found, self.by_name):
                continue
            if dim.name in self.parents:
                values = (dim.domain.value(number) for number in range(dim.domain.num_values or 1))
                return total * sum(self._count(later + 1, {**found, dim.name: value}) for value in values)
            total *= dim.domain.num_values or 1
        return total


def laws_by_key(space: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """As ``Space.laws``, of a space as a resolved job holds it."""
    return Space({key: Domain.model_validate(frozen(law)) for key, law in space.items()}).laws


def filled(value: Any) -> Any:
    """An item of a choice with a value in place of each law within it."""
    if (law := law_of(value)) is not None:
        return filled(law.at(0.0)) if len(law.laws) == 1 else None
    if isinstance(value, Mapping):
        return {key: filled(item) for key, item in value.items()}
    return tuple(map(filled, value)) if isinstance(value, tuple | list) else value


def looks_like_law(value: Any) -> bool:
    """Whether what stands in an item of a choice is meant as a law of its own."""
    if not isinstance(value, Mapping) or not value or "name" in value:
        return False
    return any(get_close_matches(str(key)[:100].lower(), LAWS, n=1, cutoff=0.8) for key in value)


def law_of(value: Any) -> Domain | None:
    """The law that stands in an item of a choice; None for plain values, and for a law that is none."""
    if not looks_like_law(value):
        return None
    try:
        return Domain.model_validate(value)
    except ValidationError:
        return None


def numbers_of(values: Any, items: Sequence[Any]) -> frozenset[int]:
    """Which items of a choice ``when`` speaks of: the value itself, or each of a list of values."""
    own = [number for number, item in enumerate(items) if _means(values, item)]
    if not own and isinstance(values, tuple | list):
        own = [number for number, item in enumerate(items) for value in values if _means(value, item)]
    return frozenset(own)


def _means(value: Any, item: Any) -> bool:
    """Whether a value of ``when`` is an item of a choice, or its name."""
    plain = _without_laws(item)
    return bool(value in (item, plain) or (isinstance(plain, Mapping) and plain.get("name") == value))


def _laid(
    name: str,
    key: str,
    where: KeyPath,
    domain: Domain,
    domains: Mapping[str, Domain],
    under: tuple[Under, ...],
) -> Iterator[Dim]:
    """The dimensions of one law: its own, and those within the items of its choice."""
    for other, values in (domain.when or {}).items():
        items = domains[other].choice if other in domains else None
        under = (*under, Under(other, numbers_of(values, items or ())))
    if domain.choice is None:
        yield Dim(name, key, where, domain, under)
        return
    plain = Domain(choice=tuple(_without_laws(item) for item in domain.choice))
    yield Dim(name, key, where, plain, under, domain.choice)
    for number, item in enumerate(domain.choice):
        for path, law in laws_within(item):
            inner, place = ".".join(map(str, path)), (*where, "choice", number, *path)
            own = Under(name, frozenset({number}))
            yield from _laid(f"{name}[{number}].{inner}", f"{key}.{inner}", place, law, domains, (own,))


def laws_within(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Domain]]:
    """The laws in an item of a choice, each with its place there."""
    if path and (law := law_of(value)) is not None:
        yield path, law
    else:
        for key, item in _items(value):
            yield from laws_within(item, (*path, key))


def _without_laws(item: Any) -> Any:
    """An item of a choice less the laws within it; the bare name where nothing else is left."""
    if not any(True for _ in laws_within(item)):
        return item
    rest = _stripped(item)
    return rest["name"] if isinstance(rest, Mapping) and list(rest) == ["name"] else rest


def _stripped(value: Any) -> Any:
    """A mapping without the keys that hold laws; a list keeps a value in a law's place, which the law puts away."""
    if isinstance(value, Mapping):
        return {key: _stripped(item) for key, item in value.items() if law_of(item) is None}
    if isinstance(value, tuple | list):
        return tuple(filled(item) if law_of(item) else _stripped(item) for item in value)
    return value


def _items(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, tuple | list) else ()


def _ordered(dims: Sequence[Dim]) -> Iterator[Dim]:
    """As given, but each after those that it depends on; of a circle, which no job may have, as given."""
    left, done = list(dims), set[str]()
    while left:
        ready = next((d for d in left if all(one.dim in done for one in d.under)), left[0])
        left.remove(ready)
        done.add(ready.name)
        yield ready
