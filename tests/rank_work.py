"""What tests have the processes of a slot do; imported in them by name, as the user's own modules are."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ensemble_svc.errors import UnknownChoice
from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.train.fit import fit
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.share import Share
from ensemble_svc.train.sharednorm import synchronised

Work = Sequence[tuple[Payload, Slot]]


def in_turn(acts: Sequence[tuple[Any, Any]], slot: Slot, report: Report, share: Share) -> None:
    """Several acts, each with its work, for the price of one start."""
    for act, work in acts:
        act(work, slot, report, share)


def fit_each(work: Work, slot: Slot, report: Report, share: Share) -> None:
    """Many trainings for the price of one start."""
    for payload, each in work:
        fit(payload, each, report, share)


def fail(what: str, slot: Slot, report: Report, share: Share) -> None:
    """The last process fails while the others wait for it."""
    if share.rank == share.processes - 1:
        if what == "refusal":
            raise UnknownChoice("optimizer", "adamm", ["adamw", "sgd"])
        raise ValueError(f"{what}\nsecond line")
    dist.barrier()


def wait(folder: str, slot: Slot, report: Report, share: Share) -> None:
    """Report once, then work for ever."""
    report(Progress("", 1, 2, (), 0.0))
    while True:
        time.sleep(0.05)


def places(_: Any, slot: Slot, report: Report, share: Share) -> None:
    """Report each rank's surroundings in the words that a progress has."""
    each: list[Any] = [None] * share.processes
    dist.all_gather_object(
        each, f"{os.environ['RANK']}/{os.environ['WORLD_SIZE']} {os.environ['OMP_NUM_THREADS']}"
    )
    for words in each:
        report(Progress(words, dist.get_world_size(), share.processes, (), 0.0))


COMPARED = "batch norms"
OPTIONS = ((0.1, True, True), (None, True, True), (0.3, False, True), (0.1, True, False))
"""Momentum, affine, track_running_stats."""


def compare_norms(work: Sequence[Sequence[Tensor]], slot: Slot, report: Report, share: Share) -> None:
    """Batch norms over the processes against torch's own over the whole batch, in double precision."""
    for batches, (momentum, affine, track) in product(work, OPTIONS):
        kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[batches[0].dim() - 2]
        norms = [kind(5, momentum=momentum, affine=affine, track_running_stats=track) for _ in range(2)]
        one, ours = _net(norms[0]), _net(norms[1])
        for x_B in batches:
            _step(one, x_B, Share())
            with synchronised(ours, share):
                assert type(ours.norm) is not kind
                _step(ours, x_B, share)
        assert ours.norm is norms[1]
        _assert_equal(ours.state_dict(), one.state_dict())
        one.eval()
        ours.eval()
        with synchronised(ours, share):
            _assert_equal({"output": ours(batches[0])}, {"output": one(batches[0])})
    if share.rank == 0:
        compared = len(work) * len(OPTIONS)
        report(Progress(COMPARED, compared, compared, (), 0.0))


def _assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


class _Net(nn.Module):
    def __init__(self, norm: nn.Module, num_channels: int) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.eye(num_channels) + 0.1)
        self.norm = norm

    def forward(self, x_B: Tensor) -> Tensor:
        return self.norm(torch.einsum("bc...,cd->bd...", x_B, self.mix)).sin()


def _net(norm: Any) -> _Net:
    net = _Net(norm, norm.num_features).double()
    if norm.affine:
        nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(3))
    return net.train()


def _step(net: nn.Module, x_B: Tensor, share: Share) -> None:
    """One step of gradient descent, the gradients averaged over the processes."""
    own_B = share.take(torch.arange(len(x_B)).unsqueeze(0))[0]
    weights = torch.linspace(0.5, 2, len(x_B), dtype=torch.float64)
    loss_B = (net(x_B[own_B]).flatten(1).square() * weights[own_B, None]).sum(1)
    gradients = torch.autograd.grad(share.weigh(loss_B.mean()), list(net.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            parameter -= 0.1 * share.mean(gradient)


class Counting(nn.Module):
    """A network with a buffer of its own that moves, and a layer that it does not use."""

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(width, num_outputs), nn.Linear(width, num_outputs)
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x_B: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return self.used(x_B.flatten(1)) + 0 * self.steps


class OwnNorm(nn.BatchNorm1d):
    """A batch norm of the user's making."""


def counting(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Counting(torch.Size(input_shape).numel(), num_outputs)


def own_norm(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    width = torch.Size(input_shape).numel()
    return nn.Sequential(nn.Flatten(), OwnNorm(width), nn.Linear(width, num_outputs))


class Remembering(nn.Module):
    """A network that remembers its last batch, and insists that all processes remember the same one."""

    def __init__(self, width: int, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, num_outputs)
        self.register_buffer("seen", torch.zeros(width))

    def forward(self, x_B: Tensor) -> Tensor:
        if self.training:
            each = [torch.empty_like(self.seen) for _ in range(dist.get_world_size())]
            dist.all_gather(each, self.seen)
            assert all(torch.equal(seen, each[0]) for seen in each)
            self.seen.copy_(x_B.flatten(1).mean(0))
        return self.layer(x_B.flatten(1) - self.seen)


def remembering(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Remembering(torch.Size(input_shape).numel(), num_outputs)
