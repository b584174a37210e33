"""The average over many masks against one pass in which the weights are scaled."""

from __future__ import annotations

import itertools
import json

import torch
from torch import Tensor

from benchmarks.lecture.bench import Bench, with_error
from benchmarks.lecture.claim import Claim, Found, Table
from ensemble_svc.data.dataset import InputSchema
from ensemble_svc.nn.noise import Dropout
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.planning import prepare
from ensemble_svc.train.assemble import assemble
from ensemble_svc.train.step import as_pixels

MASKS = 100
POINT, NATS = 0.01, 0.02
"""Differences of accuracy and of NLL that still count as the same answer."""


def measure(bench: Bench) -> Found:
    """Both ways of asking the same members."""
    run = bench.run("mc_dropout")
    manifest, job = run.manifest(), run.job()
    prepared = prepare(job, bench.folder)
    schema = InputSchema.from_json(json.dumps(manifest["input_schema"]))
    x = as_pixels(torch.from_numpy(prepared.dataset.x[prepared.split.test]))
    y = torch.from_numpy(prepared.dataset.y[prepared.split.test])
    scaled, averaged, distance = [], [], []
    for entry in manifest["members"]:
        net = assemble(MemberSpec.from_json(json.dumps(entry["spec"])), schema)
        net.load_state_dict(run.tensors(entry["id"], "weights.safetensors"))
        one, many = _both(net, x)
        scaled.append(_scores(one, y))
        averaged.append(_scores(many, y))
        distance.append(float((one.exp() - many.exp()).abs().sum(1).mean() / 2))
    exact = neuron_gap()
    points = [a[0] - s[0] for a, s in zip(averaged, scaled, strict=True)]
    nats = [a[1] - s[1] for a, s in zip(averaged, scaled, strict=True)]
    close = abs(sum(points)) / len(points) < POINT and abs(sum(nats)) / len(nats) < NATS
    return Found(
        verdict="holds" if exact < 1e-12 and close else "holds in part",
        says=f"For the neuron with two inputs the mean over its four masks is half its value exactly "
        f"(difference {exact:.0e}). In the trained networks the "
        f"mean of {MASKS} masks gives {with_error([a for a, _ in averaged], factor=100)} % accuracy and "
        f"NLL {with_error([n for _, n in averaged], places=3)}, the one "
        f"scaled pass {with_error([a for a, _ in scaled], factor=100)} % and "
        f"{with_error([n for _, n in scaled], places=3)}; their probabilities differ by "
        f"{with_error(distance, places=3)} (total variation).",
        table=Table(
            ("asked by", "test accuracy, %", "test NLL"),
            [
                (
                    name,
                    with_error([a for a, _ in scores], factor=100),
                    with_error([n for _, n in scores], places=3),
                )
                for name, scores in (("one scaled pass", scaled), (f"mean of {MASKS} masks", averaged))
            ],
        ),
    )


def _both(net: torch.nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of the scaled pass, and of the mean over masks."""
    torch.manual_seed(0)
    net.eval()
    with torch.no_grad():
        one = net(x).log_softmax(1)
        for module in net.modules():
            if isinstance(module, Dropout):
                module.train()
        many = torch.stack([net(x).log_softmax(1) for _ in range(MASKS)]).logsumexp(0)
    return one, many - torch.log(torch.tensor(float(MASKS)))


def _scores(log_probs: Tensor, y: Tensor) -> tuple[float, float]:
    right = (log_probs.argmax(1) == y).double().mean()
    return float(right), float(-log_probs.gather(1, y[:, None]).double().mean())


def neuron_gap() -> float:
    """|E[a] − (w1 x + w2 y) / 2| of a = w1 x + w2 y whose inputs are dropped with probability 1/2.

    The expectation is taken over its four masks.
    """
    w, x = torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([1.9, 0.4], dtype=torch.float64)
    masks = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)), dtype=torch.float64)
    return float(((masks * x) @ w).mean().sub(w @ x / 2).abs())


CLAIM = Claim(
    name="mc_dropout",
    title="One scaled pass stands for the average over dropout's masks",
    claim="At test time one wants the average over all masks; for one neuron, E[a] = (w1 x + w2 y) / 2, "
    "so scaling does it exactly. For a network one scaled pass is an "
    "approximation, which Monte Carlo's average of many masks checks.",
    how=f"all four masks of the neuron, and {MASKS} masks in eight trained members; a difference of a "
    f"point of accuracy, or of {NATS} nats of NLL, counts as in part.",
    jobs=("mc_dropout",),
    measure=measure,
)
