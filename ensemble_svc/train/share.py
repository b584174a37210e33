"""One process's part of a member that several processes train: its rows of each batch, and what they settle.

All processes hold the same weights, rule and ledger; each computes the gradient of its own rows.
Shapes: K = 1 member, B rows of a batch, N rows, S steps of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ensemble_svc.train.stream import StreamBatch

Predict = Callable[[Tensor], dict[str, Tensor]]


class Share:
    """The share of process ``rank`` of ``processes``; one process has it all and talks to nobody."""

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        self.rank, self.processes = rank, processes
        self.num_own = self.num_all = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and reports for all."""
        return self.rank == 0

    def take(self, batch: Tensor | StreamBatch) -> Tensor | StreamBatch:
        """This process's rows of a batch [K, B / processes], or of a stream's batch.

        Where there are fewer rows than processes, a process without any takes one that does not count:
        every process must go through the same steps.
        """
        if self.processes == 1:
            return batch
        if isinstance(batch, StreamBatch):
            return StreamBatch(self._own(batch.rows_B, dim=0), self._own(batch.x_B, dim=0))
        return self._own(batch, dim=1)

    def _own(self, values: Tensor, dim: int) -> Tensor:
        own = values.tensor_split(self.processes, dim=dim)[self.rank]
        self.num_own, self.num_all = own.shape[dim], values.shape[dim]
        return own if self.num_own else values.narrow(dim, 0, 1)

    def weigh(self, loss: Tensor) -> Tensor:
        """The mean loss of the rows taken, so that the mean over processes is the mean over the whole batch."""
        return loss if self.processes == 1 else loss * (self.processes * self.num_own / self.num_all)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.processes == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.processes

    def draw_apart(self) -> None:
        """Lead torch's generator, seeded alike everywhere, to numbers of this process's own."""
        if self.rank:
            torch.manual_seed((torch.initial_seed() + self.rank) % 2**63)

    def predict(self, predict: Predict, rows_N: Tensor) -> dict[str, Tensor]:
        """Predictions [K, N, …] for all rows, each process having computed some."""
        if len(rows_N) < self.processes or self.processes == 1:
            return predict(rows_N)
        pieces = rows_N.tensor_split(self.processes)
        start, own_N = sum(map(len, pieces[: self.rank])), pieces[self.rank]
        whole = {}
        for name, own in predict(own_N).items():
            whole[name] = own.new_zeros(own.shape[0], len(rows_N), *own.shape[2:])
            whole[name][:, start : start + len(own_N)] = own
            dist.all_reduce(whole[name])
        return whole


ALONE = Share()
"""The share of a process that trains by itself."""
