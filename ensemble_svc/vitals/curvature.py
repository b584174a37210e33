"""The sharpest curvature of a loss: its Hessian's largest and most negative eigenvalue.

By Lanczos' method, which is the power iteration with every vector kept: after m products with the Hessian it has
the extreme eigenvalues of all that m steps of the (shifted) power iteration could reach, both ends at once
(Golub & Van Loan, chapter 10). The products take two passes of backpropagation each (Pearlmutter 1994).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_PRODUCTS = 100
MOST_BYTES = 2**28
"""What the kept vectors may take."""
EXACT = 1e-4
"""Error of both eigenvalues, over the larger one's size, at which it ends."""
SETTLED = 1e-6
"""A remainder so small, over the size of the product, is round-off: the space is exhausted."""
STATIONARY = 1e-3
"""Share of the loss that a best step along the gradient could win; below it the point counts as stationary."""
BENT = 0.01
"""The most negative eigenvalue over the largest one, from which a stationary point is a saddle."""


@dataclass(frozen=True)
class Curvature:
    """How a loss bends at a point."""

    loss: float
    gradient: float
    """Norm of the gradient."""
    largest: float
    """The Hessian's largest eigenvalue, with its sign."""
    smallest: float
    """Its most negative one; above 0 where the loss bends upwards everywhere."""
    products: int
    """Products with the Hessian that were taken."""

    @property
    def sharpest(self) -> float:
        """The larger size of both."""
        return max(abs(self.largest), abs(self.smallest))

    @property
    def stationary(self) -> bool:
        """Whether a gradient step of the best length, 1 / sharpest, would win next to nothing."""
        if not self.gradient:
            return True
        return self.sharpest > 0 and self.gradient**2 / (2 * self.sharpest) < STATIONARY * abs(self.loss)

    @property
    def kind(self) -> str:
        """``slope``, or of a stationary point ``saddle``, ``minimum``, ``maximum`` or ``flat``."""
        if not self.stationary:
            return "slope"
        up, down = self.largest > BENT * self.sharpest, -self.smallest > BENT * self.sharpest
        return {(True, True): "saddle", (True, False): "minimum", (False, True): "maximum"}.get(
            (up, down), "flat"
        )


def curvature(loss: Tensor, weights: Sequence[Tensor], *, seed: int = 0) -> Curvature:
    """The curvature of ``loss``, a scalar with its graph, by the weights.

    Args:
        seed: of the first vector, which must not be at right angles to the directions sought.
    """
    slopes = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True, materialize_grads=True)
    gradient = torch.cat([slope.flatten() for slope in slopes])

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # the loss is linear in every weight
            return torch.zeros_like(vector)
        found = torch.autograd.grad(
            gradient, weights, vector, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in found])

    start = torch.randn(len(gradient), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    largest, smallest, products = extremes(product, start.to(gradient))
    norm = float(gradient.detach().norm())
    return Curvature(float(loss.detach()), norm, largest, smallest, products)


def extremes(product: Callable[[Tensor], Tensor], start: Tensor) -> tuple[float, float, int]:
    """The largest and the smallest eigenvalue of a symmetric matrix, and the products taken.

    Args:
        product: the matrix times a vector [n].
        start: any vector [n] but 0.
    """
    most = min(len(start), MOST_PRODUCTS, max(2, MOST_BYTES // (len(start) * start.element_size())))
    basis = start.new_empty(most, len(start))
    basis[0] = start / start.norm()
    diagonal, beside = list[float](), list[float]()
    while True:
        number = len(diagonal) + 1
        image = product(basis[number - 1])
        diagonal.append(float(image @ basis[number - 1]))
        rest, length = _orthogonal(image, basis[:number]), float(image.norm())
        size = float(rest.norm())
        values, errors = _ritz(diagonal, beside, size)
        settled = size <= SETTLED * length or max(errors) <= EXACT * max(map(abs, values))
        if settled or number >= most:
            return max(values), min(values), number
        beside.append(size)
        basis[number] = rest / size


def _orthogonal(vector: Tensor, basis: Tensor) -> Tensor:
    """What is left of a vector [n] at right angles to the basis [m, n]; twice, since once leaves round-off."""
    for _ in range(2):
        vector = vector - (basis @ vector) @ basis
    return vector


def _ritz(diagonal: list[float], beside: list[float], rest: float) -> tuple[list[float], list[float]]:
    """Both extreme eigenvalues of the tridiagonal matrix, and bounds of their errors."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        side = torch.tensor(beside, dtype=torch.float64)
        matrix = matrix + torch.diag(side, 1) + torch.diag(side, -1)
    values, vectors = torch.linalg.eigh(matrix)
    bounds = rest * vectors[-1].abs()
    return [float(values[-1]), float(values[0])], [float(bounds[-1]), float(bounds[0])]
