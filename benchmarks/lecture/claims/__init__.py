"""The claims in the order of the lecture."""

from __future__ import annotations

from benchmarks.lecture.claim import Claim
from benchmarks.lecture.claims import (
    activations,
    averages,
    bagging,
    batch_norm,
    decay,
    mc_dropout,
    optimizers,
    regularizers,
    signal,
    zeros,
)

CLAIMS: tuple[Claim, ...] = (
    signal.CLAIM,
    activations.CLAIM,
    zeros.CLAIM,
    batch_norm.CLAIM,
    regularizers.CLAIM,
    optimizers.CLAIM,
    decay.CLAIM,
    bagging.CLAIM,
    averages.ENSEMBLE,
    averages.WEIGHTS,
    mc_dropout.CLAIM,
)
