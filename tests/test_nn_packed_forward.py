"""Law of the written-out pack: each slice is the member alone, its gradients and its running statistics too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from ensemble_svc.nn import packed
from ensemble_svc.nn.build import build
from ensemble_svc.nn.noise import set_draws
from ensemble_svc.registry import Choice
from ensemble_svc.spec.activations import ACTIVATIONS
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.model import MODELS, Model, Network, ResNet
from ensemble_svc.spec.norms import NORMS, BatchRenorm

ZOO = [choice for choice in MODELS if issubclass(choice, Network)]
SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "mlp": ({"hidden": (6, 4)}, (5,)),
    "lenet": ({"channels": (2, 4), "dense": (6,)}, (1, 12, 12)),
    "convnet": ({"channels": (4, 4), "convs_per_stage": 1, "dense": (6,)}, (3, 8, 8)),
    "resnet": ({"depth": 8, "width": 2}, (3, 8, 8)),
}
AT_WORK: dict[type[Choice], dict[str, Any]] = {BatchRenorm: {"warmup": 0, "r_steps": 0, "d_steps": 0}}
"""Options of which each norm does what makes it another one's equal no more."""
K, B = 3, 4


def members(model: Model, shape: tuple[int, ...]) -> list[nn.Module]:
    torch.manual_seed(0)
    return [build(model, shape, 3).double() for _ in range(K)]


def stacked(nets: list[nn.Module]) -> dict[str, torch.Tensor]:
    states = [net.state_dict() for net in nets]
    trained = {name for name, _ in nets[0].named_parameters()}
    whole = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    return {name: w.requires_grad_(name in trained) for name, w in whole.items()}


@pytest.mark.parametrize("choice", ZOO, ids=lambda c: c.model_fields["name"].default)
@pytest.mark.parametrize("norm", list(NORMS), ids=lambda c: c.model_fields["name"].default)
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("training", [True, False])
def test_each_slice_is_the_member_alone(choice, norm, place, training):
    options, shape = SMALL[choice.model_fields["name"].default]
    for activation in ACTIVATIONS:
        model = choice(
            **options, norm=norm(**AT_WORK.get(norm, {})), norm_place=place, activation=activation()
        )
        if list(unfit(model)):
            continue
        nets = members(model, shape)
        for net in nets:
            net.train(training)
        assert packed.is_known(nets[0])
        weights, x = stacked(nets), torch.randn(K, B, *shape, dtype=torch.float64)
        outputs = packed.forward(nets[0], weights, x)
        weigh = torch.randn_like(outputs)
        (outputs * weigh).sum().backward()
        for k, net in enumerate(nets):
            alone = net(x[k])
            torch.testing.assert_close(outputs[k], alone)
            (alone * weigh[k]).sum().backward()
            for name, p in net.named_parameters():
                torch.testing.assert_close(weights[name].grad[k], p.grad, msg=lambda m, n=name: f"{n}: {m}")
            for name, b in net.named_buffers():
                torch.testing.assert_close(weights[name][k], b, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_each_slice_of_fixup_is_the_member_alone(activation):
    """All of its single numbers and zero weights moved away from where they begin."""
    options, shape = SMALL["resnet"]
    nets = members(ResNet(**options, norm="none", init="fixup", activation=activation), shape)
    for net in nets:
        for p in net.parameters():
            nn.init.normal_(p, std=0.3)
    weights, x = stacked(nets), torch.randn(K, B, *shape, dtype=torch.float64)
    outputs = packed.forward(nets[0], weights, x)
    outputs.square().sum().backward()
    for k, net in enumerate(nets):
        alone = net(x[k])
        torch.testing.assert_close(outputs[k], alone)
        alone.square().sum().backward()
        for name, p in net.named_parameters():
            torch.testing.assert_close(weights[name].grad[k], p.grad, msg=lambda m, n=name: f"{n}: {m}")


@settings(max_examples=25, deadline=None)
@given(rates=st.lists(st.sampled_from([0.0, 0.25, 0.6]), min_size=K, max_size=K), seed=st.integers(0, 99))
def test_each_member_drops_out_at_its_own_rate(rates, seed):
    model = MODELS.get("mlp")(hidden=(4000,), activation="relu", init="torch")
    nets = [build(model.model_copy(update={"dropout": rate}), (5,), 1) for rate in rates]
    weights = stacked(nets)
    set_draws(nets[0], weights)
    hidden = nets[0].get_submodule("hidden")
    torch.manual_seed(seed)
    first = {name.removeprefix("hidden."): w for name, w in weights.items() if name.startswith("hidden.")}
    first["0.linear.bias"] = torch.full((K, 4000), 10.0)
    first["0.linear.weight"] = torch.zeros(K, 4000, 5)
    seen = packed.forward(hidden.train(), first, torch.randn(K, 2, 5))
    for k, rate in enumerate(rates):
        zeros = (seen[k] == 0).double().mean().item()
        assert abs(zeros - rate) < 6 * (rate * (1 - rate) / 8000) ** 0.5 + 1e-12
        if rate == 0:
            assert torch.equal(seen[k], torch.full((2, 4000), 10.0))


def test_an_activation_used_twice_acts_twice():
    act = nn.Tanh()
    net = nn.Sequential(nn.Linear(2, 3), act, nn.Linear(3, 3), act).double()
    x = torch.randn(1, 4, 2, dtype=torch.float64)
    weights = {name: w.detach()[None] for name, w in net.state_dict().items()}
    torch.testing.assert_close(packed.forward(net, weights, x)[0], net(x[0]))


@pytest.mark.parametrize(
    "net", [nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), nn.Sequential(nn.LayerNorm(2, bias=False))]
)
def test_a_network_of_ones_own_is_left_to_vmap(net):
    assert not packed.is_known(net)


def test_a_network_of_ones_own_is_not_taken_for_a_sequence():
    class Twice(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    assert not packed.is_known(Twice(nn.Linear(2, 2)))
    assert functional_call(Twice(nn.Identity()), {}, (torch.ones(1),)).item() == 2
