"""Averages that validate as they will predict: with batch-norm statistics of their own.

Shapes: K members, B rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.data.dataset import Array
from ensemble_svc.nn.member import MemberNet
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.averages import mixed
from ensemble_svc.train.batchnorm import refresh, statistics
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.module import SlotModule


@dataclass(frozen=True)
class Judged:
    """Which weights validate: averages, where there are any, with statistics estimated on the training rows.

    With batch norm that is a forward pass over the training rows in each epoch, about a third of its work.
    Where several processes train a member, each makes the same pass.
    """

    net: MemberNet
    """A network whose batch norms no other process shares."""
    rows: Sequence[Array]
    """Training rows of each member of the pack."""

    @classmethod
    def of(cls, module: SlotModule, rows: Sequence[Array]) -> Judged:
        """Before the module's batch norms are shared."""
        return cls(module.net if module.share.processes == 1 else copy.deepcopy(module.net), rows)

    def weights(self, module: SlotModule, ledger: Ledger) -> Stack:
        """The weights [A, …] that validate the members in the stack."""
        chosen = ledger.validated()
        if not any(chosen):
            return module.weights
        served, names = ledger.served(module.weights), statistics(self.net)
        if not names:
            return served
        old = {name: served[name] for name in names}
        fresh = {name: value.detach().clone() for name, value in old.items()}
        _, own = module.reader(served | fresh)
        own_rows = [self.rows[k] for k in ledger.standing]
        refresh(
            self.net.body if module.data.transformed else self.net, own, training_batches(module, own_rows)
        )
        return served | (fresh if all(chosen) else mixed(chosen, fresh, old))


def training_batches(module: SlotModule, rows: Sequence[Array]) -> Iterator[Tensor]:
    """The members' training inputs, a batch at a time; a last batch of one row is dropped, as in training."""
    rows_KN = torch.from_numpy(np.stack(rows)).to(module.recipe.device)
    for piece_KB in rows_KN.split(module.recipe.shared.rows_per_step(rows_KN.shape[1]), dim=1):
        if piece_KB.shape[1] > 1 or rows_KN.shape[1] == 1:
            yield module.data.take(piece_KB)
