"""Which members are sick: those whose training came to nothing.

A member is sick when, of the epoch whose weights are kept (the last one, or the best where it stops early),

- it *diverged*: the loss or a weight was not finite;
- it was *never better than guessing*: in no epoch was its training loss below that of the best answer that
  is the same for every row;
- it *collapsed*: it was better once, and in the kept epoch is no longer.

Better means by ``MARGIN`` of the guess's loss, or of a nat where that is less. A classifier whose validation
NLL beats guessing is well too: mixed or noisy training rows can have a loss that no network brings down. Numbers
that are mixed in training spread less than the rows' own, and any constant beats guessing on them; there the kept
weights are judged by the member's own rows as they are. Looking at the layers (``compute.health``) decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MARGIN = 0.01

History = Sequence[Mapping[str, float | int]]


@dataclass(frozen=True)
class Verdict:
    """Why a member is sick."""

    kind: str
    """``divergence`` or ``guessing``."""
    reason: str
    """Half a sentence."""


def sickness(
    history: History,
    *,
    diverged: str,
    kept: int,
    guess: float,
    classes: bool,
    unmixed: float | None = None,
) -> Verdict | None:
    """What makes the member sick, or None.

    Args:
        history: a row for each epoch.
        diverged: the reason, where the loss or a weight was not finite; else empty.
        kept: the epoch whose weights are kept, from 1; 0 for those before training.
        guess: loss of the best constant answer on the member's training rows.
        classes: whether the history's ``val_nll`` can be compared with it.
        unmixed: loss of the kept weights on the member's own rows, where those of the history are of mixed numbers.
    """
    if diverged:
        return Verdict("divergence", diverged)
    bound = guess - MARGIN * min(1.0, abs(guess))
    if unmixed is not None:
        told = f"its loss on its rows, unmixed, is {unmixed:.4g}, and guessing gives {guess:.4g}"
        return None if unmixed < bound else Verdict("guessing", f"no better than guessing: {told}")
    better = [n for n, row in enumerate(history, 1) if _beats(row, bound, classes)]
    if kept in better or not history:
        return None
    row = history[max(kept, 1) - 1]
    told = f"its training loss is {row['train_loss']:.4g}, and guessing gives {guess:.4g}"
    if not better:
        return Verdict("guessing", f"never better than guessing: {told}")
    return Verdict(
        "guessing", f"collapsed: in epoch {kept} {told}, though it was better in epoch {better[-1]}"
    )


def _beats(row: Mapping[str, float | int], bound: float, classes: bool) -> bool:
    return row["train_loss"] < bound or (classes and row.get("val_nll", bound) < bound)
