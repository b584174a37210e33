"""The formulas of a member's cost: equal to the networks that are built, and monotone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from test_nn_build import MODELS_OF, ROW
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ensemble_svc.errors import SpecError
from ensemble_svc.nn.build import build
from ensemble_svc.nn.noise import Draw
from ensemble_svc.nn.resnet import Residual
from ensemble_svc.nn.sparsity import Tap
from ensemble_svc.nn.tied import Repeated
from ensemble_svc.optim.layered import LayeredOptimizer
from ensemble_svc.plan.cost import DataShape, member_bytes, num_steps, optimizer_copies, size_of, work_of
from ensemble_svc.plan.formula import formula
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.registry import Choice
from ensemble_svc.spec.activations import Maxout, PRelu, Relu
from ensemble_svc.spec.averages import Ema
from ensemble_svc.spec.inits import Fixup
from ensemble_svc.spec.job import NoResample
from ensemble_svc.spec.losses import Mse
from ensemble_svc.spec.model import MODELS, LeNet, Mlp, Network, PythonModel, ResNet
from ensemble_svc.spec.norms import NORMS, NoNorm
from ensemble_svc.spec.optimizers import OPTIMIZERS, AdamW, Sgd
from ensemble_svc.spec.training import TrainingSpec
from ensemble_svc.train.feed import steps_per_epoch

ZOO = [choice for choice in MODELS if issubclass(choice, Network)]


@st.composite
def networks(draw: st.DrawFn) -> tuple[Network, tuple[int, ...]]:
    """A network of the zoo and a row for it."""
    choice = draw(st.sampled_from(ZOO))
    model = draw(MODELS_OF[choice])
    changed = {"norm": draw(st.sampled_from(list(NORMS)))(), "dropout": draw(st.sampled_from([0.0, 0.3]))}
    changed["norm_place"] = draw(st.sampled_from(["before", "after"]))
    changed["activation_noise"] = draw(st.sampled_from([0.0, 0.1]))
    others = [Maxout(), Maxout(pieces=3)] if choice is not ResNet else []
    changed["activation"] = draw(st.sampled_from([Relu(), PRelu(), *others]))
    if choice is ResNet and draw(st.booleans()):
        changed |= {"init": Fixup(), "norm": NoNorm(), "norm_place": "before"}
    if choice is Mlp:
        changed |= {
            "tied": draw(st.booleans()),
            "hidden": draw(st.sampled_from([(), (4,), (9, 9, 9), (3, 3, 5, 5, 5)])),
        }
    else:
        changed["channel_dropout"] = draw(st.sampled_from([0.0, 0.2]))
    return model.model_copy(update=changed), ROW[choice]


def put_out(net: nn.Module, x: Tensor) -> int:
    """Numbers per row that the network's operations put out, as its modules tell and its sums."""
    counted: list[int] = []
    silent = (nn.Identity, nn.Flatten, nn.Sequential, Residual, Repeated, Tap)

    def note(module: nn.Module, _: object, out: Tensor) -> None:
        if isinstance(module, Residual) or (
            not isinstance(module, silent) and not (isinstance(module, Draw) and not module.draws)
        ):
            counted.append(out.numel())

    hooks = [module.register_forward_hook(note) for module in net.modules()]
    net(x)
    for hook in hooks:
        hook.remove()
    return sum(counted) // len(x)


@settings(max_examples=80)
@given(found=networks(), num_outputs=st.integers(2, 7))
def test_the_size_is_that_of_the_network_that_is_built(found, num_outputs):
    model, row = found
    try:
        net = build(model, row, num_outputs)
    except SpecError:
        reject()
    size, x = size_of(model, row, num_outputs), torch.rand(2, *row)
    assert size is not None
    assert size.parameters == sum(p.numel() for p in net.parameters())
    with FlopCounterMode(display=False) as counter:
        net(x)
    assert 2 * 2 * size.products == counter.get_total_flops()
    assert size.activations == put_out(net, x)


@given(model=st.sampled_from([LeNet(), LeNet(channels=(2, 3))]), shape=st.sampled_from([(9,), (1, 8, 8)]))
def test_an_input_that_does_not_fit_has_no_size(model, shape):
    assert size_of(model, shape, 10) is None


def test_a_network_of_the_users_own_has_no_size():
    assert size_of(PythonModel(factory="a:b"), (4,), 2) is None


@given(rows=st.integers(1, 5000), batch=st.integers(1, 600))
def test_steps_are_those_of_an_epoch_but_for_the_last_ones_size(rows, batch):
    exact = steps_per_epoch(rows, batch)
    assert exact - 1 < num_steps(rows, batch) <= exact


@pytest.mark.parametrize("choice", list(OPTIMIZERS), ids=lambda c: c.__name__)
def test_optimizers_hold_what_the_formula_says(choice: type[Choice]):
    rules = [choice()] + ([Sgd(momentum=0.9)] if choice is Sgd else [])
    for rule in rules:
        weights = {"w": torch.zeros(3, 40).requires_grad_()}
        optimizer = LayeredOptimizer(weights, [rule] * 3)
        weights["w"].grad = torch.ones(3, 40)
        optimizer.step(1.0)
        held = sum(v.numel() for name, v in optimizer.state().items() if v.shape == (3, 40))
        assert held == 3 * 40 * optimizer_copies(TrainingSpec(optimizer=rule))


def member(**training: object) -> MemberSpec:
    return MemberSpec(
        index=0,
        job_seed=0,
        task="classification",
        data_hash="d",
        split_hash="s",
        preprocess=(),
        augment=(),
        standardize_target=False,
        resample=NoResample(),
        model=Mlp(),
        training=TrainingSpec.model_validate(training),
    )


SHAPE = DataShape((64,), 10, 1797, 200)


def test_averages_and_moments_take_memory():
    size = size_of(Mlp(), (64,), 10)
    assert size is not None
    plain = member_bytes(size, TrainingSpec(optimizer=Sgd()), 64)
    assert member_bytes(size, TrainingSpec(optimizer=AdamW()), 64) == plain + 8 * size.parameters
    assert member_bytes(size, TrainingSpec(optimizer=Sgd(), average=Ema()), 64) == plain + 8 * size.parameters
    assert member_bytes(size, TrainingSpec(optimizer=Sgd()), 65) == plain + 4 * size.activations


@given(members=st.integers(1, 64), threads=st.integers(1, 8))
def test_larger_packs_take_longer_and_more_threads_no_longer(members, threads):
    """Twice the members, for one more may be what a second strand is worth."""
    work = work_of(member(), 1200, SHAPE)
    one, more = formula(work, members, threads, "cpu"), formula(work, 2 * members, threads, "cpu")
    faster = formula(work, members, 2 * threads, "cpu")
    assert one
    assert more
    assert faster
    assert one.step_s < more.step_s < 2 * one.step_s
    assert faster.step_s <= 1.05 * one.step_s


def test_regression_has_two_outputs_a_target_unless_it_gives_means_alone():
    both = [
        work_of(member(loss=loss).model_copy(update={"task": "regression"}), 100, SHAPE)
        for loss in ({"name": "gaussian_nll"}, {"name": "mse"})
    ]
    sizes = [work.size for work in both]
    assert sizes == [size_of(Mlp(), (64,), 20), size_of(Mlp(), (64,), 10)]
    assert isinstance(member(loss={"name": "mse"}).training.loss, Mse)
