"""Lightning, one Trainer per member, one after another in one process."""

from __future__ import annotations

import time

import torch

from benchmarks.contenders.module import fit_with_trainer, quiet
from benchmarks.data import Rows
from benchmarks.members import Trained, predict, take_faster_threads
from benchmarks.work import Work


def train(work: Work, data: Rows) -> Trained:
    """Train one member after another with whichever number of threads is faster."""
    quiet()
    threads = take_faster_threads(work, data)
    began = time.perf_counter()
    nets = [fit_with_trainer(work, data, member) for member in range(work.members)]
    seconds = time.perf_counter() - began
    return Trained(torch.stack([predict(net, data.x_test) for net in nets]), seconds, threads)
