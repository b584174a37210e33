"""Laws of the changes that work on images' values: kornia's definitions, each image by its member's strength."""

from __future__ import annotations

from collections.abc import Callable
from math import pi
from typing import Any, get_args

import kornia
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.augmentation import RandomErasing
from torch import Tensor

from ensemble_svc.data import pixels, policy
from ensemble_svc.data.augment import build_augment
from ensemble_svc.data.blots import erase
from ensemble_svc.data.turns import sample, turned
from ensemble_svc.spec.augment import AUGMENT, Augment, PolicyChange, RandAugment

FAST = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 10**6)
KORNIA = kornia.enhance
STRENGTHS = {
    "flip": {"p": 1.0},
    "crop": {"padding": 2},
    "rotate": {"degrees": 90.0},
    "contrast": {"strength": 1.0},
    "jitter": {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5},
    "noise": {"std": 0.3},
    "erase": {"p": 1.0},
    "rand_augment": {"magnitude": 10.0},
}
"""The options that say how strong each change is, at much."""
MODES: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in AUGMENT.by_name),
    ("crop", {"mode": "constant"}),
    ("rotate", {"mode": "constant"}),
    ("erase", {"fill": "random"}),
    ("erase", {"fill": 1.0}),
    ("rand_augment", {"num": 1, "changes": ("equalize", "rotate")}),
]
over_changes = pytest.mark.parametrize("name, options", MODES, ids=str)


def images(*lead: int, channels: int = 3, size: int = 9, seed: int = 0) -> Tensor:
    """Images [*lead, C, S, S] of numbers from 0 to 1, grey, black and white ones among them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*lead, channels, size, size, generator=generator)
    x.flatten(0, -4)[0] = 0
    x.flatten(0, -4)[1] = x.flatten(0, -4)[1].mean(dim=0, keepdim=True)
    return x


def strong(name: str, options: dict[str, Any]) -> Augment:
    return AUGMENT.get(name).model_validate({**STRENGTHS[name], **options})  # type: ignore[return-value]


def still(name: str, options: dict[str, Any]) -> Augment:
    none = {key: type(value)(0) for key, value in STRENGTHS[name].items()}
    return AUGMENT.get(name).model_validate({**none, **options})  # type: ignore[return-value]


def wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def test_every_augmentation_has_its_strengths_tested() -> None:
    assert set(STRENGTHS) == set(AUGMENT.by_name)


@over_changes
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_shape_range_and_seed(name: str, options: dict[str, Any], channels: int, as_bytes: bool) -> None:
    """Shape and numbers' type are kept, the seed decides, the input is not written to."""
    x_KB = images(2, 12, channels=channels)
    x_KB = (x_KB * 255).byte() if as_bytes else x_KB
    before = x_KB.clone()
    augment = build_augment([(strong(name, options),)] * 2, torch.Generator().manual_seed(4))
    again = build_augment([(strong(name, options),)] * 2, torch.Generator().manual_seed(4))
    out = augment(x_KB)
    assert torch.equal(out, again(x_KB))
    assert torch.equal(x_KB, before)
    assert out.shape == x_KB.shape
    assert out.dtype in (x_KB.dtype, torch.float32)
    assert not torch.equal(pixels.as_pixels(out), pixels.as_pixels(x_KB))
    assert build_augment([(strong(name, options),)])(x_KB[:1].double()).dtype == torch.float64
    if name != "noise":
        assert pixels.as_pixels(out).min() >= 0
        assert pixels.as_pixels(out).max() <= 1 + 1e-6


@over_changes
def test_a_pack_of_equal_members_draws_as_one_with_all_their_images(
    name: str, options: dict[str, Any]
) -> None:
    x_KB = images(3, 7)
    together = build_augment([(strong(name, options),)] * 3, torch.Generator().manual_seed(1))(x_KB)
    alone = build_augment([(strong(name, options),)], torch.Generator().manual_seed(1))
    torch.testing.assert_close(alone(x_KB.flatten(0, 1)[None]).view(x_KB.shape), together, atol=1e-6, rtol=0)


@over_changes
@pytest.mark.parametrize("white", [1.0, 16.0, 255.0])
def test_a_member_without_strength_keeps_its_images_to_the_bit(
    name: str, options: dict[str, Any], white: float
) -> None:
    x_KB = images(3, 20) * white
    chain_K = [(strong(name, options),), (still(name, options),), (strong(name, options),)]
    torch.manual_seed(0)
    out_KB = build_augment(chain_K, white=white)(x_KB)
    assert torch.equal(out_KB[1], x_KB[1])
    assert not torch.equal(out_KB[0], x_KB[0])
    bytes_KB = (images(3, 20) * 255).byte()
    kept = build_augment(chain_K)(bytes_KB)[1]
    assert torch.equal(pixels.as_pixels(kept), pixels.as_pixels(bytes_KB[1]))
    before = torch.get_rng_state()
    assert build_augment([(still(name, options),)] * 2)(x_KB) is x_KB
    assert torch.equal(before, torch.get_rng_state())


