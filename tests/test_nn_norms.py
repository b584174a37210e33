"""Laws of the norms: the set of numbers each takes its mean and variance over, and where it stands.

Shapes: B rows, C channels, H x W places.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nn_packed import SMALL
from torch import Tensor, nn

from ensemble_svc.nn.build import build
from ensemble_svc.nn.norms import dense_norm, image_norm
from ensemble_svc.nn.renorm import BatchRenorm
from ensemble_svc.nn.weightnorm import WEIGHT_NORMED, WeightNormConv, WeightNormLinear
from ensemble_svc.spec import norms
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.model import MODELS, Mlp, Network

B, C, H, W = 6, 8, 5, 3
GROUPS = 4
SETS = {
    norms.NoNorm: None,
    norms.WeightNorm: None,
    norms.BatchNorm: lambda x: x.transpose(0, 1).flatten(1),
    norms.BatchRenorm: lambda x: x.transpose(0, 1).flatten(1),
    norms.LayerNorm: lambda x: x.flatten(1),
    norms.InstanceNorm: lambda x: x.flatten(0, 1).flatten(1),
    norms.GroupNorm: lambda x: x.unflatten(1, (GROUPS, -1)).flatten(0, 1).flatten(1),
}
"""The sets S_i of [B, C, …], one a row, of each norm that has some: the definition."""
NORMED = [choice for choice, sets in SETS.items() if sets]
AT_ONCE = norms.BatchRenorm(warmup=0, r_steps=0, d_steps=0, momentum=0.1)
seeds = st.integers(0, 10**6)


def made(choice: type[norms.Normalisation]) -> norms.Normalisation:
    return choice(groups=GROUPS) if choice is norms.GroupNorm else choice()


def rows(*shape: int) -> Tensor:
    """Numbers whose channels, rows and places all differ in mean and spread."""
    scale = [
        torch.rand(n, dtype=torch.float64).view(-1, *[1] * (len(shape) - i - 1)) for i, n in enumerate(shape)
    ]
    return torch.randn(*shape, dtype=torch.float64) * (0.2 + sum(scale)) + sum(scale)


def test_every_norm_has_its_definition_here() -> None:
    assert set(SETS) == set(norms.NORMS)


@pytest.mark.parametrize("choice", NORMED, ids=lambda c: c.__name__)
@pytest.mark.parametrize("shape", [(B, C, H, W), (B, C)], ids=["image", "dense"])
def test_the_mean_and_variance_are_those_over_the_definitions_sets(choice, shape) -> None:
    """Every set has mean 0 and variance 1 afterwards, and its numbers are those of before, moved and scaled."""
    if choice is norms.InstanceNorm and len(shape) == 2:
        assert isinstance(dense_norm(Mlp(norm=made(choice)).dense_norm, C), nn.Identity)
        return
    torch.manual_seed(0)
    module = (image_norm if len(shape) == 4 else dense_norm)(made(choice), C).double()
    x = rows(*shape)
    sets, found = SETS[choice](x), SETS[choice](module(x))
    mean, variance = sets.mean(1, keepdim=True), sets.var(1, correction=0, keepdim=True)
    torch.testing.assert_close(found, (sets - mean) / (variance + module.eps).sqrt())
    for parameter, start in ((module.weight, 1.0), (module.bias, 0.0)):
        assert torch.equal(parameter, torch.full_like(parameter, start))


@pytest.mark.parametrize("choice", [c for c in NORMED if c.sees_batch], ids=lambda c: c.__name__)
def test_what_a_choice_says_of_the_batch_is_true(choice) -> None:
    for other in NORMED:
        module, x = image_norm(made(other), C).double(), rows(B, C, H, W)
        with_others = module(x)[:1]
        x[1:] *= 3
        assert torch.allclose(with_others, module(x)[:1]) == (not other.sees_batch)


def trained(module: nn.Module, steps: int) -> nn.Module:
    for _ in range(steps):
        module(rows(B, C, H, W) * 2 + 1)
    return module


@settings(max_examples=10)
@given(seed=seeds, momentum=st.floats(0.01, 1.0))
def test_batch_renorm_is_batch_norm_until_it_leads_back(seed, momentum) -> None:
    torch.manual_seed(seed)
    renorm = BatchRenorm(C, norms.BatchRenorm(momentum=momentum)).double()
    plain = nn.BatchNorm2d(C, momentum=momentum).double()
    for _ in range(3):
        x = rows(B, C, H, W)
        torch.testing.assert_close(renorm(x), plain(x))
    for name, value in plain.named_buffers():
        torch.testing.assert_close(renorm.get_buffer(name), value)
    renorm.eval()
    plain.eval()
    torch.testing.assert_close(renorm(x), plain(x))


@settings(max_examples=10)
@given(seed=seeds)
def test_unbounded_batch_renorm_trains_on_what_it_predicts_with(seed) -> None:
    """y = (x - m) / s * (s / S) + (m - M) / S is (x - M) / S, but its gradient is batch norm's times r."""
    torch.manual_seed(seed)
    wide = AT_ONCE.model_copy(update={"r_max": 1e6, "d_max": 1e6})
    module = trained(BatchRenorm(C, wide).double(), 4)
    mean, deviation = module.running_mean.clone(), (module.running_var + module.eps).sqrt()
    x = rows(B, C, H, W).requires_grad_()
    found = module(x)
    torch.testing.assert_close(found, (x - mean.view(-1, 1, 1)) / deviation.view(-1, 1, 1))
    weigh = torch.randn_like(found)
    (grad,) = torch.autograd.grad((found * weigh).sum(), x)
    r = (x.detach().var((0, 2, 3), correction=0) + module.eps).sqrt() / deviation
    plain = nn.BatchNorm2d(C).double()(x)
    (wanted,) = torch.autograd.grad((plain * weigh * r.view(-1, 1, 1)).sum(), x)
    torch.testing.assert_close(grad, wanted)


