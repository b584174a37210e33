"""What a search that learns is told of its trials: each one's own loss, or what it adds to the ensemble of the others.

Shapes: T trials, K members, N validation rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.marginal import marginal_gains
from ensemble_svc.aggregate.pools import LikelihoodPool, Pool, accuracy_pool, squared_error_pool
from ensemble_svc.course import Ready
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.search.asking import by_trial, losses
from ensemble_svc.spec.aggregate import Greedy
from ensemble_svc.spec.search import SearchMetric, SearchSpec, full_epochs
from ensemble_svc.store.members import Sealed, read_tensors, sealed, was_cut
from ensemble_svc.store.run import Run

FILE = "predictions-validation.safetensors"


def told(ready: Ready, members: Sequence[MemberSpec]) -> list[float | None]:
    """What to tell of each trial, less is better; None of one that has nothing to show.

    Args:
        members: of all trials, in order.
    """
    search, seals = ready.job.search, sealed(ready.run.path)
    assert search is not None
    own = losses(search, members, seals)
    if search.objective == "loss":
        return own
    sound = [t for t, loss in enumerate(own) if loss is not None and math.isfinite(loss)]
    if not sound:
        return own
    select = ready.job.aggregate.select
    picks = (select if isinstance(select, Greedy) else Greedy()).picks
    pool = _pool(ready, search, members, sound)
    gains = dict(zip(sound, marginal_gains(pool, picks), strict=True))
    return [-gains[t] if t in gains else loss for t, loss in enumerate(own)]


def candidates_of(ready: Ready, members: Sequence[MemberSpec]) -> tuple[list[int], Pool | None]:
    """The trials that may be in the ensemble, by number, and as candidates of a selection by the search's metric.

    Args:
        members: of all trials, in order.

    Returns:
        None for a pool where no trial can be judged.
    """
    search, seals = ready.job.search, sealed(ready.run.path)
    assert search is not None
    own = losses(search, members, seals)
    sound = [t for t, loss in enumerate(own) if loss is not None and math.isfinite(loss)]
    trials, full = by_trial(search, members), full_epochs(search, ready.job.training.epochs)
    cut = [any(was_cut(seals[m.digest], full) for m in trials[t] if m.digest in seals) for t in sound]
    whole = [t for t, short in zip(sound, cut, strict=True) if not short]
    found = whole if whole and search.candidates == "finished" else sound
    return found, _pool(ready, search, members, found) if found else None


def _pool(ready: Ready, search: SearchSpec, members: Sequence[MemberSpec], numbers: Sequence[int]) -> Pool:
    """Some trials, of which each has predictions, as candidates."""
    target = torch.from_numpy(ready.prepared.dataset.y[ready.prepared.split.validation])
    trials, seals = by_trial(search, members), sealed(ready.run.path)
    return pool_of_trials(search.metric, [_said(ready.run, trials[t], seals) for t in numbers], target)


def pool_of_trials(metric: SearchMetric, trials: Sequence[Mapping[str, Tensor]], target: Tensor) -> Pool:
    """The trials as candidates of a selection, each the equal mixture of its members.

    Args:
        trials: of each, its members' predictions of the rows, [K, N, …].
    """
    match metric:
        case "nll":
            return LikelihoodPool(torch.stack([_mixed(log_likelihood(some, target)) for some in trials]))
        case "accuracy":
            return accuracy_pool(torch.stack([_mixed(some["log_probs"].double()) for some in trials]), target)
        case "rmse":
            return squared_error_pool(torch.stack([some["mean"].double().mean(0) for some in trials]), target)


def _mixed(log_KN: Tensor) -> Tensor:
    """Log of the mean over the members."""
    return log_KN.logsumexp(0) - math.log(len(log_KN))


def _said(run: Run, members: Sequence[MemberSpec], seals: Sealed) -> dict[str, Tensor]:
    """The predictions of a trial's members, or of those that they stand for."""
    each = []
    for member in members:
        if member.digest in seals:
            found = read_tensors(run.path, seals[member.digest]["files"], member.id, FILE)
            virtual = member.num_virtual > 0
            each.append({name: t if virtual else t.unsqueeze(0) for name, t in found.items()})
    return {name: torch.cat([one[name] for one in each]) for name in each[0]}
