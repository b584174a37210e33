"""Laws of the augmentations: shape and type kept, pixels only moved, each image for itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ensemble_svc.data.augment import build_augment
from ensemble_svc.spec.data import AUGMENT, Augment, Crop, Flip

CHOICES: list[tuple[Augment, ...]] = [
    (Flip(),),
    (Flip(p=1.0),),
    (Crop(padding=2),),
    (Crop(padding=3, mode="constant"),),
    (Flip(), Crop(padding=1)),
    (),
]


def images(num: int = 40, channels: int = 3, height: int = 8, width: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, channels, height, width, generator=generator) + 1


def test_every_augmentation_is_tested() -> None:
    assert {choice.name for choices in CHOICES for choice in choices} == set(AUGMENT.by_name)


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: "+".join(x.name for x in c) or "none")
def test_shape_and_type_are_kept_and_the_seed_decides(choices: tuple[Augment, ...]) -> None:
    augment = build_augment(choices)
    for x in (images(), images(1), images(5, channels=1), images(3, height=28, width=28)):
        before = x.clone()
        torch.manual_seed(3)
        first = augment(x)
        torch.manual_seed(3)
        assert torch.equal(first, augment(x))
        assert first.shape == x.shape
        assert first.dtype == torch.float32
        assert torch.equal(x, before)
    drawn = {augment(images()).numpy().tobytes() for _ in range(5)}
    assert len(drawn) == (1 if choices in ((), (Flip(p=1.0),)) else 5)


def test_flipping_twice_is_the_identity() -> None:
    x = images()
    flip = build_augment((Flip(p=1.0),))
    assert torch.equal(flip(x), x.flip(-1))
    assert torch.equal(flip(flip(x)), x)
    assert torch.equal(build_augment((Flip(p=0.0),))(x), x)


def test_each_image_is_flipped_with_probability_p() -> None:
    torch.manual_seed(0)
    x = images(4000, 1, 2, 3)
    out = build_augment((Flip(p=0.3),))(x)
    flipped = (out == x.flip(-1)).flatten(1).all(dim=1)
    kept = (out == x).flatten(1).all(dim=1)
    assert (flipped ^ kept).all()
    assert abs(flipped.float().mean() - 0.3) < 4 * np.sqrt(0.21 / 4000)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("padding", [1, 3])
def test_a_crop_only_shifts_and_reaches_every_shift(mode: str, padding: int) -> None:
    """Each image is one of the (2p + 1)^2 windows of its padded self, all of them equally likely."""
    torch.manual_seed(0)
    num = 1500
    x = images(num, 2, 5, 6)
    out = build_augment((Crop.model_validate({"padding": padding, "mode": mode}),))(x)
    padded = F.pad(x, [padding] * 4, mode=mode)
    windows = [(i, j) for i in range(2 * padding + 1) for j in range(2 * padding + 1)]
    hits = torch.stack(
        [(out == padded[:, :, i : i + 5, j : j + 6]).flatten(1).all(dim=1) for i, j in windows]
    )
    assert (hits.sum(dim=0) == 1).all()
    counts = hits.sum(dim=1).double()
    expected = num / len(windows)
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert chi2 < len(windows) + 5 * np.sqrt(2 * len(windows))