def test_batch_renorms_corrections_are_bounded() -> None:
    torch.manual_seed(0)
    module = trained(BatchRenorm(C, AT_ONCE.model_copy(update={"r_max": 1.5, "d_max": 0.5})).double(), 3)
    running_mean, running_var = module.running_mean.clone(), module.running_var.clone()
    x = rows(B, C, H, W) * 40 + 300
    found = module(x)
    assert (found.mean((0, 2, 3)) <= 0.5 + 1e-9).all()
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.full((C,), 1.5, dtype=torch.float64))
    assert not torch.equal(running_mean, module.running_mean)
    assert not torch.equal(running_var, module.running_var)


def test_batch_renorms_bounds_widen_as_the_paper_says() -> None:
    module = BatchRenorm(C, norms.BatchRenorm())
    steps = torch.tensor([0, 5_000, 15_000, 25_000, 40_000, 10**6])
    r_max, d_max = module.bounds(steps)
    assert r_max.tolist() == pytest.approx([1, 1, 1 + 2 * 10 / 35, 1 + 2 * 20 / 35, 3, 3])
    assert d_max.tolist() == pytest.approx([0, 0, 2.5, 5, 5, 5])


def weight_normed() -> list[tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    pairs = [(WeightNormLinear(C, 4), rows(B, C)), (WeightNormConv(C, 4, 3, 1, 1), rows(B, C, H, W))]
    for module, _ in pairs:
        nn.init.uniform_(module.double().gain, 0.5, 2)
    return pairs


@settings(max_examples=15)
@given(scale=st.floats(0.01, 100))
def test_a_weight_norms_function_does_not_depend_on_the_length_of_its_directions(scale) -> None:
    for module, x in weight_normed():
        before = module(x)
        with torch.no_grad():
            module.weight.mul_(scale)
        torch.testing.assert_close(module(x), before)


def test_a_weight_norms_gradient_is_orthogonal_to_its_direction() -> None:
    for module, x in weight_normed():
        module(x).square().sum().backward()
        along = (module.weight.grad * module.weight).flatten(1).sum(1)
        size = module.weight.grad.flatten(1).norm(dim=1) * module.weight.flatten(1).norm(dim=1)
        assert (along.abs() < 1e-12 * size).all()
        assert (size > 0).all()


@pytest.mark.parametrize("choice", [c for c in MODELS if issubclass(c, Network)], ids=lambda c: c.__name__)
@pytest.mark.parametrize("init", ["he", "xavier", "orthogonal", "torch"])
def test_at_first_weight_norm_is_the_network_without_a_norm(choice, init) -> None:
    options, shape = SMALL[choice]
    nets = []
    for norm in ("none", "weight"):
        torch.manual_seed(1)
        nets.append(build(choice(**options, init=init, norm=norm), shape, 3).double())
    x = torch.randn(4, *shape, dtype=torch.float64)
    torch.testing.assert_close(nets[0](x), nets[1](x), rtol=1e-5, atol=1e-5)
    hidden = [m for m in nets[1].modules() if isinstance(m, WEIGHT_NORMED)]
    assert len(hidden) == sum(isinstance(m, nn.Linear | nn.Conv2d) for m in nets[0].modules()) - 1


@pytest.mark.parametrize("choice", [c for c in MODELS if issubclass(c, Network)], ids=lambda c: c.__name__)
@pytest.mark.parametrize("norm", list(norms.NORMS), ids=lambda c: c.__name__)
@pytest.mark.parametrize("place", ["before", "after"])
def test_the_norm_stands_where_it_is_asked_to(choice, norm, place) -> None:
    """Before the activation the hidden units' outputs are an activation's; after it they are the norm's."""
    options, shape = SMALL[choice]
    model = choice(**options, norm=norm(), norm_place=place, activation="sigmoid")
    if list(unfit(model)):
        return
    net, inside = build(model, shape, 3), []
    for layer in net.modules():
        if isinstance(getattr(layer, "noise", None), nn.Module):
            layer.noise.register_forward_hook(lambda _, __, out: inside.append(out.min().item()))
    net(torch.randn(8, *shape) * 3)
    dense_alone = isinstance(model.norm, norms.InstanceNorm)
    assert inside
    if place == "before" or not norm.is_layer:
        assert min(inside) > 0
    else:
        assert all(low < 0 for low in (inside[:1] if dense_alone else inside))


def test_the_number_of_groups_is_an_option() -> None:
    for groups, wanted in ((1, 1), (2, 2), (4, 4), (3, 2), (64, 4)):
        assert image_norm(norms.GroupNorm(groups=groups), 8).num_groups == wanted
    assert math.prod(image_norm(norms.BatchNorm(momentum=0.3), 8).running_mean.shape) == 8
    assert (
        image_norm(norms.BatchNorm(momentum=0.3), 8).momentum
        == dense_norm(norms.BatchNorm(momentum=0.3), 8).momentum
        == 0.3
    )
