"""What stops the trials of a search before their last epoch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand


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
