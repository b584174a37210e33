"""Choosing the learning rate: K candidates train for a few steps as one pack, and two rules read their losses.

The *range test* (Smith 2015, arXiv:1506.01186) raises the rate within one training and looks where the loss falls
and where it turns. Here each rate has a training of its own from the same weights, so no rate inherits what
the smaller ones have learned or spoiled; the rate with the lowest loss at the end is taken.

The *halving* recipe starts with a large rate on a subset of the data and divides it by 2 until the loss
does not diverge. All halves are tried at once, and the largest is taken that does not. Behind a norm hardly any rate
diverges, and large ones learn little all the same; so it must also have learned ``LEARNED`` of what the best has.
``training.optimizer.lr: auto`` is this one.

A rate *diverges* when a loss is not finite, or when at any step the mean of the last few losses lies above that of
the smallest candidate on the same batches, which leaves the network about as it was. Dropout, noise and mixed rows
are each candidate's own; how far they alone part the losses is seen on the smallest rates, and is no divergence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from ensemble_svc.errors import TrainError
from ensemble_svc.planning import Prepared, members_of
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.train.payload import Payload

TOP = 10.0
NUM_RATES = 24
"""Candidates: ``TOP`` and its halves, down to 1.2e-6."""
NUM_STEPS = 50
WINDOW = 8
"""Losses whose mean counts as the loss at a step."""
TOLERANCE = 0.05
"""Share of the untouched network's loss by which a mean may exceed it, besides the noise."""
QUIET = 6
"""One in so many candidates, the smallest, part from each other by noise alone."""
LEARNED = 0.9
"""Share of the fall of the loss at the best rate that the largest one must reach too."""
EVENT = "lr_found"


@dataclass(frozen=True)
class Trial:
    """What became of one candidate."""

    rate: float
    loss: float
    """Mean of the last losses; not finite where the training broke."""
    diverged: bool


@dataclass(frozen=True)
class Found:
    """Every candidate, and what the two rules say."""

    trials: tuple[Trial, ...]
    """The largest rate first."""
    start: float
    """Loss of the untouched network on the last batches."""
    num_steps: int

    @property
    def lowest(self) -> float:
        """The range test's rate: the lowest loss at the end."""
        return min((t for t in self.trials if not t.diverged), key=lambda trial: trial.loss).rate

    @property
    def largest(self) -> float:
        """The halving recipe's rate: the largest that does not diverge, and learns nearly as much as the best."""
        fine = [trial for trial in self.trials if not trial.diverged]
        best = min(trial.loss for trial in fine)
        return next(t.rate for t in fine if t.loss <= best + (1 - LEARNED) * max(0.0, self.start - best))

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON; a loss that is not finite is null."""
        trials = [
            {"lr": t.rate, "loss": t.loss if math.isfinite(t.loss) else None, "diverged": t.diverged}
            for t in self.trials
        ]
        suggestions = {"range_test": self.lowest, "halving": self.largest}
        return {"suggested": suggestions, "start": self.start, "steps": self.num_steps, "trials": trials}


def judge(rates: Sequence[float], losses: Sequence[Sequence[float]]) -> Found:
    """Read the losses of every step at each rate.

    Args:
        rates: the largest first; the last one is so small that it leaves the network as it is.
        losses: a row for each rate.

    Raises:
        TrainError: even the smallest rate breaks the training.
    """
    means = [_running_means(row) for row in losses]
    still = means[-1]
    if not all(map(math.isfinite, still)):
        raise TrainError(
            f"no learning rate was found: the loss is not finite even at {rates[-1]:.1e}. "
            "`ensemble-svc inspect JOB` says what is wrong before training."
        )
    noise = _noise(means)
    trials = tuple(
        Trial(rate, own[-1], not all(_is_fine(a, b, noise) for a, b in zip(own, still, strict=True)))
        for rate, own in zip(rates, means, strict=True)
    )
    return Found(trials, still[-1], len(losses[0]))


def find(job: JobSpec, prepared: Prepared, *, num_steps: int = NUM_STEPS) -> Found:
    """Try all candidates on the job's first member.

    Raises:
        TrainError: as ``judge``; a network that fails in training.
    """
    from ensemble_svc.train.find import (
        losses_at,
    )  # here, since a driver whose slots run elsewhere needs no Lightning

    rates = [TOP / 2**i for i in range(NUM_RATES)]
    member = members_of(with_rate(job, rates[0]), prepared)[0]
    payload = Payload(prepared.dataset, prepared.split, prepared.schema, "", job.compute.commit_every_s)
    on_gpu = job.compute.device != "cpu" and torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    losses_KS = losses_at(payload, member, rates, num_steps=num_steps, device=device)
    return judge(rates, losses_KS.tolist())


@dataclass(frozen=True)
class Settled:
    """A job whose learning rate is a number."""

    job: JobSpec
    rate: float | None = None
    """What ``auto`` came to; None where the job gives a number."""
    found: Found | None = None
    """The search, where it was made now and not read from the run."""


def settled(job: JobSpec, prepared: Prepared, run: Path | None = None) -> Settled:
    """The job with a number where it says ``lr: auto``.

    Args:
        run: a run folder; what was found at its first start holds for all later ones.

    Raises:
        TrainError: as ``find``.
    """
    if job.training.optimizer.lr != "auto":
        return Settled(job)
    known = Journal(run / "journal.jsonl").of_kind(EVENT) if run is not None else []
    if known:
        return Settled(with_rate(job, known[-1]["lr"]), known[-1]["lr"])
    found = find(job, prepared)
    return Settled(with_rate(job, found.largest), found.largest, found)


def record(journal: Journal, found: Found) -> None:
    """Note the search, so that a later start trains the same members."""
    journal.append(EVENT, lr=found.largest, **found.as_data())


def with_rate(job: JobSpec, rate: float) -> JobSpec:
    """The job at another learning rate."""
    optimizer = job.training.optimizer.model_copy(update={"lr": rate})
    return job.model_copy(update={"training": job.training.model_copy(update={"optimizer": optimizer})})


def _running_means(losses: Sequence[float]) -> list[float]:
    """Mean of the last ``WINDOW`` losses at each step, of fewer at the first steps."""
    if not all(map(math.isfinite, losses)):
        return [math.nan] * len(losses)
    sums = [0.0, *accumulate(losses)]
    return [(sums[t] - sums[max(0, t - WINDOW)]) / min(t, WINDOW) for t in range(1, len(sums))]


def _noise(means: Sequence[Sequence[float]]) -> float:
    """How far the means of the smallest rates lie from those of the smallest one at most."""
    quiet = means[len(means) - len(means) // QUIET :]
    apart = (abs(a - b) for own in quiet for a, b in zip(own, means[-1], strict=True))
    return max(filter(math.isfinite, apart), default=0.0)


def _is_fine(value: float, start: float, noise: float) -> bool:
    return value <= start + TOLERANCE * abs(start) + noise
