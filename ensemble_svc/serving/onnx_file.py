"""The traced ensemble as an ONNX file, and that file as onnxruntime reads it.

Needs the packages of the extra ``export``; nothing else imports this file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import onnxruntime
import torch
from torch.export import ExportedProgram
from torch.onnx import OnnxExporterError

from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import EnsembleError
from ensemble_svc.serving.traced import Predict, quiet

MOST_BYTES = 2**31 - 1
"""Of one file: what protobuf holds."""


def to_bytes(program: ExportedProgram, facts: Mapping[str, str], outputs: Mapping[str, str]) -> bytes:
    """The program as an ONNX file with the facts as its properties.

    Args:
        outputs: the names of the program's outputs, in order.

    Raises:
        EnsembleError: an operation that ONNX has no words for, or a file above 2 GB.
    """
    try:
        with quiet(), _silent():
            found = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=["rows"],
                output_names=list(outputs),
            )
    except OnnxExporterError as fault:
        raise EnsembleError(f"ONNX cannot say this ensemble: {_reason(fault)} Write a .pt2 file.") from fault
    assert found is not None
    found.model.metadata_props.update(facts)
    body: bytes = found.model_proto.SerializeToString()
    if len(body) > MOST_BYTES:
        raise EnsembleError(
            "the ensemble is larger than the 2 GB that an ONNX file holds; write a .pt2 file."
        )
    return body


def read_back(body: bytes) -> Predict:
    """The file's bytes as onnxruntime runs them on the CPU."""
    session = onnxruntime.InferenceSession(body, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def predict(x: Array) -> dict[str, Array]:
        return dict(zip(names, session.run(None, {"rows": x}), strict=True))

    return predict


@contextmanager
def _silent() -> Iterator[None]:
    """Without the exporter's log of packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _reason(fault: BaseException) -> str:
    """The last cause, which names the operation."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    lines = [line.strip() for line in str(fault).splitlines() if line.strip()]
    return (lines or [type(fault).__name__])[0].rstrip(".")[:300] + "."
