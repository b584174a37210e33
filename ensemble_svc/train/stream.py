"""One stream of decoded batches that every member of a pack reads (Oza & Russell 2001, for their bags).

The order is the job's, so it is the same whoever stands in the pack; a member's bag is a weight for
each row. Where there is a GPU, worker processes fetch the next batches into pinned memory.
Shapes: N rows of the data set, K members, B rows of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from ensemble_svc.data.dataset import Array
from ensemble_svc.data.indices import epoch_order


class StreamBatch(NamedTuple):
    """The same rows for every member."""

    rows_B: Tensor
    x_B: Tensor


class StreamFeed:
    """Batches of one epoch after another; a pure function of the epoch.

    A last batch of one row is dropped, as ``EpochFeed`` does.

    Args:
        train: positions of the training rows.
        host: all inputs, in memory or mapped from a file.
        num_workers: processes that fetch batches; 0 fetches them in this one.
    """

    single_steps = True

    def __init__(
        self,
        train: Array,
        host: Array,
        device: torch.device,
        *,
        job_seed: int,
        batch_size: int,
        first_epoch: int = 0,
        num_workers: int | None = None,
    ) -> None:
        self.train, self.host, self.device = np.sort(train), host, device
        self.job_seed, self.batch_size = job_seed, batch_size
        self.first_epoch = self.epoch = first_epoch
        self.num_workers = _num_workers(device) if num_workers is None else num_workers
        self.sampler = self

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, counting from where this attempt began."""
        self.epoch = self.first_epoch + epoch

    def drop(self, keep: Sequence[int]) -> None:
        """Nothing: those that stay read the same stream."""

    def __len__(self) -> int:
        return len(self._batches(np.zeros(len(self.train), dtype=np.int64)))

    def __iter__(self) -> Iterator[StreamBatch]:
        order = epoch_order(len(self.train), job_seed=self.job_seed, member=-1, epoch=self.epoch)
        loader: DataLoader[StreamBatch] = DataLoader(
            _Rows(self.host),
            batch_size=None,
            sampler=self._batches(self.train[order]),
            num_workers=self.num_workers,
            pin_memory=self.device.type == "cuda",
        )
        return iter(loader)

    def _batches(self, rows: Array) -> list[Array]:
        pieces = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        return [piece for piece in pieces if len(piece) > 1 or len(rows) == 1]


class _Rows(TorchDataset[StreamBatch]):
    """Fetches a whole batch at once; sorted reads go forward through a mapped file."""

    def __init__(self, host: Array) -> None:
        self.host = host

    def __getitem__(self, rows: Array) -> StreamBatch:
        forward = np.argsort(rows)
        found = np.empty((len(rows), *self.host.shape[1:]), dtype=self.host.dtype)
        found[forward] = self.host[rows[forward]]
        return StreamBatch(torch.from_numpy(rows), torch.from_numpy(found))


class BagWeights:
    """How much each row of the stream counts for each member: its number in the bag over their mean.

    The mean over the training rows is 1, so that a batch's weighted mean is an unbiased estimate of
    the mean over the member's bag.
    """

    def __init__(self, counts_KN: Tensor, mean_K: Tensor) -> None:
        self.counts_KN, self.mean_K = counts_KN, mean_K

    @classmethod
    def from_bags(
        cls, bags: Sequence[Array], num_rows: int, num_train: int, device: torch.device
    ) -> BagWeights:
        """The weights of each member's bag, which lists its rows, repeats included."""
        counts = np.stack([np.bincount(bag, minlength=num_rows) for bag in bags])
        smallest = np.uint8 if counts.max() < 256 else np.int32
        mean_K = torch.tensor([len(bag) / num_train for bag in bags], device=device)
        return cls(torch.from_numpy(counts.astype(smallest)).to(device), mean_K)

    def of(self, rows_B: Tensor) -> Tensor:
        """Weights [K, B]."""
        return self.counts_KN.index_select(1, rows_B) / self.mean_K.unsqueeze(1)

    def select(self, keep: slice | Tensor) -> BagWeights:
        """Those of the members at these positions."""
        return BagWeights(self.counts_KN[keep], self.mean_K[keep])


def _num_workers(device: torch.device) -> int:
    """On a CPU the cores are needed for the training itself."""
    return min(4, max(1, (os.cpu_count() or 1) - 1)) if device.type == "cuda" else 0
