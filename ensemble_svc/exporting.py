"""A run's chosen ensemble as one file that needs none of this package: ``.pt2`` or ``.onnx``.

The file is written in memory, read back by the runtime that will serve it, and asked about random rows and the
run's own test rows. Only where it says what ``Ensemble.predict`` says does it come to lie on the disk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import EnsembleError
from ensemble_svc.predictor import Ensemble
from ensemble_svc.rereading import own_data
from ensemble_svc.serving import traced
from ensemble_svc.serving.check import TOLERANCE, differences, random_rows
from ensemble_svc.serving.described import describe, outputs_of
from ensemble_svc.serving.traced import Predict
from ensemble_svc.store.atomic import write_atomic
from ensemble_svc.store.run import Run

FORMATS = (".pt2", ".onnx")
NEEDED = ("onnx", "onnxruntime", "onnxscript")
"""What writing and checking ONNX needs: the extra ``export``."""


@dataclass(frozen=True)
class Exported:
    """A file that says what the ensemble says."""

    path: Path
    num_members: int
    num_bytes: int
    checked: Mapping[str, int]
    """Rows on which it was compared: ``random``, and ``test`` where the run's data can still be read."""
    differences: Mapping[str, float]
    """Of each output the largest, as ``serving.check.differences`` measures it."""
    note: str = ""
    """Why the run's own rows took no part."""

    @property
    def largest(self) -> float:
        """Of all outputs."""
        return max(self.differences.values())


def export(run: Run, output: Path) -> Exported:
    """Write the run's chosen ensemble to ``output``; its suffix says the format.

    Raises:
        EnsembleError: another suffix, packages that are missing, a network that cannot be said in the format,
            or a file that differs from the ensemble; nothing is written then.
        StoreError: no finished run.
    """
    _check_format(output)
    ensemble = Ensemble.load(run.path)
    body, predict = _written(ensemble, output.suffix)
    own, note = own_test_rows(run)
    rows = {"random": random_rows(ensemble.schema, own)} | ({} if own is None else {"test": own})
    found = _worst([differences(ensemble, predict, x) for x in rows.values()])
    _check_differences(output, found)
    write_atomic(output, body)
    counts = {name: len(x) for name, x in rows.items()}
    return Exported(output, len(ensemble.decision.members), len(body), counts, found, note)


def own_test_rows(run: Run) -> tuple[Array | None, str]:
    """The run's test rows as its source gives them today; None and the reason where it does not."""
    prepared = own_data(run)
    if isinstance(prepared, str):
        return None, prepared
    rows = prepared.split.test
    return (prepared.dataset.x[rows], "") if len(rows) else (None, "the run has no test rows")


def _written(ensemble: Ensemble, suffix: str) -> tuple[bytes, Predict]:
    """The file's bytes, and how they answer when they are read back."""
    program, facts = traced.trace(ensemble), describe(ensemble)
    if suffix == ".pt2":
        body = traced.to_bytes(program, facts)
        return body, traced.read_back(body)
    # Here and not above: .pt2 needs none of the packages that this file imports.
    from ensemble_svc.serving import onnx_file

    body = onnx_file.to_bytes(program, facts, outputs_of(ensemble))
    return body, onnx_file.read_back(body)


def _check_format(output: Path) -> None:
    if output.suffix not in FORMATS:
        raise EnsembleError(f"{output}: cannot write '{output.suffix}'; use one of {', '.join(FORMATS)}.")
    missing = [name for name in NEEDED if find_spec(name) is None] if output.suffix == ".onnx" else []
    if missing:
        raise EnsembleError(
            f"writing ONNX needs {', '.join(missing)}: pip install 'ensemble-svc[export]'. A .pt2 file needs none."
        )


def _worst(each: list[dict[str, float]]) -> dict[str, float]:
    """NaN stays NaN."""
    names = each[0]
    return {n: math.nan if any(math.isnan(d[n]) for d in each) else max(d[n] for d in each) for n in names}


def _check_differences(output: Path, found: Mapping[str, float]) -> None:
    wrong = {name: value for name, value in found.items() if not value <= TOLERANCE}
    if wrong:
        told = ", ".join(f"{name} {value:.2g}" for name, value in wrong.items())
        raise EnsembleError(
            f"the graph differs from the ensemble by {told}, and {TOLERANCE:g} is allowed; {output} is not written."
        )