@over_changes
def test_numbers_up_to_white_change_as_numbers_up_to_1(name: str, options: dict[str, Any]) -> None:
    x_KB = images(2, 10)
    one = build_augment([(strong(name, options),)] * 2, torch.Generator().manual_seed(3))(x_KB)
    many = build_augment([(strong(name, options),)] * 2, torch.Generator().manual_seed(3), white=16.0)(
        x_KB * 16
    )
    torch.testing.assert_close(many / 16, one, atol=1e-5, rtol=0)


@over_changes
def test_each_member_changes_by_its_own_strength(name: str, options: dict[str, Any]) -> None:
    """A weaker member's images stay nearer to what they were."""
    weak = {key: value / 10 if isinstance(value, float) else 1 for key, value in STRENGTHS[name].items()}
    weaker: Any = AUGMENT.get(name).model_validate({**weak, **options})
    x_KB = torch.linspace(0.2, 0.8, 16).expand(2, 400, 3, 16, 16).contiguous()
    torch.manual_seed(0)
    out_KB = build_augment([(weaker,), (strong(name, options),)])(x_KB)
    moved = (out_KB - x_KB).abs().flatten(1).mean(dim=1)
    if options.get("changes"):  # half of them have no strength of their own
        assert 0 < moved[0] < moved[1]
    else:
        assert 0 < moved[0] < 0.7 * moved[1]


def test_a_chain_keeps_its_order() -> None:
    """Covered with white, then flattened to grey, or the other way round."""
    white = AUGMENT.get("erase").model_validate(
        {"p": 1.0, "area": (1.0, 1.0), "ratio": (1.0, 1.0), "fill": 1.0}
    )
    noise = AUGMENT.get("noise").model_validate({"std": 0.1})
    x_KB = images(1, 8)
    assert (build_augment([(noise, white)])(x_KB) == 1).all()  # type: ignore[arg-type]
    assert (build_augment([(white, noise)])(x_KB) != 1).any()  # type: ignore[arg-type]


FACTORS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "brightness": (pixels.brighten, KORNIA.adjust_brightness_accumulative),
    "contrast": (pixels.contrast, KORNIA.adjust_contrast_with_mean_subtraction),
    "saturation": (pixels.saturate, KORNIA.adjust_saturation_with_gray_subtraction),
}


