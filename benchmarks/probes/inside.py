"""The one place of the benchmarks that looks inside ours: a pack's module without Lightning around it.

Shapes: K members, S steps, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.data import load
from benchmarks.job import write_job
from benchmarks.work import Work
from ensemble_svc.local import this_machine
from ensemble_svc.nn.build import build
from ensemble_svc.planning import make_plan, prepare
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.train.build import build_module, training_rows
from ensemble_svc.train.feed import EpochFeed
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.payload import Payload


@dataclass(eq=False)
class BarePack:
    """All members of a work as one pack: its module and the feed of its batches."""

    module: SlotModule
    feed: EpochFeed

    def train(self, epochs: int) -> None:
        """The module's own steps in the barest loop; the books are those of the module."""
        for epoch in range(epochs):
            self.feed.set_epoch(epoch)
            self.module.first_epoch = epoch
            for i, block_SKB in enumerate(self.feed):
                self.module.training_step(block_SKB, i)
            self.module.take_losses()

    def block(self, num_steps: int) -> Tensor:
        """So many equal steps of full batches, [S, K, B]."""
        first_SKB = next(iter(self.feed))
        return first_SKB[:1].expand(num_steps, -1, -1)

    def steps(self, block_SKB: Tensor) -> None:
        """Take a block's steps."""
        self.module.training_step(block_SKB, 0)
        self.module.take_losses()


def bare_pack(work: Work, folder: Path) -> BarePack:
    """The work's members with their initial weights, its rows in a file of ``folder``."""
    job = write_job(work, load(work), folder, pack="all")
    prepared = prepare(job, folder)
    members = tuple(make_plan(job, prepared, this_machine()).members)
    payload = Payload(
        dataset=prepared.dataset,
        split=prepared.split,
        schema=prepared.schema,
        run=str(folder),
        commit_every_s=job.compute.commit_every_s,
    )
    rows, device = training_rows(payload, members), torch.device("cpu")
    module = build_module(payload, members, rows, device)
    module.keep_books(Ledger(module.recipe, module.weights))
    return BarePack(module, EpochFeed(members, rows, device))


def operations_per_row(job: JobSpec, shape: tuple[int, ...], num_classes: int) -> int:
    """Floating-point operations of one member's training step per row: forward, and twice that backward."""
    net = build(job.model, shape, num_classes).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, *shape))
    return 3 * int(counter.get_total_flops())
