"""Averages of weights, and the statistics of batch norm that belong to them."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from benchmarks.correctness.comparison import Cases, Comparison
from ensemble_svc.aggregate.averaging import RunningAverage, best_n
from ensemble_svc.optim.average import ema_update
from ensemble_svc.train.batchnorm import refresh


def averages(draw: torch.Generator) -> Cases:
    """The running mean, and the moving average with the bias that torch's has: the first state's share is d^t more."""
    decay = 0.9
    for kind in ("mean", "ema"):
        net = nn.Linear(5, 3).double()
        rule = None if kind == "mean" else get_ema_multi_avg_fn(decay)
        theirs, running, moving, first = AveragedModel(net, multi_avg_fn=rule), RunningAverage(), {}, {}
        for number in range(1, 21):
            with torch.no_grad():
                for param in net.parameters():
                    param.copy_(torch.randn(param.shape, generator=draw, dtype=torch.float64))
            state = {n: p.detach().clone() for n, p in net.named_parameters()}
            theirs.update_parameters(net)
            running = running.add(state)
            moving = moving or {n: torch.empty_like(p) for n, p in state.items()}
            first = first or state
            ema_update(moving, state, decay, number)
        bias = decay**20
        biased = {n: (1 - bias) * moving[n] + bias * first[n] for n in moving}
        found = running.result() if kind == "mean" else biased
        expected = {n: p.detach() for n, p in theirs.module.named_parameters()}
        yield max(float((found[n] - expected[n]).abs().max()) for n in expected)


def debiased(draw: torch.Generator) -> Cases:
    """Our moving average against the weighted mean of all iterates written out."""
    values = [torch.randn(6, generator=draw, dtype=torch.float64) for _ in range(30)]
    average_ = {"w": values[0].clone()}
    for number, value in enumerate(values, 1):
        ema_update(average_, {"w": value}, 0.9, number)
    weights = torch.tensor([0.9 ** (len(values) - i) for i in range(1, len(values) + 1)], dtype=torch.float64)
    yield float((average_["w"] - (torch.stack(values) * weights[:, None]).sum(0) / weights.sum()).abs().max())


def swa(draw: torch.Generator) -> Cases:
    """Mean weights of a network with batch norm, and its statistics of the training rows in batches of 16."""
    for _ in range(5):
        net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()
        x = torch.randn(64, 5, generator=draw, dtype=torch.float64)
        theirs, running = AveragedModel(net), RunningAverage()
        for _ in range(6):
            with torch.no_grad():
                for param in net.parameters():
                    param.copy_(torch.randn(param.shape, generator=draw, dtype=torch.float64))
            theirs.update_parameters(net)
            running = running.add(net.state_dict())
        update_bn(x.split(16), theirs)
        ours = {name: value[None].clone() for name, value in running.result().items()}
        refresh(copy.deepcopy(net), ours, (batch[None] for batch in x.split(16)))
        expected = theirs.module.state_dict()
        yield max(float((ours[name][0] - value).abs().max()) for name, value in expected.items())


def checkpoints(draw: torch.Generator) -> Cases:
    """The n best checkpoints: sorted by their metric, summed in float64, divided, given back as float32."""
    for best in (1, 3, 10):
        states = [
            {"w": torch.randn(6, generator=draw), "b": torch.randn(2, generator=draw)} for _ in range(12)
        ]
        scores = torch.rand(12, generator=draw).tolist()
        ours = best_n(states, scores, best, higher_is_better=True)
        kept = [state for _, state in sorted(zip(scores, states, strict=True), key=lambda pair: pair[0])]
        for name, value in ours.items():
            total = sum(state[name].to(torch.float64) for state in kept[-best:])
            yield float((value - (total / best).to(torch.float32)).abs().max())


COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        "running mean, and EMA given its starting bias, of weights", "torch `AveragedModel`", averages, 1e-12
    ),
    Comparison("debiased EMA of weights", "the weighted mean written out", debiased, 1e-12),
    Comparison(
        "stochastic weight averaging: weights, counters, batch norm's statistics",
        "torch `AveragedModel`, then `update_bn`",
        swa,
        1e-12,
    ),
    Comparison(
        "mean of the n best checkpoints",
        "the rule of timm's `avg_checkpoints.py` written out (a script of its repository, in no release)",
        checkpoints,
        1e-7,
    ),
)