@pytest.mark.parametrize("name", FACTORS)
@FAST
@given(seed=SEEDS)
def test_factors_are_kornias(name: str, seed: int) -> None:
    ours, theirs = FACTORS[name]
    x, factor = images(10, seed=seed), 2 * torch.rand(10, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(ours(x, wide(factor)), theirs(x, factor), atol=1e-6, rtol=0)
    if name == "contrast":
        torch.testing.assert_close(ours(x[:, :1], wide(factor)), theirs(x[:, :1], factor), atol=1e-6, rtol=0)


@FAST
@given(seed=SEEDS)
def test_hues_turn_as_kornias(seed: int) -> None:
    x, turns = images(10, seed=seed), torch.rand(10, generator=torch.Generator().manual_seed(seed)) - 0.5
    out = pixels.turn_hue(x, wide(turns))
    torch.testing.assert_close(out, KORNIA.adjust_hue(x, turns * 2 * pi), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixels.turn_hue(out, -wide(turns)), x, atol=1e-5, rtol=0)


@FAST
@given(seed=SEEDS)
def test_the_policys_other_changes_are_kornias(seed: int) -> None:
    x = images(10, seed=seed)
    some = torch.rand(10, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(pixels.solarize(x, wide(some)), KORNIA.solarize(x, some))
    torch.testing.assert_close(pixels.equalize(x), KORNIA.equalize(x), atol=1e-6, rtol=0)
    expected = KORNIA.normalize_min_max(x, eps=0)
    varies = x.amax(dim=(2, 3)) > x.amin(dim=(2, 3))
    torch.testing.assert_close(pixels.stretch(x)[varies], expected[varies], atol=1e-6, rtol=0)
    sharp = pixels.blend(x, pixels.smooth(x), wide(2 * some))
    torch.testing.assert_close(sharp, KORNIA.sharpness(x, 2 * some), atol=1e-6, rtol=0)
    bits = (some * 5).long() + 4
    x = ((x * 255).floor() + 0.5).clamp(max=255) / 255
    cut = pixels.posterize(x, 2.0 ** wide(8 - bits))
    exact = ((x * 255).byte() >> (8 - wide(bits)).byte()) << (8 - wide(bits)).byte()
    torch.testing.assert_close(cut, torch.where(wide(bits) >= 8, x, exact / 255), atol=1e-6, rtol=0)


def test_equalised_images_of_many_pixels_are_kornias_and_bytes_stay_whole() -> None:
    x = (images(4, size=40) * 255).byte()
    torch.testing.assert_close(pixels.levels(x.float() / 255), x.float())
    middle = (x.float() + 0.5).clamp(max=255) / 255
    torch.testing.assert_close(pixels.equalize(middle**2), KORNIA.equalize(middle**2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@FAST
@given(seed=SEEDS)
def test_turns_are_kornias(mode: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, degrees = torch.rand(6, 2, 7, 10, generator=generator), 360 * torch.rand(6, generator=generator) - 180
    outside = {"reflect": "reflection", "constant": "zeros"}[mode]
    expected = kornia.geometry.rotate(x, degrees, padding_mode=outside)
    torch.testing.assert_close(sample(x, turned(degrees), mode), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_a_quarter_turn_of_a_square_image_moves_its_pixels(mode: Any) -> None:
    x = images(4)
    for quarter in (-1, 1, 2):
        out = sample(x, turned(torch.full((4,), 90.0 * quarter)), mode)
        torch.testing.assert_close(out, x.rot90(quarter, (2, 3)), atol=1e-5, rtol=0)
    line = torch.rand(2, 1, 1, 5)
    assert torch.isfinite(sample(line, turned(torch.tensor([10.0, 20.0])), mode)).all()


def test_turns_reach_their_angles_evenly() -> None:
    """A far point's angle tells each image's own draw."""
    x = torch.zeros(1, 3000, 1, 41, 41)
    x[..., 20, 36:] = 1
    torch.manual_seed(0)
    chain = (AUGMENT.get("rotate").model_validate({"degrees": 60.0, "mode": "constant"}),)
    out = build_augment([chain])(x)[0, :, 0]  # type: ignore[list-item]
    at = torch.arange(41) - 20.0
    total = out.sum(dim=(1, 2))
    right, up = (out * at).sum(dim=(1, 2)) / total, -(out * at[:, None]).sum(dim=(1, 2)) / total
    degrees = torch.atan2(up, right).rad2deg()
    assert degrees.abs().max() <= 61
    assert abs(degrees.mean()) < 4 * 60 / 3**0.5 / 3000**0.5
    assert degrees.std() == pytest.approx(60 / 3**0.5, rel=0.05)


def test_noise_has_its_members_deviation() -> None:
    x_KB = torch.full((2, 50, 3, 20, 20), 0.5)
    chain_K = [(AUGMENT.get("noise").model_validate({"std": std}),) for std in (0.1, 0.3)]
    torch.manual_seed(0)
    out_KB = build_augment(chain_K)(x_KB) - 0.5  # type: ignore[arg-type]
    assert out_KB.flatten(1).std(dim=1).tolist() == pytest.approx([0.1, 0.3], rel=0.02)
    assert out_KB.flatten(1).mean(dim=1).tolist() == pytest.approx([0, 0], abs=0.01)


@FAST
@given(seed=SEEDS)
def test_a_covered_rectangle_is_kornias(seed: int) -> None:
    torch.manual_seed(seed)
    x = images(1, 6)
    reference = RandomErasing(p=1.0, value=0.25)
    expected = reference(x[0])
    box = {key: reference._params[key].long() for key in ("xs", "ys", "widths", "heights")}
    at = torch.arange(9)
    rows = (at >= box["ys"][:, None]) & (at < (box["ys"] + box["heights"])[:, None])
    cols = (at >= box["xs"][:, None]) & (at < (box["xs"] + box["widths"])[:, None])
    assert torch.equal(erase(x, rows[None], cols[None], torch.tensor(0.25))[0], expected)


@pytest.mark.parametrize("p_K", [(0.3,), (0.0, 0.3, 1.0)])
def test_rectangles_have_the_members_probability_area_and_ratio(p_K: tuple[float, ...]) -> None:
    num, size = 3000, 40
    options = {"area": (0.1, 0.2), "ratio": (0.5, 2.0)}
    chain_K = [(AUGMENT.get("erase").model_validate({"p": p, **options}),) for p in p_K]
    torch.manual_seed(0)
    out_KB = build_augment(chain_K)(torch.ones(len(p_K), num, 1, size, size))  # type: ignore[arg-type]
    for p, out_B in zip(p_K, 1 - out_KB[:, :, 0], strict=True):
        covered = out_B[out_B.flatten(1).any(dim=1)]
        assert abs(len(covered) / num - p) <= 4 * (p * (1 - p) / num) ** 0.5
        if not len(covered):
            continue
        tall, wide_ = covered.any(dim=2).sum(dim=1), covered.any(dim=1).sum(dim=1)
        assert torch.equal(covered.sum(dim=(1, 2)), (tall * wide_).float())
        share, ratio = tall * wide_ / size**2, tall / wide_
        assert 0.08 < share.min() < 0.12
        assert 0.18 < share.max() < 0.22
        assert 0.4 < ratio.min() < 0.6
        assert 1.7 < ratio.max() < 2.4
        assert ratio.log().mean().abs() < 0.06
        hits = covered.mean(dim=0)
        torch.testing.assert_close(hits, hits.flip(0), atol=0.12, rtol=0)


def only(name: PolicyChange, num: int = 5) -> dict[PolicyChange, Tensor]:
    return {other: torch.full((num,), other == name) for other in get_args(PolicyChange)}


@pytest.mark.parametrize("name", get_args(PolicyChange))
@FAST
@given(seed=SEEDS, sign=st.sampled_from([-1.0, 1.0]))
def test_each_change_of_the_policy_is_kornias_at_its_magnitude(
    name: PolicyChange, seed: int, sign: float
) -> None:
    x, level = images(5, seed=seed), torch.rand(5, generator=torch.Generator().manual_seed(seed))
    out = policy.change(x, only(name), level, torch.full((5,), sign))
    by = level * sign
    factor = 1 + 0.9 * by
    zero = torch.zeros(5)
    x[0] = 0.5  # kornia's normalisation of a constant image
    out = policy.change(x, only(name), level, torch.full((5,), sign))
    match name:
        case "identity":
            expected = x
        case "brightness" | "contrast" | "saturation":
            expected = FACTORS[name][1](x, factor)
        case "sharpness":
            expected = KORNIA.sharpness(x, factor)
        case "solarize":
            expected = KORNIA.solarize(x, 1 - level)
        case "posterize":
            expected = pixels.posterize(x, 2 ** wide((4 * level).round()))
        case "autocontrast":
            expected = torch.cat([x[:1], pixels.stretch(x[1:])])
        case "equalize":
            expected = KORNIA.equalize(x)
        case "rotate":
            expected = kornia.geometry.rotate(x, 30 * by)
        case "translate_x" | "translate_y":
            shift = -150 / 331 * 9 * by
            both = [shift, zero] if name == "translate_x" else [zero, shift]
            expected = kornia.geometry.translate(x, torch.stack(both, dim=1))
        case "shear_x" | "shear_y":
            matrix = torch.eye(3).repeat(5, 1, 1)
            row, column = (0, 1) if name == "shear_x" else (1, 0)
            matrix[:, row, column], matrix[:, row, 2] = -0.3 * by, 4 * 0.3 * by
            expected = kornia.geometry.warp_affine(x, matrix[:, :2], (9, 9), align_corners=True)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)


def test_the_policy_draws_all_its_changes_evenly_and_num_of_them() -> None:
    """Levels that no other change makes tell which was drawn."""
    x_KB = torch.full((1, 4000, 1, 4, 4), 0.75)
    options = {"magnitude": 10.0, "changes": ("identity", "solarize", "identity", "brightness")}
    for num in (1, 2):
        chain = (RandAugment.model_validate({"num": num, **options}),)
        torch.manual_seed(0)
        kept = (build_augment([chain])(x_KB) == x_KB).flatten(2).all(dim=2).double().mean().item()
        assert kept == pytest.approx(0.5 if num == 1 else 0.25 + 0.0625, abs=0.035)


def test_an_identity_alone_is_the_identity_and_no_channel_count_stumbles() -> None:
    chain = (RandAugment(changes=("identity",)),)
    for channels in (1, 2, 3, 4):
        x_KB = images(2, 6, channels=channels)
        assert torch.equal(build_augment([chain] * 2)(x_KB), x_KB)
        assert build_augment([(RandAugment(num=3),)] * 2)(x_KB).shape == x_KB.shape
    tiny = images(2, 6, size=2)
    assert torch.isfinite(build_augment([(RandAugment(num=3),)] * 2)(tiny)).all()


@FAST
@given(seed=SEEDS, channels=st.sampled_from([1, 3]))
def test_all_images_worked_on_for_each_change_end_as_those_that_drew_it(seed: int, channels: int) -> None:
    """What a GPU does is what a CPU does."""
    generator = torch.Generator().manual_seed(seed)
    x, level = images(60, channels=channels, seed=seed), torch.rand(60, generator=generator)
    kind, sign = torch.randint(14, (60,), generator=generator), torch.randn(60, generator=generator).sign()
    drawn = {name: kind == i for i, name in enumerate(get_args(PolicyChange))}
    picked = policy.change(x, drawn, level, sign)
    torch.testing.assert_close(policy.change(x, drawn, level, sign, picks=False), picked, atol=1e-6, rtol=0)
