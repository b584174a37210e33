"""Laws of the losses: torch's own numbers, densities that are densities, and the same under vmap."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap

from ensemble_svc.errors import SpecError
from ensemble_svc.nn.heads import ResolvedLoss, loss_rows, num_outputs, resolve_loss, to_prediction
from ensemble_svc.spec.losses import LOSSES, AutoLoss, CrossEntropy, GaussianNll, Mse

TASK_OF = {CrossEntropy: "classification", GaussianNll: "regression", Mse: "regression"}
RESOLVED = [choice for choice in LOSSES if choice is not AutoLoss]
over_losses = pytest.mark.parametrize("choice", RESOLVED, ids=lambda c: c.__name__)
seeds = st.integers(0, 10**6)
sizes = st.integers(1, 5)


def draw(loss: ResolvedLoss, seed: int, size: int, lead: tuple[int, ...] = (6,)) -> tuple[Tensor, Tensor]:
    """Outputs [*lead, O] and targets of ``size`` classes or targets."""
    generator = torch.Generator().manual_seed(seed)
    width = num_outputs(TASK_OF[type(loss)], loss, size)
    outputs = 3 * torch.randn(*lead, width, generator=generator, dtype=torch.float64)
    if isinstance(loss, CrossEntropy):
        return outputs, torch.randint(size, lead, generator=generator)
    return outputs, torch.randn(*lead, size, generator=generator, dtype=torch.float64)


def gaussian(outputs: Tensor) -> tuple[Tensor, Tensor]:
    half = outputs.shape[-1] // 2
    return outputs[..., :half], torch.log1p(torch.exp(outputs[..., half:])) + 1e-6


@settings(max_examples=30)
@given(seed=seeds, size=st.integers(1, 6), smoothing=st.floats(0, 0.99))
def test_cross_entropy_is_torchs(seed, size, smoothing) -> None:
    loss = CrossEntropy(label_smoothing=smoothing)
    outputs, y = draw(loss, seed, size)
    own = F.cross_entropy(outputs, y, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(loss_rows(loss, outputs, y), own, rtol=1e-12, atol=1e-12)
    log_probs = outputs.log_softmax(-1)
    target = F.one_hot(y, size).double() * (1 - smoothing) + smoothing / size
    by_hand = -(target * log_probs).sum(-1)
    torch.testing.assert_close(loss_rows(loss, outputs, y), by_hand, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(to_prediction(loss, outputs)["log_probs"], log_probs)


@settings(max_examples=30)
@given(seed=seeds, size=st.integers(1, 6), shares=st.lists(st.floats(0, 0.99), min_size=1, max_size=4))
def test_each_member_of_a_pack_smooths_by_its_own_share(seed, size, shares) -> None:
    loss, share_K = CrossEntropy(label_smoothing=0.5), torch.tensor(shares, dtype=torch.float64)
    outputs_K, y_K = draw(loss, seed, size, (len(shares), 6))
    outputs_K.requires_grad_()
    rows_K = vmap(lambda outputs, y, share: loss_rows(loss, outputs, y, share))(outputs_K, y_K, share_K)
    own_K = torch.stack(
        [
            F.cross_entropy(outputs, y, reduction="none", label_smoothing=share)
            for outputs, y, share in zip(outputs_K, y_K, shares, strict=True)
        ]
    )
    torch.testing.assert_close(rows_K, own_K, rtol=1e-12, atol=1e-12)
    (grad,), (own_grad,) = (torch.autograd.grad(rows.sum(), outputs_K) for rows in (rows_K, own_K))
    torch.testing.assert_close(grad, own_grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(loss_rows(loss, outputs_K[0], y_K[0], shares[0]), own_K[0])


def test_a_share_of_0_is_no_smoothing_to_the_bit() -> None:
    outputs, y = draw(CrossEntropy(), 0, 5)
    outputs = outputs.float()
    plain = loss_rows(CrossEntropy(), outputs, y)
    assert torch.equal(loss_rows(CrossEntropy(label_smoothing=0.3), outputs, y, torch.tensor(0.0)), plain)
    assert not torch.equal(loss_rows(CrossEntropy(label_smoothing=0.3), outputs, y), plain)


@settings(max_examples=30)
@given(seed=seeds, size=sizes)
def test_gaussian_nll_is_torchs_with_its_constant(seed, size) -> None:
    outputs, y = draw(GaussianNll(), seed, size)
    mean, variance = gaussian(outputs)
    own = F.gaussian_nll_loss(mean, y, variance, full=True, reduction="none", eps=1e-9).sum(-1)
    torch.testing.assert_close(loss_rows(GaussianNll(), outputs, y), own, rtol=1e-10, atol=1e-10)
    normal = torch.distributions.Normal(mean, variance.sqrt())
    torch.testing.assert_close(
        loss_rows(GaussianNll(), outputs, y), -normal.log_prob(y).sum(-1), rtol=1e-9, atol=1e-9
    )


@settings(max_examples=30)
@given(seed=seeds, size=sizes)
def test_the_gaussians_prediction_says_what_its_loss_says(seed, size) -> None:
    outputs, y = draw(GaussianNll(), seed, size)
    said = to_prediction(GaussianNll(), outputs)
    error = (y - said["mean"]).square() / said["log_variance"].exp()
    nll = 0.5 * (math.log(2 * math.pi) + said["log_variance"] + error).sum(-1)
    torch.testing.assert_close(loss_rows(GaussianNll(), outputs, y), nll, rtol=1e-10, atol=1e-10)


@settings(max_examples=20)
@given(seed=seeds, size=sizes)
def test_squared_errors_are_summed_over_the_targets(seed, size) -> None:
    outputs, y = draw(Mse(), seed, size)
    own = F.mse_loss(outputs, y, reduction="none").sum(-1)
    torch.testing.assert_close(loss_rows(Mse(), outputs, y), own)
    assert to_prediction(Mse(), outputs).keys() == {"mean"}


@over_losses
@settings(max_examples=10)
@given(seed=seeds, size=sizes, num_members=st.integers(1, 3))
def test_a_pack_loses_and_predicts_what_each_member_does_alone(choice, seed, size, num_members) -> None:
    loss = choice()
    outputs_K, y_K = draw(loss, seed, size, (num_members, 6))
    rows_K = vmap(lambda outputs, y: loss_rows(loss, outputs, y))(outputs_K, y_K)
    stacked = vmap(lambda outputs: to_prediction(loss, outputs))(outputs_K)
    for k in range(num_members):
        torch.testing.assert_close(rows_K[k], loss_rows(loss, outputs_K[k], y_K[k]))
        for name, value in to_prediction(loss, outputs_K[k]).items():
            torch.testing.assert_close(stacked[name][k], value)


@over_losses
@pytest.mark.parametrize("size", [-90.0, 90.0])
def test_far_off_outputs_stay_finite(choice, size) -> None:
    outputs, y = draw(choice(), 0, 2)
    extreme = torch.full_like(outputs, size, dtype=torch.float32).requires_grad_()
    losses = loss_rows(choice(), extreme, y if choice is CrossEntropy else y.float())
    losses.sum().backward()
    assert losses.isfinite().all()
    assert extreme.grad.isfinite().all()
    assert all(value.isfinite().all() for value in to_prediction(choice(), extreme).values())


def test_auto_is_the_tasks_own() -> None:
    assert resolve_loss("classification", AutoLoss()) == CrossEntropy()
    assert resolve_loss("regression", AutoLoss()) == GaussianNll()
    assert num_outputs("regression", AutoLoss(), 3) == 6


@over_losses
def test_a_loss_of_the_other_task_is_refused(choice) -> None:
    right = TASK_OF[choice]
    assert resolve_loss(right, choice()) == choice()
    wrong = "regression" if right == "classification" else "classification"
    with pytest.raises(
        SpecError, match=rf"training\.loss: {choice().name} is no loss for {wrong}\. Allowed: auto"
    ):
        resolve_loss(wrong, choice())
