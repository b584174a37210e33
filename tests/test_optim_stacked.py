"""Laws of the optimisers: a slice of the stack is that member alone, interrupted or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.errors import SpecError, TrainError
from ensemble_svc.optim.blocks import as_gradients_come, gathered
from ensemble_svc.optim.layered import LayeredOptimizer
from ensemble_svc.optim.layers import ALIKE, Layers
from ensemble_svc.optim.single import build, load_state, set_factor, state_of
from ensemble_svc.spec.optimizers import OPTIMIZERS, AdaGrad, Adam, AdamW, Muon, Optimizer, RmsProp, Sgd

NUM_STEPS = 5

rates = st.sampled_from([1e-4, 3e-3, 0.05])
shares = st.sampled_from([0.0, 0.3, 0.9, 0.999])
decays = st.sampled_from([0.0, 0.01, 0.2])
epsilons = st.sampled_from([1e-8, 1e-3])
RULES = {
    **{
        kind: st.builds(kind, lr=rates, betas=st.tuples(shares, shares), eps=epsilons, weight_decay=decays)
        for kind in (Adam, AdamW)
    },
    AdaGrad: st.builds(AdaGrad, lr=rates, eps=epsilons, weight_decay=decays),
    RmsProp: st.builds(RmsProp, lr=rates, alpha=shares, eps=epsilons, momentum=shares, weight_decay=decays),
    Sgd: st.one_of(
        st.builds(Sgd, lr=rates, momentum=shares, weight_decay=decays),
        st.builds(Sgd, lr=rates, momentum=st.just(0.7), nesterov=st.just(True), weight_decay=decays),
    ),
    Muon: st.builds(
        Muon,
        lr=rates,
        momentum=shares,
        nesterov=st.booleans(),
        weight_decay=decays,
        adamw_lr=rates,
        betas=st.tuples(shares, shares),
        eps=epsilons,
    ),
}
TORCHS = {
    Adam: torch.optim.Adam,
    AdamW: torch.optim.AdamW,
    AdaGrad: torch.optim.Adagrad,
    RmsProp: torch.optim.RMSprop,
    Sgd: torch.optim.SGD,
}
over_rules = pytest.mark.parametrize("rule", list(OPTIMIZERS), ids=lambda c: c.model_fields["name"].default)


@dataclass(frozen=True)
class Case:
    """K members: their rules, the shapes of their parameters, the seed of weights and gradients."""

    rules: list[Optimizer]
    shapes: list[tuple[int, ...]]
    seed: int
    factors: list[float]
    multipliers: list[float]

    @property
    def layers(self) -> Layers:
        """Each parameter its own multiplier; all weights with two sides are hidden."""
        named = list(zip(self.names, self.shapes, self.multipliers, strict=True))
        hidden = frozenset(name for name, shape, _ in named if len(shape) >= 2)
        return Layers(hidden, {name: multiplier for name, _, multiplier in named})

    @property
    def names(self) -> list[str]:
        return [f"layer{i}.weight" for i in range(len(self.shapes))]

    def draw(self, dtype: torch.dtype, purpose: int) -> dict[str, Tensor]:
        """Weights (purpose 0) or the gradients of step ``purpose``, [K, …] by name."""
        generator = torch.Generator().manual_seed(self.seed + purpose)
        num_members = len(self.rules)
        return {
            name: torch.randn(num_members, *shape, generator=generator, dtype=torch.float64).to(dtype)
            for name, shape in zip(self.names, self.shapes, strict=True)
        }


@st.composite
def cases(draw: st.DrawFn, rule: type) -> Case:
    num_members = draw(st.integers(1, 5))
    one = RULES[rule]
    rules = draw(
        st.one_of(
            st.lists(one, min_size=num_members, max_size=num_members), one.map(lambda r: [r] * num_members)
        )
    )
    sides = st.one_of(st.integers(1, 20), st.just(16))
    shapes = draw(st.lists(st.lists(sides, max_size=3).map(tuple), min_size=1, max_size=3))
    factors = draw(st.lists(st.floats(0.0, 1.0), min_size=NUM_STEPS, max_size=NUM_STEPS))
    scales = st.lists(st.sampled_from([1.0, 0.5, 3.0]), min_size=len(shapes), max_size=len(shapes))
    multipliers = draw(st.one_of(st.just([1.0] * len(shapes)), scales))
    return Case(rules, shapes, draw(st.integers(0, 10**6)), factors, multipliers)


def leaves(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: w.clone().requires_grad_() for name, w in weights.items()}


def run_stack(stack: LayeredOptimizer, case: Case, steps: range, members: list[int] | None = None) -> None:
    """Take the case's steps; ``members`` says whose gradients a smaller stack gets."""
    dtype = next(iter(stack.params.values())).dtype
    for t in steps:
        stack.zero_grad()
        for name, grad in case.draw(dtype, 1 + t).items():
            stack.params[name].grad = grad if members is None else grad[members]
        stack.step(case.factors[t])


