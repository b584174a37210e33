"""The extreme eigenvalues are those of the whole matrix, and a saddle is told from a minimum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from ensemble_svc.vitals.curvature import curvature, extremes

EIGENVALUES = st.lists(st.floats(-100, 100, allow_nan=False), min_size=1, max_size=30)


def symmetric(values: list[float], seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=generator, dtype=torch.float64))
    return turn @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ turn.T


@settings(max_examples=60)
@given(EIGENVALUES, st.integers(0, 9))
def test_extremes_are_those_of_any_symmetric_matrix(values, seed):
    matrix = symmetric(values, seed)
    start = torch.randn(len(values), generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    largest, smallest, _ = extremes(lambda vector: matrix @ vector, start)
    scale = max(map(abs, values))
    assert largest == pytest.approx(max(values), abs=1e-3 * scale + 1e-12)
    assert smallest == pytest.approx(min(values), abs=1e-3 * scale + 1e-12)


@given(EIGENVALUES)
@settings(max_examples=30)
def test_a_quadratic_has_its_own_curvature(values):
    matrix = symmetric(values)
    x = torch.ones(len(values), dtype=torch.float64, requires_grad=True)
    found = curvature(x @ matrix @ x / 2, [x])
    scale = max(map(abs, values))
    assert found.largest == pytest.approx(max(values), abs=1e-3 * scale + 1e-12)
    assert found.smallest == pytest.approx(min(values), abs=1e-3 * scale + 1e-12)
    assert found.gradient == pytest.approx(float((matrix @ torch.ones_like(x)).norm()), abs=1e-9)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU, nn.GELU])
@pytest.mark.parametrize("seed", range(3))
def test_a_network_has_that_of_its_whole_hessian(activation, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(5, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 3)
    ).double()
    x, y = torch.randn(40, 5, dtype=torch.float64), torch.randint(3, (40,))
    names, weights = zip(*net.named_parameters(), strict=True)
    sizes = [weight.numel() for weight in weights]

    def of_flat(flat: Tensor) -> Tensor:
        parts = (p.view_as(w) for p, w in zip(flat.split(sizes), weights, strict=True))
        outputs = functional_call(net, dict(zip(names, parts, strict=True)), (x,))
        return nn.functional.cross_entropy(outputs, y)

    flat = torch.cat([weight.detach().flatten() for weight in weights])
    eigenvalues = torch.linalg.eigvalsh(torch.autograd.functional.hessian(of_flat, flat))
    found = curvature(nn.functional.cross_entropy(net(x), y), weights)
    scale = float(eigenvalues.abs().max())
    assert found.largest == pytest.approx(float(eigenvalues[-1]), abs=1e-3 * scale)
    assert found.smallest == pytest.approx(float(eigenvalues[0]), abs=1e-3 * scale)


def at_zero(formula):  # type: ignore[no-untyped-def]
    x, y = (torch.zeros((), dtype=torch.float64, requires_grad=True) for _ in range(2))
    return curvature(formula(x, y), [x, y])


@pytest.mark.parametrize(
    ("formula", "kind"),
    [
        (lambda x, y: x**2 - y**2 + 1, "saddle"),
        (lambda x, y: x * y + 1, "saddle"),
        (lambda x, y: x**2 + 3 * y**2 + 1, "minimum"),
        (lambda x, y: 1 - x**2 - y**2, "maximum"),
        (lambda x, y: x**4 + y**4 + 1, "flat"),
        (lambda x, y: x**2 - y**2 + 5 * x + 1, "slope"),
    ],
)
def test_the_kind_of_a_point(formula, kind):
    assert at_zero(formula).kind == kind


def test_a_net_of_two_layers_at_zero_is_at_a_saddle():
    """y = w2 w1 x, whose best product is 1: at 0 the gradient is 0, and one way leads up and one down."""
    w1, w2 = (torch.zeros(1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    x = torch.randn(30, 1, dtype=torch.float64)
    found = curvature(((x @ w1 @ w2 - x) ** 2).mean(), [w1, w2])
    expected = 2 * float((x**2).mean())
    assert (found.largest, found.smallest) == (pytest.approx(expected), pytest.approx(-expected))
    assert found.kind == "saddle"


def test_a_linear_loss_does_not_bend():
    w = torch.ones(3, requires_grad=True)
    found = curvature(w.sum(), [w])
    assert (found.largest, found.smallest, found.kind) == (0.0, 0.0, "slope")
