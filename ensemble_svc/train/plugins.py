"""Lightning's Trainer with nothing in it that this project does itself, nor what installed packages add."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

import lightning as L
import torch

_REGISTRY: Final[Any] = import_module("lightning.fabric.utilities.registry")


def bare_trainer(device: torch.device, epochs: int, callback: L.Callback, **options: Any) -> L.Trainer:
    """A Trainer without checkpoints, logs, bars and sanity checks."""
    with _without_plugins():
        return L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            max_epochs=epochs,
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **options,
        )


@contextmanager
def _without_plugins() -> Iterator[None]:
    """Trainers made in the block get no callbacks of packages that happen to be installed.

    Such a callback would act on members and stand in no job. Looking for them also took 0.25 s for every
    Trainer, since each installed package is asked.
    """
    found = _REGISTRY.entry_points
    _REGISTRY.entry_points = _none
    try:
        yield
    finally:
        _REGISTRY.entry_points = found


def _none(**_: Any) -> tuple[()]:
    return ()
