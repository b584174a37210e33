"""Which members join the ensemble, and with what weight, decided on rows that none of them was trained on.

``greedy`` is forward selection with replacement (Caruana, Niculescu-Mizil, Crew & Ksikes 2004, "Ensemble
Selection from Libraries of Models"): the member whose joining makes the ensemble best is added, again and
again, and may be added again; weights are counts over the total. The ensemble of the shortest prefix with
the best score is kept, so the score on these rows is never worse than that of the best single member. It was
chosen by that score, so it is no estimate of what the ensemble does elsewhere: report on other rows.

Nothing here is random but ``bagged``, whose subsets come from a seed. Scores within 1e-12 of the best
(relative) are ties: of them the members already picked go first (a smaller ensemble costs less to serve),
then the one of lowest position. The picks are those of AutoGluon's EnsembleSelection, which draws from the
last ties at random instead.

Shapes: K members.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ensemble_svc.aggregate.pools import Pool
from ensemble_svc.errors import EnsembleError

TIE = 1e-12
"""Scores nearer than this share of the best one are equal."""
LARGE_ENOUGH = 1e-4
"""Scores are rounded only if the first one is farther from 0 than this."""


@dataclass(frozen=True)
class Selection:
    """The chosen members."""

    weights: tuple[float, ...]
    """One per candidate, sum 1; 0 for those left out."""
    picks: tuple[int, ...]
    """Positions in the order of choice; a member may come more than once."""
    scores: tuple[float, ...]
    """Score on the selection rows after each pick; of ``bagged``, within each bag."""

    @property
    def chosen(self) -> tuple[int, ...]:
        """Positions of the members with positive weight, ascending."""
        return tuple(k for k, weight in enumerate(self.weights) if weight > 0)


def take_all(num_members: int) -> Selection:
    """Every member, with equal weights.

    Raises:
        EnsembleError: no members.
    """
    check_size("members", num_members)
    return Selection(equal_picks(range(num_members), num_members), tuple(range(num_members)), ())


def top_k(pool: Pool, size: int) -> Selection:
    """The ``size`` members that score best alone, best first, with equal weights; of equals the first.

    ``scores`` holds the ensemble's after each, which may well get worse.

    Raises:
        EnsembleError: a size below 1 or above the number of members.
    """
    check_size("size", size, pool.num_members)
    return _taking(pool, _ranking(pool)[:size])


def greedy(
    pool: Pool,
    max_picks: int,
    *,
    sorted_start: int = 0,
    decimals: int | None = 6,
    patience: int | None = None,
) -> Selection:
    """Forward selection with replacement.

    Args:
        pool: the members with their score on the selection rows.
        max_picks: picks tried; the best prefix of them is kept.
        sorted_start: begin with the best of the prefixes of at most this many of the members that are best
            alone, one pick each, so that early picks do not overfit (Caruana's sorted initialisation).
        decimals: scores are rounded to so many, so that round-off chooses nobody; None compares them as
            they are.
        patience: stop after so many picks without a better score; None goes on to ``max_picks``.

    Returns:
        The kept picks. Its last score is the best of all, and never worse than the best single member's.

    Raises:
        EnsembleError: sizes out of range; no candidate with a finite score.
    """
    check_size("max_picks", max_picks)
    if not 0 <= sorted_start <= min(max_picks, pool.num_members):
        raise EnsembleError(
            f"sorted_start is {sorted_start}; it must be from 0 to {min(max_picks, pool.num_members)}, the "
            "smaller of max_picks and the number of members."
        )
    return _climb(pool, range(pool.num_members), max_picks, (sorted_start, decimals, patience))


def bagged(
    pool: Pool,
    max_picks: int,
    *,
    bags: int,
    share: float,
    seed: int,
    sorted_start: int = 0,
    decimals: int | None = 6,
) -> Selection:
    """Mean of the weights of greedy selections, each from a random subset of the members.

    A member that shines on these rows by luck is missing from some of the bags, so it can take no more
    than its share (Caruana's bagged selection). It may score worse here than the best single member.

    Args:
        bags: number of selections.
        share: of the members in each bag, in (0, 1]; at least one is drawn.
        seed: of the subsets, a function of it, ``bags`` and the number of members alone.

    Raises:
        EnsembleError: sizes out of range; no candidate of a bag with a finite score.
    """
    check_size("bags", bags)
    if not 0 < share <= 1:
        raise EnsembleError(f"share is {share}; it is the share of the members in a bag, above 0, at most 1.")
    generator = torch.Generator().manual_seed(seed)
    size = max(1, round(share * pool.num_members))
    each = []
    for _ in range(bags):
        among = sorted(torch.randperm(pool.num_members, generator=generator)[:size].tolist())
        each.append(_climb(pool, among, max_picks, (min(sorted_start, size), decimals, None)))
    return Selection(
        tuple(math.fsum(column) / bags for column in zip(*(one.weights for one in each), strict=True)),
        tuple(pick for one in each for pick in one.picks),
        tuple(score for one in each for score in one.scores),
    )


def _climb(
    pool: Pool, among: Sequence[int], max_picks: int, options: tuple[int, int | None, int | None]
) -> Selection:
    sorted_start, decimals, patience = options
    start = _sorted_prefix(pool, among, sorted_start) if sorted_start else Selection((), (), ())
    picks, total = list(start.picks), pool.empty()
    for pick in picks:
        total = pool.add(total, pick)
    errors = [_sign(pool) * score for score in start.scores]
    places = _places(errors[0], decimals) if errors else None
    errors = [_rounded(error, places) for error in errors]
    while len(picks) < max_picks and not _stalled(errors, patience):
        error = _errors(pool, total, len(picks), among, places)
        best = _best(error, [k in picks for k in among])
        picks.append(among[best])
        if not errors:
            places = _places(error[best], decimals)
        errors.append(_rounded(error[best], places))
        total = pool.add(total, among[best])
    fewest = max(1, len(start.picks))  # a sorted start is taken whole
    kept = errors.index(min(errors[fewest - 1 :]), fewest - 1) + 1
    return Selection(
        equal_picks(picks[:kept], pool.num_members),
        tuple(picks[:kept]),
        tuple(_sign(pool) * error + 0.0 for error in errors[:kept]),
    )


def _sorted_prefix(pool: Pool, among: Sequence[int], longest: int) -> Selection:
    """The best of the prefixes of the members sorted by their own scores."""
    whole = _taking(pool, [k for k in _ranking(pool) if k in set(among)][:longest])
    errors = [_sign(pool) * score for score in whole.scores]
    length = errors.index(min(errors)) + 1
    return Selection((), whole.picks[:length], whole.scores[:length])


def _taking(pool: Pool, picks: Sequence[int]) -> Selection:
    total, scores = pool.empty(), []
    for size, pick in enumerate(picks):
        scores += pool.trial(total, size, [pick])
        total = pool.add(total, pick)
    return Selection(equal_picks(picks, pool.num_members), tuple(picks), tuple(scores))


def _ranking(pool: Pool) -> list[int]:
    everyone = range(pool.num_members)
    errors = _errors(pool, pool.empty(), 0, everyone, None)
    return sorted(everyone, key=errors.__getitem__)


def _errors(pool: Pool, total: Tensor, size: int, among: Sequence[int], places: int | None) -> list[float]:
    """What is to be least; a score that is not finite beats nothing."""
    errors = [_rounded(_sign(pool) * score, places) for score in pool.trial(total, size, among)]
    errors = [error if math.isfinite(error) else math.inf for error in errors]
    if min(errors) == math.inf:
        raise EnsembleError(
            "no choice of members has a finite score on these rows, so none can be preferred; "
            "select by another metric."
        )
    return errors


def _best(errors: Sequence[float], used: Sequence[bool]) -> int:
    least = min(errors)
    ties = [i for i, error in enumerate(errors) if abs(error - least) <= TIE * abs(least)]
    return next((i for i in ties if used[i]), ties[0])


def _stalled(errors: Sequence[float], patience: int | None) -> bool:
    if patience is None or not errors:
        return False
    return len(errors) - 1 - errors.index(min(errors)) >= patience


def _places(first_error: float, decimals: int | None) -> int | None:
    return decimals if abs(first_error) > LARGE_ENOUGH else None


def _rounded(value: float, places: int | None) -> float:
    return value if places is None else round(value, places)


def _sign(pool: Pool) -> int:
    return -1 if pool.higher_is_better else 1


def equal_picks(picks: Sequence[int], num_members: int) -> tuple[float, ...]:
    """Weights of picks that count the same: counts over the total."""
    counts = [0] * num_members
    for pick in picks:
        counts[pick] += 1
    return tuple(count / len(picks) for count in counts)


def check_size(name: str, size: int, most: int | None = None) -> None:
    """Refuse a number below 1 or above the most.

    Raises:
        EnsembleError: naming it.
    """
    if size < 1 or (most is not None and size > most):
        bound = "" if most is None else f" and at most {most}"
        raise EnsembleError(f"{name} is {size}; it must be at least 1{bound}.")