def run_alone(
    optimizer: torch.optim.Optimizer, params: list[Tensor], case: Case, member: int, steps: range
) -> None:
    for t in steps:
        for param, grad in zip(params, case.draw(params[0].dtype, 1 + t).values(), strict=True):
            param.grad = grad[member].clone()
        set_factor(optimizer, case.factors[t])
        optimizer.step()


class PlainMuon(torch.optim.Optimizer):
    """The formula of Muon one matrix at a time, by its singular values; AdamW for all else, by torch."""

    def __init__(self, rule: Muon, groups: list[dict[str, Any]]) -> None:
        self.rule = rule
        super().__init__(groups, {})
        kept = [group for group in self.param_groups if not group["hidden"]]
        options = rule.others.model_dump(exclude={"name"})
        self.adamw = torch.optim.AdamW(kept, foreach=False, **options) if kept else None

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        rule = self.rule
        for group in self.param_groups:
            if group["hidden"]:
                (param,) = group["params"]
                kept = self.state[param].get("momentum", torch.zeros_like(param))
                kept = rule.momentum * kept + (1 - rule.momentum) * param.grad
                self.state[param]["momentum"] = kept
                ahead = (1 - rule.momentum) * param.grad + rule.momentum * kept if rule.nesterov else kept
                u, s, vh = torch.linalg.svd(ahead.flatten(1).double(), full_matrices=False)
                s = s / s.norm().clamp_min(1e-7)
                for _ in range(rule.ns_steps):
                    s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
                step = (u * s @ vh).to(param.dtype).view_as(param)
                tall = max(1.0, ahead.shape[0] / ahead[0].numel()) ** 0.5
                param.mul_(1 - group["lr"] * rule.weight_decay).sub_(step * tall * group["lr"])
        if self.adamw:
            for ours, theirs in zip(
                [g for g in self.param_groups if not g["hidden"]], self.adamw.param_groups, strict=True
            ):
                theirs["lr"] = ours["lr"]
            self.adamw.step()


def plain_torch(case: Case, member: int, params: list[Tensor]) -> torch.optim.Optimizer:
    """The textbook loop of torch.optim, no fused kernel."""
    rule, layers = case.rules[member], case.layers
    groups = [
        {
            "params": [param],
            "lr": layers.rate(rule, name),
            "peak_lr": layers.rate(rule, name),
            "hidden": name in layers.hidden,
        }
        for name, param in zip(case.names, params, strict=True)
    ]
    if isinstance(rule, Muon):
        return PlainMuon(rule, groups)
    options = rule.model_dump(exclude={"name"})
    return TORCHS[type(rule)](groups, foreach=False, **options)


def noise(rule: type) -> float:
    """How much rounding grows in a step: the iteration's slope at 0 to the power of its steps, at most."""
    return 3.4445**5 if rule is Muon else 1.0


