"""The ``search`` section: trials of other hyper-parameters, each of which is a member that is not chosen yet."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand, Spec
from ensemble_svc.spec.domains import Domain

SearchMetric = Literal["nll", "accuracy", "rmse"]
"""What a trial is judged by: measured of every member when it is finished."""

HIGHER_IS_BETTER: Final = frozenset({"accuracy"})

MOST_MEMBERS = 100_000
AUTO_TRIALS = 32
"""Trials where the job does not say."""


class Asker(Choice):
    """What says which values a trial has."""

    learns: ClassVar[bool] = False
    """Whether it asks for the results of earlier trials."""


class Random(Asker):
    """Each trial on its own, by the laws of the space (Bergstra & Bengio 2012)."""

    name: Literal["random"] = "random"


class Grid(Asker):
    """Every combination of the values of a space that has finitely many; the last key changes fastest."""

    name: Literal["grid"] = "grid"


class Sobol(Asker):
    """Points that leave no gap: a scrambled Sobol sequence through the laws of the space (Owen 1998)."""

    name: Literal["sobol"] = "sobol"


class Tpe(Asker):
    """Where earlier trials were good: the tree-structured Parzen estimator of Optuna (Bergstra et al. 2011).

    It is asked for ``batch`` trials at a time, which train together, and told their results. Trials that are out
    count as bad ones meanwhile (the constant liar), so that a batch spreads.
    """

    learns: ClassVar[bool] = True
    name: Literal["optuna"] = "optuna"
    batch: Annotated[PositiveInt, Field(le=MOST_MEMBERS)] = 16
    """Trials that are asked for at a time."""
    startup: NonNegativeInt = 16
    """Trials at random before it learns from them."""


Algorithm = Annotated[Random | Grid | Sobol | Tpe, Field(discriminator="name"), Shorthand()]
ALGORITHMS: Registry[Choice] = Registry("algorithm", Algorithm)


class NoScheduler(Choice):
    """Every trial trains all of its epochs."""

    name: Literal["none"] = "none"


class Halving(Choice):
    """Successive halving: after some epochs the worst trials stop (Jamieson & Talwalkar 2016, arXiv:1502.07943).

    All trials of one structure train as one pack and are ranked together, so that no trial waits for another. The
    learning rate's schedule is laid over all epochs, as though no trial were stopped.
    """

    name: Literal["halving"] = "halving"
    factor: Annotated[int, Field(ge=2, le=1000)] = 3
    """One in so many trials goes on after each rung, one at least."""
    min_epochs: PositiveInt = 1
    """Epochs of the first rung; each further one comes after ``factor`` times as many."""

    def is_rung(self, epoch: int, epochs: int) -> bool:
        """Whether trials are stopped after this epoch, of so many."""
        rung = self.min_epochs
        while rung < epoch:
            rung *= self.factor
        return rung == epoch < epochs


Scheduler = Annotated[NoScheduler | Halving, Field(discriminator="name"), Shorthand()]
SCHEDULERS: Registry[Choice] = Registry("scheduler", Scheduler)


class SearchSpec(Spec):
    """Members that differ in hyper-parameters: trial i is the members from i times ``seeds_per_trial`` on.

    Which of them make the ensemble is for ``aggregate.select`` to say; ``greedy`` over the trials of a search is a
    hyper-deep ensemble (Wenzel et al. 2020, arXiv:2006.13570).
    """

    space: Mapping[str, Domain]
    """Keys of ``model``, ``training`` or ``data.augment`` by dotted path, each with the law of its values."""
    algorithm: Algorithm = Random()
    """What says which values each trial has."""
    trials: Literal["auto"] | Annotated[PositiveInt, Field(le=MOST_MEMBERS)] = "auto"
    """How many; ``auto``: the whole grid, or else 32."""
    seeds_per_trial: Annotated[PositiveInt, Field(le=1000)] = 1
    """Members of each trial, alike but for their seed; a trial's worth is the mean of theirs."""
    metric: SearchMetric = "nll"
    """What a trial is judged by, on held-out rows: which the best member is, what stops, and what the algorithm
    learns from."""
    scheduler: Scheduler = NoScheduler()
    """What stops trials before their last epoch."""
    first: tuple[Mapping[str, Any], ...] = ()
    """Configurations to try before all others; each gives every key of the space."""

    @property
    def num_trials(self) -> int:
        """How many trials there are."""
        if self.trials != "auto":
            return self.trials
        if isinstance(self.algorithm, Grid):
            return max(1, prod(domain.num_values or 1 for domain in self.space.values() if domain.laws))
        return max(AUTO_TRIALS, len(self.first))

    @property
    def num_members(self) -> int:
        """Members of all trials."""
        return self.num_trials * self.seeds_per_trial
