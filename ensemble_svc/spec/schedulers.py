"""What stops the trials of a search before their last epoch."""

from __future__ import annotations

from abc import abstractmethod
from math import ceil
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand

Factor = Annotated[int, Field(ge=2, le=1000)]


class NoScheduler(Choice):
    """Every trial trains all of its epochs."""

    name: Literal["none"] = "none"


class Ranked(Choice):
    """Trials are ranked after some epochs, and the worst of them stop."""

    factor: Factor = 3
    """One in so many trials that are ranked together goes on after each rung, one at least."""
    min_epochs: PositiveInt = 1
    """Epochs before which no trial is ranked."""

    @abstractmethod
    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        """The epochs after which the trials of each bracket are ranked, before the last of ``epochs``."""

    @abstractmethod
    def sizes(self, epochs: int) -> tuple[int, ...]:
        """How many trials each bracket has, or numbers in that proportion."""


class Halving(Ranked):
    """Successive halving: after some epochs the worst trials stop (Jamieson & Talwalkar 2016, arXiv:1502.07943).

    The first rung is after ``min_epochs``, each further one after ``factor`` times as many. All trials of the search
    are ranked together: where one pack holds them, without leaving it; else each pack ends
    at the rung, and those that go on are gathered into new packs. The learning rate's schedule is laid over all
    epochs, as though no trial were stopped.
    """

    name: Literal["halving"] = "halving"

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        rungs, rung = list[int](), self.min_epochs
        while rung < epochs:
            rungs.append(rung)
            rung *= self.factor
        return (tuple(rungs),)

    def sizes(self, epochs: int) -> tuple[int, ...]:
        return (1,)


class Hyperband(Ranked):
    """Halvings with other first rungs beside each other, from many trials to few (Li et al. 2018, arXiv:1603.06560).

    With R epochs, bracket s first ranks its trials after R / factor^s of them; there are as many brackets as leave
    ``min_epochs``, and bracket 0 stops nothing. A trial's bracket follows from its number, in the proportions of
    the paper; each bracket is ranked by itself, and trials of all of them share packs.
    """

    name: Literal["hyperband"] = "hyperband"

    def brackets(self, epochs: int) -> tuple[tuple[int, ...], ...]:
        return tuple(
            tuple(epochs // self.factor**left for left in range(s, 0, -1))
            for s in range(self._most(epochs), -1, -1)
        )

    def sizes(self, epochs: int) -> tuple[int, ...]:
        most = self._most(epochs)
        return tuple(ceil((most + 1) / (s + 1) * self.factor**s) for s in range(most, -1, -1))

    def _most(self, epochs: int) -> int:
        """Rungs of the bracket that has the most of them."""
        most = 0
        while self.min_epochs * self.factor ** (most + 1) <= epochs:
            most += 1
        return most


class Pbt(Choice):
    """Population based training: bad trials go on as copies of good ones (Jaderberg et al. 2017, arXiv:1711.09846).

    Every ``interval`` epochs the worst trials of a population take over the weights, the optimiser's state and the
    averages of some of the best, and a value near theirs for each key of the space: times 0.8 or 1.2, the value
    before or after it, or drawn anew. One's state fits another only where both have the same networks and parts, so
    the trials of each structure are a population, and keys that give a trial another structure stay as they are. A
    population in one pack never leaves it; one of several packs meets every ``interval`` epochs.
    """

    name: Literal["pbt"] = "pbt"
    interval: PositiveInt = 4
    """Epochs from one comparison to the next."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of a population that gives up, and of those that they are made like; one trial at least."""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Chance that a key's value is drawn anew rather than moved."""


class Asynchronous(Choice):
    """Stops a trial as its results come, by those that others have shown so far; none waits for another.

    Ray Tune decides, so it takes ``compute.executor: ray``. Which trials have shown something by then depends on
    how fast each one is.
    """

    @abstractmethod
    def asks(self, epoch: int) -> bool:
        """Whether a trial may be stopped after this epoch, which is not its last."""

    @abstractmethod
    def reason(self, epoch: int) -> str:
        """Why a trial was stopped after this epoch."""


class Asha(Asynchronous):
    """Asynchronous successive halving by Ray Tune (Li et al. 2020, arXiv:1810.05934).

    At each rung a trial stops unless it is among the best one in ``factor`` of those that have reached the rung.
    """

    name: Literal["asha"] = "asha"
    factor: Factor = 3
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


Scheduler = Annotated[
    NoScheduler | Halving | Hyperband | Asha | Median | Pbt, Field(discriminator="name"), Shorthand()
]
SCHEDULERS: Registry[Choice] = Registry("scheduler", Scheduler)