def started(case: Case, dtype: torch.dtype = torch.float32) -> LayeredOptimizer:
    return LayeredOptimizer(leaves(case.draw(dtype, 0)), case.rules, layers=case.layers)


def select(stack: LayeredOptimizer, members: list[int], layers: Layers = ALIKE) -> LayeredOptimizer:
    """An optimiser of some of the members that goes on where ``stack`` stands."""
    index = torch.tensor(members)
    params = {name: gathered(p.detach(), index).requires_grad_() for name, p in stack.params.items()}
    rest = LayeredOptimizer(params, [stack.rules[k] for k in members], layers=layers)
    state = stack.state()
    rest.load({name: state[name].index_select(0, index) for name in rest.state()}, stack.num_steps)
    return rest


def assert_same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@over_rules
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-12, 1e-14), (torch.float32, 1e-4, 1e-6)], ids=["64", "32"]
)
@settings(max_examples=25)
@given(data=st.data())
def test_a_slice_equals_torch_on_that_member_alone(rule, dtype, rtol, atol, data) -> None:
    case = data.draw(cases(rule))
    stack = started(case, dtype)
    run_stack(stack, case, range(NUM_STEPS))
    for k in range(len(case.rules)):
        params = list(leaves({name: w[k] for name, w in case.draw(dtype, 0).items()}).values())
        optimizer = plain_torch(case, k, params)
        run_alone(optimizer, params, case, k, range(NUM_STEPS))
        for name, param in zip(case.names, params, strict=True):
            torch.testing.assert_close(stack.params[name][k], param, rtol=rtol, atol=noise(rule) * atol)


@over_rules
@pytest.mark.parametrize("vectors", [False, True])
@settings(max_examples=25)
@given(data=st.data())
def test_members_at_paces_of_their_own_equal_torch_alone(rule, vectors, data) -> None:
    """By one call per rule and by vectors, the way of a GPU."""
    case = data.draw(cases(rule))
    k_factors = [data.draw(st.sampled_from([0.0, 0.25, 1.0])) for _ in case.rules]
    stack = LayeredOptimizer(
        leaves(case.draw(torch.float64, 0)),
        case.rules,
        layers=case.layers,
        paces=k_factors,
        vectors=vectors,
    )
    for t in range(NUM_STEPS):
        for name, grad in case.draw(torch.float64, 1 + t).items():
            stack.params[name].grad = grad
        stack.step([case.factors[t] * own for own in k_factors])
    for k in range(len(case.rules)):
        params = list(leaves({name: w[k] for name, w in case.draw(torch.float64, 0).items()}).values())
        mine = replace(case, factors=[f * k_factors[k] for f in case.factors])
        run_alone(plain_torch(case, k, params), params, mine, k, range(NUM_STEPS))
        for name, param in zip(case.names, params, strict=True):
            torch.testing.assert_close(stack.params[name][k], param, rtol=1e-12, atol=noise(rule) * 1e-14)


@over_rules
@settings(max_examples=30)
@given(data=st.data())
def test_a_slice_has_the_bits_of_a_stack_of_one(rule, data) -> None:
    case = data.draw(cases(rule))
    stack = started(case)
    run_stack(stack, case, range(NUM_STEPS))
    for k, own in enumerate(case.rules):
        weights = {name: w[k : k + 1] for name, w in case.draw(torch.float32, 0).items()}
        alone = LayeredOptimizer(leaves(weights), [own], layers=case.layers)
        run_stack(alone, case, range(NUM_STEPS), [k])
        assert_same_bits({name: p[k : k + 1] for name, p in stack.params.items()}, alone.params)
        assert_same_bits({name: stack.state()[name][k : k + 1] for name in alone.state()}, alone.state())


