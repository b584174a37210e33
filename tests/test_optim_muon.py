"""Muon against its written formula and torch's own; layers stepped apart and at rates of their own."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from law_runs import Killed, assert_close, assert_same_bits, both, dying, job_of, payload_of, train
from torch import Tensor

from ensemble_svc.optim.blocks import as_gradients_come
from ensemble_svc.optim.layered import LayeredOptimizer
from ensemble_svc.optim.layers import Layers, layers_of
from ensemble_svc.optim.muon import orthogonalised
from ensemble_svc.spec.optimizers import OPTIMIZERS, AdamW, Muon, Sgd
from ensemble_svc.train.build import build_module, training_rows
from ensemble_svc.train.roles import POWERS, roles

shapes = st.tuples(st.integers(1, 4), st.integers(1, 40), st.integers(1, 40))


def drawn(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def stepped(rule: Muon, start_K: Tensor, grads: list[Tensor], lay=Tensor.contiguous) -> Tensor:
    """A stack's hidden weight after a step along each gradient."""
    params = {"w": lay(start_K.clone()).requires_grad_()}
    stack = LayeredOptimizer(params, [rule] * len(start_K), layers=Layers(frozenset("w")))
    for grad_K in grads:
        params["w"].grad = lay(grad_K)
        stack.step(1.0)
    return params["w"].detach()


@settings(max_examples=40)
@given(shape=shapes, seed=st.integers(0, 10**6), steps=st.integers(1, 7))
def test_the_iteration_is_the_polynomial_of_the_singular_values(shape, seed, steps) -> None:
    """x → 3.4445 x − 4.775 x³ + 2.0315 x⁵ for each singular value, singular vectors kept."""
    matrices = drawn(shape, seed)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    s = s / s.norm(dim=1, keepdim=True)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(
        orthogonalised(matrices, steps), u * s.unsqueeze(1) @ vh, rtol=1e-9, atol=1e-10
    )


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 40, 10), (2, 10, 40), (1, 64, 64)])
def test_five_iterations_bring_singular_values_near_one(shape) -> None:
    found = torch.linalg.svdvals(orthogonalised(drawn(shape, 1, torch.float32), 5))
    large = torch.linalg.svdvals(drawn(shape, 1, torch.float32))
    kept = large / large.norm(dim=1, keepdim=True) > 0.01
    assert found[kept].min() > 0.6
    assert found.max() < 1.3


