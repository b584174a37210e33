"""RandAugment (arXiv:1909.13719): each image goes through changes that are drawn from a list.

Shapes: K members, B images of each, N = K B images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from ensemble_svc.data import pixels
from ensemble_svc.data.change import Change
from ensemble_svc.data.turns import sample, turned
from ensemble_svc.spec.augment import PolicyChange, RandAugment

Drawn: TypeAlias = Mapping[PolicyChange, Tensor]
"""Which images [N] drew each change; at most one of them for each image."""
Work: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Images, how far each goes from 0 to 1, and the same with the sign of its direction, to the changed images."""
DEGREES, SHEAR, SHIFT, FACTOR, BITS = 30.0, 0.3, 150 / 331, 0.9, 4
"""What the largest magnitude stands for (Cubuk et al. 2019, arXiv:1805.09501, table 6)."""
GEOMETRIC: tuple[PolicyChange, ...] = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TONES: dict[PolicyChange, Work] = {
    "brightness": lambda x, _, by: pixels.brighten(x, 1 + FACTOR * _wide(by)),
    "contrast": lambda x, _, by: pixels.contrast(x, 1 + FACTOR * _wide(by)),
    "saturation": lambda x, _, by: pixels.saturate(x, 1 + FACTOR * _wide(by)) if x.shape[1] == 3 else x,
    "sharpness": lambda x, _, by: pixels.blend(x, pixels.smooth(x), 1 + FACTOR * _wide(by)),
    "solarize": lambda x, level, _: pixels.solarize(x, 1 - _wide(level)),
    "posterize": lambda x, level, _: pixels.posterize(x, 2 ** _wide(level * BITS).round()),
    "autocontrast": lambda x, *_: pixels.stretch(x),
    "equalize": lambda x, *_: pixels.equalize(x),
}


class Policy(Change):
    """``num`` changes of each image, each of a kind and a direction of its own draw."""

    level: Tensor

    def __init__(
        self, choices_K: Sequence[RandAugment], generator: torch.Generator | None, white: float
    ) -> None:
        super().__init__([choice.magnitude > 0 for choice in choices_K], generator, white)
        self.num, self.changes = choices_K[0].num, choices_K[0].changes
        self.values("level", [choice.magnitude / 10 for choice in choices_K])

    def changed(self, x_KBCHW: Tensor) -> Tensor:
        size, x_NCHW = x_KBCHW.shape[:2], x_KBCHW.flatten(0, 1)
        kinds = self.uniform(self.num, *size, like=x_KBCHW).mul_(len(self.changes)).long().flatten(1)
        signs = self.uniform(self.num, *size, like=x_KBCHW).flatten(1).sub_(0.5).sign()
        level_N = self.level[:, None].expand(size).flatten()
        for kind_N, sign_N in zip(kinds, signs, strict=True):
            drawn = {n: self._is(n, kind_N) for n in self.changes}
            levels, signs_N = level_N.to(x_NCHW.dtype), sign_N.to(x_NCHW.dtype)
            x_NCHW = change(x_NCHW, drawn, levels, signs_N, picks=x_NCHW.device.type == "cpu")
        return x_NCHW.view(x_KBCHW.shape)

    def _is(self, name: PolicyChange, kind_N: Tensor) -> Tensor:
        """Which images drew the change, at any of its places in the list."""
        places = [i for i, other in enumerate(self.changes) if other == name]
        return torch.stack([kind_N == place for place in places]).any(dim=0)


def change(x_NCHW: Tensor, drawn: Drawn, level_N: Tensor, sign_N: Tensor, *, picks: bool = True) -> Tensor:
    """Each image after the change that it drew.

    Args:
        level_N: how far each goes, from 0 to 1.
        sign_N: -1 or 1, the direction of a change that has one.
        picks: work on the images of each change alone, and not on all of them for each change. It is less work, but
            a GPU would have to be waited for to know which they are.
    """
    out, by_N = x_NCHW.clone(), level_N * sign_N
    turns = {name: drawn[name] for name in GEOMETRIC if name in drawn}
    if turns:
        maps_N23 = _maps(turns, by_N, x_NCHW.shape[2:])
        moved = torch.stack(list(turns.values())).any(dim=0)
        _write(out, moved, lambda x, maps: sample(x, maps, "constant"), maps_N23, picks=picks)
    for name, work in TONES.items():
        if name in drawn:
            _write(out, drawn[name], work, level_N, by_N, picks=picks)
    return out


def _write(
    x_NCHW: Tensor, chosen_N: Tensor, work: Callable[..., Tensor], *own_N: Tensor, picks: bool
) -> None:
    """Changes the chosen images in place."""
    if not picks:
        x_NCHW.copy_(torch.where(_wide(chosen_N), work(x_NCHW, *own_N), x_NCHW))
        return
    at = chosen_N.nonzero().squeeze(1)
    if len(at):
        x_NCHW.index_copy_(0, at, work(x_NCHW[at], *(values[at] for values in own_N)))


def _maps(turns: Drawn, by_N: Tensor, size: Sequence[int]) -> Tensor:
    """From where each image's pixels are read [N, 2, 3]: turned, sheared or shifted by what it drew."""
    height, width = size
    none = torch.zeros_like(by_N)
    by = {name: torch.where(turns[name], by_N, 0) if name in turns else none for name in GEOMETRIC}
    more = [none, SHEAR * by["shear_x"], SHIFT * width * by["translate_x"]]
    more += [SHEAR * by["shear_y"], none, SHIFT * height * by["translate_y"]]
    return turned(DEGREES * by["rotate"]) + torch.stack(more, dim=-1).view(-1, 2, 3)


def _wide(values_N: Tensor) -> Tensor:
    return values_N[:, None, None, None]
