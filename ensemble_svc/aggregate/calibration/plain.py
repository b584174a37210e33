"""Calibrations as plain numbers: what a file or a message holds of them.

Law: ``from_plain(to_plain(c)) == c``, through JSON too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ensemble_svc.aggregate.calibration.conformal import PredictionIntervals, PredictionSets
from ensemble_svc.aggregate.calibration.isotonic import Isotonic
from ensemble_svc.aggregate.calibration.temperature import Temperature
from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.calibration.vector import VectorScaling
from ensemble_svc.errors import EnsembleError, unknown_choice

Calibration = Temperature | VectorScaling | Isotonic | VarianceScale | PredictionSets | PredictionIntervals

KINDS: Mapping[str, type[Calibration]] = {
    "temperature": Temperature,
    "vector": VectorScaling,
    "isotonic": Isotonic,
    "variance_scale": VarianceScale,
    "sets": PredictionSets,
    "intervals": PredictionIntervals,
}
"""Calibrations by the name they are written under."""


def to_plain(calibration: Calibration) -> dict[str, Any]:
    """``kind`` and the calibration's numbers, of Python's own types."""
    kind = next(name for name, cls in KINDS.items() if type(calibration) is cls)
    return {"kind": kind} | asdict(calibration)


def from_plain(plain: Mapping[str, Any]) -> Calibration:
    """The calibration of these numbers.

    Raises:
        EnsembleError: a kind that is unknown, or numbers that are not its own.
    """
    kind = str(plain.get("kind"))
    if kind not in KINDS:
        raise EnsembleError(unknown_choice("calibration", kind, KINDS))
    numbers = {name: _frozen(value) for name, value in plain.items() if name != "kind"}
    try:
        return KINDS[kind](**numbers)
    except TypeError as wrong:
        raise EnsembleError(f"the calibration '{kind}' cannot be read: {wrong}") from wrong


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value
