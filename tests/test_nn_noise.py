"""Laws of what is drawn inside a step: each member by its own strength, nothing where there is none."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nn_packed import NUM_CLASSES, SMALL, small, stack
from torch import Tensor, nn
from torch.func import functional_call, vmap

from ensemble_svc.nn import packed as written_out
from ensemble_svc.nn.build import build
from ensemble_svc.nn.noise import ActivationNoise, ChannelDropout, Draw, Dropout, set_draws
from ensemble_svc.spec.model import MODELS, ImageNetwork, Network

KINDS: list[type[Draw]] = [Dropout, ActivationNoise]
over_kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
over_zoo = pytest.mark.parametrize(
    "choice", [c for c in MODELS if issubclass(c, Network)], ids=lambda c: c.__name__
)
rates = st.floats(0, 1, exclude_max=True)
RATES, STDS = (0.0, 0.25, 0.8), (0.0, 0.1, 3.0)


def packed(kind: type[Draw], strengths: tuple[float, ...], x_KB: Tensor) -> Tensor:
    """K members' draws on their own x, each with its own strength."""
    members = [kind(strength) for strength in strengths]
    set_draws(members[0], stack(members))
    forward = vmap(lambda state, x: functional_call(members[0], state, (x,)), randomness="different")
    return forward(stack(members), x_KB)


def test_each_member_drops_its_own_share_and_keeps_the_expectation() -> None:
    torch.manual_seed(0)
    num = 40_000
    out_KN = packed(Dropout, RATES, torch.ones(len(RATES), num))
    for rate, out_N in zip(RATES, out_KN, strict=True):
        spread = math.sqrt(rate * (1 - rate) / num)
        assert abs((out_N == 0).double().mean() - rate) <= 4 * spread
        torch.testing.assert_close(out_N[out_N != 0], torch.full_like(out_N[out_N != 0], 1 / (1 - rate)))
        assert abs(out_N.double().mean() - 1) <= 4 * spread / (1 - rate)


def test_each_member_adds_gaussian_noise_of_its_own_spread() -> None:
    torch.manual_seed(0)
    num = 40_000
    noise_KN = packed(ActivationNoise, STDS, torch.zeros(len(STDS), num))
    for std, noise_N in zip(STDS, noise_KN.double(), strict=True):
        assert abs(noise_N.mean()) <= 4 * std / math.sqrt(num)
        assert abs(noise_N.std() - std) <= 4 * std / math.sqrt(2 * num)
        within = (noise_N.abs() <= std).double().mean()
        assert std == 0 or abs(within - 0.6827) < 4 * math.sqrt(0.22 / num)
    correlation = torch.corrcoef(noise_KN[1:])[0, 1]
    assert abs(correlation) < 4 / math.sqrt(num)


@over_kinds
@settings(max_examples=30)
@given(strength=rates, seed=st.integers(0, 10**6))
def test_a_strength_of_0_changes_no_bit_beside_a_member_that_draws(kind, strength, seed) -> None:
    torch.manual_seed(seed)
    x_KB = torch.randn(2, 50)
    out_KB = packed(kind, (0.0, strength), x_KB)
    assert torch.equal(out_KB[0], x_KB[0])
    assert torch.equal(packed(kind, (strength, 0.0), x_KB)[1], x_KB[1])


@settings(max_examples=30)
@given(rate=st.one_of(rates, st.sampled_from([1 - 1e-9, math.nextafter(1, 0), 5e-324])))
def test_no_rate_gives_anything_but_finite_values_and_gradients(rate) -> None:
    x_KB = torch.randn(2, 200, requires_grad=True)
    out_KB = packed(Dropout, (rate, 0.5), x_KB)
    out_KB.sum().backward()
    assert out_KB.isfinite().all()
    assert x_KB.grad.isfinite().all()


def test_the_gradient_goes_where_the_value_went() -> None:
    x_KB = torch.randn(3, 100, requires_grad=True)
    out_KB = packed(Dropout, RATES, x_KB)
    (grad_KB,) = torch.autograd.grad(out_KB.sum(), x_KB)
    torch.testing.assert_close(grad_KB * x_KB, out_KB)
    (grad_KB,) = torch.autograd.grad(packed(ActivationNoise, STDS, x_KB).sum(), x_KB)
    assert torch.equal(grad_KB, torch.ones_like(grad_KB))


@over_kinds
def test_nothing_is_drawn_in_evaluation_or_without_a_strength(kind) -> None:
    x = torch.randn(7, 3)
    before = torch.get_rng_state()
    assert kind(0.0)(x) is x
    assert kind(0.9).eval()(x) is x
    assert torch.equal(before, torch.get_rng_state())
    assert kind(0.9)(x) is not x


@over_kinds
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_is_kept(kind, dtype) -> None:
    x_KB = torch.ones(2, 5, dtype=dtype)
    assert packed(kind, (0.5, 0.0), x_KB).dtype == kind(0.5)(x_KB).dtype == dtype