@over_rules
@settings(max_examples=20)
@given(data=st.data())
def test_a_slice_of_the_state_is_that_of_torch_alone(rule, data) -> None:
    case = data.draw(cases(rule))
    stack = started(case, torch.float64)
    run_stack(stack, case, range(NUM_STEPS))
    for k, own in enumerate(case.rules):
        params = leaves({name: w[k] for name, w in case.draw(torch.float64, 0).items()})
        optimizer = build(own, params, case.layers)
        assert not any(value.any() for value in state_of(optimizer).values())
        run_alone(optimizer, list(params.values()), case, k, range(NUM_STEPS))
        for name, value in state_of(optimizer).items():
            torch.testing.assert_close(stack.state()[name][k], value, rtol=1e-12, atol=1e-14)
        if getattr(own, "momentum", True):
            assert state_of(optimizer).keys() == stack.state().keys()


@over_rules
@settings(max_examples=20)
@given(data=st.data(), stop=st.integers(0, NUM_STEPS))
def test_loaded_goes_on_as_if_never_stopped(rule, data, stop) -> None:
    case = data.draw(cases(rule))
    whole, first = started(case), started(case)
    run_stack(whole, case, range(NUM_STEPS))
    run_stack(first, case, range(stop))
    second = LayeredOptimizer(
        leaves({n: p.detach() for n, p in first.params.items()}), case.rules, layers=case.layers
    )
    second.load({name: value.clone() for name, value in first.state().items()}, first.num_steps)
    run_stack(second, case, range(stop, NUM_STEPS))
    assert second.num_steps == NUM_STEPS
    assert_same_bits(whole.params, second.params)
    assert_same_bits(whole.state(), second.state())


@over_rules
@settings(max_examples=20)
@given(data=st.data(), stop=st.integers(0, NUM_STEPS))
def test_a_member_alone_loaded_goes_on_as_if_never_stopped(rule, data, stop) -> None:
    case = data.draw(cases(rule))
    weights = {name: w[0] for name, w in case.draw(torch.float32, 0).items()}
    whole, first = leaves(weights), leaves(weights)
    run_alone(build(case.rules[0], whole, case.layers), list(whole.values()), case, 0, range(NUM_STEPS))
    before = build(case.rules[0], first, case.layers)
    run_alone(before, list(first.values()), case, 0, range(stop))
    second = leaves({n: p.detach() for n, p in first.items()})
    after = build(case.rules[0], second, case.layers)
    load_state(after, {n: s.clone() for n, s in state_of(before).items()}, stop)
    run_alone(after, list(second.values()), case, 0, range(stop, NUM_STEPS))
    assert_same_bits(whole, second)


@over_rules
@settings(max_examples=25)
@given(data=st.data(), stop=st.integers(0, NUM_STEPS))
def test_survivors_go_on_as_if_the_dropped_were_there(rule, data, stop) -> None:
    case = data.draw(cases(rule))
    positions = st.integers(0, len(case.rules) - 1)
    keep = sorted(data.draw(st.sets(positions, min_size=1)))
    whole, first = started(case), started(case)
    run_stack(whole, case, range(NUM_STEPS))
    run_stack(first, case, range(stop))
    rest = select(first, keep, case.layers)
    run_stack(rest, case, range(stop, NUM_STEPS), keep)
    assert rest.num_steps == NUM_STEPS
    assert_same_bits({name: p[keep] for name, p in whole.params.items()}, rest.params)
    assert_same_bits({name: whole.state()[name][keep] for name in rest.state()}, rest.state())


@over_rules
def test_a_transposed_layout_changes_no_bit(rule) -> None:
    rules = [rule(lr=0.1), rule(lr=0.2), rule(lr=0.1)]
    start, grad = torch.randn(3, 16, 8), torch.randn(3, 16, 8)
    found = []
    for lay in (Tensor.contiguous, as_gradients_come):
        stack = LayeredOptimizer({"w": lay(start.clone()).requires_grad_()}, rules)
        for _ in range(2):
            stack.params["w"].grad = lay(grad)
            stack.step(1.0)
        rest = select(stack, [2, 0])
        assert rest.params["w"].stride() == lay(torch.empty(2, 16, 8)).stride()
        rest.params["w"].grad = lay(grad[[2, 0]])
        rest.step(1.0)
        found.append({"w": rest.params["w"], **rest.state()})
    assert_same_bits(*found)


