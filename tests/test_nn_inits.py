"""Laws of the initial weights that look at data (lsuv) and of those that stand in place of norms (fixup)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nn_packed import SMALL
from torch import Tensor, nn

from ensemble_svc.errors import SpecError
from ensemble_svc.nn.build import build
from ensemble_svc.nn.lsuv import to_unit_variance
from ensemble_svc.plan.executor import Resources
from ensemble_svc.planning import make_plan, prepare
from ensemble_svc.spec.activations import ACTIVATIONS
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.inits import Lsuv
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import MODELS, LeNet, Mlp, Network, ResNet
from ensemble_svc.spec.norms import NORMS
from ensemble_svc.train.assemble import assemble_fitted

ZOO = [choice for choice in MODELS if issubclass(choice, Network)]


def outputs_of_layers(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What each layer with weights puts out, in the order of the pass."""
    found: list[Tensor] = []
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(lambda _, __, out: found.append(out.detach())) for layer in layers]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    assert len(found) == len(layers)
    return found


def in_training_without_draws(net: nn.Module) -> nn.Module:
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    return net


@pytest.mark.parametrize("choice", ZOO, ids=lambda c: c.__name__)
@pytest.mark.parametrize("norm", list(NORMS), ids=lambda c: c.__name__)
def test_lsuv_gives_every_layers_outputs_the_variance_1(choice, norm) -> None:
    options, shape = SMALL[choice]
    for activation in ACTIVATIONS:
        for tol in (0.1, 0.01):
            init = Lsuv(tol=tol)
            model = choice(**options, norm=norm(), activation=activation(), init=init, dropout=0.5)
            if list(unfit(model)):
                continue
            torch.manual_seed(0)
            net, x = build(model, shape, 3), 3 * torch.randn(64, *shape) + 1
            before = {name: value.clone() for name, value in net.named_buffers()}
            to_unit_variance(net, x, init)
            assert net.training
            assert all(torch.equal(value, before[name]) for name, value in net.named_buffers())
            for out in outputs_of_layers(in_training_without_draws(net), x):
                assert abs(out.var(correction=0).item() - 1) < tol + 1e-4


