"""Which contests and probes a command runs, and how often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.contenders import CONTENDERS
from benchmarks.probes import PROBES
from benchmarks.work import WORKS


@dataclass(frozen=True)
class Contest:
    """A work and who does it."""

    work: str
    contenders: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """What one command measures."""

    contests: tuple[Contest, ...]
    probes: tuple[str, ...]


EVERYONE = tuple(CONTENDERS)
OURS_AND_LOOP = ("loop", "loop_default", "ours_packed", "ours_auto")
CONVOLUTIONS = tuple(name for name in CONTENDERS if name not in ("tune", "loop_default"))
"""Trials without reuse_actors are left out: they lose by their process starts, whatever the network."""

SELECTIONS = {
    "quick": Selection(
        (
            Contest("digits16", ("loop", "lightning", "joblib", "ours_auto")),
            Contest("lenet10", ("loop", "joblib", "ours_auto")),
        ),
        ("rate64", "memory_mlp"),
    ),
    "full": Selection(
        (
            Contest("digits16", EVERYONE),
            Contest("digits64", OURS_AND_LOOP),
            Contest("lenet10", CONVOLUTIONS),
            Contest("convnet8", CONVOLUTIONS),
        ),
        tuple(PROBES),
    ),
}


def select(*, full: bool, only: Sequence[str], contenders: Sequence[str]) -> Selection:
    """What a command line asks for; what ``only`` names is measured even if the short selection leaves it out.

    Raises:
        ValueError: a name that stands for nothing.
    """
    _refuse_unknown("work or probe", only, {**WORKS, **PROBES})
    _refuse_unknown("contender", contenders, CONTENDERS)
    chosen = SELECTIONS["full" if full else "quick"]
    if only:
        everything = {one.work: one for one in (*SELECTIONS["full"].contests, *chosen.contests)}
        contests = tuple(everything[name] for name in WORKS if name in only)
        chosen = Selection(contests, tuple(name for name in PROBES if name in only))
    if contenders:
        contests = tuple(Contest(one.work, tuple(contenders)) for one in chosen.contests)
        chosen = Selection(contests, chosen.probes)
    return chosen


def _refuse_unknown(kind: str, names: Sequence[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"'{name}' is no {kind}; there are {', '.join(known)}")
