"""What a network draws anew in every training step: dropout, and noise on its activations.

Each strength is a buffer, so K stacked networks have K strengths: under ``torch.func.vmap`` with
``randomness="different"`` every member draws for itself and by its own. A layer's modules stand there
whatever the strength is, so members with and without have the same state.

Shapes: any x; in a pack, x of each member.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

SMALLEST_KEEP = 2.0**-24
"""Spacing of the uniform draws: what is kept at a rate that float32 cannot tell from 1."""


class Draw(nn.Module):
    """Something drawn in training and left out elsewhere.

    ``generator`` is where the numbers come from, torch's global one when None; ``draw_from`` sets it.
    With ``shared`` all rows of a call get one draw, of numbers that come from a generator on the CPU.
    ``draws`` tells whether any member's strength is above 0. Where it is False nothing is drawn and
    nothing computed; where it is True a member of strength 0 keeps its values all the same. It is
    not part of the state: ``set_draws`` sets it for a pack.

    Args:
        strength: of the member; 0 for none.
    """

    strength_name: ClassVar[str]
    """The buffer's name."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.register_buffer(self.strength_name, torch.tensor(float(strength), dtype=torch.float32))
        self.draws = bool(self.get_buffer(self.strength_name) > 0)
        self.generator: torch.Generator | None = None
        self.shared = False

    def forward(self, x: Tensor) -> Tensor:
        """The same shape and type."""
        return self.at(self.get_buffer(self.strength_name), x)

    def at(self, strength: Tensor, x: Tensor) -> Tensor:
        """The same with another strength, one that broadcasts over ``x``."""
        return self.drawn(strength, x) if self.training and self.draws else x

    def uniform(self, shape: Sequence[int], device: torch.device) -> Tensor:
        """Uniform numbers of this shape, rows first; of one row where all share it."""
        if self.shared:
            return torch.rand((1, *shape[1:]), generator=self.generator).to(device)
        return torch.rand(shape, device=device, dtype=torch.float32, generator=self.generator)

    @abstractmethod
    def drawn(self, strength: Tensor, x: Tensor) -> Tensor:
        """``x`` with a fresh draw."""


class Dropout(Draw):
    """Zeroes each number with probability ``rate`` and divides the others by 1 - rate.

    So the expectation in training is the value in evaluation (Srivastava et al. 2014, section 10).
    """

    strength_name: ClassVar[str] = "rate"
    rate: Tensor

    def drawn(self, strength: Tensor, x: Tensor) -> Tensor:
        keep = (1 - strength).clamp(min=SMALLEST_KEEP)
        kept = self.uniform(x.shape, x.device) < keep
        return (x * kept.float().div_(keep)).to(x.dtype)


class ChannelDropout(Draw):
    """Zeroes each channel of a row, at all its places, with probability ``rate`` and divides the others by 1 - rate.

    Neighbouring places say much the same, so what single zeroes take away stands beside them
    (Tompson et al. 2015, arXiv:1411.4280, section 3.3).
    """

    strength_name: ClassVar[str] = "rate"
    rate: Tensor

    def drawn(self, strength: Tensor, x: Tensor) -> Tensor:
        keep = (1 - strength).clamp(min=SMALLEST_KEEP)
        kept = self.uniform((*x.shape[:-2], 1, 1), x.device) < keep
        return x * kept.float().div_(keep).to(x.dtype)


class ActivationNoise(Draw):
    """Adds Gaussian noise of standard deviation ``std`` to each number."""

    strength_name: ClassVar[str] = "std"
    std: Tensor

    def drawn(self, strength: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(x, normal_like(x, self.generator), strength.to(x.dtype))


def set_draws(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Let ``net``, the template of a pack, draw where some member does.

    Args:
        state: the members' stacked buffers by name, [K] each, or one member's; what it lacks is
            read from ``net`` itself. Reading it waits for the device, so not in every step.
    """
    for name, module in net.named_modules():
        if isinstance(module, Draw):
            own = module.get_buffer(module.strength_name)
            key = f"{name}.{module.strength_name}" if name else module.strength_name
            module.draws = bool((state.get(key, own) > 0).any())


def draw_from(net: nn.Module, generator: torch.Generator | None) -> None:
    """Let all of ``net`` draw from ``generator``, or from torch's global one."""
    for module in net.modules():
        if isinstance(module, Draw):
            module.generator = generator


def normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal numbers in the shape and type of ``x``; under vmap the generator is the global one."""
    if generator is None:
        return torch.randn_like(x)
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
