"""Rules of one domain of a search space: a law one can draw from."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.domains import LAWS, Domain
from ensemble_svc.spec.wording import shown


def broken(domain: Domain) -> Iterator[tuple[KeyPath, str]]:
    """Keys below a domain, and what is wrong there whatever the domain is for."""
    laws = domain.laws
    if len(laws) != 1:
        known = ", ".join(LAWS)
        given = f"{' and '.join(laws)} are given" if laws else "no law is given"
        yield (), f"{given}; give one of {known}"
        return
    (law,) = laws
    if law == "choice":
        if not domain.choice:
            yield (law,), "[] holds no value; give at least one, or drop the key"
        return
    first, second, *rest = getattr(domain, law)
    if law == "normal":
        if second <= 0:
            yield (law, 1), f"{shown(second)} is not allowed; a standard deviation is above 0"
        return
    if first > second or (first == second and law != "randint"):
        words = f"from {shown(first)} to {shown(second)} there is nothing to draw from"
        yield (law,), f"{words}; give the smaller number first"
    elif law in ("loguniform", "qloguniform") and first <= 0:
        yield (law, 0), f"{shown(first)} has no logarithm; give a number above 0, or uniform"
    elif rest and not 0 < rest[0] <= second - first:
        words = f"{shown(rest[0])} is no step from {shown(first)} to {shown(second)}"
        yield (law, 2), f"{words}; give a number above 0 that is at most their difference"
