"""Two keys of a job that cannot both stand."""

from __future__ import annotations

from dataclasses import dataclass

from ensemble_svc.spec.compose import KeyPath


@dataclass(frozen=True)
class Clash:
    """Keys that cannot both stand; the message is told at the first."""

    paths: tuple[KeyPath, ...]
    message: str
