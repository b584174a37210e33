"""From the ensemble to a traced program, and that program as a ``.pt2`` file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from ensemble_svc.data.dataset import Array, InputSchema
from ensemble_svc.errors import EnsembleError
from ensemble_svc.nn import packed
from ensemble_svc.predictor import Ensemble
from ensemble_svc.serving.whole import Whole

EXAMPLE_ROWS = 97
"""Rows that are traced with: a number that no layer has, since the tracer takes equal sizes for one."""
Predict = Callable[[Array], dict[str, Array]]
"""A file that was read back: raw rows to outputs by name."""


def trace(ensemble: Ensemble) -> ExportedProgram:
    """The whole ensemble as one graph for any number of rows.

    Raises:
        EnsembleError: a network of the user's own that cannot be traced, or networks whose dropout is drawn.
    """
    if drawn := sum(len(group.draws) for group in ensemble.groups):
        are = "is a network with its" if drawn == 1 else "are networks with their"
        other = "" if ensemble.tasks else ", or distill the ensemble"  # several tasks cannot be distilled
        raise EnsembleError(
            f"{drawn} of the chosen {are} dropout drawn (mc_samples), and a graph draws nothing; train without "
            f"mc_samples{other}."
        )
    whole, rows = Whole(ensemble), example(ensemble.schema)
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(whole, (rows,), dynamic_shapes=({0: Dim("rows", min=1)},))
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as fault:
        if all(packed.is_known(group.net.body) for group in ensemble.groups):
            raise
        raise EnsembleError(_refusal(ensemble, fault)) from fault


def example(schema: InputSchema) -> Tensor:
    """Rows of zeros."""
    dtype = torch.uint8 if schema.dtype == "uint8" else torch.float32
    return torch.zeros(EXAMPLE_ROWS, *schema.shape, dtype=dtype)


def to_bytes(program: ExportedProgram, facts: Mapping[str, str]) -> bytes:
    """The program as a ``.pt2`` file, with the facts in it."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files=dict(facts))
    return buffer.getvalue()


def read_back(body: bytes) -> Predict:
    """The program of a file's bytes."""
    with quiet():
        module = torch.export.load(io.BytesIO(body)).module()

    def predict(x: Array) -> dict[str, Array]:
        with torch.no_grad():
            found = module(torch.from_numpy(x))
        return {name: value.numpy() for name, value in found.items()}

    return predict


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's own tools warn of one another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _refusal(ensemble: Ensemble, fault: Exception) -> str:
    own = [group.members[0].model.name for group in ensemble.groups if not packed.is_known(group.net.body)]
    first = next((line for line in str(fault).splitlines() if line.strip()), type(fault).__name__)
    return (
        f"torch.export cannot trace a network of your own (model {own[0]}): {first.strip()[:300]}. Its forward must "
        "do the same for all values and any number of rows: no Python `if` or `int()` on tensors."
    )
