"""Laws of the augmentations: pixels are only moved, each image for itself, by its own member's strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import RandomCrop
from torch import Tensor

from ensemble_svc.data.augment import build_augment
from ensemble_svc.data.moves import Axis, read, shift
from ensemble_svc.spec.augment import AUGMENT, Augment, Crop, Flip

CHOICES: list[tuple[Augment, ...]] = [
    (Flip(),),
    (Flip(p=1.0),),
    (Crop(padding=2),),
    (Crop(padding=3, mode="constant"),),
    (Flip(), Crop(padding=1)),
    (Crop(padding=2, mode="constant"), Flip(), Crop(padding=1)),
    (),
]
MODES = ["reflect", "constant"]
over_chains = pytest.mark.parametrize("chain", CHOICES, ids=lambda c: "+".join(x.name for x in c) or "none")
over_modes = pytest.mark.parametrize("mode", MODES)


def images(*lead: int, channels: int = 3, height: int = 8, width: int = 10) -> Tensor:
    """Images [*lead, C, H, W] whose pixels are above 0."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(*lead, channels, height, width, generator=generator) + 1


def crop(padding: int, mode: str) -> Crop:
    return Crop.model_validate({"padding": padding, "mode": mode})


def windows(x_NCHW: Tensor, padding: int, mode: str) -> list[Tensor]:
    """The (2p + 1)^2 images that a crop may make of each image."""
    height, width = x_NCHW.shape[2:]
    padded = F.pad(x_NCHW, [padding] * 4, mode=mode)
    starts = range(2 * padding + 1)
    return [padded[:, :, i : i + height, j : j + width] for i in starts for j in starts]


def same(one_NCHW: Tensor, other_NCHW: Tensor) -> Tensor:
    """Which images are the same to the bit, [N]."""
    return (one_NCHW == other_NCHW).flatten(1).all(dim=1)


def test_every_change_that_only_moves_pixels_is_tested() -> None:
    """Such changes leave bytes bytes; the others are tested in test_data_tones.py."""
    every: list[Augment] = [choice() for choice in AUGMENT]  # type: ignore[misc]
    moves = {c.name for c in every if build_augment([(c,)])(images(1, 2).byte()).dtype == torch.uint8}
    assert {choice.name for chain in CHOICES for choice in chain} == moves


@over_chains
def test_shape_and_type_are_kept_and_the_seed_decides(chain) -> None:
    augment = build_augment([chain])
    bytes_KB = (images(1, 6) * 100).byte()
    small = images(1, 5, channels=1), images(1, 3, height=28, width=28), images(1, 1, height=5, width=4)
    for x_KB in (images(1, 40), images(1, 1), *small, bytes_KB, images(1, 4).double()):
        before = x_KB.clone()
        torch.manual_seed(3)
        first = augment(x_KB)
        torch.manual_seed(3)
        assert torch.equal(first, augment(x_KB))
        assert first.shape == x_KB.shape
        assert first.dtype == x_KB.dtype
        assert torch.equal(x_KB, before)
    drawn = {augment(images(1, 40)).numpy().tobytes() for _ in range(5)}
    assert len(drawn) == (1 if chain in ((), (Flip(p=1.0),)) else 5)


@over_chains
def test_a_pack_of_equal_members_draws_as_one_member_with_all_their_images(chain) -> None:
    x_KB = images(3, 7)
    torch.manual_seed(1)
    together = build_augment([chain] * 3)(x_KB)
    torch.manual_seed(1)
    assert torch.equal(build_augment([chain])(x_KB.flatten(0, 1)[None]).view(x_KB.shape), together)


@over_chains
def test_bytes_move_as_numbers_do(chain) -> None:
    augment, x_KB = build_augment([chain]), (images(1, 30) * 100).byte()
    torch.manual_seed(2)
    moved = augment(x_KB)
    torch.manual_seed(2)
    assert torch.equal(moved.float(), augment(x_KB.float()))


def test_flipping_twice_is_the_identity() -> None:
    x_KB = images(1, 9)
    flip = build_augment([(Flip(p=1.0),)])
    assert torch.equal(flip(x_KB), x_KB.flip(-1))
    assert torch.equal(flip(flip(x_KB)), x_KB)


@pytest.mark.parametrize("p_K", [(0.3,), (0.0, 0.3, 1.0)], ids=["alone", "packed"])
def test_each_image_is_flipped_with_its_members_probability(p_K) -> None:
    torch.manual_seed(0)
    num = 4000
    x_KB = images(len(p_K), num, channels=1, height=2, width=3)
    out_KB = build_augment([(Flip(p=p),) for p in p_K])(x_KB)
    for p, x_B, out_B in zip(p_K, x_KB, out_KB, strict=True):
        flipped, kept = same(out_B, x_B.flip(-1)), same(out_B, x_B)
        assert (flipped ^ kept).all()
        assert abs(flipped.double().mean() - p) <= 4 * np.sqrt(p * (1 - p) / num)


