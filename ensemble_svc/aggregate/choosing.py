"""Making a decision: members selected, weighed and calibrated on held-out rows.

Out-of-bag rows are pooled as mixtures whatever ``combine`` says (the rules of the job allow no other there).

Shapes: K candidates, N held-out rows, C classes, D targets; M chosen members.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration import isotonic, temperature, variance, vector
from ensemble_svc.aggregate.calibration.conformal import (
    PredictionIntervals,
    PredictionSets,
    fit_intervals,
    fit_sets,
)
from ensemble_svc.aggregate.calibration.plain import Calibration, to_plain
from ensemble_svc.aggregate.decision import Decision, HeldOut, Pooling, Prediction, apply
from ensemble_svc.aggregate.diverse import diverse, errors_of
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.outofbag import (
    OutOfBagPool,
    greedy_out_of_bag,
    out_of_bag_classes,
    out_of_bag_likelihood,
    out_of_bag_numbers,
)
from ensemble_svc.aggregate.pools import LikelihoodPool, Pool, accuracy_pool, brier_pool, squared_error_pool
from ensemble_svc.aggregate.selection import Selection, bagged, greedy, take_all, top_k
from ensemble_svc.aggregate.stacking import by_likelihood
from ensemble_svc.errors import EnsembleError
from ensemble_svc.spec.aggregate import (
    AggregateSpec,
    All,
    Calibrate,
    Combine,
    Diverse,
    Geometric,
    Greedy,
    Isotonic,
    Mean,
    NoCalibration,
    Score,
    Select,
    Stacking,
    Temperature,
    TopK,
    Variance,
    Vector,
    Vote,
)


def decide(spec: AggregateSpec, ids: Sequence[str], held_out: HeldOut | None, *, seed: int) -> Decision:
    """The ensemble that the job asks for.

    Args:
        ids: of the K candidates.
        held_out: None where there are none; then nothing may be asked that needs them.
        seed: of what is random (bags of a selection).

    Raises:
        EnsembleError: held-out predictions that cannot be selected from or calibrated on.
    """
    held_out, promising = shared_out(spec, held_out, seed)
    chosen, pooling = _select(spec, len(ids), held_out, seed), pooling_of(spec.combine)
    members = chosen.chosen
    decision = Decision(
        members=tuple(ids[k] for k in members),
        weights=tuple(chosen.weights[k] for k in members),
        combine=pooling,
        picks=tuple(ids[k] for k in chosen.picks) if not isinstance(spec.select, All) else (),
        scores=chosen.scores,
    )
    if held_out is None:
        return decision
    used = chosen.scores or not isinstance(spec.select, All) or isinstance(spec.combine, Stacking)
    if isinstance(spec.calibrate, NoCalibration) and spec.conformal is None:
        facts = {"rows": held_out.kind, "num_rows": len(held_out)} if used else {}
        return decision.model_copy(update=facts)
    decision = decision.model_copy(update={"rows": held_out.kind, "num_rows": len(held_out)})
    return fitted_to(decision, spec, members, held_out, promising)


def fitted_to(
    decision: Decision,
    spec: AggregateSpec,
    members: Sequence[int],
    held_out: HeldOut,
    promising: HeldOut | None,
) -> Decision:
    """The decision with the calibration and the sets or intervals that ``spec`` asks for.

    Args:
        members: positions of the chosen among the candidates.
        held_out: the rows that calibrate.
        promising: those that the coverage is fitted on.
    """
    own = held_out.of(members)
    fitted = _calibrate(spec.calibrate, decision, own)
    if fitted is not None:
        decision = decision.model_copy(update={"calibration": to_plain(fitted)})
    if spec.conformal is not None and promising is not None:
        covered = _conformal(decision, promising.of(members), spec.conformal)
        decision = decision.model_copy(update={"conformal": to_plain(covered)})
    return decision


def shared_out(
    spec: AggregateSpec, held_out: HeldOut | None, seed: int
) -> tuple[HeldOut | None, HeldOut | None]:
    """The rows that select and calibrate, and those on which sets or intervals are fitted.

    Coverage is promised of rows that decided nothing else, so where more is decided each has one half.

    Raises:
        EnsembleError: as ``HeldOut.check``.
    """
    if held_out is not None:
        held_out.check()
    more = any(rule.needs_rows for rule in (spec.combine, spec.select, spec.calibrate))
    if held_out is None or spec.conformal is None or not more:
        return held_out, held_out
    order = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(seed))
    first, second = (half.sort().values for half in order.tensor_split(2))
    return held_out.at(first), held_out.at(second)


def pooling_of(choice: Combine) -> Pooling:
    """How the predictions of weighed members become one; a blend is a mixture."""
    match choice:
        case Mean() | Stacking():
            return "mean"
        case Geometric():
            return "geometric"
        case Vote():
            return "vote"


def _select(spec: AggregateSpec, num_members: int, held_out: HeldOut | None, seed: int) -> Selection:
    select: Select = spec.select
    if held_out is None or (isinstance(select, All) and not isinstance(spec.combine, Stacking)):
        return take_all(num_members)
    match select:
        case All():
            assert isinstance(spec.combine, Stacking)
            likelihood_KN = likelihood_of(held_out)
            blend = by_likelihood(likelihood_KN, prior_rows=spec.combine.prior_rows)
            return Selection(blend.weights, tuple(range(num_members)), ())
        case Greedy() if held_out.seen_KN is not None:
            likelihood_KN = likelihood_of(held_out)
            return greedy_out_of_bag(OutOfBagPool(likelihood_KN, held_out.seen_KN), select.picks)
        case TopK() | Greedy():
            return by_pool(select, pool_of(select.score, held_out), seed)
        case Diverse(k=k):
            error_K, disagreement_KK = errors_of(held_out.members, held_out.target)
            return diverse(error_K, disagreement_KK, min(k, num_members), diversity=select.diversity)


def by_pool(select: TopK | Greedy, pool: Pool, seed: int) -> Selection:
    """The selection among candidates of which a pool tells the score.

    Args:
        seed: of the bags.
    """
    if isinstance(select, TopK):
        return top_k(pool, min(select.k, pool.num_members))
    start = min(select.sorted_start, select.picks, pool.num_members)
    if not select.bags:
        return greedy(pool, select.picks, sorted_start=start)
    return bagged(pool, select.picks, bags=select.bags, share=select.share, seed=seed, sorted_start=start)


def pool_of(score: Score, held_out: HeldOut) -> Pool:
    """The candidates as a selection by ``score`` sees them.

    By likelihood it holds one number of each candidate and row. By another score it looks at all that they say, again
    and again, and where only some of the rows select it holds what is said of those.
    """
    if score in ("auto", "nll"):
        return LikelihoodPool(likelihood_of(held_out))
    members, target = held_out.members, held_out.target
    match score:
        case "accuracy":
            return accuracy_pool(members["log_probs"], target)
        case "brier":
            return brier_pool(members["log_probs"], target)
        case _:
            return squared_error_pool(members["mean"], target)


def likelihood_of(held_out: HeldOut) -> Tensor:
    """What each candidate gave each row's truth, [K, N] float64, a piece of the rows at a time."""
    return torch.cat([log_likelihood(some.said, some.target) for some in held_out.pieces()], dim=1)


