"""What is computed here against libraries that need an environment of their own (``make bench-peers``).

All questions are asked of one child, which is given random problems and knows nothing of our answers.

Shapes: S cases, K members, N rows, C classes, T states of V weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.children import PEERS, run_module
from benchmarks.correctness.comparison import numbers
from ensemble_svc.aggregate.calibration.temperature import fit_after
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.pools import LikelihoodPool, Pool, accuracy_pool, squared_error_pool
from ensemble_svc.aggregate.selection import greedy
from ensemble_svc.aggregate.uncertainty import entropy, expected_entropy, mutual_information
from ensemble_svc.evaluate.density import score_intervals
from ensemble_svc.evaluate.detection import detect
from ensemble_svc.evaluate.diversity import disagreement, mean_over_pairs
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.evaluate.selective import risk_coverage
from ensemble_svc.optim.average import ema_update

Problems = Mapping[str, Mapping[str, Tensor]]
"""By question, arrays by name, [S, …]."""
CASES = 20


@dataclass(frozen=True)
class PeerComparison:
    """A quantity beside another library's."""

    quantity: str
    other: str
    """What of the library."""
    question: str
    key: str
    """Of the answer."""
    ours: Callable[[Mapping[str, Tensor]], list[Any]]
    """From the question's arrays to a value for each case, as the library gives it."""
    within: float
    """Largest difference that counts as equal."""

    def differences(self, problems: Problems, answers: Mapping[str, Any]) -> list[float]:
        """One for each case; of picks 0 or 1."""
        theirs = answers[self.question]["answer"][self.key]
        return [_apart(a, b) for a, b in zip(self.ours(problems[self.question]), theirs, strict=True)]


def problems(draw: torch.Generator) -> Problems:
    """Random problems, the same for the same generator."""
    logits = 2 * torch.randn(CASES, 500, 5, generator=draw, dtype=torch.float64)
    drawn = torch.multinomial((0.8 * logits).softmax(-1).flatten(0, 1), 1, generator=draw)
    log_probs, target = logits.log_softmax(-1), drawn.view(CASES, 500)
    members = (2 * torch.randn(CASES, 6, 60, 4, generator=draw, dtype=torch.float64)).log_softmax(-1)
    doubts = torch.randn(2, CASES, 300, generator=draw, dtype=torch.float64).round(decimals=1)
    low = torch.randn(CASES, 40, generator=draw, dtype=torch.float64)
    gaussians = [numbers(draw) for _ in range(CASES)]
    return {
        "classes": {"probs": log_probs.exp(), "target": target},
        "temperatures": {"log_probs": log_probs, "target": target},
        "members": {"probs": members.exp()},
        "detection": {"inside": doubts[0], "outside": doubts[1] + 0.7},
        "intervals": {
            "low": low,
            "high": low + torch.rand(CASES, 40, generator=draw, dtype=torch.float64) * 3,
            "target": torch.randn(CASES, 40, generator=draw, dtype=torch.float64),
        },
        "averages": {"states": torch.randn(CASES, 20, 6, generator=draw, dtype=torch.float64)},
        "selection": {
            "probs": members.exp(),
            "target": torch.randint(4, (CASES, 60), generator=draw),
            "mean": torch.stack([mean[..., 0] for mean, _, _ in gaussians]),
            "number": torch.stack([target[:, 0] for _, _, target in gaussians]),
        },
    }


@cache
def asked(seed: int) -> tuple[Problems, Mapping[str, Any]]:
    """Problems and the child's answers.

    Raises:
        ChildFailed: the environment is not there, or its libraries failed.
    """
    given = problems(torch.Generator().manual_seed(seed))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for question, arrays in given.items():
            np.savez(Path(folder) / f"{question}.npz", **{name: one.numpy() for name, one in arrays.items()})
        found = run_module("benchmarks.correctness.peer", [folder], python=PEERS)
    return given, found["answers"]


def _apart(ours: Any, theirs: Any) -> float:
    if isinstance(ours, tuple):
        return float(list(ours) != theirs)
    return float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())


def _metric(name: str, given: Mapping[str, Tensor]) -> list[float]:
    return [
        measure("classification", {"log_probs": probs.log()}, target, names=(name,))[name]
        for probs, target in zip(given["probs"], given["target"], strict=True)
    ]


def _area(given: Mapping[str, Tensor]) -> list[float]:
    """Theirs is by the trapezoid rule between the coverages 1 / N and 1, over that width."""
    found = []
    for probs, target in zip(given["probs"], given["target"], strict=True):
        confidence, said = probs.max(-1)
        risk = risk_coverage((said != target).double(), -confidence)
        found.append(float((risk.sum() - (risk[0] + risk[-1]) / 2) / (len(risk) - 1)))
    return found


def _temperature(given: Mapping[str, Tensor]) -> list[float]:
    return [fit_after(one, y).value for one, y in zip(given["log_probs"], given["target"], strict=True)]


