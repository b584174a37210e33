"""The contenders: one file each, with one function that trains the K members of a work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Contender:
    """A way to train an ensemble."""

    name: str
    title: str
    module: str
    """File of this folder whose ``train(work, data, **options)`` does it."""
    options: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ("torch",)
    """Whose versions stand in the results."""
    first: str = "torch"
    """Package to import before all others: ours sets how idle threads wait, before torch makes them."""
    peers: bool = False
    """Runs in the environment of benchmarks/peers."""


def _ours(name: str, title: str, **options: str) -> Contender:
    return Contender(name, title, "ours", options, packages=RAY, first="ensemble_svc")


RAY = ("torch", "lightning", "ray")
CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender("loop", "plain PyTorch loop, fused AdamW", "loop"),
        Contender("loop_default", "plain PyTorch loop, torch's default AdamW", "loop", {"fused": False}),
        Contender("joblib", "joblib, one process per core", "processes", packages=("torch", "joblib")),
        Contender(
            "lightning", "Lightning, one Trainer after another", "trainers", packages=("torch", "lightning")
        ),
        Contender("tune", "Ray Tune with Lightning, one trial per member", "tune", packages=RAY),
        Contender(
            "tune_reuse",
            "Ray Tune with Lightning, reuse_actors",
            "tune",
            {"reuse_actors": True},
            packages=RAY,
        ),
        Contender(
            "torchensemble",
            "torchensemble VotingClassifier",
            "voting",
            packages=("torch", "torchensemble"),
            peers=True,
        ),
        Contender(
            "torch_uncertainty",
            "torch-uncertainty deep_ensembles",
            "deep_ensembles",
            packages=("torch", "torch-uncertainty", "lightning"),
            peers=True,
        ),
        _ours("ours_alone", "ours, compute.pack off", pack="off"),
        _ours("ours_packed", "ours, one pack", pack="all"),
        _ours("ours_auto", "ours, auto", pack="auto"),
        _ours("ours_auto_ray", "ours, auto, on Ray", pack="auto", executor="ray"),
    )
}
