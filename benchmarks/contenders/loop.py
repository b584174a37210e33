"""A plain PyTorch loop over the members, in one process."""

from __future__ import annotations

import time

import torch

from benchmarks.data import Rows
from benchmarks.members import Trained, fit_member, predict, take_faster_threads
from benchmarks.work import Work


def train(work: Work, data: Rows, *, fused: bool = True) -> Trained:
    """Train one member after another with whichever number of threads is faster."""
    threads = take_faster_threads(work, data)
    began = time.perf_counter()
    nets = [fit_member(work, data, k, fused=fused) for k in range(work.members)]
    seconds = time.perf_counter() - began
    return Trained(torch.stack([predict(net, data.x_test) for net in nets]), seconds, threads)
