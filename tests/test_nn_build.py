"""Laws of the networks: shapes, initial weights, no bias before a norm; and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ensemble_svc.errors import SpecError
from ensemble_svc.nn.build import build
from ensemble_svc.nn.initial import gain_of
from ensemble_svc.nn.layers import activation
from ensemble_svc.nn.norms import num_groups
from ensemble_svc.nn.regularize import penalised
from ensemble_svc.registry import Choice
from ensemble_svc.spec.activations import ACTIVATIONS, Elu, LeakyRelu, Maxout, PRelu, Relu, Sigmoid, Tanh
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.inits import Dirac, Gaussian, He, Orthogonal, TorchInit, Xavier, Zeros
from ensemble_svc.spec.model import MODELS, ConvNet, LeNet, Mlp, Network, PythonModel, ResNet
from ensemble_svc.spec.norms import NORMS, InstanceNorm

SPREADS = {
    He(): lambda fan_in, fan_out, gain: (gain / math.sqrt(fan_in), True),
    He(fan="out"): lambda fan_in, fan_out, gain: (gain / math.sqrt(fan_out), True),
    Xavier(): lambda fan_in, fan_out, gain: (math.sqrt(2 / (fan_in + fan_out)), False),
    Xavier(distribution="normal"): lambda fan_in, fan_out, gain: (math.sqrt(2 / (fan_in + fan_out)), True),
    Gaussian(std=0.3): lambda fan_in, fan_out, gain: (0.3, True),
    TorchInit(): lambda fan_in, fan_out, gain: (1 / math.sqrt(3 * fan_in), False),
}
"""Standard deviation of the weights, and whether they are normal, of each choice that draws them independently."""
ZOO = [choice for choice in MODELS if issubclass(choice, Network)]
ROW: dict[type[Choice], tuple[int, ...]] = {
    Mlp: (9,),
    LeNet: (1, 28, 28),
    ConvNet: (3, 16, 16),
    ResNet: (3, 8, 8),
}
"""The shape of a row that suits each network."""
EVERY_ACTIVATION = [choice() for choice in ACTIVATIONS] + [
    Relu(bias=0.01),
    LeakyRelu(slope=0.3),
    PRelu(slope=0.1),
    Elu(alpha=2.0),
    Maxout(pieces=3),
]
over_activations = pytest.mark.parametrize(
    "act", EVERY_ACTIVATION, ids=lambda a: "-".join(map(str, a.model_dump().values()))
)
over_norms = pytest.mark.parametrize("norm", [choice() for choice in NORMS], ids=lambda n: n.name)
over_zoo = pytest.mark.parametrize("choice", ZOO, ids=lambda c: c.__name__)

counts = st.integers(1, 9)
MODELS_OF = {
    Mlp: st.builds(Mlp, hidden=st.lists(counts, max_size=3).map(tuple)),
    LeNet: st.builds(
        LeNet, channels=st.tuples(counts, counts), dense=st.lists(counts, max_size=2).map(tuple)
    ),
    ConvNet: st.builds(
        ConvNet,
        channels=st.lists(counts, min_size=1, max_size=3).map(tuple),
        convs_per_stage=st.integers(1, 2),
        dense=st.lists(counts, max_size=2).map(tuple),
    ),
    ResNet: st.builds(ResNet, depth=st.sampled_from([8, 14]), width=counts),
}


def built(choice: type[Network], num_outputs: int, **options: object) -> nn.Module:
    """The network for its row, if there is one of those options."""
    model = choice(**options)
    if found := list(unfit(model)):
        pytest.skip(found[0][1])
    return build(model, ROW[choice], num_outputs)


def weighted_layers(net: nn.Module) -> list[nn.Linear | nn.Conv2d]:
    return [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]


@over_zoo
@settings(max_examples=15)
@given(data=st.data())
def test_any_row_is_mapped_to_the_outputs_or_refused(choice, data) -> None:
    model = data.draw(MODELS_OF[choice])
    model = model.model_copy(update={"norm": data.draw(st.sampled_from(list(NORMS)))()})
    shape = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple))
    num_outputs = data.draw(st.integers(1, 4))
    try:
        net = build(model, shape, num_outputs)
    except SpecError:
        return
    for rows in (2, 5):
        assert net(torch.randn(rows, *shape)).shape == (rows, num_outputs)


def test_a_fitting_row_is_not_refused() -> None:
    for choice in ZOO:
        assert build(choice(), ROW[choice], 3)(torch.randn(2, *ROW[choice])).shape == (2, 3)
    assert build(Mlp(), (3, 4, 4), 2)(torch.randn(2, 3, 4, 4)).shape == (2, 2)


@pytest.mark.parametrize(
    "model, shape, num_weights",
    [(LeNet(), (1, 28, 28), 61_706), (ResNet(), (3, 32, 32), 269_722), (Mlp(hidden=()), (4,), 15)],
    ids=["lenet", "resnet20", "linear"],
)
def test_sizes_are_those_of_the_papers(model, shape, num_weights) -> None:
    assert (
        sum(p.numel() for p in build(model, shape, 3 if model.name == "mlp" else 10).parameters())
        == num_weights
    )


def test_each_residual_stage_halves_the_image_and_doubles_the_channels() -> None:
    net = build(ResNet(depth=14, width=4), (3, 9, 12), 2)
    x, shapes = net.stem(torch.randn(2, 3, 9, 12)), []
    for block in net.blocks:
        nn.init.zeros_(block.second.weight)
        x_before, x = x, block(x)
        passed = F.relu(x_before[..., :: block.stride, :: block.stride])
        assert torch.equal(x[:, : x_before.shape[1]], passed)
        assert not x[:, x_before.shape[1] :].any()
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(4, 9, 12)] * 2 + [(8, 5, 6)] * 2 + [(16, 3, 3)] * 2


@over_zoo
@over_norms
@pytest.mark.parametrize("place", ["before", "after"])
def test_no_bias_stands_before_a_norm(choice, norm, place) -> None:
    *hidden, output = weighted_layers(built(choice, 3, norm=norm, norm_place=place))
    assert output.bias is not None
    for layer in hidden:
        normed = norm.is_layer and not (isinstance(layer, nn.Linear) and isinstance(norm, InstanceNorm))
        assert (layer.bias is None) == (normed and place == "before")


@over_zoo
@pytest.mark.parametrize("init", SPREADS, ids=lambda i: "-".join(map(str, i.model_dump().values())))
@over_activations
def test_initial_weights_have_the_spread_that_is_asked(choice, init, act) -> None:
    torch.manual_seed(3)
    net = built(choice, 400, init=init, activation=act)
    *hidden, output = weighted_layers(net)
    for layer in (*hidden, output):
        fan_in, places = layer.weight[0].numel(), layer.weight[0, 0].numel()
        fan_out = layer.weight.shape[0] * places
        gain = 1.0 if layer is output else gain_of(act)
        spread, is_normal = SPREADS[init](fan_in, fan_out, gain)
        error = 4 / math.sqrt(layer.weight.numel())
        assert layer.weight.std().item() == pytest.approx(spread, rel=error)
        assert layer.weight.abs().max() <= spread * (6 if is_normal else math.sqrt(3) + 1e-4)
        if layer.bias is not None:
            asked = layer is not output and act == Relu(bias=0.01)
            assert bool(layer.bias.any()) == (asked or init == TorchInit())


@over_zoo
@over_activations
def test_orthogonal_weights_have_orthogonal_rows_or_columns(choice, act) -> None:
    *hidden, output = weighted_layers(built(choice, 4, init=Orthogonal(), activation=act))
    for layer in (*hidden, output):
        matrix = layer.weight.detach().double().flatten(1)
        matrix = matrix if len(matrix) <= matrix.shape[1] else matrix.T
        gain = 1.0 if layer is output else gain_of(act)
        torch.testing.assert_close(
            matrix @ matrix.T, gain**2 * torch.eye(len(matrix), dtype=torch.float64), rtol=1e-4, atol=1e-4
        )


def test_dirac_convolutions_pass_their_input_on() -> None:
    *hidden, _ = weighted_layers(build(ResNet(init=Dirac(), norm="none"), (3, 8, 8), 4))
    x = torch.randn(2, 16, 8, 8)
    for layer in hidden[1:4]:
        torch.testing.assert_close(layer(x), x)


@pytest.mark.parametrize("choice", [Mlp, LeNet, ConvNet])
def test_zeros_never_break_the_symmetry(choice) -> None:
    """The units of a layer get equal gradients, so they stay equal (a wrong start, kept to show that).

    In a residual network the channels that are new in a stage begin otherwise than those that are led around.
    """
    net = build(choice(init=Zeros(), norm="none", activation=Sigmoid()), ROW[choice], 3)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    x, y = torch.randn(8, *ROW[choice]), torch.randint(3, (8,))
    for _ in range(5):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    *hidden, _ = weighted_layers(net)
    for layer in hidden:
        torch.testing.assert_close(layer.weight, layer.weight[:1].expand_as(layer.weight))


@over_activations
def test_the_gain_makes_up_for_the_activation(act) -> None:
    if isinstance(act, Tanh | Sigmoid):
        assert gain_of(act) == nn.init.calculate_gain(act.name)
        return
    pieces = act.pieces if isinstance(act, Maxout) else 1
    z = torch.randn(1_000_000, pieces, generator=torch.Generator().manual_seed(0))
    kept = activation(act, 1)(z).double().square().mean()
    assert gain_of(act) ** 2 * kept.item() == pytest.approx(1, abs=0.01)


@over_activations
def test_each_activation_is_what_its_name_says(act) -> None:
    z = torch.linspace(-3, 3, 60).view(30, 2)
    match act:
        case Maxout(pieces=pieces):
            z = torch.randn(5, 2 * pieces, 3)
            wanted = torch.stack([z[:, :pieces].amax(1), z[:, pieces:].amax(1)], 1)
        case LeakyRelu() | PRelu():
            wanted = torch.where(z > 0, z, act.slope * z)
        case Elu():
            wanted = torch.where(z > 0, z, act.alpha * z.expm1())
        case _:
            wanted = getattr(F, act.name, getattr(torch, act.name, None))(z)
    torch.testing.assert_close(activation(act, 2)(z), wanted)


def test_maxout_has_pieces_times_the_weights_of_its_layers() -> None:
    one, three = (build(Mlp(hidden=(7,), activation=a), (5,), 2) for a in (Relu(), Maxout(pieces=3)))
    shapes = {name: tuple(p.shape) for name, p in three.named_parameters()}
    assert shapes["hidden.0.linear.weight"] == (21, 5)
    assert shapes["output.weight"] == (2, 7) == tuple(one.get_parameter("output.weight").shape)


def test_maxout_in_a_residual_network_is_refused() -> None:
    with pytest.raises(SpecError, match="residual sum is one"):
        build(ResNet(activation=Maxout()), (3, 8, 8), 3)


@over_zoo
def test_the_callers_seed_decides_the_weights(choice) -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build(choice(), ROW[choice], 3).parameters())

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@given(num_channels=st.integers(1, 600))
def test_groups_are_equal_and_hold_two_channels(num_channels) -> None:
    groups = num_groups(num_channels, 8)
    assert 1 <= groups <= 8
    assert num_channels % groups == 0
    assert num_channels == 1 or num_channels // groups >= 2
    if num_channels % 16 == 0:
        assert groups == 8


@over_zoo
@over_norms
def test_penalised_are_the_weights_of_all_layers(choice, norm) -> None:
    net = built(choice, 3, norm=norm)
    own = {id(layer.weight) for layer in weighted_layers(net)}
    named = dict(net.named_parameters())
    assert {id(named[name]) for name in penalised(net)} == own
    assert len(penalised(net)) == len(own)


def test_penalised_leaves_out_wide_norms_biases_and_frozen_weights() -> None:
    net = nn.ModuleDict({"norm": nn.LayerNorm((2, 3)), "frozen": nn.Linear(2, 2), "free": nn.Linear(2, 2)})
    net["frozen"].requires_grad_(False)
    net.register_parameter("bias_table", nn.Parameter(torch.zeros(2, 2)))
    net.register_parameter("mine", nn.Parameter(torch.zeros(2, 2)))
    assert penalised(net) == ("mine", "free.weight")


@pytest.mark.parametrize(
    "model, shape, message",
    [
        (LeNet(), (13,), r"model\.name: lenet reads images .* shape \[13\]\. Use model: mlp\."),
        (ConvNet(), (13,), r"model\.name: convnet reads images"),
        (ResNet(), (13, 2), r"model\.name: resnet reads images"),
        (LeNet(), (1, 8, 11), r"model\.name: lenet needs images of 12x12 or more, but these are 8x11\."),
        (ConvNet(channels=(4, 4, 4, 4)), (3, 8, 20), r"model\.channels: 4 stages .* 8x20 allows at most 3\."),
        (ResNet(norm="instance"), (3, 4, 4), r"model\.norm: images of 4x4 shrink to one place"),
        (Mlp(norm="instance"), (3,), r"model\.norm: 'instance' is over the places of an image"),
        (
            Mlp(init="zeros", activation="maxout"),
            (3,),
            r"model\.init: 'zeros' makes pieces of a maxout unit alike",
        ),
        (Mlp(init="zeros", activation="prelu"), (3,), r"model\.init: 'zeros' shows prelu nothing but 0"),
        (LeNet(init="dirac", norm="weight"), (1, 16, 16), r"model\.init: 'dirac' makes weights of length 0"),
        (Mlp(hidden=(4, 1), norm="layer"), (3,), r"model\.norm: layer over a layer of one unit"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(model, shape, message) -> None:
    with pytest.raises(SpecError, match=message):
        build(model, shape, 2)


def make_linear(input_shape: tuple[int, ...], num_outputs: int, *, bias: bool = True) -> nn.Module:
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(input_shape), num_outputs, bias=bias), nn.BatchNorm1d(num_outputs)
    )
    net[2].eval()
    return net


def make_nothing(input_shape: tuple[int, ...], num_outputs: int) -> str:
    return "no network"


def make_narrow(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Linear(input_shape[0], 1)


class Pair(nn.Module):
    def forward(self, x_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x_B, x_B


def make_tuple(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Pair()


def make_unfit(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return nn.Linear(input_shape[0] + 1, num_outputs)


def make_bug(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    raise KeyError("the user's own bug")


def make_twice(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    layer, act = nn.Linear(input_shape[0], input_shape[0]), nn.Tanh()
    return nn.Sequential(layer, act, layer, act, nn.Linear(input_shape[0], num_outputs))


NOT_CALLABLE = 3


def own(name: str, **options: object) -> PythonModel:
    return PythonModel(factory=name if ":" in name else f"{__name__}:{name}", options=options)


def test_the_users_network_is_called_tried_and_left_as_it_was() -> None:
    net = build(own("make_linear", bias=False), (2, 3), 4)
    assert net.training
    assert not net[2].training
    assert net[1].bias is None
    assert net[2].num_batches_tracked == 0


@pytest.mark.parametrize(
    "model, message",
    [
        (own("no_such_module:f"), r"model\.factory: 'no_such_module' cannot be imported: No module named"),
        (own("make_linaer"), r"has no function 'make_linaer'\. Did you mean 'make_linear'\?"),
        (own("NOT_CALLABLE"), r"has, but not as a function, 'NOT_CALLABLE'"),
        (own("make_linear", width=3), r"model\.options: .*unexpected keyword argument 'width'"),
        (own("make_nothing"), r"returned str; it must be a torch\.nn\.Module"),
        (own("make_narrow"), r"maps \[2, 3\] to \[2, 1\], but \[2, 4\] is needed"),
        (own("make_tuple"), r"returns tuple; it must return a tensor"),
        (own("make_twice"), r"has one layer under two names, 0 and 2; keep one and call it twice"),
        (own("make_unfit"), r"fails on an input of shape \[2, 3\]: mat1 and mat2"),
    ],
)
def test_a_users_network_that_cannot_serve_is_refused(model, message) -> None:
    with pytest.raises(SpecError, match=message):
        build(model, (3,), 4)


def test_a_bug_in_the_users_code_keeps_its_traceback() -> None:
    with pytest.raises(KeyError, match="own bug"):
        build(own("make_bug"), (3,), 4)