@over_kinds
def test_a_pack_draws_where_some_member_does(kind) -> None:
    net = nn.Sequential(kind(0.0), kind(0.5), nn.Sequential(kind(0.5)))
    name = kind.strength_name
    set_draws(net, {f"0.{name}": torch.tensor([0.0, 0.1]), f"1.{name}": torch.zeros(2)})
    assert [net[0].draws, net[1].draws, net[2][0].draws] == [True, False, True]
    set_draws(net, {f"0.{name}": torch.tensor(0.0)})
    assert [net[0].draws, net[1].draws] == [False, True]


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_a_channel_is_whole_or_zero_and_its_expectation_kept(seed) -> None:
    """Each member at its own rate, each row and channel for itself."""
    torch.manual_seed(seed)
    rows, channels = 200, 10
    x = 1 + torch.rand(len(RATES), rows, channels, 4, 3)
    out = packed(ChannelDropout, RATES, x)
    for rate, of_x, of_out in zip(RATES, x, out, strict=True):
        factor = of_out / of_x
        torch.testing.assert_close(factor, factor[:, :, :1, :1].expand_as(factor))
        kept = factor[:, :, 0, 0] > 0
        torch.testing.assert_close(factor[:, :, 0, 0][kept], torch.full((int(kept.sum()),), 1 / (1 - rate)))
        spread = math.sqrt(rate * (1 - rate) / (rows * channels))
        assert abs(kept.double().mean() - (1 - rate)) <= 5 * spread
        assert abs(factor.double().mean() - 1) <= 5 * spread / (1 - rate)
        assert rate == 0 or not ((kept == kept[:1]).all() or (kept == kept[:, :1]).all())


def test_channel_dropout_is_nothing_in_evaluation_or_without_a_rate() -> None:
    x, before = torch.randn(2, 3, 4, 4), torch.get_rng_state()
    assert ChannelDropout(0.0)(x) is x
    assert ChannelDropout(0.9).eval()(x) is x
    assert torch.equal(before, torch.get_rng_state())
    assert ChannelDropout(0.5)(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    "choice", [c for c in MODELS if issubclass(c, ImageNetwork)], ids=lambda c: c.__name__
)
def test_every_network_of_convolutions_drops_channels(choice) -> None:
    """Of its convolutions alone, by a rate that is in the state; the written-out pack as well."""
    options, shape = SMALL[choice]
    members = []
    for rate in (0.0, 0.6):
        torch.manual_seed(0)
        members.append(build(choice(**options, norm="none", channel_dropout=rate), shape, NUM_CLASSES))
    net, state_K, x_B = members[0], stack(members), torch.randn(64, *shape)
    set_draws(net, state_K)
    outputs = written_out.forward(net, state_K, x_B.expand(2, *x_B.shape))
    assert not torch.allclose(outputs[0], outputs[1])
    net.eval()
    torch.testing.assert_close(outputs[0], net(x_B))
    calm = written_out.forward(net, state_K, x_B.expand(2, *x_B.shape))
    torch.testing.assert_close(calm[0], calm[1])


def test_an_mlp_has_no_channels_to_drop() -> None:
    with pytest.raises(ValueError, match="channel_dropout"):
        MODELS.get("mlp")(channel_dropout=0.5)


@over_zoo
def test_members_of_any_strengths_have_the_same_state(choice) -> None:
    strengths = [(0.0, 0.0), (0.5, 0.0), (0.3, 2.0)]
    states = []
    for dropout, noise in strengths:
        torch.manual_seed(0)
        model, shape = small(choice, dropout=dropout, activation_noise=noise)
        states.append(build(model, shape, NUM_CLASSES).state_dict())
    assert all(state.keys() == states[0].keys() for state in states)
    for name, value in states[0].items():
        if not name.endswith((".rate", ".std")):
            assert all(torch.equal(value, state[name]) for state in states)
    drawn = {name for name, value in states[2].items() if name.endswith((".rate", ".std")) and value > 0}
    assert any(name.endswith(".rate") for name in drawn)
    assert any(name.endswith(".std") for name in drawn)


@over_zoo
def test_in_a_pack_of_the_zoo_each_network_draws_by_its_own_strength(choice) -> None:
    """The one without is what it is alone; the others differ from it, and each from itself anew."""
    shape = SMALL[choice][1]
    x_B = torch.randn(4, *shape)
    members = []
    for options in ({}, {"dropout": 0.5}, {"activation_noise": 0.5}):
        torch.manual_seed(0)
        members.append(build(small(choice, norm="none", **options)[0], shape, NUM_CLASSES))
    net, state_K = members[0], stack(members)
    set_draws(net, state_K)
    forward = vmap(lambda state: functional_call(net, state, (x_B,)), randomness="different")
    first_K, second_K = forward(state_K), forward(state_K)
    set_draws(net, net.state_dict())
    torch.testing.assert_close(first_K[0], net(x_B))
    torch.testing.assert_close(first_K[0], second_K[0])
    for k in (1, 2):
        assert not torch.allclose(first_K[k], first_K[0])
        assert not torch.allclose(first_K[k], second_K[k])
    net.eval()
    torch.testing.assert_close(forward(state_K), net(x_B).expand(3, -1, -1))


def test_a_state_without_strengths_leaves_the_networks_own() -> None:
    net = nn.Sequential(nn.Linear(3, 2), Dropout(0.5))
    state = {name: value for name, value in net.state_dict().items() if not name.endswith("rate")}
    assert functional_call(net, state, (torch.ones(4, 3),)).shape == (4, 2)