def test_lsuv_keeps_the_orthogonal_draw_but_for_its_length() -> None:
    torch.manual_seed(0)
    net, x = build(Mlp(hidden=(8, 8), init="lsuv"), (12,), 3), torch.randn(50, 12)
    to_unit_variance(net, x, Lsuv())
    for layer in (m for m in net.modules() if isinstance(m, nn.Linear)):
        gram = layer.weight @ layer.weight.T
        torch.testing.assert_close(gram, gram.diag().mean() * torch.eye(len(gram)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", [Mlp(init="lsuv"), LeNet(init="lsuv", norm="batch")], ids=lambda m: m.name)
def test_rows_that_are_all_alike_are_refused_by_lsuv(model) -> None:
    shape = (1, 16, 16)
    with pytest.raises(SpecError, match=r"model\.init: 'lsuv' divides .* is 0\. Use he or orthogonal"):
        to_unit_variance(build(model, shape, 3), torch.zeros(8, *shape), Lsuv())


def test_lsuv_is_a_function_of_the_members_seed_and_rows() -> None:
    job = JobSpec.model_validate(
        {
            "name": "lsuv",
            "data": {"source": "digits", "preprocess": ("standardize",)},
            "model": {"name": "mlp", "hidden": (16,), "init": {"name": "lsuv", "rows": 40}},
            "ensemble": {"members": 3, "resample": "bootstrap"},
        }
    )
    ready = prepare(job, Path.cwd())
    members = tuple(make_plan(job, ready, Resources(cpus=1)).members)
    rows = [np.sort(np.random.default_rng(k).choice(ready.split.train, 300)) for k in range(3)]

    def started(order: list[int]) -> dict[int, dict[str, Tensor]]:
        found = assemble_fitted(
            [members[k] for k in order], ready.dataset, ready.schema, [rows[k] for k in order]
        )
        return {k: {n: v[i] for n, v in found.stack.items()} for i, k in enumerate(order)}

    together, apart = started([0, 1, 2]), {**started([2]), **started([1, 0])}
    for k in range(3):
        assert all(torch.equal(value, apart[k][name]) for name, value in together[k].items())
    weight = "body.hidden.0.linear.weight"
    assert not torch.equal(together[0][weight], together[1][weight])
    net = assemble_fitted(members[:1], ready.dataset, ready.schema, rows[:1]).net
    seen = [
        out.var(correction=0) for out in outputs_of_layers(net, torch.from_numpy(ready.dataset.x[rows[0]]))
    ]
    assert all(0.6 < variance < 1.6 for variance in seen), (
        "of all rows about 1, since some of them were looked at"
    )


DEPTHS = (8, 20, 56)
X, Y = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 3


def residual(depth: int, init: str) -> nn.Module:
    torch.manual_seed(0)
    return build(ResNet(depth=depth, width=8, norm="none", init=init), (3, 8, 8), 3)


def spread_of_trunk(net: nn.Module) -> float:
    """Mean square of what the blocks hand to the output layer."""
    return net.blocks(net.stem(X)).square().mean().item()


def effect_of_a_step(net: nn.Module) -> float:
    """How far a step of gradient descent moves the outputs, with an output layer that is awake."""
    nn.init.normal_(net.output.weight, std=0.1, generator=torch.Generator().manual_seed(2))
    before = net(X)
    F.cross_entropy(before, Y).backward()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if not name.startswith("output"):
                p.sub_(0.01 * p.grad)
        return (net(X) - before).norm().item()


def test_fixups_signal_and_first_update_do_not_grow_with_depth() -> None:
    """Without a norm and without fixup both explode."""
    spreads = {init: [spread_of_trunk(residual(depth, init)) for depth in DEPTHS] for init in ("fixup", "he")}
    assert max(spreads["fixup"]) < 1.5 * min(spreads["fixup"])
    assert spreads["he"][-1] > 1e3 * spreads["he"][0]
    steps = {init: [effect_of_a_step(residual(depth, init)) for depth in DEPTHS] for init in ("fixup", "he")}
    assert max(steps["fixup"]) < 2 * min(steps["fixup"])
    assert steps["he"][1] > 10 * steps["he"][0]
    assert not steps["he"][2] < 1e3


@pytest.mark.parametrize("depth", DEPTHS)
def test_fixups_weights_are_the_papers(depth) -> None:
    net, num_blocks = residual(depth, "fixup"), (depth - 2) // 2
    assert not net.output.weight.any()
    assert net(X).abs().max() == 0
    for block in net.blocks:
        assert not block.second.weight.any()
        weight = block.first.conv.weight
        wanted = (2 / weight[0].numel() / num_blocks) ** 0.5
        assert weight.std().item() == pytest.approx(wanted, rel=4 / weight.numel() ** 0.5)
    assert not any(getattr(m, "bias", None) is not None for m in net.modules() if isinstance(m, nn.Conv2d))
    single = [p for n, p in net.named_parameters() if p.shape == (1,)]
    assert len(single) == 5 * num_blocks + 2


def test_a_deep_network_without_norms_learns_with_fixup() -> None:
    net = residual(56, "fixup")
    optimizer = torch.optim.Adam(net.parameters(), lr=0.003)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(X), Y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@settings(max_examples=10)
@given(b=st.floats(-2, 2), s=st.floats(-2, 2))
def test_fixups_single_numbers_act_where_the_paper_has_them(b, s) -> None:
    """A block is relu(x + s * conv2(relu(conv1(x + b1) + b2) + b3) + b4)."""
    net = residual(8, "fixup").double()
    block = net.blocks[0]
    with torch.no_grad():
        for n, p in enumerate(
            (block.enter.bias, block.first.norm.bias, block.middle.bias, block.norm.shift.bias)
        ):
            p.fill_(b * (n + 1) / 4)
        block.norm.scale.scale.fill_(s)
        block.second.weight.normal_()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    inner = F.relu(F.conv2d(x + b / 4, block.first.conv.weight, padding=1) + b / 2) + 3 * b / 4
    wanted = F.relu(x + s * F.conv2d(inner, block.second.weight, padding=1) + b)
    torch.testing.assert_close(block(x), wanted)


@pytest.mark.parametrize(
    "model, words",
    [
        (Mlp(init="fixup"), "mlp has none"),
        (ResNet(init="fixup"), "in place of a norm"),
        (ResNet(init="fixup", norm="none", norm_place="after"), "in place of a norm"),
    ],
)
def test_fixup_is_refused_elsewhere(model, words) -> None:
    with pytest.raises(SpecError, match=rf"model\.init: 'fixup' .*{words}"):
        build(model, (3, 8, 8), 3)
