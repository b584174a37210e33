"""Laws of what a student minimises: nothing to learn where it says what its teacher says, over random teachers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ensemble_svc.nn.distilled import guessing_taught, on_scale, taught_rows
from ensemble_svc.nn.heads import SMALLEST_VARIANCE, loss_rows, mean_and_variance
from ensemble_svc.spec.losses import CrossEntropy, GaussianNll, Mse

law = settings(max_examples=30, deadline=None)
B, C, T = 7, 4, 2
seeds = st.integers(0, 10_000)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gaussians(seed: int) -> Tensor:
    return torch.cat([drawn(seed, B, T), drawn(seed + 1, B, T).exp()], dim=1)


def raw(variance: Tensor) -> Tensor:
    """What a network puts out for this variance: the softplus undone."""
    return (variance - SMALLEST_VARIANCE).expm1().log()


@law
@given(seed=seeds, temperature=st.floats(0.3, 20))
def test_a_student_that_says_what_its_teacher_says_has_no_gradient(seed, temperature):
    logits = drawn(seed, B, C)
    outputs = (logits + 3.0).requires_grad_()
    taught_rows(CrossEntropy(), outputs, (logits / temperature).softmax(-1), temperature).sum().backward()
    torch.testing.assert_close(outputs.grad, torch.zeros(B, C, dtype=torch.float64), atol=1e-12, rtol=0)

    says = gaussians(seed)
    mean, variance = says.chunk(2, -1)
    outputs = torch.cat([mean, raw(variance)], 1).requires_grad_()
    taught_rows(GaussianNll(), outputs, says, 1.0).sum().backward()
    torch.testing.assert_close(outputs.grad, torch.zeros_like(outputs), atol=1e-9, rtol=0)


@law
@given(seed=seeds, temperature=st.floats(1, 1000))
def test_the_gradient_does_not_shrink_with_the_temperature(seed, temperature):
    """At a high temperature it is that of matching centred logits, z - v over C (Hinton et al., equation 4)."""
    temperature *= 1000
    student, teacher = drawn(seed, B, C).requires_grad_(), drawn(seed + 1, B, C)
    taught_rows(CrossEntropy(), student, (teacher / temperature).softmax(-1), temperature).sum().backward()
    apart = student.detach() - teacher
    expected = (apart - apart.mean(1, keepdim=True)) / C
    torch.testing.assert_close(student.grad, expected, atol=1e-2, rtol=1e-2)


@law
@given(seed=seeds, smoothing=st.floats(0, 0.9))
def test_a_teacher_that_is_sure_of_the_truth_is_the_ordinary_loss(seed, smoothing):
    outputs, y = drawn(seed, B, C), torch.randint(C, (B,), generator=torch.Generator().manual_seed(seed))
    says = torch.nn.functional.one_hot(y, C).double()
    loss = CrossEntropy(label_smoothing=smoothing)
    torch.testing.assert_close(taught_rows(loss, outputs, says, 1.0), loss_rows(loss, outputs, y))
    each = torch.full((B,), smoothing, dtype=torch.float64)
    torch.testing.assert_close(
        taught_rows(CrossEntropy(), outputs, says, 1.0, each), loss_rows(loss, outputs, y)
    )

    target = drawn(seed, B, T)
    sure = torch.cat([target, torch.zeros(B, T, dtype=torch.float64)], 1)
    for kind, width in ((GaussianNll(), 2 * T), (Mse(), T)):
        outputs = drawn(seed + 2, B, width)
        torch.testing.assert_close(taught_rows(kind, outputs, sure, 1.0), loss_rows(kind, outputs, target))


@law
@given(seed=seeds)
def test_for_gaussians_it_is_their_divergence_and_the_teacher_s_entropy(seed):
    says, outputs = gaussians(seed), drawn(seed + 2, B, 2 * T)
    teacher = Normal(says[:, :T], says[:, T:].sqrt())
    mean, variance = mean_and_variance(outputs)
    expected = (kl_divergence(teacher, Normal(mean, variance.sqrt())) + teacher.entropy()).sum(1)
    torch.testing.assert_close(taught_rows(GaussianNll(), outputs, says, 1.0), expected)


@law
@given(seed=seeds)
def test_on_the_networks_scale_a_gaussian_is_the_same_gaussian(seed):
    says = gaussians(seed).unsqueeze(0)
    scale = {"target_mean": drawn(seed + 3, 1, T), "target_scale": drawn(seed + 4, 1, T).exp()}
    mean, variance = on_scale(says, scale)[0].chunk(2, -1)
    centre, unit = scale["target_mean"], scale["target_scale"]
    torch.testing.assert_close(mean * unit + centre, says[0, :, :T])
    torch.testing.assert_close(variance.sqrt() * unit, says[0, :, T:].sqrt())
    probabilities = drawn(seed, 1, B, C).softmax(-1)
    assert on_scale(probabilities, {}) is probabilities


@pytest.mark.parametrize(
    "kind", [CrossEntropy(label_smoothing=0.1), GaussianNll(), Mse()], ids=lambda k: k.name
)
@law
@given(seed=seeds, temperature=st.floats(0.5, 5))
def test_guessing_is_the_best_answer_that_is_the_same_for_every_row(kind, seed, temperature):
    classes = isinstance(kind, CrossEntropy)
    temperature = temperature if classes else 1.0
    says = drawn(seed, B, C).softmax(-1) if classes else gaussians(seed)
    if classes:
        wanted = 0.9 * says.mean(0) + 0.1 / C
        best = temperature * wanted.log()
    else:
        mean, variance = says.chunk(2, -1)
        whole = mean.var(0, correction=0) + variance.mean(0)
        best = mean.mean(0) if isinstance(kind, Mse) else torch.cat([mean.mean(0), raw(whole)])
    least = guessing_taught(kind, says, temperature)
    assert taught_rows(kind, best.expand(B, -1), says, temperature).mean().item() == pytest.approx(least)
    other = best + 0.3 * drawn(seed + 5, len(best))
    assert taught_rows(kind, other.expand(B, -1), says, temperature).mean().item() >= least - 1e-9
