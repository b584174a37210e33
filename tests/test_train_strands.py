"""Laws of strands: a pack's members divided among threads are the members of the whole pack."""

from __future__ import annotations

import math
import signal
import threading
import time
from threading import Event
from typing import Any

import pytest
import test_train_laws as laws
import torch
from hypothesis import given
from hypothesis import strategies as st
from law_runs import BASE, Killed, assert_close, assert_same_bits, dying, job_of, payload_of, train
from torch import Tensor

from ensemble_svc.errors import TrainError
from ensemble_svc.plan.strands import Strands, strands
from ensemble_svc.store.members import sealed
from ensemble_svc.train import pack as packs
from ensemble_svc.train.build import build_module, training_rows
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.strand import Strand, beside


def divide(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Let every pack be divided among so many strands, whatever its steps take."""

    def always(core_s: float | None, members: int, cores: int, *, in_turn: bool) -> Strands:
        return Strands(min(most, members), 1)

    monkeypatch.setattr(packs, "strands", always)


@pytest.fixture
def divided(monkeypatch):
    divide(monkeypatch, 2)


@pytest.mark.usefixtures("divided")
class TestStrandsAreAlone(laws.TestPackedIsAlone):
    """Law 1 with the members on threads of their own."""


@pytest.mark.usefixtures("divided")
class TestNoiseInStrands(laws.TestNoise):
    """Draws come from each strand's own generator."""


@pytest.mark.usefixtures("divided")
class TestSparsityInStrands(laws.TestSparsity):
    """Each strand's network has taps of its own."""


@pytest.mark.usefixtures("divided")
class TestCompactionOfStrands(laws.TestCompaction):
    """Members are dropped from strands, and the rest is divided anew."""

    # Counted per pack in the whole; a strand has a part of them.
    test_the_same_members_with_and_without = None  # type: ignore[assignment]

    def test_the_dropped_cost_nothing(self, tmp_path, monkeypatch):
        sizes: list[int] = []
        step = Strand.step

        def counted(self: Strand, batch: Any) -> Tensor:
            sizes.append(len(batch.x_KB))
            return step(self, batch)

        monkeypatch.setattr(Strand, "step", counted)
        compacted = train(job_of(**self.JOB), tmp_path / "with")
        assert {2, 3} <= set(sizes)
        assert sizes[-1] < 3
        with monkeypatch.context() as never:
            never.setattr(laws.watch, "drop_stopped", lambda module, ledger, feed: None)
            assert_close(compacted, train(job_of(**self.JOB), tmp_path / "without"))


@pytest.mark.usefixtures("divided")
class TestResumeOfStrands(laws.TestResume):
    """A commit of strands is one of the pack."""


def test_draws_replay_to_the_bit_whoever_is_first(tmp_path, monkeypatch):
    """Dropout, noise on inputs, weights and activations, and augmentation, on four threads of two cores."""
    divide(monkeypatch, 4)
    job = job_of(
        model={"name": "mlp", "hidden": (16,), "dropout": 0.3, "activation_noise": 0.1},
        data__augment=({"name": "crop", "padding": 1}, "flip"),
        training__regularizers=({"name": "input_noise", "std": 0.1}, {"name": "weight_noise", "std": 0.01}),
        ensemble__members=7,
    )
    first = train(job, tmp_path / "first")
    for again in ("second", "third"):
        assert_same_bits(first, train(job, tmp_path / again))


def test_members_of_different_strands_draw_apart(tmp_path, monkeypatch):
    """Two members with the same weights and rows drop other numbers."""
    divide(monkeypatch, 2)
    job = job_of(model={"name": "mlp", "hidden": (64,), "dropout": 0.5}, ensemble__members=2)
    payload, plan = payload_of(job, tmp_path)
    members = plan.slots[0].pack.members
    rows = training_rows(payload, members)
    module = build_module(payload, members, rows, torch.device("cpu"))
    module.keep_books(Ledger(module.recipe, module.weights))
    with torch.no_grad():
        for weight in module.weights.values():
            weight[1].copy_(weight[0])
    same = torch.from_numpy(rows[0][:32]).expand(1, 2, -1)
    module.training_step(same, 0)
    (losses_K,) = module.step_losses
    assert losses_K[0] != losses_K[1]


def test_a_commit_goes_on_in_another_number_of_strands(tmp_path, monkeypatch):
    """What several strands committed, momenta that only some members have included, one goes on with."""
    job = job_of(
        training__optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9},
        training__average={"name": "ema", "decay": 0.9},
        ensemble__vary={"training.optimizer.momentum": (0.9, 0.9, 0.0, 0.0)},
        ensemble__members=4,
    )
    whole = train(job, tmp_path / "whole")
    for first, then in ((2, 1), (1, 4), (4, 3)):
        run = tmp_path / f"{first}-{then}"
        divide(monkeypatch, first)
        with pytest.raises(Killed):
            train(job, run, report=dying(2), commit_every_s=0)
        divide(monkeypatch, then)
        assert_close(train(job, run, commit_every_s=0), whole)


