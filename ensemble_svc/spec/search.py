"""The ``search`` section: trials of other hyper-parameters, each of which is a member that is not chosen yet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PositiveInt

from ensemble_svc.registry import Spec
from ensemble_svc.spec.askers import MOST_MEMBERS, Algorithm, Grid, Random
from ensemble_svc.spec.budgets import BudgetSpec
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.refining import CoarseToFine, RefitSpec
from ensemble_svc.spec.schedulers import Asynchronous, NoScheduler, Scheduler
from ensemble_svc.spec.spaces import Space

SearchMetric = Literal["nll", "accuracy", "rmse"]
"""What a trial is judged by: measured of every member when it is finished."""

AGAIN: Final = 500_000
"""Index from which the members stand that train a trial's configuration again; no trial has so many."""

AUTO_TRIALS = 32
"""Trials where the job does not say."""


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
    objective: Literal["loss", "marginal_gain"] = "loss"
    """What the algorithm learns from: each trial's own metric, or what the trial adds to the metric of the greedy
    ensemble of the others on held-out rows."""
    scheduler: Scheduler = NoScheduler()
    """What stops trials before their last epoch."""
    candidates: Literal["finished", "all"] = "finished"
    """Which trials may be in the ensemble: those that trained to their end, or also those that the scheduler or the
    budget stopped, or that an earlier stage of ``coarse_to_fine`` trained shorter; where no other is left, these are in
    any case."""
    coarse_to_fine: CoarseToFine | None = None
    """Stages in which the space shrinks around the best trials, and trials train longer."""
    refit: RefitSpec | None = None
    """Train the configurations of a greedy ensemble of the trials again from other seeds."""
    budget: BudgetSpec | None = None
    """What all starts of the run may use together."""
    first: tuple[Mapping[str, Any], ...] = ()
    """Configurations to try before all others; each gives every key of the space that its choices leave."""

    @cached_property
    def flat(self) -> Space:
        """The space by its dimensions. Narrow a space with ``over``, since copies keep this."""
        return Space(self.space)

    def over(self, space: Mapping[str, Domain]) -> SearchSpec:
        """The same search of another space."""
        return SearchSpec.model_validate({**dict(self), "space": dict(space)})

    @property
    def goes_in_rounds(self) -> bool:
        """Whether which trials come next depends on what became of the earlier ones."""
        return self.algorithm.learns or self.coarse_to_fine is not None

    @property
    def num_trials(self) -> int:
        """How many trials there are: those that are wanted, or the budget's where they are fewer."""
        most = self.budget.trials if self.budget else None
        return self.num_wanted if most is None else min(self.num_wanted, most)

    @property
    def num_wanted(self) -> int:
        """How many trials there would be with any budget."""
        if self.trials != "auto":
            return self.trials
        if isinstance(self.algorithm, Grid):
            return max(1, self.flat.num_cells)
        return max(AUTO_TRIALS, len(self.first))

    @property
    def num_members(self) -> int:
        """Members of all trials."""
        return self.num_trials * self.seeds_per_trial

    @property
    def races(self) -> bool:
        """Whether its trials are stopped as their results come, so that each is a slot."""
        return isinstance(self.scheduler, Asynchronous)


class Repeated(SearchSpec):
    """A search with what is trained again of its trials, as the driver has it; no job file says so."""

    again: Mapping[int, Mapping[str, Any]] = {}
    """Configurations by their place among all that ever were chosen; those of trials that are left out are not here."""


def first_again(seeds_per_trial: int) -> int:
    """The number of a trial that the first configuration which is trained again would be."""
    return -(-AGAIN // seeds_per_trial)


def takes_cut(search: SearchSpec | None) -> bool:
    """Whether members that were stopped before their end may be in the ensemble; without a search all may."""
    return search is None or search.candidates == "all"


def full_epochs(search: SearchSpec | None, epochs: int) -> int | None:
    """Epochs of the last stage's trials, where those of earlier stages train fewer; None where there are no stages.

    Args:
        epochs: of the job.
    """
    stages = search.coarse_to_fine if search else None
    return epochs if stages is not None and stages.growth > 1 else None
