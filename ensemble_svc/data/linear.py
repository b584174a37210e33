"""The steps that mix a row's elements: minus their means, then one matrix product.

Both come from the eigenvectors of the fitted rows' covariance (over n). They are computed in float64 on one
thread, for the last bits of a product depend on how many threads share it.

Shapes: n rows of D elements (images flattened), A axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from ensemble_svc.data.fitting import SMALLEST_DEVIATION, Float64, Rows64, Step
from ensemble_svc.data.shapes import shape_after
from ensemble_svc.spec.preprocess import Decorrelate, Whiten

ROWS_AT_ONCE = 1024
"""Rows whose products are summed together: enough that the sum itself costs little beside them."""
TIE = 1e-9
"""Weights of an axis that differ by less count as equally large where its sign is chosen."""


class Spread(NamedTuple):
    """How the elements that vary spread around their means."""

    mean: Float64
    """[D] of all elements."""
    varies: npt.NDArray[np.bool_]
    """[D] whether an element is not constant."""
    covariance: Float64
    """[V, V] of those that vary, over n."""


class LinearStep(Step):
    """``(x - mean) @ matrix``, formed in float64: a direction of little variance keeps float32's accuracy,
    and K members' stacked products have the bits of each alone."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, shape: tuple[int, ...], choice: Decorrelate | Whiten) -> None:
        super().__init__(shape, shape_after(choice, shape))
        self.choice = choice
        num_in, num_out = math.prod(shape), math.prod(self.out_shape)
        self.register_buffer("mean", torch.zeros(num_in))
        self.register_buffer("matrix", torch.zeros(num_in, num_out))

    def fit(self, rows: Rows64) -> None:
        with threadpool_limits(1):
            spread = spread_of(rows)
            if isinstance(self.choice, Decorrelate):
                inner = rotation(spread.covariance, self.choice)
            else:
                inner = whitening(spread.covariance, rows, spread, self.choice)
        matrix = np.zeros(self.matrix.shape)
        is_zca = isinstance(self.choice, Whiten) and self.choice.method == "zca"
        columns = np.flatnonzero(spread.varies) if is_zca else np.arange(matrix.shape[1])
        kept = min(inner.shape[1], len(columns))
        matrix[np.ix_(np.flatnonzero(spread.varies), columns[:kept])] = inner[:, :kept]
        self.mean.copy_(torch.from_numpy(spread.mean))
        self.matrix.copy_(torch.from_numpy(matrix))

    def forward(self, x: Tensor) -> Tensor:
        centred = (x.flatten(1) - self.mean).double()
        return (centred @ self.matrix.double()).to(x.dtype).unflatten(1, self.out_shape)


def spread_of(rows: Rows64) -> Spread:
    """The rows' means and covariance."""
    mean = rows.mean()
    varies = (rows.deviation(mean) > SMALLEST_DEVIATION).reshape(-1)
    total = np.zeros((varies.sum(), varies.sum()))
    for centred in centred_blocks(rows, mean.reshape(-1), varies):
        total += centred.T @ centred
    return Spread(mean.reshape(-1), varies, total / len(rows))


def rotation(covariance: Float64, choice: Decorrelate) -> Float64:
    """The principal axes as columns, the largest variance first; 0 beyond the share that is kept."""
    variances, axes = principal(covariance)
    if choice.variance is not None:
        share = np.cumsum(variances) / max(variances.sum(), SMALLEST_DEVIATION)
        num_kept = int(np.searchsorted(share, choice.variance - 1e-12)) + 1
        axes[:, num_kept:] = 0
    return axes


def whitening(covariance: Float64, rows: Rows64, spread: Spread, choice: Whiten) -> Float64:
    """The matrix [V, V] that makes the covariance, after shrinkage, the identity."""
    share = shrinkage_of(rows, spread) if choice.shrinkage == "auto" else choice.shrinkage
    own = np.diag(covariance)
    mean_variance = own.mean() if len(own) else 0.0
    shrunk = (1 - share) * covariance + np.diag(share * mean_variance + choice.eps * own)
    variances, axes = principal(shrunk)
    none = variances <= variances.max(initial=0) * len(variances) * np.finfo(np.float64).eps
    white = axes * np.where(none, 0, 1 / np.sqrt(np.where(none, 1, variances)))
    return white if choice.method == "pca" else white @ axes.T


def principal(covariance: Float64) -> tuple[Float64, Float64]:
    """Variances, largest first, and their axes as columns, each with its largest weight positive."""
    if not len(covariance):
        return np.zeros(0), covariance
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1].copy()
    size = np.abs(axes)
    first = np.argmax(size >= size.max(axis=0) * (1 - TIE), axis=0)
    axes *= np.sign(axes[first, np.arange(len(axes))])
    return variances, axes


def shrinkage_of(rows: Rows64, spread: Spread) -> float:
    """The share of Ledoit & Wolf (2004, A well-conditioned estimator for large-dimensional covariance matrices),
    with which the shrunk covariance is nearest to the true one in expectation."""
    covariance, num = spread.covariance, len(spread.covariance)
    if not num:
        return 0.0
    fourth = 0.0
    for centred in centred_blocks(rows, spread.mean, spread.varies):
        fourth += float(np.sum(np.square(np.square(centred).sum(axis=1))))
    square, mean_variance = float(np.sum(np.square(covariance))), float(np.trace(covariance)) / num
    off = square - num * mean_variance**2
    error = (fourth / len(rows) - square) / len(rows)
    return min(max(error, 0.0), off) / off if off > 0 else 0.0


def centred_blocks(rows: Rows64, mean: Float64, varies: npt.NDArray[np.bool_]) -> Iterator[Float64]:
    """The rows [n, V] around their means, in blocks, of the elements that vary."""
    for block in rows.blocks(ROWS_AT_ONCE):
        yield (block.reshape(len(block), -1) - mean)[:, varies]
