"""The LightningModule of a member, and a Trainer with everything off that costs time."""

from __future__ import annotations

import logging
import warnings

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.data import Rows
from benchmarks.members import adamw, loader, new_member
from benchmarks.work import Work


class Member(L.LightningModule):
    """One network, as Lightning's documentation writes it."""

    def __init__(self, net: nn.Module, work: Work) -> None:
        super().__init__()
        self.net, self.work = net, work

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x_B, y_B = batch
        return cross_entropy(self.net(x_B), y_B)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self.parameters(), self.work)


def fit_with_trainer(work: Work, data: Rows, member: int) -> nn.Module:
    """Train one member with a Trainer of its own."""
    module = Member(new_member(work, data, member), work)
    trainer(work).fit(module, loader(work, data, member))
    return module.net


def trainer(work: Work) -> L.Trainer:
    """Lightning at its leanest: no log, bar, summary, sanity check or checkpoint."""
    return L.Trainer(accelerator="cpu", devices=1, max_epochs=work.epochs, barebones=True)


def quiet() -> None:
    """Lightning's advice off the screen."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
