"""Asking an algorithm that learns for more trials, given what became of the earlier ones.

The sampler has no state of its own: it is made anew for each round, seeded by the job and the number of the round's
first trial, and told the earlier trials in their order. So a round is a function of the results before it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.askers import Tpe
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.search import HIGHER_IS_BETTER, SearchSpec
from ensemble_svc.store.members import Sealed

Values = Mapping[str, Any]
"""What a trial has at each key of the space."""
WORST: Final = math.inf


def losses(search: SearchSpec, members: Sequence[MemberSpec], seals: Sealed) -> list[float | None]:
    """The metric of each trial on held-out rows, turned so that less is better: the mean of its members'.

    ``WORST`` where a member diverged or was excluded; None where no member was sealed.

    Args:
        members: of all trials, in order.
    """
    trials = groupby(members, key=lambda member: member.index // search.seeds_per_trial)
    return [_loss(search, [seals[m.digest] for m in some if m.digest in seals]) for _, some in trials]


def _loss(search: SearchSpec, seals: Sequence[Mapping[str, Any]]) -> float | None:
    if not seals:
        return None
    held = [seal["metrics"].get("validation") or seal["metrics"].get("oob") or {} for seal in seals]
    sign = -1.0 if search.metric in HIGHER_IS_BETTER else 1.0
    values = [sign * one.get(search.metric, math.nan) for one in held]
    sound = all(seal["status"] == "done" for seal in seals) and all(map(math.isfinite, values))
    return math.fsum(values) / len(values) if sound else WORST


def ask(
    search: SearchSpec, seed: int, tried: Sequence[tuple[Values, float | None]], count: int
) -> tuple[dict[str, Any], ...]:
    """The values of the next ``count`` trials; fewer are the first of more.

    Args:
        seed: of the job.
        tried: every earlier trial with its loss; one without is left out of what is learned.
    """
    import optuna  # here, since a job that does not search need not wait for it

    assert isinstance(search.algorithm, Tpe)
    logging.getLogger("optuna").setLevel(logging.WARNING)
    kinds = {key: _distribution(domain) for key, domain in search.space.items()}
    sampler = optuna.samplers.TPESampler(
        seed=derive_seed(seed, len(tried), "search") % 2**32,
        n_startup_trials=search.algorithm.startup,
        multivariate=True,
        constant_liar=True,
    )
    study = optuna.create_study(sampler=sampler)
    state = optuna.trial.TrialState
    for values, loss in tried:
        params = {key: _told(domain, values[key]) for key, domain in search.space.items()}
        ended = {"state": state.FAIL} if loss is None else {"state": state.COMPLETE, "value": loss}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, **ended))
    asked = [study.ask(kinds).params for _ in range(count)]
    return tuple({key: _value(d, params[key]) for key, d in search.space.items()} for params in asked)


def _distribution(domain: Domain) -> Any:
    """The domain as Optuna knows it: a normal law by its quantile, what has finitely many values by their number."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.choice is not None:
        return CategoricalDistribution(range(len(domain.choice)))
    if (count := domain.num_values) is not None:
        return IntDistribution(0, count - 1)
    if domain.normal is not None:
        return FloatDistribution(0.0, 1.0)
    (_, low), (_, high) = domain.ends()
    return FloatDistribution(low, high, log=domain.loguniform is not None)


def _told(domain: Domain, value: Any) -> Any:
    """A value as its distribution has it."""
    if domain.num_values is not None:
        return domain.number(value)
    return domain.quantile(value) if domain.normal is not None else float(value)


def _value(domain: Domain, param: Any) -> Any:
    """The inverse of ``_told``."""
    if domain.num_values is not None:
        return domain.value(param)
    return domain.at(min(param, 1 - 2**-53)) if domain.normal is not None else param
