"""SWAG: a Gaussian around the mean of a training's late iterates, to draw members from.

Mean, mean square and the last few deviations from the running mean make the covariance: half its
diagonal, half of low rank (Maddox et al. 2019, arXiv:1902.02476, algorithm 1). Draws are members that cost no
training; a batch norm's statistics must be estimated again for each.

Laws: the mean is that of the iterates; with scale 0 every draw is the mean; a counter is the largest seen, and
nothing is drawn for it; the draws depend on the generator and the moments alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ensemble_svc.aggregate.averaging import RunningAverage, State
from ensemble_svc.errors import EnsembleError


@dataclass(frozen=True)
class Swag:
    """Moments of the iterates so far."""

    rank: int
    """Most deviations kept; 0 for the diagonal alone, else at least 2 (their number less 1 divides)."""
    mean: RunningAverage = field(default_factory=RunningAverage)
    square: RunningAverage = field(default_factory=RunningAverage)
    """Mean of the squares, of floating point tensors only."""
    deviations: tuple[dict[str, Tensor], ...] = ()
    """The last ``rank`` differences of an iterate from the mean that includes it, float64, oldest first."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.rank == 1:
            raise EnsembleError(f"rank is {self.rank}; it is 0, for the diagonal alone, or at least 2.")

    @property
    def count(self) -> int:
        """Number of iterates taken in."""
        return round(self.mean.weight)

    def update(self, state: State) -> Swag:
        """With one more iterate; the argument and this value are left as they were.

        Raises:
            EnsembleError: the state of another network.
        """
        floats = {n: v.detach().double() for n, v in state.items() if v.is_floating_point()}
        mean = self.mean.add(state)
        square = self.square.add({name: value.square() for name, value in floats.items()})
        if self.rank == 0:
            return Swag(self.rank, mean, square)
        centre = mean.total or {}
        deviation = {name: value - centre[name] for name, value in floats.items()}
        return Swag(self.rank, mean, square, (*self.deviations, deviation)[-self.rank :])

    def sample(self, generator: torch.Generator, *, scale: float = 1.0) -> dict[str, Tensor]:
        """One draw, in the iterates' types.

        Mean + sqrt(scale / 2) (sqrt(variance) z + D y / sqrt(L - 1)) with z and y standard normal and D the L
        kept deviations; without them, mean + sqrt(scale x variance) z.

        Args:
            generator: of the device that holds the iterates; advanced.
            scale: of the covariance, from 0; the paper predicts with 1/2 to 1.

        Raises:
            EnsembleError: fewer than two iterates (or, with a rank, deviations), or a negative scale.
        """
        if self.count < 2:
            raise EnsembleError(f"SWAG has seen {self.count} iterates; a spread needs at least 2.")
        if not 0 <= scale < math.inf:
            raise EnsembleError(f"scale is {scale}; it is a finite number from 0.")
        draw, squares = self.mean.result(), self.square.total or {}
        centre = self.mean.total or {}
        low_rank = len(self.deviations)
        factor = math.sqrt(scale / 2 if low_rank else scale)
        device = next(iter(squares.values())).device
        y_L = torch.randn(low_rank, generator=generator, dtype=torch.float64, device=device)
        for name, square in squares.items():
            deviation = (square - centre[name].square()).clamp(min=0).sqrt()
            z = torch.randn(square.shape, generator=generator, dtype=torch.float64, device=square.device)
            step = deviation * z
            for y, column in zip(y_L, self.deviations, strict=True):
                step += y / math.sqrt(low_rank - 1) * column[name]
            draw[name] = (centre[name] + factor * step).to(draw[name].dtype)
        return draw
