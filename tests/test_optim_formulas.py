"""Each update rule against the formula of its paper, written out, in double precision over several steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ensemble_svc.optim.stacked import StackedOptimizer
from ensemble_svc.spec.optimizers import AdaGrad, Adam, AdamW, Optimizer, RmsProp, Sgd

STEPS = 7
START = torch.linspace(-2, 2, 32, dtype=torch.float64).view(2, 16)
CURVATURE = torch.linspace(0.1, 3, 32, dtype=torch.float64).view(2, 16)


def gradient(w: Tensor) -> Tensor:
    """Of half the curvature times the squared distance from 1, not the same for any two weights."""
    return CURVATURE * (w - 1)


def taken(rule: Optimizer, slope: Callable[[Tensor], Tensor] = gradient) -> list[Tensor]:
    """The weights after each step of the stack of two members."""
    stack = StackedOptimizer({"w": START.clone().requires_grad_()}, [rule, rule])
    weight, seen = stack.params["w"], []
    for _ in range(STEPS):
        weight.grad = slope(weight.detach())
        stack.step(1.0)
        seen.append(weight.detach().clone())
    return seen


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam(decay):
    """m and v are running means, each divided by one less its decay to the power of the step."""
    rule = Adam(lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay)
    w, m, v, wanted = START.clone(), 0.0, 0.0, []
    for t in range(1, STEPS + 1):
        g = gradient(w) + decay * w
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        w = w - 0.05 * (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-6)
        wanted.append(w)
    assert_equal(taken(rule), wanted)


def test_the_first_step_of_adam_has_the_length_of_the_rate():
    first = taken(Adam(lr=0.05, eps=1e-12))[0]
    torch.testing.assert_close(first, START - 0.05 * gradient(START).sign(), rtol=1e-9, atol=1e-9)


def test_adamw_decays_apart_from_the_step():
    rule = AdamW(lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)
    w, m, v, wanted = START.clone(), 0.0, 0.0, []
    for t in range(1, STEPS + 1):
        g = gradient(w)
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        step = (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-6)
        w = w - 0.05 * 0.3 * w - 0.05 * step
        wanted.append(w)
    assert_equal(taken(rule), wanted)


def test_adagrad_divides_by_all_that_has_been():
    rule = AdaGrad(lr=0.3, eps=1e-7)
    w, total, wanted = START.clone(), torch.zeros_like(START), []
    for _ in range(STEPS):
        g = gradient(w)
        total = total + g**2
        w = w - 0.3 * g / (total.sqrt() + 1e-7)
        wanted.append(w)
    assert_equal(taken(rule), wanted)


def test_the_accumulator_of_adagrad_only_grows_and_its_steps_fade():
    """Under a gradient that stays 1 the n-th step is lr / sqrt(n)."""
    seen = [START, *taken(AdaGrad(lr=0.3, eps=1e-12), torch.ones_like)]
    for n in range(1, STEPS + 1):
        torch.testing.assert_close(seen[n - 1] - seen[n], torch.full_like(START, 0.3 / n**0.5))


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_rmsprop(rho):
    rule = RmsProp(lr=0.02, alpha=0.9, eps=1e-6, momentum=rho, weight_decay=0.1)
    w, v, kept, wanted = START.clone(), 0.0, 0.0, []
    for _ in range(STEPS):
        g = gradient(w) + 0.1 * w
        v = 0.9 * v + 0.1 * g**2
        kept = rho * kept + g / (v.sqrt() + 1e-6)
        w = w - 0.02 * kept
        wanted.append(w)
    assert_equal(taken(rule), wanted)


@pytest.mark.parametrize("rho", [0.0, 0.9, 0.99])
def test_momentum_is_a_ball_that_rolls(rho):
    w, velocity, wanted = START.clone(), 0.0, []
    for _ in range(STEPS):
        velocity = rho * velocity + gradient(w)
        w = w - 0.1 * velocity
        wanted.append(w)
    assert_equal(taken(Sgd(lr=0.1, momentum=rho)), wanted)


def test_nesterov_looks_ahead():
    """The weights that torch's form holds are those at which the original takes its gradients.

    Originally v' = rho v - lr g(w + rho v) and w' = w + v'; with u = w + rho v it reads
    u' = u - lr g(u) + rho v'.
    """
    rho, lr = 0.9, 0.05
    w, v, wanted = START.clone(), torch.zeros_like(START), []
    for _ in range(STEPS):
        v = rho * v - lr * gradient(w + rho * v)
        w = w + v
        wanted.append(w + rho * v)
    assert_equal(taken(Sgd(lr=lr, momentum=rho, nesterov=True)), wanted)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_weight_decay_is_the_l2_penalty_for_sgd_and_momentum(rho):
    penalised = taken(Sgd(lr=0.1, momentum=rho), lambda w: gradient(w) + 0.2 * w)
    assert_equal(taken(Sgd(lr=0.1, momentum=rho, weight_decay=0.2)), penalised)


def test_weight_decay_is_not_the_l2_penalty_for_adaptive_rules():
    """Adam scales the penalty's gradient with the loss's; adamw does not (arXiv:1711.05101, proposition 2)."""
    penalised = taken(Adam(lr=0.1), lambda w: gradient(w) + 0.2 * w)
    assert_equal(taken(Adam(lr=0.1, weight_decay=0.2)), penalised)
    assert (taken(AdamW(lr=0.1, weight_decay=0.2))[-1] - penalised[-1]).abs().max() > 0.05
