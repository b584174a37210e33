"""Which contests and probes a command runs, and how often."""

from __future__ import annotations

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


def narrowed(selection: Selection, works: list[str], contenders: list[str]) -> Selection:
    """The parts of a selection that are named; everything where nothing is.

    Raises:
        ValueError: a name that stands for nothing.
    """
    known = {*WORKS, *PROBES}
    if unknown := [name for name in works if name not in known]:
        raise ValueError(f"'{unknown[0]}' is no work or probe; there are {', '.join(sorted(known))}")
    if unknown := [name for name in contenders if name not in CONTENDERS]:
        raise ValueError(f"'{unknown[0]}' is no contender; there are {', '.join(CONTENDERS)}")
    contests = [
        Contest(contest.work, tuple(contenders) or contest.contenders)
        for contest in selection.contests
        if not works or contest.work in works
    ]
    probes = tuple(name for name in selection.probes if not works or name in works)
    return Selection(tuple(contests), probes)