@over_modes
@pytest.mark.parametrize("padding_K", [(1,), (3,), (2, 0, 1)], ids=str)
def test_a_crop_only_shifts_and_reaches_every_shift_of_its_member(mode, padding_K) -> None:
    """Each image is one of the (2p + 1)^2 windows of its padded self, all of them equally likely."""
    torch.manual_seed(0)
    num = 1500
    x_KB = images(len(padding_K), num, channels=2, height=5, width=6)
    out_KB = build_augment([(crop(padding, mode),) for padding in padding_K])(x_KB)
    for padding, x_B, out_B in zip(padding_K, x_KB, out_KB, strict=True):
        hits = torch.stack([same(out_B, window) for window in windows(x_B, padding, mode)])
        assert (hits.sum(dim=0) == 1).all()
        counts, expected = hits.sum(dim=1).double(), num / len(hits)
        chi2 = ((counts - expected) ** 2 / expected).sum()
        assert chi2 < len(hits) + 5 * np.sqrt(2 * len(hits))


@over_modes
@settings(max_examples=25)
@given(data=st.data())
def test_for_the_same_offsets_a_shift_is_kornias_crop(mode, data) -> None:
    height, width = data.draw(st.integers(2, 9)), data.draw(st.integers(2, 9))
    padding = data.draw(st.integers(1, min(height, width) - 1))
    torch.manual_seed(data.draw(st.integers(0, 10**6)))
    x_KB = images(2, 6, channels=2, height=height, width=width)
    reference = RandomCrop((height, width), padding=padding, padding_mode=mode)
    expected = reference(x_KB.flatten(0, 1))
    right_KB, down_KB = (reference._params["src"][:, 0].long() - padding).T.view(2, 2, 6)
    rows, cols = (Axis(torch.arange(size).view(1, 1, -1)) for size in (height, width))
    moved = read(x_KB, shift(rows, down_KB, mode), shift(cols, right_KB, mode))
    assert torch.equal(moved.flatten(0, 1), expected)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), order=st.permutations(["flip", "reflect", "constant", "wide"]))
def test_a_chain_is_its_changes_one_after_another(seed, order) -> None:
    """The pixels move once for the whole chain; one by one, with the same draws, they end where they do then."""
    kinds = {"flip": Flip(), "reflect": crop(2, "reflect")}
    kinds |= {"constant": crop(3, "constant"), "wide": crop(6, "constant")}
    x_KB = images(2, 5)
    torch.manual_seed(seed)
    chained = build_augment([tuple(kinds[name] for name in order)] * 2)(x_KB)
    torch.manual_seed(seed)
    draws = []
    for name in reversed(order):
        draws.append(torch.get_rng_state())
        build_augment([(kinds[name],)] * 2)(x_KB)
    stepwise = x_KB
    for name, state in zip(order, reversed(draws), strict=True):
        torch.set_rng_state(state)
        stepwise = build_augment([(kinds[name],)] * 2)(stepwise)
    assert torch.equal(chained, stepwise)


@over_modes
def test_a_member_without_strength_keeps_its_pixels_to_the_bit(mode) -> None:
    x_KB = images(2, 30)
    still, moving = (Flip(p=0.0), crop(0, mode)), (Flip(p=1.0), crop(3, mode))
    out_KB = build_augment([moving, still])(x_KB)
    assert torch.equal(out_KB[1], x_KB[1])
    assert not same(out_KB[0], x_KB[0]).all()


@over_modes
def test_where_no_member_has_a_strength_nothing_is_drawn(mode) -> None:
    x_KB, before = images(2, 3), torch.get_rng_state()
    assert torch.equal(build_augment([(Flip(p=0.0), crop(0, mode))] * 2)(x_KB), x_KB)
    assert torch.equal(before, torch.get_rng_state())


def test_images_of_one_row_and_of_any_strides_are_taken() -> None:
    x_KB = images(2, 3, channels=2).transpose(-1, -2)
    torch.manual_seed(0)
    moved = build_augment([(Flip(), Crop(padding=1))] * 2)(x_KB)
    torch.manual_seed(0)
    assert torch.equal(build_augment([(Flip(), Crop(padding=1))] * 2)(x_KB.contiguous()), moved)
    line = images(1, 4, height=1)
    out = build_augment([(crop(1, "constant"),)])(line)
    assert out.shape == line.shape