def test_a_strand_that_fails_fails_the_slot_when_all_have_ended(tmp_path, monkeypatch):
    divide(monkeypatch, 3)
    step, ended = Strand.step, []

    def failing(self: Strand, batch: Any) -> Tensor:
        if self.recipe.members[0].index == 1 and self.optimizer.num_steps == 3:
            raise RuntimeError("a strand broke")
        losses = step(self, batch)
        ended.append(self.recipe.members[0].index)
        return losses

    monkeypatch.setattr(Strand, "step", failing)
    with pytest.raises(TrainError, match="a strand broke"):
        train(job_of(), tmp_path)
    assert ended.count(1) == 3
    settled = len(ended)
    time.sleep(0.1)
    assert len(ended) == settled
    assert not sealed(tmp_path)


def test_beside_keeps_the_order_and_the_number_of_threads():
    before = torch.get_num_threads()
    tasks = [lambda _, i=i: (i, torch.get_num_threads()) for i in range(5)]
    assert beside(tasks, 1) == [(i, 1) for i in range(5)]
    assert torch.get_num_threads() == before


def test_a_stop_ends_the_others_at_their_next_step():
    """Ctrl-C reaches the waiting thread alone."""
    began, turns = time.monotonic(), []

    def working(halt: Event) -> None:
        while not halt.wait(0.01) and time.monotonic() - began < 20:
            turns.append(1)

    timer = threading.Timer(0.3, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        beside([working, working], 1)
    timer.join()
    assert turns
    assert time.monotonic() - began < 10


class TestDivision:
    """Strands as a pure function of what a step costs."""

    @given(
        core_s=st.floats(0, 100) | st.none(),
        members=st.integers(1, 200),
        cores=st.integers(1, 64),
        in_turn=st.booleans(),
    )
    def test_every_strand_has_a_member_and_a_core(self, core_s, members, cores, in_turn):
        number, threads = strands(core_s, members, cores, in_turn=in_turn)
        assert 1 <= number <= min(members, cores)
        assert threads >= 1
        assert number * threads <= cores

    @given(
        core_s=st.floats(1e-6, 10),
        more=st.floats(1, 10),
        members=st.integers(1, 99),
        cores=st.integers(1, 32),
    )
    def test_more_arithmetic_never_takes_fewer_strands(self, core_s, more, members, cores):
        few = strands(core_s, members, cores, in_turn=False).number
        assert few <= strands(more * core_s, members, cores, in_turn=False).number

    def test_small_steps_stay_on_one_core_and_large_ones_use_all(self):
        assert strands(1e-3, 64, 8, in_turn=False) == (1, 1)
        assert strands(1.0, 64, 8, in_turn=False) == (8, 1)
        assert strands(1.0, 2, 8, in_turn=False) == (2, 4)
        assert strands(1.0, 1, 8, in_turn=True) == (1, 8)

    def test_of_unknown_networks_nothing_is_divided(self):
        assert strands(None, 9, 4, in_turn=True) == (1, 4)
        assert math.prod(strands(None, 1, 1, in_turn=False)) == 1


USERS_OWN = '''
from torch import nn

class Net(nn.Module):
    """A convolution, and a layer that the loss never reaches."""

    def __init__(self, shape, outputs):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.idle = nn.Linear(3, 3)
        self.out = nn.Linear(2 * 36, outputs)

    def forward(self, x):
        return self.out(self.conv(x).tanh().flatten(1))

def build(input_shape, num_outputs):
    return Net(input_shape, num_outputs)
'''


@pytest.mark.parametrize("pack", ["off", 3])
def test_weights_that_the_loss_does_not_reach_stay_as_they_are(pack, tmp_path, monkeypatch):
    """Torch's optimisers leave them alone, weight decay included; so do packs whose members go in turn."""
    (tmp_path / "own_net.py").write_text(USERS_OWN)
    monkeypatch.syspath_prepend(tmp_path)
    start = {**BASE["training"], "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.5}}
    found = {}
    for epochs in (1, 3):
        job = job_of(
            model={"name": "python", "factory": "own_net:build"},
            training={**start, "epochs": epochs},
            compute__pack=pack,
        )
        found[epochs] = train(job, tmp_path / f"{pack}-{epochs}")
    for index in range(3):
        idle, used = (f"weights.safetensors/body.{name}.weight" for name in ("idle", "out"))
        assert torch.equal(found[1][index][idle], found[3][index][idle])
        assert not torch.equal(found[1][index][used], found[3][index][used])
