"""Worsened images against kornia, Pillow and plain loops; and what holds of every corruption."""

from __future__ import annotations

import io
from functools import partial

import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from ensemble_svc.data.corrupt import (
    CORRUPTIONS,
    SEVERITIES,
    Draw,
    blur,
    brightness,
    contrast,
    corrupt,
    gaussian_blur,
    jpeg,
    noise,
    pixelate,
)

law = settings(max_examples=15, deadline=None)
every = pytest.mark.parametrize("name", CORRUPTIONS)
NONE = torch.zeros


def images(seed: int, channels: int = 3, size: int = 17) -> Tensor:
    """Smooth images with an edge, as photographs are."""
    rng = np.random.default_rng(seed)
    rows, cols = np.mgrid[0:size, 0:size] / size
    waves = [
        np.sin(rng.uniform(1, 6) * rows + rng.uniform(1, 6) * cols + rng.uniform(0, 6))
        for _ in range(2 * channels)
    ]
    x = 0.5 + 0.4 * np.stack(waves).reshape(2, channels, size, size)
    x[:, :, size // 2 :] *= 0.6
    return torch.from_numpy(x.astype(np.float32).clip(0, 1))


def seeded() -> Draw:
    return partial(torch.randn, generator=torch.Generator().manual_seed(0))


@every
@law
@given(st.integers(0, 1000), st.sampled_from([1, 3]), st.sampled_from([8, 17, 32]))
def test_shape_type_range_and_repeat(name, seed, channels, size) -> None:
    x = images(seed, channels, size)
    for severity in SEVERITIES:
        for given_x, white in ((x, 1.0), (x * 16, 16.0), ((x * 255).byte(), 255.0)):
            before = given_x.clone()
            worse = corrupt(given_x, name, severity, white=white, draw=seeded())
            assert worse.shape == x.shape
            assert worse.dtype == given_x.dtype
            assert worse.min() >= 0
            assert worse.max() <= white * (1 + 1e-6)
            assert torch.equal(given_x, before)
            assert torch.equal(worse, corrupt(given_x, name, severity, white=white, draw=seeded()))


@every
def test_severity_takes_the_image_further_away(name) -> None:
    x = torch.cat([images(seed, 3, 32) for seed in range(10)])
    away = [(CORRUPTIONS[name](x, s, seeded()) - x).square().mean().item() for s in SEVERITIES]
    assert away[0] > 0
    if name == "pixelate":  # its grid happens to fall on edges, or not
        return
    assert away == sorted(away)
    assert away[-1] > 1.2 * away[0]


@every
def test_an_image_is_worsened_alone(name) -> None:
    """What is drawn apart, no image looks at another."""
    if name == "noise":
        return
    x = torch.cat([images(seed) for seed in range(3)])
    alone = torch.cat([CORRUPTIONS[name](one, 3, NONE) for one in x.split(1)])
    torch.testing.assert_close(CORRUPTIONS[name](x, 3, NONE), alone)


@law
@given(st.integers(0, 1000), st.sampled_from(SEVERITIES))
def test_tones_are_kornias(seed, severity) -> None:
    x = images(seed)
    amount = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    torch.testing.assert_close(
        brightness(x, severity, NONE), kornia.enhance.adjust_brightness(x, amount, clip_output=True)
    )
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    torch.testing.assert_close(
        contrast(x, severity, NONE), kornia.enhance.adjust_contrast_with_mean_subtraction(x, factor)
    )


@law
@given(st.integers(0, 1000), st.sampled_from(SEVERITIES))
def test_blur_is_kornias(seed, severity) -> None:
    x, sigma = images(seed), (0.4, 0.6, 0.7, 0.8, 1.0)[severity - 1]
    radius = max(1, int(np.ceil(4 * sigma)))
    theirs = kornia.filters.gaussian_blur2d(x, (2 * radius + 1, 2 * radius + 1), (sigma, sigma), "reflect")
    torch.testing.assert_close(blur(x, severity, NONE), theirs, atol=2e-6, rtol=1e-5)


def test_blur_of_images_smaller_than_its_window() -> None:
    assert gaussian_blur(images(0, 1, 3), 1.0).shape == (2, 1, 3, 3)
    one = torch.rand(1, 1, 1, 1)
    assert torch.equal(gaussian_blur(one, 1.0), one)


@law
@given(st.integers(0, 1000), st.sampled_from(SEVERITIES))
def test_pixelate_against_a_plain_loop(seed, severity) -> None:
    x = images(seed, 1, 12)
    small = int(12 * (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1])
    expected = torch.empty_like(x)
    for i in range(12):
        for j in range(12):
            r, c = i * small // 12, j * small // 12
            rows = slice(r * 12 // small, -(-(r + 1) * 12 // small))
            cols = slice(c * 12 // small, -(-(c + 1) * 12 // small))
            expected[:, :, i, j] = x[:, :, rows, cols].mean((2, 3))
    torch.testing.assert_close(pixelate(x, severity, NONE), expected)


@law
@given(st.integers(0, 1000), st.sampled_from(SEVERITIES))
def test_jpeg_of_grey_images_is_pillows(seed, severity) -> None:
    quality = (80, 65, 58, 50, 40)[severity - 1]
    pixels = (images(seed, 1, 32) * 255).round()
    ours = (jpeg(pixels / 255, severity, NONE) * 255).round()
    for one, mine in zip(pixels, ours, strict=True):
        buffer = io.BytesIO()
        Image.fromarray(one[0].numpy().astype(np.uint8)).save(buffer, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(buffer), dtype=np.float32)
        apart = np.abs(
            mine[0].numpy() - theirs
        )  # Pillow's cosines are of whole numbers: a coefficient halfway
        assert apart.max() <= 8  # between two steps may go to the other one
        assert apart.mean() < 0.5


def test_noise_has_its_deviation() -> None:
    grey = torch.full((4, 3, 64, 64), 0.5)
    for severity, std in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        assert (noise(grey, severity, seeded()) - grey).std().item() == pytest.approx(std, rel=0.02)