def _doubt(part: Callable[[Tensor], Tensor], given: Mapping[str, Tensor]) -> list[float]:
    return [part(probs.log()).mean().item() for probs in given["probs"]]


def _disagreement(given: Mapping[str, Tensor]) -> list[float]:
    return [mean_over_pairs(disagreement(probs.argmax(-1))) for probs in given["probs"]]


def _fpr95(given: Mapping[str, Tensor]) -> list[float]:
    return [detect(a, b).fpr95 for a, b in zip(given["inside"], given["outside"], strict=True)]


def _interval(part: str, given: Mapping[str, Tensor]) -> list[float]:
    cases = zip(given["low"], given["high"], given["target"], strict=True)
    return [
        float(getattr(score_intervals(a[:, None], b[:, None], y[:, None], alpha=0.1), part))
        for a, b, y in cases
    ]


def _ema(given: Mapping[str, Tensor]) -> list[Any]:
    """Ours has no starting bias: theirs of T states is (1 - d^T) times it, and d^T times the first state."""
    found = []
    for states in given["states"]:
        average, decay = {"w": states[0].clone()}, 0.9
        for number, state in enumerate(states, 1):
            ema_update(average, {"w": state}, decay, number)
        bias = decay ** len(states)
        found.append((1 - bias) * average["w"] + bias * states[0])
    return found


def _picks(kind: str, given: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    def pools() -> Iterator[Pool]:
        if kind == "rmse":
            for mean, number in zip(given["mean"], given["number"], strict=True):
                yield squared_error_pool(mean[..., None], number[:, None])
            return
        for probs, target in zip(given["probs"], given["target"], strict=True):
            if kind == "accuracy":
                yield accuracy_pool(probs.log(), target)
            else:
                yield LikelihoodPool(log_likelihood({"log_probs": probs.log()}, target))

    return [greedy(pool, 15).picks for pool in pools()]


def _uncertainty(quantity: str, other: str, key: str, within: float = 1e-6) -> PeerComparison:
    return PeerComparison(
        quantity, f"torch-uncertainty `{other}`", "classes", key, partial(_metric, key), within
    )


PEER_COMPARISONS: tuple[PeerComparison, ...] = (
    _uncertainty("NLL", "CategoricalNLL", "nll"),
    _uncertainty("Brier score", "BrierScore", "brier"),
    _uncertainty("ECE, 15 bins", "CalibrationError", "ece"),
    _uncertainty("ECE, 15 bins of equal mass", "AdaptiveCalibrationError", "ece_adaptive"),
    _uncertainty("ECE of every class", "ClasswiseCalibrationError", "ece_classwise"),
    _uncertainty(
        "smooth ECE", "SmoothCalibrationError` (on a grid in float32), `reflected", "ece_smooth", 1e-4
    ),
    PeerComparison("AURC by trapezoids", "torch-uncertainty `AURC`", "classes", "aurc", _area, 1e-6),
    PeerComparison(
        "temperature",
        "torch-uncertainty `TemperatureScaler` (L-BFGS)",
        "temperatures",
        "temperature",
        _temperature,
        1e-3,
    ),
    PeerComparison(
        "disagreement", "torch-uncertainty `Disagreement`", "members", "disagreement", _disagreement, 1e-6
    ),
    PeerComparison(
        "total uncertainty",
        "torch-uncertainty `Entropy`",
        "members",
        "entropy",
        partial(_doubt, entropy),
        1e-6,
    ),
    PeerComparison(
        "aleatoric uncertainty",
        "torch-uncertainty `Entropy` of each member",
        "members",
        "expected_entropy",
        partial(_doubt, expected_entropy),
        1e-6,
    ),
    PeerComparison(
        "epistemic uncertainty",
        "torch-uncertainty `MutualInformation`",
        "members",
        "mutual_information",
        partial(_doubt, mutual_information),
        1e-6,
    ),
    PeerComparison("FPR at 95 %", "torch-uncertainty `FPR95`", "detection", "fpr95", _fpr95, 1e-6),
    PeerComparison(
        "coverage of intervals",
        "torch-uncertainty `IntervalCoverage`",
        "intervals",
        "coverage",
        partial(_interval, "coverage"),
        1e-6,
    ),
    PeerComparison(
        "width of intervals",
        "torch-uncertainty `MeanIntervalWidth`",
        "intervals",
        "width",
        partial(_interval, "width"),
        1e-6,
    ),
    PeerComparison(
        "Winkler's score of intervals",
        "torch-uncertainty `IntervalScore`",
        "intervals",
        "score",
        partial(_interval, "score"),
        1e-4,
    ),
    PeerComparison(
        "EMA of weights, given its starting bias", "timm `ModelEmaV3`", "averages", "average", _ema, 1e-12
    ),
    *(
        PeerComparison(
            f"greedy selection by {kind}: the picks",
            "AutoGluon `EnsembleSelection`",
            "selection",
            kind,
            partial(_picks, kind),
            0.0,
        )
        for kind in ("nll", "accuracy", "rmse")
    ),
)
