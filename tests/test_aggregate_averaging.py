"""Laws of averaging weights: means are means, soups never lose to their best, SWAG has its moments."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ensemble_svc.aggregate.averaging import (
    RunningAverage,
    average_states,
    best_n,
    interpolate,
    last_n,
)
from ensemble_svc.aggregate.soup import barrier, greedy_soup
from ensemble_svc.aggregate.swag import Swag
from ensemble_svc.errors import EnsembleError

law = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
counts = st.integers(1, 6)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def states(seed: int, count: int, dtype: torch.dtype = torch.float64) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "weight": torch.randn(3, 2, generator=generator, dtype=torch.float64).to(dtype),
            "steps": torch.randint(100, (), generator=generator),
            "on": torch.rand(2, generator=generator) < 0.5,
        }
        for _ in range(count)
    ]


def test_one_two_three_four_is_two_and_a_half() -> None:
    running = RunningAverage()
    for value in (1.0, 2.0, 3.0, 4.0):
        running = running.add({"w": torch.tensor([value]), "steps": torch.tensor(int(value))})
    assert running.result()["w"].item() == 2.5
    assert running.result()["steps"].item() == 4


@law
@given(seeds, counts, dtypes)
def test_the_average_is_the_mean_in_the_states_own_types(seed, count, dtype) -> None:
    given_states = states(seed, count, dtype)
    kept = [{name: value.clone() for name, value in state.items()} for state in given_states]
    result = average_states(given_states)
    expected = torch.stack([state["weight"].double() for state in given_states]).mean(0)
    assert result["weight"].dtype == dtype
    torch.testing.assert_close(result["weight"], expected.to(dtype))
    assert result["steps"] == max(state["steps"] for state in given_states)
    assert torch.equal(result["on"], torch.stack([state["on"] for state in given_states]).any(0))
    for before, after in zip(kept, given_states, strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_training_may_go_on_in_the_tensors_that_were_averaged() -> None:
    state = {"w": torch.zeros(2, dtype=torch.float64), "steps": torch.tensor(1)}
    running = RunningAverage().add(state)
    for value in state.values():
        value.add_(5)
    running.result()["w"].add_(7)
    assert running.result()["w"].tolist() == [0, 0]
    assert running.result()["steps"] == 1


@law
@given(seeds, counts)
def test_the_order_and_the_copies_do_not_matter(seed, count) -> None:
    given_states = states(seed, count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    shuffled = average_states([given_states[i] for i in order])
    for name, value in average_states(given_states).items():
        torch.testing.assert_close(shuffled[name], value)
    for name, value in average_states([given_states[0]] * count).items():
        torch.testing.assert_close(value, given_states[0][name])
    weights = [float(i + 1) for i in range(count)]
    repeated = [
        state for state, weight in zip(given_states, weights, strict=True) for _ in range(int(weight))
    ]
    torch.testing.assert_close(
        average_states(given_states, weights)["weight"], average_states(repeated)["weight"]
    )


def test_it_is_torchs_own_average() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    peer, running = AveragedModel(net, use_buffers=True), RunningAverage()
    for step in range(5):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))
        peer.update_parameters(net)
        running = running.add({name: value.clone() for name, value in net.state_dict().items()})
    for name, value in peer.module.named_parameters():
        torch.testing.assert_close(running.result()[name], value.detach())


@law
@given(seeds, counts, st.integers(1, 8))
def test_last_and_best_are_averages_of_those(seed, count, n) -> None:
    given_states = states(seed, count)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed)).tolist()
    expected = average_states(given_states[max(count - n, 0) :])
    torch.testing.assert_close(last_n(given_states, n), expected)
    for higher in (True, False):
        order = sorted(range(count), key=scores.__getitem__, reverse=higher)
        best = average_states([given_states[i] for i in order[:n]])
        ours = best_n(given_states, scores, n, higher_is_better=higher)
        torch.testing.assert_close(ours["weight"], best["weight"])


@law
@given(seeds, counts, st.booleans())
def test_a_greedy_soup_is_no_worse_than_its_best_state(seed, count, higher) -> None:
    given_states = states(seed, count)
    goal = torch.randn(3, 2, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    sign = -1 if higher else 1

    def score(state) -> float:
        return sign * (state["weight"] - goal).square().sum().item()

    soup = greedy_soup(given_states, score, higher_is_better=higher)
    alone = [score(state) for state in given_states]
    assert sign * soup.score <= sign * (max(alone) if higher else min(alone)) + 1e-12
    assert score(soup.state) == pytest.approx(soup.score)
    expected = average_states([given_states[i] for i in soup.chosen])
    torch.testing.assert_close(soup.state["weight"], expected["weight"])
    assert alone[soup.chosen[0]] == (max(alone) if higher else min(alone))


def test_a_soup_leaves_out_what_spoils_it() -> None:
    values = [{"w": torch.tensor(v)} for v in (1.1, 0.9, 40.0)]
    soup = greedy_soup(values, lambda s: abs(s["w"].item() - 1), higher_is_better=False)
    assert set(soup.chosen) == {0, 1}
    assert soup.state["w"].item() == pytest.approx(1)


@law
@given(seeds, st.integers(3, 21))
def test_a_convex_loss_has_no_barrier(seed, points) -> None:
    first, second = states(seed, 2)
    found = barrier(first, second, lambda s: s["weight"].square().sum().item(), points=points)
    assert found.height == pytest.approx(0, abs=1e-12)
    assert found.excess[0] == found.excess[-1] == 0


def test_two_valleys_have_the_ridge_between_them_as_barrier() -> None:
    """Loss (w^2 - 1)^2 + w / 4 from -1 to 1: the excess over the line of the ends is (w^2 - 1)^2, 1 at the middle."""
    ends = [{"w": torch.tensor(v, dtype=torch.float64)} for v in (-1.0, 1.0)]
    found = barrier(*ends, lambda s: ((s["w"] ** 2 - 1) ** 2 + s["w"] / 4).item())
    assert found.height == pytest.approx(1)
    assert found.shares[found.excess.index(max(found.excess))] == 0.5
    assert math.isnan(barrier(*ends, lambda s: math.nan).height)


@law
@given(seeds, st.floats(0, 1))
def test_the_way_between_states_is_straight(seed, share) -> None:
    first, second = states(seed, 2)
    middle = interpolate(first, second, share)["weight"]
    torch.testing.assert_close(middle, (1 - share) * first["weight"] + share * second["weight"])
    for name, value in interpolate(first, second, 0.0).items():
        assert name == "on" or name == "steps" or torch.equal(value, first[name])


@law
@given(seeds, st.integers(2, 8), st.sampled_from([0, 2, 3]))
def test_swag_keeps_the_moments_of_the_iterates(seed, count, rank) -> None:
    given_states, moments = states(seed, count, torch.float32), Swag(rank)
    for state in given_states:
        moments = moments.update(state)
    stack = torch.stack([state["weight"].double() for state in given_states])
    assert moments.count == count
    torch.testing.assert_close(moments.mean.total["weight"], stack.mean(0))
    torch.testing.assert_close(moments.square.total["weight"], stack.square().mean(0))
    assert len(moments.deviations) == min(rank, count)
    for age, deviation in enumerate(reversed(moments.deviations)):
        seen = stack[: count - age]
        torch.testing.assert_close(deviation["weight"], seen[-1] - seen.mean(0), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("rank", [0, 4])
def test_draws_have_the_covariance_of_the_formula(rank: int) -> None:
    moments = Swag(rank)
    for state in states(0, 7):
        moments = moments.update(state)
    generator = torch.Generator().manual_seed(1)
    draws = torch.stack([moments.sample(generator)["weight"].flatten() for _ in range(20_000)])
    variance = (moments.square.total["weight"] - moments.mean.total["weight"].square()).flatten()
    expected = variance.diag()
    if rank:
        columns = torch.stack([d["weight"].flatten() for d in moments.deviations], dim=1)
        expected = expected / 2 + columns @ columns.T / (2 * (rank - 1))
    torch.testing.assert_close(draws.mean(0), moments.mean.total["weight"].flatten(), atol=0.05, rtol=0)
    torch.testing.assert_close(draws.T.cov(), expected, atol=0.06, rtol=0.05)


@law
@given(seeds, st.integers(2, 5), st.sampled_from([0, 2]))
def test_a_draw_is_the_generators_and_of_scale_zero_the_mean(seed, count, rank) -> None:
    moments = Swag(rank)
    given_states = states(seed, count, torch.float32)
    for state in given_states:
        moments = moments.update(state)
    one, two = (moments.sample(torch.Generator().manual_seed(seed)) for _ in range(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert one["weight"].dtype == torch.float32
    assert one["steps"] == max(state["steps"] for state in given_states)
    still = moments.sample(torch.Generator().manual_seed(seed), scale=0)
    torch.testing.assert_close(still, average_states(given_states))


def test_what_cannot_be_averaged_is_named() -> None:
    first, second = states(0, 2)
    for change, match in (
        ({"weight": torch.zeros(2, 2)}, "'weight' is"),
        ({"weight": torch.zeros(3, 2, dtype=torch.int64)}, "'weight' is"),
        ({"bias": torch.zeros(1)}, "'bias' is in one state and not in the other"),
    ):
        with pytest.raises(EnsembleError, match=match):
            average_states([first, second | change])
    for wrong in (
        lambda: average_states([]),
        lambda: average_states([first], [1, 2]),
        lambda: average_states([first, second], [1, -1]),
        lambda: RunningAverage().add(first, 0),
        lambda: last_n([first], 0),
        lambda: best_n([first], [math.nan], 1, higher_is_better=True),
        lambda: greedy_soup([], lambda s: 0, higher_is_better=True),
        lambda: barrier(first, second, lambda s: 0, points=2),
        lambda: Swag(1),
        lambda: Swag(0).update(first).sample(torch.Generator()),
        lambda: Swag(0).update(first).update(second).sample(torch.Generator(), scale=-1),
    ):
        with pytest.raises(EnsembleError):
            wrong()
