"""Data once on the device, and batches as gathers from it.

Shapes: N rows of the data set, K members, S steps of a block, B rows of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ensemble_svc.data.dataset import Array, Dataset
from ensemble_svc.data.indices import epoch_order
from ensemble_svc.plan.plan import MemberSpec

BLOCK_STEPS = 64
"""Steps handed to the training loop at once; spreads the loop's own cost over them."""
ROWS_AT_ONCE = 8192
"""Rows that go through the transform together."""


class DeviceData:
    """All rows, once for all members and epochs: on the device, or in the host's memory for a stream.

    ``transformed`` tells that the rows have been through the members' (common) transform already;
    then batches go straight to the network's body.

    Args:
        common: the transform of all members, when it is the same and the first thing that is done.
        streamed: leave the inputs where they are and bring batches of them to the device.
    """

    def __init__(
        self, dataset: Dataset, device: torch.device, *, common: nn.Module | None, streamed: bool = False
    ) -> None:
        self.device, self.streamed, self.dataset = device, streamed, dataset
        self.y_N = torch.from_numpy(np.ascontiguousarray(dataset.y)).to(device)
        self.lesson_N = None
        """What a teacher says of each row, where there is one."""
        if dataset.lesson is not None:
            self.lesson_N = torch.from_numpy(np.ascontiguousarray(dataset.lesson.says)).to(device)
        self.host = dataset.x
        x_N = torch.from_numpy(np.ascontiguousarray(dataset.x[:0] if streamed else dataset.x)).to(device)
        self.transformed = common is not None and x_N.is_floating_point()
        if common is not None and self.transformed:
            transform = copy.deepcopy(common).to(device)
            with torch.no_grad():
                x_N = torch.cat([transform(x) for x in x_N.split(ROWS_AT_ONCE)])
        self._x_N = x_N

    def take(self, rows: Tensor) -> Tensor:
        """The inputs of these rows on the device, [*rows.shape, …]."""
        if not self.streamed:
            return gather(self._x_N, rows)
        found = self.host[rows.flatten().cpu().numpy()]
        return torch.from_numpy(found).to(self.device).unflatten(0, rows.shape)

    def targets(self, rows: Tensor) -> Tensor:
        """The targets of these rows, [*rows.shape(, T)]."""
        return gather(self.y_N, rows)


class EpochFeed:
    """Blocks of row numbers [S, K, B] of one epoch after another; a pure function of the epoch.

    Each member's bag is in its own order, new for every epoch. The epoch's last batch may be
    smaller; a last batch of one row is dropped, since no batch statistics come from one row.

    Args:
        rows: each member's training rows, K arrays of one length.
        single_steps: give each step apart, [K, B], for a loop that counts them.
    """

    def __init__(
        self,
        members: Sequence[MemberSpec],
        rows: Sequence[Array],
        device: torch.device,
        *,
        first_epoch: int = 0,
        single_steps: bool = False,
    ) -> None:
        self.members, self.rows, self.device = list(members), list(rows), device
        self.single_steps = single_steps
        self.batch_size = members[0].training.rows_per_step(len(rows[0]))
        self.first_epoch = first_epoch
        self.epoch = first_epoch
        self.sampler = self

    def drop(self, keep: Sequence[int]) -> None:
        """From the next epoch on, feed the members at these positions alone."""
        self.members = [self.members[k] for k in keep]
        self.rows = [self.rows[k] for k in keep]

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, counting from where this attempt began."""
        self.epoch = self.first_epoch + epoch

    def __iter__(self) -> Iterator[Tensor]:
        if not self.single_steps:
            return self._blocks()
        return (rows_KB for block_SKB in self._blocks() for rows_KB in block_SKB.unbind(0))

    def __len__(self) -> int:
        num_rows = len(self.rows[0])
        if self.single_steps:
            return steps_per_epoch(num_rows, self.batch_size)
        num_full, rest = divmod(num_rows, self.batch_size)
        return -(-num_full // BLOCK_STEPS) + (rest > 1 or not num_full)

    def _blocks(self) -> Iterator[Tensor]:
        rows_KN = torch.from_numpy(np.stack([self._ordered(k) for k in range(len(self.members))]))
        num_full = rows_KN.shape[1] // self.batch_size
        full_KN, rest_KB = rows_KN.tensor_split([num_full * self.batch_size], dim=1)
        steps_SKB = full_KN.reshape(len(self.members), num_full, self.batch_size).transpose(0, 1)
        for block in steps_SKB.split(BLOCK_STEPS) if num_full else ():
            yield block.to(self.device)
        if rest_KB.shape[1] > 1 or not num_full:
            yield rest_KB.unsqueeze(0).to(self.device)

    def _ordered(self, k: int) -> Array:
        member, rows = self.members[k], self.rows[k]
        order = epoch_order(len(rows), job_seed=member.job_seed, member=member.index, epoch=self.epoch)
        ordered: Array = rows[order]
        return ordered


def gather(values_N: Tensor, rows: Tensor) -> Tensor:
    """``values_N[rows]``, as one flat selection."""
    return values_N.index_select(0, rows.flatten()).unflatten(0, rows.shape)


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """Steps of one epoch over ``num_rows`` rows, as ``EpochFeed`` cuts them."""
    num_full, rest = divmod(num_rows, batch_size)
    return num_full + (rest > 1 or not num_full)
