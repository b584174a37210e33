"""Mixup and CutMix: each row of a member's batch becomes a mixture of itself and another row of that batch.

Mixup (Zhang et al. 2018, arXiv:1710.09412): x = λ x_i + (1 - λ) x_j with λ ~ Beta(α, α). CutMix (Yun et al.
2019, arXiv:1905.04899): a rectangle of x_i is cut out and filled from x_j, λ being the share of x_i that is
left. As in both papers' code a step has one λ, one rectangle and one permutation of the rows; here every member
draws its own. Under cross-entropy the loss is λ loss(y_i) + (1 - λ) loss(y_j), which is the loss of the mixed
one-hot labels; numbers are mixed themselves.

What is mixed is what the network reads, after the transform: one-hot columns become soft ones, missing numbers
have been filled, and a member's result is the same whether its rows were transformed on load or are in each
step. Transforms of images that work pixel by pixel (all but whiten) leave CutMix the same either way.

A member of strength 0 keeps every bit of its rows and of its loss. In a stream the partners of a member with a bag
are drawn from the batch by their number in the bag, so that no row enters that the member leaves out.

Shapes: K members, B rows, images [..., C, H, W].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.regularizers import CutMix, Mixup

PARTNER, KEEP = "mix_partner", "mix_keep"
"""Names under which a member's draw goes into its forward pass."""


class Mixed(NamedTuple):
    """One step's draw."""

    partner_KB: Tensor
    """Which row of its batch each row is mixed with."""
    share_K: Tensor
    """λ: how much of a row is its own."""
    keep_K: Tensor
    """What of each input is its own: ``share_K``, or 0 or 1 for each pixel, [K, H, W]."""

    def member(self, k: int) -> Mixed:
        """The draw of one member, K = 1."""
        return Mixed(*(values[k : k + 1] for values in self))

    @property
    def own_K(self) -> dict[str, Tensor]:
        """What the forward pass of each member must know."""
        return {PARTNER: self.partner_KB, KEEP: self.keep_K}

    def partners(self, rows_KB: Tensor) -> Tensor:
        """A value of each row [K, B(, T)], of its partner."""
        return torch.stack([row[partner] for row, partner in zip(rows_KB, self.partner_KB, strict=True)])

    def mean(self, own_KB: Tensor, other_KB: Tensor) -> Tensor:
        """λ of the rows' own values and 1 - λ of their partners', [K, B(, T)]."""
        share = self.share_K.view(-1, *[1] * (own_KB.dim() - 1))
        return share * own_KB + (1 - share) * other_KB


@dataclass(frozen=True)
class Mixing:
    """How the rows of K members are mixed; a member whose strengths are 0 mixes nothing."""

    alpha_K: Tensor
    """Of mixup."""
    cut_alpha_K: Tensor
    """Of CutMix."""
    cut_p_K: Tensor
    """Probability of a step with CutMix; such a step has no mixup besides."""
    cuts: bool
    """Whether any member has CutMix."""

    @classmethod
    def of(cls, members: Sequence[MemberSpec], device: torch.device) -> Mixing | None:
        """The members' mixing; None where no member has any."""
        each = [_strengths(member) for member in members]
        cuts = any(cut and p for _, cut, p in each)
        if not cuts and not any(alpha for alpha, _, _ in each):
            return None
        alpha_K, cut_alpha_K, cut_p_K = torch.tensor(each, dtype=torch.float64, device=device).unbind(1)
        return cls(alpha_K, cut_alpha_K, cut_p_K, cuts)

    @torch.no_grad()
    def draw(self, x_KB: Tensor, weight_KB: Tensor | None, generator: torch.Generator | None) -> Mixed:
        """One step's draw for batches of the shape of ``x_KB``.

        Args:
            weight_KB: how much each row counts for each member, in a stream.
        """
        partner_KB = _partners(x_KB.shape[:2], weight_KB, self.alpha_K.device, generator)
        share_K = beta(self.alpha_K, generator)
        if not self.cuts:
            return Mixed(partner_KB, share_K.float(), share_K.float())
        cut_K = torch.rand(len(share_K), device=share_K.device, generator=generator) < self.cut_p_K
        cut_K &= self.cut_alpha_K > 0
        keep_KHW = kept_pixels(beta(self.cut_alpha_K, generator), x_KB.shape[-2:], generator)
        keep_KHW = torch.where(cut_K[:, None, None], keep_KHW, share_K[:, None, None])
        share_K = torch.where(cut_K, keep_KHW.mean((1, 2)), share_K)
        return Mixed(partner_KB, share_K.float(), keep_KHW.float())


