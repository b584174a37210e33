"""torchensemble's VotingClassifier, members one after another within each epoch."""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor, nn
from torchensemble import VotingClassifier

from benchmarks.data import Rows
from benchmarks.members import Trained, loader, predict, seed_of, take_faster_threads
from benchmarks.nets import MODELS
from benchmarks.work import Work


class Member(nn.Module):
    """A network that torchensemble makes K times from its class."""

    def __init__(self, model: str, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.net = MODELS[model].build(shape, num_classes)

    def forward(self, x_B: Tensor) -> Tensor:
        return self.net(x_B)


def train(work: Work, data: Rows) -> Trained:
    """Train the ensemble; members draw initial weights and orders from torch's global generator."""
    logging.disable(logging.INFO)
    threads = take_faster_threads(work, data)
    torch.manual_seed(seed_of(work, 0, "init"))
    ensemble = VotingClassifier(
        estimator=Member,
        n_estimators=work.members,
        estimator_args={"model": work.model, "shape": data.shape, "num_classes": data.num_classes},
        cuda=False,
        n_jobs=None,
    )
    ensemble.set_optimizer("AdamW", lr=work.lr, weight_decay=work.weight_decay, fused=True)
    began = time.perf_counter()
    ensemble.fit(loader(work, data, None), epochs=work.epochs, log_interval=10**9, save_model=False)
    seconds = time.perf_counter() - began
    probs = [predict(member, data.x_test) for member in ensemble.estimators_]
    return Trained(torch.stack(probs), seconds, threads)
