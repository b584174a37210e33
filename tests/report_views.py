"""Runs to report on, made in a second: synthetic members, measured by the real evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import equal
from ensemble_svc.aggregate.predictions import combine, mixture_log_density
from ensemble_svc.aggregate.subsets import mixtures
from ensemble_svc.data.dataset import Dataset
from ensemble_svc.evaluate.curve import size_curve
from ensemble_svc.evaluate.portrait import differences, each_class
from ensemble_svc.evaluate.prospect import prospect
from ensemble_svc.evaluate.reliability import reliability
from ensemble_svc.evaluate.summary import summarize
from ensemble_svc.exhibits.exhibit import exhibit
from ensemble_svc.exhibits.inputs import inputs
from ensemble_svc.report.view import RunView
from ensemble_svc.spec.job import EvaluateSpec, JobSpec, Task

SPEC = EvaluateSpec(resamples=200)


def make_view(
    task: Task = "classification",
    *,
    members: int = 8,
    rows: int = 240,
    epochs: int = 12,
    splits: Sequence[str] = ("validation", "test"),
    lost: int = 0,
    names: Sequence[str] = ("alpha", "beta", "gamma", "delta"),
    word: str = "plain",
    seed: int = 0,
) -> RunView:
    """A finished run.

    Args:
        lost: members at the end of the list that diverged or failed.
        names: class names, or target names.
        word: stands wherever a user's or a stranger's words can stand.
    """
    rng = np.random.default_rng(seed)
    done = members - lost
    stacks = {
        split: _predictions(task, rng, done, rows if split == "test" else rows // 2, len(names))
        for split in splits
    }
    metrics = {
        split: measure(task, each, target, best="validation" in splits)
        for split, (each, target) in stacks.items()
    }
    entries = [_entry(k, metrics, k >= done, epochs, word, rng) for k in range(members)]
    split = "test" if "test" in splits else next(iter(splits), None)
    return RunView(
        job={
            "name": "synthetic",
            "task": task,
            "data": {"source": {"name": "digits"}},
            "model": {"name": "mlp"},
            "evaluate": {"confidence": 0.95},
        },
        job_text=f"name: synthetic\ntask: {task}\ndata:\n  source: {{name: digits}}\n# {word}\n",
        manifest=_manifest(task, entries, stacks, names, word, metrics),
        metrics=metrics,
        histories={
            e["id"]: _history(task, k, e, rng) for k, e in enumerate(entries) if e["status"] != "failed"
        },
        exhibits=shown(task, entries, *stacks[split], split=split, seed=seed) if split else {},
    )


def shown(
    task: Task,
    entries: Sequence[dict[str, Any]],
    each: dict[str, Tensor],
    target: Tensor,
    *,
    split: str,
    seed: int,
) -> dict[str, Any]:
    """What the run keeps for its report: the real exhibits, of an equal mixture, with pictures of noise."""
    decision = equal([entry["id"] for entry in entries if entry["status"] == "done"])
    job = JobSpec.model_validate({"name": "x", "task": task, "data": {"source": {"name": "digits"}}})
    found = exhibit(job, task, decision, each, target)
    rows = found.get("rows", {})
    positions = sorted({fact["position"] for some in rows.values() for fact in some})
    pixels = np.random.default_rng(seed).integers(0, 256, (len(target), 1, 8, 8), dtype=np.uint8)
    dataset = Dataset(pixels, target.numpy(), np.arange(len(target)), "image")
    body = {"split": split, "rows": len(target), "tasks": {"": found}, "search": {}}
    if positions:
        body["inputs"] = {
            "positions": positions,
            "ids": positions,
            **inputs(dataset, positions, np.arange(len(target))),
        }
    return body


def measure(task: Task, each: dict[str, Tensor], target: Tensor, *, best: bool) -> dict[str, Any]:
    """What the pipeline writes for one split."""

    def together(some: dict[str, Tensor]) -> dict[str, Tensor]:
        whole = combine(some)
        if task == "regression":
            whole["log_density"] = mixture_log_density(some["mean"], some["log_variance"], target)
        return whole

    summary = summarize(task, each, together(each), target, spec=SPEC, best=0 if best else None, seed=1)
    curve = size_curve(task, each, target, mixtures, seed=1, draws=6)
    extra: dict[str, Any] = (
        {"reliability": reliability(combine(each)["log_probs"], target)} if task == "classification" else {}
    )
    if task == "classification":
        extra["classes"] = each_class(combine(each)["log_probs"], target)
    even = torch.full((len(each["log_probs" if task == "classification" else "mean"]),), 1.0).double()
    extra["diversity"] = differences(task, each, target, even / even.sum()) if len(even) > 1 else {}
    if more := prospect(task, each, target, mixtures, seed=1):
        extra["forecast"] = more
    return {**summary, "size_curve": curve, **extra}


def _predictions(
    task: Task, rng: Any, members: int, rows: int, outputs: int
) -> tuple[dict[str, Tensor], Tensor]:
    if task == "classification":
        target = rng.integers(outputs, size=rows)
        signal = 3.4 * np.eye(outputs)[target] + rng.normal(0, 0.9, (rows, outputs))
        logits = 1.6 * (signal + rng.normal(0, 1.3, (members, rows, outputs)))
        return {"log_probs": torch.from_numpy(logits).log_softmax(-1).float()}, torch.from_numpy(target)
    truth = rng.normal(150, 60, (rows, outputs))
    mean = truth + rng.normal(0, 22, (rows, outputs)) + rng.normal(0, 16, (members, rows, outputs))
    log_variance = np.full_like(mean, 2 * np.log(20)) + rng.normal(0, 0.3, mean.shape)
    tensors = {"mean": torch.from_numpy(mean).float(), "log_variance": torch.from_numpy(log_variance).float()}
    return tensors, torch.from_numpy(truth).float()


def _entry(k: int, metrics: dict[str, Any], lost: bool, epochs: int, word: str, rng: Any) -> dict[str, Any]:
    status = ("diverged", "failed")[k % 2] if lost else "done"
    stopped = not lost and k % 3 == 1
    trained = max(1, epochs - 3) if stopped else epochs
    scores = {} if lost else {split: summary["members"]["each"][k] for split, summary in metrics.items()}
    return {
        "id": f"{k:04d}-{k * 7919 + 4096:012x}",
        "index": k,
        "seed": 0,
        "hyperparameters": {
            "training.optimizer.lr": [0.001, 0.003][k % 2],
            f"model.{word}": word * (1 + k % 2),
        },
        "status": status,
        "reason": f"the loss of step 12 is not finite ({word})" if lost else "",
        "pack": f"pack-{k // 8}",
        "epochs": trained,
        "best_epoch": max(1, trained - 2) if stopped else trained,
        "stopped": stopped,
        "metrics": scores,
        "files": {},
        "where": {} if status == "failed" else {"node": word, "device": "cpu", "pid": 4000 + k, "cpus": 2},
        "seconds": float(2 + rng.random()),
    }


def _history(task: Task, k: int, entry: dict[str, Any], rng: Any) -> dict[str, Any]:
    epoch = np.arange(1.0, entry["epochs"] + 1)
    fall = np.exp(-epoch / (4 + k % 3))
    noise = rng.normal(0, 0.01, (3, len(epoch)))
    train = 0.05 + 2.2 * fall + np.abs(noise[0])
    if entry["status"] == "diverged":
        train = np.where(epoch > 3, np.nan, train * 10 ** (epoch - 1))
    second = (
        {"val_accuracy": 0.95 - 0.7 * fall + noise[2]}
        if task == "classification"
        else {"val_rmse": 25 + 60 * fall}
    )
    return {
        "epoch": epoch,
        "train_loss": train,
        "learning_rate": 0.001 * fall,
        "seconds": np.full_like(epoch, 0.1),
        "val_nll": 0.12 + 1.9 * fall + 0.004 * epoch + noise[1],
        **second,
    }


def _manifest(
    task: Task,
    entries: list[dict[str, Any]],
    stacks: dict[str, Any],
    names: Sequence[str],
    word: str,
    metrics: dict[str, Any],
) -> dict[str, Any]:
    packs: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        packs.setdefault(entry["pack"], []).append(entry)
    return {
        "name": word,
        "task": task,
        "data_hash": "9f" * 32,
        "split_hash": "3a" * 32,
        "versions": {"torch": "2.13.0", word: word},
        "rows": {"train": 1000, **{split: len(target) for split, (_, target) in stacks.items()}},
        "input_schema": {"classes": list(names) if task == "classification" else [], "targets": list(names)},
        "members": entries,
        "packs": [
            {
                "id": name,
                "members": [m["id"] for m in group],
                "cpus": 2,
                "gpus": 0.0,
                "reason": f"one structure ({word})",
                "seconds": max(m["seconds"] for m in group),
            }
            for name, group in packs.items()
        ],
        "candidates": [e["id"] for e in entries if e["status"] == "done"],
        "ensemble": {
            "members": [e["id"] for e in entries if e["status"] == "done"] if metrics else [],
            "combine": "mean",
        },
        "files": {},
        "warnings": [f"feature {word} is constant"],
        "seconds": {"data": 0.4, "plan": 0.1, "train": 3.0, "evaluate": 0.6},
    }
