"""What contenders that train one member at a time share: its weights, its order of rows, its optimiser.

The draws are ours (``ensemble_svc/spec/randomness.py``, ``data/indices.py``), written out again: our package sets
how idle threads wait, and a contender runs with torch's own setting.

Shapes: K members, N rows, C classes, B rows of a batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, Sampler, TensorDataset

from benchmarks.data import Rows
from benchmarks.nets import MODELS
from benchmarks.work import Work

CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Trained:
    """What a contender hands back."""

    probs: Tensor
    """Each member's probabilities on the test rows, [K, N, C]."""
    seconds: float
    """Training phase: data in memory, libraries imported, Ray up, until all members are trained."""
    threads: int
    """Threads of each process that trained."""


def seed_of(work: Work, member: int, purpose: str, *counters: int) -> int:
    """The seed of one of a member's draws."""
    text = ":".join(map(str, (work.seed, member, purpose, *counters)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def new_member(work: Work, data: Rows, member: int) -> nn.Module:
    """A member's network with its initial weights."""
    torch.manual_seed(seed_of(work, member, "init"))
    return MODELS[work.model].build(data.shape, data.num_classes)


def epoch_order(work: Work, num_rows: int, member: int, epoch: int) -> Tensor:
    """The order in which a member sees its rows in one epoch."""
    generator = np.random.Generator(np.random.PCG64(seed_of(work, member, "order", epoch)))
    return torch.from_numpy(generator.permutation(num_rows))


def adamw(params: Iterable[Tensor], work: Work, *, fused: bool = True) -> torch.optim.Optimizer:
    """The optimiser; the fused kernel is the fastest that torch has for a CPU, and not its default."""
    return torch.optim.AdamW(params, lr=work.lr, weight_decay=work.weight_decay, fused=fused or None)


def fit_member(work: Work, data: Rows, member: int, *, fused: bool = True) -> nn.Module:
    """Train one member in the plainest loop, batches gathered from memory."""
    net = new_member(work, data, member)
    rule = adamw(net.parameters(), work, fused=fused)
    for epoch in range(work.epochs):
        for rows_B in epoch_order(work, len(data.x), member, epoch).split(work.batch):
            rule.zero_grad()
            cross_entropy(net(data.x[rows_B]), data.y[rows_B]).backward()
            rule.step()
    return net


@torch.no_grad()
def predict(net: nn.Module, x_N: Tensor) -> Tensor:
    """A member's probabilities [N, C]."""
    return net.eval()(x_N).softmax(1)


class Orders(Sampler[Tensor]):
    """A member's batches of row numbers, a new order for each epoch."""

    def __init__(self, work: Work, num_rows: int, member: int) -> None:
        self.work, self.num_rows, self.member, self.epoch = work, num_rows, member, 0

    def __iter__(self) -> Iterator[Tensor]:
        order = epoch_order(self.work, self.num_rows, self.member, self.epoch)
        self.epoch += 1
        return iter(order.split(self.work.batch))

    def __len__(self) -> int:
        return -(-self.num_rows // self.work.batch)


def loader(work: Work, data: Rows, member: int | None) -> DataLoader:
    """Batches gathered whole from tensors in memory, which spares torch's row-by-row collation.

    Args:
        member: whose order of rows; None shuffles by torch's global generator.
    """
    rows = TensorDataset(data.x, data.y)
    shuffled = torch.utils.data.RandomSampler(rows)
    order = BatchSampler(shuffled, work.batch, False) if member is None else Orders(work, len(rows), member)
    return DataLoader(rows, sampler=order, batch_size=None, num_workers=0)


def take_faster_threads(work: Work, data: Rows, *, steps: int = 60) -> int:
    """Set the number of threads, one or all cores, with which a member's step is faster; returns it."""
    net = new_member(work, data, 0)
    rule, rows_B = adamw(net.parameters(), work), torch.arange(work.batch) % len(data.x)
    fastest: dict[int, float] = {}
    for threads in (1, CORES, 1, CORES):
        torch.set_num_threads(threads)
        began = time.perf_counter()
        for _ in range(steps):
            rule.zero_grad()
            cross_entropy(net(data.x[rows_B]), data.y[rows_B]).backward()
            rule.step()
        fastest[threads] = min(fastest.get(threads, float("inf")), time.perf_counter() - began)
    best = min(fastest, key=lambda threads: fastest[threads])
    torch.set_num_threads(best)
    return best
