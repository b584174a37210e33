"""Laws of the penalty on activations: it is the formula on what the hidden units put out."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nn_packed import SMALL, stack
from torch.func import functional_call

from ensemble_svc.nn import packed
from ensemble_svc.nn.build import build
from ensemble_svc.nn.sparsity import Tap, divergence, listen, penalty_K, take
from ensemble_svc.spec.activations import Sigmoid
from ensemble_svc.spec.model import MODELS, Network

ZOO = [choice for choice in MODELS if issubclass(choice, Network)]
shares = st.floats(0.01, 0.99)


def by_hand(kind: str, layers: list[torch.Tensor], target: float) -> float:
    """The formula for one member, unit by unit."""
    total = 0.0
    for x in layers:
        for unit in x.transpose(0, 1).flatten(1).double():
            if kind == "l1":
                total += unit.abs().mean().item()
            else:
                mean = unit.mean().item()
                total += target * math.log(target / mean) + (1 - target) * math.log((1 - target) / (1 - mean))
    return total


@pytest.mark.parametrize("choice", ZOO, ids=lambda c: c.__name__)
@pytest.mark.parametrize("kind", ["l1", "kl"])
def test_the_penalty_is_the_formula_on_every_hidden_activation(choice, kind) -> None:
    """Alone, in turn and written out, each member's own."""
    options, shape = SMALL[choice]
    members = []
    for seed in range(2):
        torch.manual_seed(seed)
        members.append(build(choice(**options, activation="sigmoid"), shape, 3))
    net, x, target_K = members[0], torch.randn(2, 5, *shape), torch.tensor([0.1, 0.4])
    alone = []
    for member, x_B in zip(members, x, strict=True):
        seen: list[torch.Tensor] = []
        activations = [m for m in member.modules() if isinstance(m, torch.nn.Sigmoid)]
        hooks = [m.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out)) for m in activations]
        member(x_B)
        assert len(seen) == len(activations) > 0
        alone.append([by_hand(kind, seen, float(target)) for target in target_K])
        for hook in hooks:
            hook.remove()
    taps = listen(net, keeps=True)
    packed.forward(net, stack(members), x)
    together_K = penalty_K(kind, take(taps), target_K)
    for k in range(2):
        assert together_K[k].item() == pytest.approx(alone[k][k], rel=1e-4)
        functional_call(net, members[k].state_dict(), (x[k],))
        in_turn = penalty_K(kind, [a.unsqueeze(0) for a in take(taps)], target_K[k : k + 1])
        assert in_turn.item() == pytest.approx(alone[k][k], rel=1e-4)


@settings(max_examples=30)
@given(target=shares, mean=shares)
def test_the_divergence_is_0_at_the_target_alone(target, mean) -> None:
    found = divergence(torch.tensor(target), torch.tensor(mean)).item()
    assert found >= -1e-6
    assert (found < 1e-4) == (abs(target - mean) < 2e-2) or abs(target - mean) < 5e-2
    assert divergence(torch.tensor(target), torch.tensor(target)).abs() < 1e-6
    assert divergence(torch.tensor(target), torch.tensor([0.0, 1.0])).isfinite().all()


def test_a_row_that_does_not_count_is_not_there() -> None:
    x, target_K = torch.rand(2, 6, 3, 4, 4), torch.full((2,), 0.2)
    weight_KB = torch.ones(2, 6)
    weight_KB[:, 4:] = 0
    for kind in ("l1", "kl"):
        some = penalty_K(kind, [x], target_K, weight_KB)
        torch.testing.assert_close(some, penalty_K(kind, [x[:, :4]], target_K))
        torch.testing.assert_close(
            penalty_K(kind, [x], target_K, torch.ones(2, 6)), penalty_K(kind, [x], target_K)
        )


def test_a_tap_keeps_nothing_unasked_in_evaluation_or_twice() -> None:
    tap, x = Tap(), torch.randn(3)
    assert tap(x) is x
    assert take(listen(tap, keeps=True)) == []
    tap.eval()(x)
    assert take([tap]) == []
    tap.train()(x)
    tap(x)
    assert len(take([tap])) == 2
    assert take([tap]) == []
    assert not tap.state_dict()


@pytest.mark.parametrize("place", ["before", "after"])
def test_what_is_seen_are_the_activations_wherever_the_norm_stands(place) -> None:
    net = build(
        MODELS.get("mlp")(hidden=(8, 8), norm="layer", norm_place=place, activation=Sigmoid()), (5,), 2
    )
    taps = listen(net, keeps=True)
    net(torch.randn(9, 5))
    seen = take(taps)
    assert len(seen) == 2
    assert all(((x > 0) & (x < 1)).all() for x in seen)