@over_rules
def test_any_layout_of_the_gradient_is_read_right(rule) -> None:
    optimizers = [
        LayeredOptimizer({"w": torch.ones(2, 16, 3).requires_grad_()}, [rule()] * 2) for _ in range(2)
    ]
    grad = torch.randn(3, 16, 2).permute(2, 1, 0)
    for optimizer, value in zip(optimizers, (grad, grad.contiguous()), strict=True):
        optimizer.params["w"].grad = value
        optimizer.step(1.0)
    assert_same_bits(optimizers[0].params, optimizers[1].params)


@over_rules
def test_a_parameter_without_gradient_is_left_alone(rule) -> None:
    params = {"used": torch.ones(2, 3).requires_grad_(), "idle": torch.ones(2, 16).requires_grad_()}
    for rules in ([rule(weight_decay=0.1)] * 2, [rule(weight_decay=0.1), rule(weight_decay=0.2)]):
        optimizer = LayeredOptimizer(params, rules)
        params["used"].grad = torch.ones(2, 3)
        optimizer.step(1.0)
        assert torch.equal(params["idle"], torch.ones(2, 16))
    assert not torch.isclose(params["used"], torch.ones(2, 3)).any()


def test_a_state_can_be_stored_and_is_not_part_of_a_larger_tensor() -> None:
    optimizer = LayeredOptimizer(
        {"a": torch.ones(1, 3), "b": torch.ones(1, 2), "c": torch.ones(1, 16)}, [AdamW()]
    )
    for value in optimizer.state().values():
        assert value.is_contiguous()
        assert value.untyped_storage().nbytes() == value.nbytes


def test_zero_grad_forgets() -> None:
    optimizer = LayeredOptimizer({"w": torch.ones(2, 3).requires_grad_()}, [AdamW()] * 2)
    optimizer.params["w"].grad = torch.ones(2, 3)
    optimizer.zero_grad()
    assert optimizer.params["w"].grad is None


@pytest.mark.parametrize(
    "make", [lambda r: build(r, {"w": torch.ones(1)}), lambda r: LayeredOptimizer({"w": torch.ones(1)}, [r])]
)
def test_nesterov_without_momentum_is_refused(make) -> None:
    with pytest.raises(SpecError, match=r"training\.optimizer\.nesterov: .*momentum is 0"):
        make(Sgd(nesterov=True))


def test_what_is_no_stack_is_refused() -> None:
    with pytest.raises(ValueError, match="one type and one device"):
        LayeredOptimizer({"w": torch.ones(1, 1), "v": torch.ones(1, 1).double()}, [Sgd()])
    with pytest.raises(ValueError, match="one class"):
        LayeredOptimizer({"w": torch.ones(2, 1)}, [AdamW(), Sgd()])
    with pytest.raises(ValueError, match="'w' is no dense stack of 2"):
        LayeredOptimizer({"w": torch.ones(3, 1)}, [Sgd()] * 2)


def test_a_state_of_something_else_is_refused() -> None:
    optimizer = LayeredOptimizer({"w": torch.ones(2, 3)}, [AdamW()] * 2)
    with pytest.raises(TrainError, match="lacks 'exp_avg/w'"):
        optimizer.load({}, 1)
    with pytest.raises(TrainError, match="'momentum_buffer/w'"):
        optimizer.load({**optimizer.state(), "momentum_buffer/w": torch.ones(2, 3)}, 1)
    with pytest.raises(TrainError, match=r"'exp_avg/w' has the shape \(2, 1\)"):
        optimizer.load({name: torch.ones(2, 1) for name in optimizer.state()}, 1)
