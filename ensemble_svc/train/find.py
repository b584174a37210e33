"""A few steps of one member at many learning rates at once: every rate is a member of one pack.

All of them begin with the same weights and see the same batches of the same few rows, so their losses differ
by the rate alone. Nothing is kept; torch's random state is put back.

Shapes: K rates, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import TrainError
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.averages import NoAverage
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.schedules import Constant
from ensemble_svc.train.build import build_feed, build_module, training_rows
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.payload import Payload

MOST_ROWS = 4096
"""Rows of the subset, at most."""
UNFIT = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, AssertionError)
"""What a network that cannot be stacked may raise under vmap; its rates are tried one after another."""


def losses_at(
    payload: Payload, member: MemberSpec, rates: Sequence[float], *, num_steps: int, device: torch.device
) -> Tensor:
    """The loss [K, S] at each step of the member trained at each constant rate.

    Raises:
        TrainError: the network fails in training, also by itself.
    """
    few, rows = subset(payload, member, num_steps)
    members = tuple(at_rate(member, rate) for rate in rates)
    with torch.random.fork_rng():
        try:
            return _losses(few, members, rows, num_steps, device)
        except UNFIT:
            pass
        try:
            return torch.cat([_losses(few, (one,), rows, num_steps, device) for one in members])
        except RuntimeError as fault:
            raise TrainError(f"{type(fault).__name__} in training: {fault}") from fault


def at_rate(member: MemberSpec, rate: float) -> MemberSpec:
    """The member at a constant rate, without what would end or average its training."""
    optimizer = member.training.optimizer.model_copy(update={"lr": rate})
    plain = {"optimizer": optimizer, "schedule": Constant(), "early_stopping": None, "average": NoAverage()}
    training = member.training.model_copy(update=plain)
    return MemberSpec(**dict(member) | {"training": training, "streamed": False})


def subset(payload: Payload, member: MemberSpec, num_steps: int) -> tuple[Payload, Array]:
    """As many of the member's rows as the steps read, as data of their own, and their numbers there."""
    (rows,) = training_rows(payload, [member])
    num = min(len(rows), MOST_ROWS, num_steps * member.training.rows_per_step(len(rows)))
    generator = np.random.default_rng(derive_seed(member.job_seed, member.index, "order"))
    drawn = np.sort(rows[generator.permutation(len(rows))[:num]])
    kept = np.unique(drawn)
    data, none = payload.dataset, np.zeros(0, dtype=np.int64)
    lesson = data.lesson and data.lesson.take(kept)
    cut = replace(
        data, x=data.x[kept], y=data.y[kept], row=data.row[kept], splits={}, columns={}, lesson=lesson
    )
    split = replace(payload.split, train=np.arange(len(kept)), validation=none, test=none)
    return replace(payload, dataset=cut, split=split), np.searchsorted(kept, drawn)


def _losses(
    payload: Payload, members: tuple[MemberSpec, ...], rows: Array, num_steps: int, device: torch.device
) -> Tensor:
    each = [rows] * len(members)
    module = build_module(payload, members, each, device)
    module.keep_books(Ledger(module.recipe, module.weights))
    feed, taken = build_feed(payload, module, each), 0
    while True:
        for block in feed:
            module.training_step(block[: num_steps - taken], 0)
            taken = len(module.step_losses)
            if taken == num_steps:
                return module.take_losses().T.double().cpu()
        feed.set_epoch(feed.epoch + 1)
