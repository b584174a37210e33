"""Laws of shared weights: one layer used several times is that many layers of equal weights."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from law_runs import assert_close, assert_same_bits, both, job_of, payload_of, train
from test_nn_packed import stack
from torch import nn

from ensemble_svc.nn import packed
from ensemble_svc.nn.build import build
from ensemble_svc.nn.tied import Repeated
from ensemble_svc.plan.progress import Progress
from ensemble_svc.spec.activations import ACTIVATIONS
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.model import Mlp
from ensemble_svc.spec.norms import NORMS
from ensemble_svc.train.assemble import assemble


class Autoencoder(nn.Module):
    """A user's own network: the way back has the weights of the way in, and a layer between is used twice."""

    def __init__(self, num_in: int, num_outputs: int) -> None:
        super().__init__()
        self.inner, self.output = nn.Linear(8, 8), nn.Linear(num_in, num_outputs)
        self.encode = nn.Linear(num_in, 8, bias=False)
        self.decode = nn.Embedding(8, num_in)
        self.decode.weight = self.encode.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        code = self.inner(self.inner(self.encode(x.flatten(1)).tanh()).tanh()).tanh()
        return self.output((code @ self.decode.weight).tanh())


def autoencoder(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Autoencoder(math.prod(input_shape), num_outputs)


WIDTHS = st.lists(st.sampled_from([4, 6]), min_size=1, max_size=6).map(tuple)


def unrolled(net: nn.Module, model: Mlp) -> tuple[nn.Sequential, list[tuple[str, ...]]]:
    """The network with every use a layer of its own, and for each of those the names of the shared weights."""
    layers, names = [], []
    for name, layer in net.hidden.named_children():
        own, times, prefix = (
            (layer.layer, layer.times, "layer.") if isinstance(layer, Repeated) else (layer, 1, "")
        )
        for _ in range(times):
            width, num_in = own.linear.weight.shape
            one = model.model_copy(update={"hidden": (width // model.pieces,), "tied": False})
            copy = build(one, (num_in,), 1).double().hidden[0]
            copy.load_state_dict(own.state_dict())
            layers.append(copy)
            names.append(tuple(f"hidden.{name}.{prefix}{n}" for n, _ in copy.named_parameters()))
    return nn.Sequential(nn.Flatten(), *layers, net.output), names


@settings(max_examples=25, deadline=None)
@given(hidden=WIDTHS, act=st.sampled_from(list(ACTIVATIONS)), norm=st.sampled_from(list(NORMS)))
def test_the_gradient_is_the_sum_over_the_uses(hidden, act, norm) -> None:
    model = Mlp(hidden=hidden, tied=True, activation=act(), norm=norm())
    if list(unfit(model)):
        return
    torch.manual_seed(0)
    net = build(model, (4,), 3).double()
    apart, names = unrolled(net, model)
    assert len(names) == len(hidden)
    x = torch.randn(5, 4, dtype=torch.float64)
    outputs = net(x)
    torch.testing.assert_close(outputs, apart(x))
    weigh = torch.randn_like(outputs)
    shared = {n: p for n, p in net.named_parameters() if not n.startswith("output")}
    found = torch.autograd.grad((outputs * weigh).sum(), list(shared.values()))
    copies = [p for layer in apart[1:-1] for p in layer.parameters()]
    of_uses = torch.autograd.grad((apart(x) * weigh).sum(), copies)
    sums = {name: torch.zeros_like(p) for name, p in shared.items()}
    for name, grad in zip((n for own in names for n in own), of_uses, strict=True):
        sums[name] += grad
    for (name, total), grad in zip(sums.items(), found, strict=True):
        torch.testing.assert_close(grad, total, msg=lambda m, n=name: f"{n}: {m}")


@given(hidden=WIDTHS)
def test_the_state_has_each_run_of_equal_layers_once(hidden) -> None:
    """The first layer reads the input, and is never shared."""
    net = build(Mlp(hidden=hidden, tied=True), (hidden[0],), 3)
    runs = 1 + sum(pair != before for before, pair in pairwise([None, *pairwise(hidden)]))
    assert len([n for n in net.state_dict() if n.endswith("linear.weight")]) == runs


@pytest.mark.parametrize("training", [True, False])
def test_each_slice_of_a_pack_is_the_member_alone(training) -> None:
    model = Mlp(hidden=(6, 6, 6, 5, 5, 5), tied=True, norm="weight", activation="prelu")
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        members.append(build(model, (4,), 2).double().train(training))
    weights, x = stack(members), torch.randn(3, 7, 4, dtype=torch.float64)
    weights = {n: w.requires_grad_(w.is_floating_point()) for n, w in weights.items()}
    outputs = packed.forward(members[0], weights, x)
    outputs.square().sum().backward()
    for k, member in enumerate(members):
        alone = member(x[k])
        torch.testing.assert_close(outputs[k], alone)
        alone.square().sum().backward()
        for name, p in member.named_parameters():
            torch.testing.assert_close(weights[name].grad[k], p.grad)


def killed(progress: Progress) -> None:
    if progress.epoch == 1:
        raise KeyboardInterrupt


OWN = {"name": "python", "factory": f"{__name__}:autoencoder"}


@pytest.mark.parametrize("pack", [3, "off"])
def test_a_network_of_ones_own_may_tie_its_weights(pack, tmp_path) -> None:
    """Packed and alone, averaged, resumed to the same bits; each weight is kept once."""
    job = job_of(
        model=OWN,
        training__epochs=2,
        training__optimizer={"name": "sgd", "lr": 0.05},
        training__average={"name": "ema", "decay": 0.9},
        training__regularizers=({"name": "l2", "strength": 1e-3},),
        compute__pack=pack,
    )
    undisturbed = train(job, tmp_path / "a", commit_every_s=0)
    if pack == 3:
        assert_close(*both(job, tmp_path))
    names = {n.rpartition("body.")[2] for n in undisturbed[0] if n.startswith("weights.safetensors/body.")}
    assert names == {"inner.weight", "inner.bias", "encode.weight", "output.weight", "output.bias"}
    with pytest.raises(KeyboardInterrupt):
        train(job, tmp_path / "b", report=killed, commit_every_s=0)
    assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))


def test_tied_weights_of_ones_own_network_stay_tied_in_prediction(tmp_path) -> None:
    """The run's predictions are those of the network that the weights are loaded into."""
    job = job_of(model=OWN, training__epochs=1, compute__pack=3)
    found = train(job, tmp_path)
    payload, plan = payload_of(job, tmp_path)
    for index, member in enumerate(plan.members):
        net = assemble(member, payload.schema).eval()
        own = {
            n.partition("/")[2]: t for n, t in found[index].items() if n.startswith("weights.safetensors/")
        }
        net.load_state_dict(own, strict=False)
        assert net.body.decode.weight is net.body.encode.weight
        told = next(t for n, t in found[index].items() if "test" in n and n.endswith("log_probs"))
        x = torch.from_numpy(payload.dataset.x[payload.split.test])
        torch.testing.assert_close(net(x).log_softmax(-1), told, rtol=1e-4, atol=1e-5)
