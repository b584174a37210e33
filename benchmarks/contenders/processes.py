"""joblib: the plain loop with its members shared out over one process per core."""

from __future__ import annotations

import time

import numpy as np
import torch
from joblib import Parallel, delayed

from benchmarks.data import Rows
from benchmarks.members import CORES, Trained, fit_member, predict
from benchmarks.work import Work


def train(work: Work, data: Rows) -> Trained:
    """Train the members in CORES processes of one thread each, which joblib keeps for the next member."""
    began = time.perf_counter()
    arrays = [part.numpy() for part in (data.x, data.y, data.x_test, data.y_test)]
    jobs = (delayed(_train_member)(work, arrays, member) for member in range(work.members))
    probs = Parallel(n_jobs=CORES)(jobs)
    seconds = time.perf_counter() - began
    return Trained(torch.from_numpy(np.stack(probs)), seconds, 1)


def _train_member(work: Work, arrays: list[np.ndarray], member: int) -> np.ndarray:
    torch.set_num_threads(1)
    data = Rows(*(torch.from_numpy(np.array(part)) for part in arrays))
    return predict(fit_member(work, data, member), data.x_test).numpy()
