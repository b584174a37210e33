"""What other libraries compute of the problems in a folder: ``python -m benchmarks.correctness.peer FOLDER OUT``.

Runs in the environment of ``make bench-peers`` and imports nothing of ours. A problem is ``QUESTION.npz``; the answer
is lists of numbers by name, with the library's version, or what could not be imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.operators import declare_missing_operators

Arrays = Mapping[str, Any]
Answer = dict[str, list[Any]]
AUTOGLUON = Path(sys.prefix) / "autogluon"
"""Installed apart and without what it asks for (``benchmarks/peers/apart.txt``)."""


def metrics_of_classes(given: Arrays) -> Answer:
    """torch-uncertainty's metrics of probabilities, a case after another."""
    peer, num_classes = import_module("torch_uncertainty.metrics"), given["probs"].shape[-1]
    made: dict[str, Callable[[], Any]] = {
        "brier": lambda: peer.BrierScore(num_classes=num_classes),
        "nll": lambda: peer.CategoricalNLL(),
        "ece": lambda: peer.CalibrationError(task="multiclass", num_classes=num_classes, num_bins=15),
        "ece_adaptive": lambda: peer.AdaptiveCalibrationError(
            task="multiclass", num_classes=num_classes, num_bins=15
        ),
        "ece_classwise": lambda: peer.ClasswiseCalibrationError(num_classes=num_classes, num_bins=15),
        "ece_smooth": lambda: peer.SmoothCalibrationError(
            kernel_type="reflected", eps=1e-6, mesh_pts=2000, refine_steps=25
        ),
        "aurc": lambda: peer.AURC(),
    }
    found: Answer = {name: [] for name in made}
    for probs, target in zip(given["probs"], given["target"], strict=True):
        for name, make in made.items():
            metric = make()
            wide = torch.from_numpy(probs)  # the smooth one knows float32 alone
            metric.update(wide.float() if name == "ece_smooth" else wide, torch.from_numpy(target))
            found[name].append(float(metric.compute()))
    return found


def temperatures(given: Arrays) -> Answer:
    """torch-uncertainty's temperature of each case's log probabilities, and what becomes of an ensemble's."""
    scaler = import_module("torch_uncertainty.post_processing").TemperatureScaler
    found: Answer = {"temperature": [], "ensemble": []}
    for log_probs, target in zip(given["log_probs"], given["target"], strict=True):
        rows = TensorDataset(torch.from_numpy(log_probs), torch.from_numpy(target))
        theirs = scaler(torch.nn.Identity(), lr=0.5, max_iter=500)
        theirs.double().fit(DataLoader(rows, batch_size=len(target)), progress=False)
        found["temperature"].append(float(theirs.temperature[0]))
    members = import_module("torch_uncertainty.methods").deep_ensembles(
        [torch.nn.Linear(4, 3) for _ in range(2)]
    )
    rows = TensorDataset(torch.randn(8, 4), torch.randint(3, (8,)))
    try:
        scaler(members).fit(DataLoader(rows, batch_size=8), progress=False)
        found["ensemble"].append("fitted")
    except ValueError as fault:
        found["ensemble"].append(str(fault))
    return found


def differences_of_members(given: Arrays) -> Answer:
    """torch-uncertainty's measures of an ensemble [K, N, C]; it has the members second."""
    peer = import_module("torch_uncertainty.metrics")
    found: Answer = {"disagreement": [], "mutual_information": [], "expected_entropy": [], "entropy": []}
    for probs in given["probs"]:
        members = torch.from_numpy(probs).transpose(0, 1)
        inputs = {
            "disagreement": (peer.Disagreement, members),
            "mutual_information": (peer.MutualInformation, members),
            "expected_entropy": (peer.Entropy, members),
            "entropy": (peer.Entropy, members.mean(1)),
        }
        for name, (make, value) in inputs.items():
            metric = make()
            metric.update(value)
            found[name].append(float(metric.compute()))
    return found