def _pooled(decision: Decision, own: HeldOut) -> tuple[Prediction, Tensor]:
    """The ensemble's prediction of the deciding rows, and their targets; training rows by who did not see them."""
    each = [_pooled_piece(decision, some) for some in own.pieces()]
    prediction = {name: torch.cat([said[name] for said, _ in each]) for name in each[0][0]}
    return prediction, torch.cat([target for _, target in each])


def _pooled_piece(decision: Decision, own: HeldOut) -> tuple[Prediction, Tensor]:
    if own.seen_KN is None:
        return apply(decision, own.members), own.target
    weights_M = torch.tensor(decision.weights, dtype=torch.float64)
    if "log_probs" in own.members:
        found = out_of_bag_classes(own.members["log_probs"], own.seen_KN, weights_M)
        if isinstance(
            calibrator := decision.calibrator,
            temperature.Temperature | vector.VectorScaling | isotonic.Isotonic,
        ):
            found.prediction["log_probs"] = calibrator.apply(found.prediction["log_probs"])
    else:
        members = own.members
        calibrator = decision.calibrator
        if isinstance(calibrator, variance.VarianceScale):
            members = {**members, "log_variance": calibrator.apply(members["log_variance"])}
        found = out_of_bag_numbers(members["mean"], members.get("log_variance"), own.seen_KN, weights_M)
    scored_N = found.scored_N
    return {name: value[scored_N] for name, value in found.prediction.items()}, own.target[scored_N]


