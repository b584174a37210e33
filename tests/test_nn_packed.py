"""The great law over the whole zoo: a member trains in a pack as it would alone, buffers too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ensemble_svc.nn.build import build
from ensemble_svc.nn.heads import loss_rows
from ensemble_svc.optim.single import build as build_optimizer
from ensemble_svc.optim.stacked import StackedOptimizer
from ensemble_svc.registry import Choice
from ensemble_svc.spec.activations import ACTIVATIONS
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.losses import CrossEntropy
from ensemble_svc.spec.model import MODELS, ConvNet, LeNet, Mlp, Network, PythonModel, ResNet
from ensemble_svc.spec.norms import NORMS
from ensemble_svc.spec.optimizers import Sgd

NUM_CLASSES, NUM_ROWS = 3, 4
RULES = [Sgd(lr=0.1, momentum=0.9), Sgd(lr=0.02, momentum=0.9, weight_decay=0.1)]
NAMES = [choice.model_fields["name"].default for choice in ACTIVATIONS]


def attention(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A user's own network, with layers that the zoo lacks."""
    return nn.Sequential(
        nn.Unflatten(1, (input_shape[0] // 2, 2)),
        nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True),
        nn.Flatten(),
        nn.PReLU(),
        nn.Linear(input_shape[0], num_outputs),
    )


SMALL: dict[type[Choice], tuple[dict[str, object], tuple[int, ...]]] = {
    Mlp: ({"hidden": (8,)}, (5,)),
    LeNet: ({"channels": (2, 4), "dense": (6,)}, (1, 12, 12)),
    ConvNet: ({"channels": (4,), "convs_per_stage": 1, "dense": (6,)}, (3, 6, 6)),
    ResNet: ({"depth": 8, "width": 4}, (3, 8, 8)),
    PythonModel: ({"factory": f"{__name__}:attention"}, (6,)),
}
"""Options and input shape of a small instance of each registered network."""


def small(choice: type[Choice], **options: object) -> tuple[Choice, tuple[int, ...]]:
    own, shape = SMALL[choice]
    return choice(**own, **options), shape


def every_kind() -> list[object]:
    """Each network with each norm and activation that it offers."""
    zoo = [choice for choice in MODELS if issubclass(choice, Network)]
    others = [choice for choice in MODELS if not issubclass(choice, Network)]
    crossed = [
        (c, {"norm": n, "activation": a})
        for c in zoo
        for n in NORMS.by_name
        for a in NAMES
        if not list(unfit(c(norm=n, activation=a)))
    ]
    return [
        pytest.param(choice, options, id="-".join([choice.model_fields["name"].default, *options.values()]))
        for choice, options in [*crossed, *((choice, {}) for choice in others)]
    ]


def make_members(choice: type[Choice], **options: object) -> tuple[list[nn.Module], tuple[int, ...]]:
    model, shape = small(choice, **options)
    members = []
    for seed in range(len(RULES)):
        torch.manual_seed(seed)
        members.append(build(model, shape, NUM_CLASSES).double())
    return members, shape


def stack(members: list[nn.Module]) -> dict[str, Tensor]:
    return {name: torch.stack([m.state_dict()[name] for m in members]) for name in members[0].state_dict()}


def batches(shape: tuple[int, ...], num_steps: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    lead = (num_steps, len(RULES), NUM_ROWS)
    x = torch.randn(*lead, *shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(NUM_CLASSES, lead, generator=generator)


def train_packed(members: list[nn.Module], x_TKB: Tensor, y_TKB: Tensor) -> dict[str, Tensor]:
    state_K = stack(members)
    params = {name: state_K[name].requires_grad_() for name, _ in members[0].named_parameters()}
    optimizer = StackedOptimizer(params, RULES)

    def loss_of(state: dict[str, Tensor], x_B: Tensor, y_B: Tensor) -> Tensor:
        return loss_rows(CrossEntropy(), functional_call(members[0], state, (x_B,)), y_B).mean()

    for x_KB, y_KB in zip(x_TKB, y_TKB, strict=True):
        for param in params.values():
            param.grad = None
        vmap(loss_of, randomness="different")(state_K, x_KB, y_KB).sum().backward()
        optimizer.step(1.0)
    return state_K


def train_alone(member: nn.Module, rule: Sgd, x_TB: Tensor, y_TB: Tensor) -> dict[str, Tensor]:
    optimizer = build_optimizer(rule, dict(member.named_parameters()))
    for x_B, y_B in zip(x_TB, y_TB, strict=True):
        optimizer.zero_grad()
        loss_rows(CrossEntropy(), member(x_B), y_B).mean().backward()
        optimizer.step()
    return member.state_dict()


@pytest.mark.parametrize("choice, options", every_kind())
def test_packed_member_ends_where_it_would_end_alone(choice, options) -> None:
    members, shape = make_members(choice, **options)
    x, y = batches(shape, num_steps=2)
    before, packed = stack(members), train_packed(members, x, y)
    for k, (member, rule) in enumerate(zip(members, RULES, strict=True)):
        alone = train_alone(member, rule, x[:, k], y[:, k])
        for name, value in alone.items():
            torch.testing.assert_close(
                packed[name][k], value, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
            )
    trained = [name for name, _ in members[0].named_parameters()]
    assert all(not torch.equal(before[name], packed[name]) for name in trained if name.endswith("weight"))
    averages = "norm" in options and NORMS.get(options["norm"]).sees_batch
    assert any(name.endswith("running_var") for name in packed) == averages
    assert all((packed[name] == 2).all() for name in packed if name.endswith("num_batches_tracked"))


@pytest.mark.parametrize("choice", [c for c in MODELS if issubclass(c, Network)], ids=lambda c: c.__name__)
def test_dropout_draws_for_each_member_apart_and_only_in_training(choice) -> None:
    (member, _), shape = make_members(choice, dropout=0.5)
    state_K = stack([member, member])
    x_B = torch.randn(NUM_ROWS, *shape, dtype=torch.float64)
    forward = vmap(lambda state: functional_call(member, state, (x_B,)), randomness="different")
    first, second = forward(state_K)
    assert not torch.equal(first, second)
    member.eval()
    first, second = forward(stack([member, member]))
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, member(x_B))


@pytest.mark.parametrize("choice", [c for c in MODELS if issubclass(c, Network)], ids=lambda c: c.__name__)
def test_without_dropout_a_step_draws_nothing(choice) -> None:
    members, shape = make_members(choice)
    x, y = batches(shape, num_steps=1)
    before = torch.get_rng_state()
    train_packed(members, x, y)
    assert torch.equal(before, torch.get_rng_state())
