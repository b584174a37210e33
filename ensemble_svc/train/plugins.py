"""Trainers that no installed package adds anything to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

_REGISTRY: Final[Any] = import_module("lightning.fabric.utilities.registry")


@contextmanager
def without_plugins() -> Iterator[None]:
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