def _calibrate(choice: Calibrate, decision: Decision, own: HeldOut) -> Calibration | None:
    match choice:
        case NoCalibration():
            return None
        case Variance():
            if own.seen_KN is None:
                weights_M = torch.tensor(decision.weights, dtype=torch.float64)
                return variance.fit_mixtures(lambda: _numbers(own), weights_M)
            return variance.fit_scale(lambda scale: _log_densities(own, decision, scale))
        case Temperature():
            return _temperature(choice, decision, own)
        case Vector():
            pooled, target = _pooled(decision, own)
            return vector.fit_vector(pooled["log_probs"], target)
        case Isotonic():
            pooled, target = _pooled(decision, own)
            return isotonic.fit_isotonic(pooled["log_probs"], target)


def _temperature(choice: Temperature, decision: Decision, own: HeldOut) -> temperature.Temperature:
    pooled, target = _pooled(decision, own)
    after = temperature.fit_after(pooled["log_probs"], target)
    if choice.when == "after" or own.seen_KN is not None or decision.combine != "mean":
        return after
    weights_M = torch.tensor(decision.weights, dtype=torch.float64)
    before = temperature.fit_before_pooling(lambda: _classes(own), weights_M)
    if choice.when == "before":
        return before
    losses = [
        sum(-t.pool(said, weights_M).gather(1, y[:, None]).double().sum() for said, y in _classes(own))
        for t in (after, before)
    ]
    return after if losses[0] <= losses[1] else before


def _log_densities(own: HeldOut, decision: Decision, scale: float) -> Iterator[Tensor]:
    """Of the rows [n] that some did not see, a piece at a time: of the mixture of those, their variances scaled."""
    weights_M = torch.tensor(decision.weights, dtype=torch.float64)
    for some in own.pieces():
        assert some.seen_KN is not None
        wide = {**some.said, "log_variance": some.said["log_variance"].double() + math.log(scale)}
        told_n, voters_n = out_of_bag_likelihood(log_likelihood(wide, some.target), some.seen_KN, weights_M)
        yield told_n[voters_n > 0]


def _classes(own: HeldOut) -> Iterator[tuple[Tensor, Tensor]]:
    """Log probabilities [M, n, C] and targets [n], a piece at a time."""
    return ((some.said["log_probs"], some.target) for some in own.pieces())


def _numbers(own: HeldOut) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Means and log variances [M, n, D] and targets [n, D], a piece at a time."""
    return ((some.said["mean"], some.said["log_variance"], some.target) for some in own.pieces())


def _conformal(decision: Decision, own: HeldOut, alpha: float) -> PredictionSets | PredictionIntervals:
    pooled, target = _pooled(decision, own)
    if (least := math.ceil(1 / alpha) - 1) > len(target):
        raise EnsembleError(
            f"aggregate.conformal {alpha} needs at least {least} held-out rows, and there are {len(target)}."
        )
    if "log_probs" in pooled:
        return fit_sets(pooled["log_probs"], target, alpha=alpha)
    return fit_intervals(pooled["mean"], pooled.get("log_variance"), target, alpha=alpha)