def detection(given: Arrays) -> Answer:
    """torch-uncertainty's FPR at 95 % of the usual rows."""
    peer = import_module("torch_uncertainty.metrics")
    found: Answer = {"fpr95": []}
    for inside, outside in zip(given["inside"], given["outside"], strict=True):
        metric = peer.FPR95(pos_label=1)
        sure = torch.from_numpy(np.concatenate([-inside, -outside]))
        metric.update(sure, torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).int())
        found["fpr95"].append(float(metric.compute()))
    return found


def intervals(given: Arrays) -> Answer:
    """torch-uncertainty's coverage, width and score of 90 % intervals."""
    peer = import_module("torch_uncertainty.metrics")
    found: Answer = {"coverage": [], "width": [], "score": []}
    for case in zip(given["low"], given["high"], given["target"], strict=True):
        low, high, target = (torch.from_numpy(one) for one in case)
        coverage, width, score = peer.IntervalCoverage(), peer.MeanIntervalWidth(), peer.IntervalScore(0.9)
        coverage.update(low, high, target)
        width.update(low, high)
        score.update(low, high, target)
        for name, metric in (("coverage", coverage), ("width", width), ("score", score)):
            found[name].append(float(metric.compute()))
    return found


def averages(given: Arrays) -> Answer:
    """timm's moving average of weights [T, V], decay 0.9."""
    ema = import_module("timm.utils.model_ema")
    found: Answer = {"average": []}
    for states in given["states"]:
        net = torch.nn.Linear(states.shape[1], 1, bias=False).double()
        with torch.no_grad():
            net.weight.copy_(torch.from_numpy(states[0])[None])
        theirs = ema.ModelEmaV3(net, decay=0.9)
        for state in states[1:]:
            with torch.no_grad():
                net.weight.copy_(torch.from_numpy(state)[None])
            theirs.update(net)
        found["average"].append(theirs.module.weight[0].tolist())
    return found


def selection(given: Arrays) -> Answer:
    """AutoGluon's picks by three metrics, told to take the first of ties in the place of a random one."""
    if AUTOGLUON.is_dir():
        sys.path.append(str(AUTOGLUON))
    peer = import_module("autogluon.core.models.greedy_ensemble.ensemble_selection")
    scorers = import_module("autogluon.core.metrics")
    found: Answer = {"nll": [], "accuracy": [], "rmse": []}
    kinds = {"nll": "log_loss", "accuracy": "accuracy", "rmse": "root_mean_squared_error"}
    for name, scorer in kinds.items():
        said, truth = ("mean", "number") if name == "rmse" else ("probs", "target")
        for predictions, target in zip(given[said], given[truth], strict=True):
            theirs = peer.EnsembleSelection(
                15,
                "regression" if name == "rmse" else "multiclass",
                getattr(scorers, scorer),
                random_state=SimpleNamespace(choice=lambda ties: ties[0]),
            )
            theirs.fit(list(predictions), target)
            found[name].append([int(pick) for pick in theirs.indices_])
    return found


QUESTIONS: Mapping[str, tuple[str, Callable[[Arrays], Answer]]] = {
    "classes": ("torch-uncertainty", metrics_of_classes),
    "temperatures": ("torch-uncertainty", temperatures),
    "members": ("torch-uncertainty", differences_of_members),
    "detection": ("torch-uncertainty", detection),
    "intervals": ("torch-uncertainty", intervals),
    "averages": ("timm", averages),
    "selection": ("autogluon.core", selection),
}


def main(folder: str, out: str) -> None:
    """Answer every question of the folder."""
    declare_missing_operators()
    answers: dict[str, Any] = {}
    for path in sorted(Path(folder).glob("*.npz")):
        package, answer = QUESTIONS[path.stem]
        try:
            found = answer(np.load(path))
        except ImportError as fault:
            answers[path.stem] = {"package": package, "missing": str(fault)}
            continue
        answers[path.stem] = {"package": package, "version": _version(package), "answer": found}
    Path(out).write_text(json.dumps({"answers": answers}))


def _version(package: str) -> str:
    """Of a distribution; one that was installed apart tells it in its folder's name."""
    apart = AUTOGLUON / package.split(".")[0] / "core" / "version.py"
    if package == "autogluon.core" and apart.is_file():
        return str(import_module("autogluon.core.version").__version__)
    return version(package)


if __name__ == "__main__":
    main(*sys.argv[1:])
