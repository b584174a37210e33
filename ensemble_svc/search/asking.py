"""Asking an algorithm that learns for more trials, given what became of the earlier ones.

The sampler has no state of its own: it is made anew for each round, seeded by the job and the number of the round's
first trial, and told the earlier trials in their order. So a round is a function of the results before it.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.registry import frozen
from ensemble_svc.spec.askers import Algorithm, Tpe
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.spaces import Dim, Space
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
    trials = by_trial(search, members)
    return [_loss(search, [seals[m.digest] for m in some if m.digest in seals]) for some in trials]


def by_trial(search: SearchSpec, members: Sequence[MemberSpec]) -> list[list[MemberSpec]]:
    """The members of each trial; they are given in order."""
    return [list(some) for _, some in groupby(members, key=lambda m: m.index // search.seeds_per_trial)]


def _loss(search: SearchSpec, seals: Sequence[Mapping[str, Any]]) -> float | None:
    if not seals:
        return None
    held = [seal["metrics"].get("validation") or seal["metrics"].get("oob") or {} for seal in seals]
    sign = toward_less(search.metric)
    values = [sign * one.get(search.metric, math.nan) for one in held]
    sound = all(seal["status"] == "done" for seal in seals) and all(map(math.isfinite, values))
    return math.fsum(values) / len(values) if sound else WORST


def ask(
    search: SearchSpec, seed: int, tried: Sequence[tuple[Values, float | None]], count: int
) -> tuple[dict[str, Any], ...]:
    """The values of the next ``count`` trials by what was learned; fewer are the first of more.

    Args:
        seed: of the job.
        tried: every earlier trial with its loss; one without is left out of what is learned.
    """
    import optuna  # here, since a job that does not search need not wait for it

    logging.getLogger("optuna").setLevel(logging.WARNING)
    space = search.flat
    study = optuna.create_study(
        sampler=_sampler(search.algorithm, space, derive_seed(seed, len(tried), "search"))
    )
    for values, loss in tried:
        study.add_trial(_trial(space, values, loss))
    return tuple(_asked(study, space) for _ in range(count))


def _sampler(algorithm: Algorithm, space: Space, seed: int) -> Any:
    """What learns, with no more memory than the trials that it is told.

    The Gaussian process is given what is out at its own expectation, which spreads a batch as the liar does.
    """
    from optuna.exceptions import ExperimentalWarning
    from optuna.samplers import GPSampler, TPESampler

    learner = algorithm if isinstance(algorithm, Tpe) else Tpe(startup=0)
    options: dict[str, Any] = {"seed": seed % 2**32, "n_startup_trials": learner.startup}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        if learner.sampler == "gp":
            return GPSampler(**options)
        group = bool(space.parents)
        return TPESampler(**options, multivariate=True, group=group, constant_liar=True)


def _trial(space: Space, values: Values, loss: float | None) -> Any:
    """A trial as Optuna has it; one without a loss has failed."""
    from optuna.trial import TrialState, create_trial

    found = space.placed(values)
    domains = {name: space.by_name[name].domain for name in found}
    return create_trial(
        params={name: _told(domains[name], value) for name, value in found.items()},
        distributions={name: _distribution(domain) for name, domain in domains.items()},
        state=TrialState.FAIL if loss is None else TrialState.COMPLETE,
        value=loss,
    )


def _asked(study: Any, space: Space) -> dict[str, Any]:
    """The values of one more trial: all at once, or one by one where some stand under others."""
    kinds = {dim.name: _distribution(dim.domain) for dim in space.dims}
    trial = study.ask() if space.parents else study.ask(kinds)

    def value(dim: Dim) -> Any:
        return _value(dim.domain, _suggested(trial, dim.name, kinds[dim.name]))

    return {key: frozen(own) for key, own in space.draw(value).items()}


def _suggested(trial: Any, name: str, kind: Any) -> Any:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(kind, CategoricalDistribution):
        return trial.suggest_categorical(name, kind.choices)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(name, kind.low, kind.high)
    return trial.suggest_float(name, kind.low, kind.high, log=kind.log)


def _distribution(domain: Domain) -> Any:
    """The domain as Optuna knows it.

    A normal law by its quantile, what has finitely many values as likely as each other by their number.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.choice is not None:
        return CategoricalDistribution(range(len(domain.choice)))
    if domain.qloguniform is not None:
        return FloatDistribution(*domain.qloguniform[:2], log=True)
    if (count := domain.num_values) is not None:
        return IntDistribution(0, count - 1)
    if domain.normal is not None:
        return FloatDistribution(0.0, 1.0)
    (_, low), (_, high) = domain.ends()
    return FloatDistribution(low, high, log=domain.loguniform is not None)


def _told(domain: Domain, value: Any) -> Any:
    """A value as its distribution has it."""
    if domain.qloguniform is None and domain.num_values is not None:
        return domain.number(value)
    return domain.quantile(value) if domain.normal is not None else float(value)


def _value(domain: Domain, param: Any) -> Any:
    """The inverse of ``_told``."""
    if domain.qloguniform is not None:
        return domain.near(param)
    if domain.num_values is not None:
        return domain.value(param)
    return domain.at(min(param, 1 - 2**-53)) if domain.normal is not None else param
