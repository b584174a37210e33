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


class Asynchronous(Choice):
    """Stops a trial as its results come, by those that others have shown so far; none waits for another.

    Ray Tune decides, so it takes ``compute.executor: ray``. Which trials have shown something by then depends on
    how fast each one is.
    """

    def asks(self, epoch: int) -> bool:
        """Whether a trial may be stopped after this epoch, which is not its last."""
        raise NotImplementedError

    def reason(self, epoch: int) -> str:
        """Why a trial was stopped after this epoch."""
        raise NotImplementedError


class Asha(Asynchronous):
    """Asynchronous successive halving by Ray Tune (Li et al. 2020, arXiv:1810.05934).

    At each rung a trial stops unless it is among the best one in ``factor`` of those that have reached the rung.
    """

    name: Literal["asha"] = "asha"
    factor: Annotated[int, Field(ge=2, le=1000)] = 3
    """One in so many trials goes on after each rung."""
    min_epochs: PositiveInt = 1
    """Epochs of the first rung; each further one comes after ``factor`` times as many."""

    def asks(self, epoch: int) -> bool:
        return self._rung(epoch) is not None

    def reason(self, epoch: int) -> str:
        return f"asha: rung {self._rung(epoch)}, epoch {epoch}"

    def _rung(self, epoch: int) -> int | None:
        """Number of the rung at this epoch, from 1."""
        number, rung = 1, self.min_epochs
        while rung < epoch:
            number, rung = number + 1, rung * self.factor
        return number if rung == epoch else None


class Median(Asynchronous):
    """The median stopping rule by Ray Tune (Golovin et al. 2017, Vizier).

    After each epoch a trial stops if its best result is worse than the median of the others' means so far.
    """

    name: Literal["median"] = "median"
    min_epochs: PositiveInt = 1
    """Epochs that each trial trains before it may be stopped; earlier results are in no mean."""
    min_trials: PositiveInt = 3
    """Other trials that must have come as far."""

    def asks(self, epoch: int) -> bool:
        return True

    def reason(self, epoch: int) -> str:
        return f"median: worse than the median at epoch {epoch}"


Scheduler = Annotated[NoScheduler | Halving | Asha | Median, Field(discriminator="name"), Shorthand()]
SCHEDULERS: Registry[Choice] = Registry("scheduler", Scheduler)
