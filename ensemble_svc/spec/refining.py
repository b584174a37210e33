"""What a search does beyond one round of trials: a space that shrinks, and configurations that are trained again."""

from __future__ import annotations

from math import ceil
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt

from ensemble_svc.registry import Spec
from ensemble_svc.spec.fields import Share


class CoarseToFine(Spec):
    """Stages of as many trials each; the space of each is what the best of the stage before it span."""

    stages: Annotated[int, Field(ge=2, le=20)] = 3
    """How many."""
    keep: Share = 0.2
    """Share of a stage's trials that are its best, one at least."""
    margin: NonNegativeFloat = 0.1
    """How far the space goes beyond them on either side, as a share of how wide it was, in the law's own scale."""
    growth: PositiveInt = 3
    """Epochs of a stage over those of the one before; the last one has ``training.epochs``."""

    def epochs(self, stage: int, epochs: int) -> int:
        """Epochs of a stage's trials, where the last stage's have so many."""
        return max(1, ceil(epochs / self.growth ** (self.stages - 1 - stage)))

    def ends(self, num_trials: int) -> list[int]:
        """How many trials there are by the end of each stage."""
        return [num_trials * (stage + 1) // self.stages for stage in range(self.stages)]

    def num_best(self, num_trials: int) -> int:
        """Trials that the next stage's space is laid around."""
        return max(1, ceil(self.keep * num_trials - 1e-9))


class RefitSpec(Spec):
    """The hyper-deep ensemble's second step (Wenzel et al. 2020, arXiv:2006.13570).

    When the trials are trained, a greedy ensemble of them is chosen by ``search.metric`` on held-out rows; each
    distinct configuration in it is trained again from other seeds, and ``aggregate.select`` chooses among all.
    """

    seeds: Annotated[PositiveInt, Field(le=1000)] = 3
    """Further members of each chosen configuration."""
    configurations: Annotated[PositiveInt, Field(le=1000)] = 8
    """How many configurations at most, those first that were picked first."""