def beta(alpha_K: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws from Beta(α, α) [K] in float64; 1 where α is 0.

    X / (X + Y) of two Gamma(α) numbers, each taken as Gamma(α + 1) times U^(1/α) (Marsaglia & Tsang 2000,
    section 6) and divided by their logarithms: for small α the numbers themselves would be 0.
    """
    shape_2K = alpha_K.double().clamp(min=1e-12).expand(2, -1)
    gamma_2K = torch._standard_gamma(shape_2K + 1, generator=generator).log()
    uniform_2K = 1 - torch.rand(
        shape_2K.shape, dtype=torch.float64, device=alpha_K.device, generator=generator
    )
    log_2K = gamma_2K + uniform_2K.log() / shape_2K
    return torch.where(alpha_K > 0, (log_2K[0] - log_2K[1]).sigmoid(), 1.0)


def kept_pixels(share_K: Tensor, size: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """1 outside and 0 inside a rectangle of each member [K, H, W], in float64.

    The rectangle has the image's own proportions and 1 - ``share_K`` of its area; its centre lies anywhere, and
    what stands over the edge is lost, so the share that is kept is the mean of the pixels.
    """
    sides = []
    for length in size:
        centre_K1 = torch.randint(length, (len(share_K), 1), device=share_K.device, generator=generator)
        half_K1 = (length * (1 - share_K).sqrt()).floor().long()[:, None] // 2
        at_L = torch.arange(length, device=share_K.device)
        sides.append((at_L >= centre_K1 - half_K1) & (at_L < centre_K1 + half_K1))
    return (~(sides[0][:, :, None] & sides[1][:, None, :])).double()


def mix_one(x_B: Tensor, own: Mapping[str, Tensor]) -> Tensor:
    """One member's inputs [B, …] mixed as its draw says; as they are where there is none."""
    if PARTNER not in own:
        return x_B
    return _mix(x_B, x_B[own[PARTNER]], own[KEEP])


def mix_all(x_KB: Tensor, own_K: Mapping[str, Tensor]) -> Tensor:
    """The same for all members at once, [K, B, …]."""
    if PARTNER not in own_K:
        return x_KB
    partner_KB, keep_K = own_K[PARTNER], own_K[KEEP]
    first_K1 = torch.arange(len(x_KB), device=x_KB.device)[:, None]
    middle = [1] * (2 if keep_K.dim() == 3 else x_KB.dim() - 1)
    keep_K = keep_K.view(len(keep_K), *middle, *keep_K.shape[1:])
    return _mix(x_KB, x_KB[first_K1, partner_KB], keep_K)


def _mix(x: Tensor, other: Tensor, keep: Tensor) -> Tensor:
    return (keep * x + (1 - keep) * other).to(x.dtype)


def _partners(
    size: torch.Size, weight_KB: Tensor | None, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """A permutation of each member's rows, or rows drawn by their weights."""
    if weight_KB is None:
        return torch.rand(size, device=device, generator=generator).argsort(1)
    has_none_K1 = weight_KB.sum(1, keepdim=True) == 0
    weight_KB = torch.where(has_none_K1, 1.0, weight_KB.float())
    return torch.multinomial(weight_KB, size[1], replacement=True, generator=generator)


def _strengths(member: MemberSpec) -> tuple[float, float, float]:
    alpha, cut_alpha, cut_p = 0.0, 0.0, 0.0
    for rule in member.training.regularizers:
        match rule:
            case Mixup():
                alpha = rule.alpha
            case CutMix():
                cut_alpha, cut_p = rule.alpha, rule.p
            case _:
                pass
    return alpha, cut_alpha, cut_p