@pytest.mark.parametrize("shape", [(1, 24, 16), (1, 16, 24)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_a_step_is_that_of_torch_up_to_its_bfloat16(shape, nesterov) -> None:
    rule = Muon(lr=0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.3)
    start, grads = drawn(shape, 2, torch.float32), [drawn(shape, 3 + t, torch.float32) for t in range(4)]
    param = start[0].clone().requires_grad_()
    theirs = torch.optim.Muon([param], lr=0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.3)
    for grad in grads:
        param.grad = grad[0].clone()
        theirs.step()
    found = stepped(rule, start, grads)[0]
    assert (found - param).norm() < 0.02 * (found - start[0]).norm()


@settings(max_examples=30)
@given(shape=shapes, seed=st.integers(0, 10**6))
def test_a_matrix_has_the_bits_of_itself_alone(shape, seed) -> None:
    matrices = drawn(shape, seed, torch.float32)
    whole = orthogonalised(matrices, 5)
    for k in range(len(matrices)):
        assert torch.equal(whole[k : k + 1], orthogonalised(matrices[k : k + 1].clone(), 5))


def test_a_transposed_layout_changes_no_bit() -> None:
    start, grads = (
        drawn((3, 12, 7), 5, torch.float32),
        [drawn((3, 12, 7), 6 + t, torch.float32) for t in (0, 1)],
    )
    plain, turned = (stepped(Muon(), start, grads, lay) for lay in (Tensor.contiguous, as_gradients_come))
    assert torch.equal(plain, turned)


def test_the_first_and_last_layers_biases_and_norms_are_adamws() -> None:
    """One step at the gradient of a network: hidden weights move by Muon, all else as under AdamW."""
    names = {"first": (6, 4), "mid": (6, 6), "conv": (4, 3, 3, 3), "bias": (6,), "last": (3, 6)}
    start = {name: drawn((2, *shape), i) for i, (name, shape) in enumerate(names.items())}
    fans = {name: start[name][0, 0].numel() for name in names if name != "bias"}
    rule = Muon(adamw_lr=0.03, weight_decay=0.1)
    moved = {}
    for kind in (rule, rule.others):
        params = {name: value.clone().requires_grad_() for name, value in start.items()}
        stack = LayeredOptimizer(params, [kind] * 2, layers=layers_of(fans))
        for i, param in enumerate(params.values()):
            param.grad = drawn(tuple(param.shape), 50 + i)
        stack.step(1.0)
        moved[kind.name] = {name: param.detach() for name, param in params.items()}
    for name in names:
        assert torch.equal(moved["muon"][name], moved["adamw"][name]) == (name not in ("mid", "conv"))


class TestMuonTrains:
    """Packed, alone, over strands and from a commit."""

    DEEP: ClassVar[dict[str, Any]] = {"name": "mlp", "hidden": (16, 24, 16), "activation": "tanh"}

    def test_packed_is_alone_with_options_of_their_own(self, tmp_path):
        """For one epoch: the iteration multiplies what rounding leaves of a small singular value by up to 485."""
        job = job_of(
            model=self.DEEP,
            training__epochs=1,
            training__optimizer="muon",
            ensemble__vary={
                "training.optimizer.lr": (0.02, 0.005, 0.05),
                "training.optimizer.momentum": (0.95, 0.5),
                "training.optimizer.nesterov": (True, True, False),
                "training.optimizer.adamw_lr": (0.003, 0.001),
                "training.optimizer.weight_decay": (0.0, 0.1),
            },
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    def test_iterations_are_structure(self, tmp_path):
        job = job_of(training__optimizer="muon", ensemble__vary={"training.optimizer.ns_steps": (5, 3)})
        assert len(payload_of(job, tmp_path)[1].slots) == 2

    @pytest.mark.parametrize("pack", ["auto", "off"])
    def test_killed_it_goes_on_to_the_same_bits(self, pack, tmp_path):
        job = job_of(
            model=self.DEEP,
            training__optimizer="muon",
            training__layer_rates="fan_in",
            training__epochs=4,
            compute__pack=pack,
        )
        undisturbed = train(job, tmp_path / "a", commit_every_s=0)
        with pytest.raises(Killed):
            train(job, tmp_path / "b", report=dying(2), commit_every_s=0)
        assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))

    def test_convolutions_are_matrices_too(self, tmp_path):
        job = job_of(
            data__preprocess=("per_channel_center",),
            model={"name": "convnet", "channels": (4, 6), "dense": (8,)},
            training={"epochs": 1, "optimizer": "muon"},
            ensemble__members=2,
            compute__pack=2,
        )
        together, apart = both(job, tmp_path)
        assert_close(together, apart)
        job = job.model_copy(
            update={"training": job.training.model_copy(update={"optimizer": Muon().others})}
        )
        adamw = train(job, tmp_path / "adamw")
        differ = [
            name
            for name, value in together[0].items()
            if name.endswith("conv.weight") and not torch.allclose(value, adamw[0][name], atol=1e-4)
        ]
        assert differ


class TestLayerRates:
    """training.layer_rates."""

    @pytest.mark.parametrize("power", [0.5, 1.0])
    def test_the_geometric_mean_of_the_rates_is_the_rate(self, power):
        layers = layers_of({"a": 4, "b": 64, "c": 16}, power)
        rates = torch.tensor([layers.rate(Sgd(lr=0.1), name) for name in "abc"], dtype=torch.float64)
        assert float(rates.log().mean().exp()) == pytest.approx(0.1)
        assert float(rates[0] / rates[1]) == pytest.approx(16**power)
        assert layers.rate(Sgd(lr=0.1), "bias") == 0.1

    def test_equal_fan_ins_change_nothing(self):
        assert layers_of({"a": 9, "b": 9, "c": 9}, 1.0).multiplier("b") == pytest.approx(1.0)

    @pytest.mark.parametrize("pack", ["auto", "off"])
    @pytest.mark.parametrize("way", [way for way in POWERS if way != "same"])
    def test_a_step_of_sgd_is_that_of_each_layers_own_rate(self, pack, way, tmp_path):
        moved = {}
        for layer_rates in ("same", way):
            job = job_of(
                model={"name": "mlp", "hidden": (16, 4)},
                training__optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9},
                training__layer_rates=layer_rates,
                compute__pack=pack,
            )
            payload, plan = payload_of(job, tmp_path)
            members = plan.slots[0].pack.members
            rows = training_rows(payload, members)
            module = build_module(payload, members, rows, torch.device("cpu"))
            module.keep_books(_Books())
            before = {name: value.clone() for name, value in module.weights.items()}
            block = torch.stack([torch.from_numpy(own[:64]) for own in rows]).unsqueeze(0)
            module.training_step(block, 0)
            moved[layer_rates] = {n: module.weights[n].detach() - before[n] for n in before if "body" in n}
            layers = roles(module.net, members[0].training)
        fans = {"body.hidden.0.linear.weight": 64, "body.hidden.1.linear.weight": 16, "body.output.weight": 4}
        for name, step in moved["same"].items():
            wanted = (16 / fans[name]) ** POWERS[way] if name in fans else 1.0
            assert layers.multiplier(name) == pytest.approx(wanted)
            torch.testing.assert_close(moved[way][name], step * wanted, rtol=1e-4, atol=1e-7)

    @pytest.mark.parametrize("optimizer", list(OPTIMIZERS), ids=lambda c: c.model_fields["name"].default)
    def test_packed_is_alone_for_every_optimizer(self, optimizer, tmp_path):
        job = job_of(
            model={"name": "mlp", "hidden": (16, 8)},
            training__optimizer={"name": optimizer.model_fields["name"].default, "lr": 0.01},
            training__layer_rates="fan_in",
            training__regularizers=({"name": "l1", "strength": 0.01, "proximal": True},),
            ensemble__vary={"training.optimizer.lr": (0.01, 0.003, 0.03)},
        )
        assert_close(*both(job, tmp_path))


class _Books:
    """The little of a ledger that a single step needs."""

    num_steps, moving = 0, None

    def step(self, weights: object) -> None:
        self.num_steps += 1


def test_adamw_of_the_other_parameters_takes_muons_options() -> None:
    rule = Muon(adamw_lr=0.5, betas=(0.1, 0.2), eps=0.3, weight_decay=0.4)
    assert rule.others == AdamW(lr=0.5, betas=(0.1, 0.2), eps=0.3, weight_decay=0.4)
