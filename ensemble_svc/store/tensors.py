"""Tensors as safetensors bytes: no pickle is ever written or read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.spec.job import SCHEMA_VERSION

Tensors = dict[str, Tensor]
METADATA = "__metadata__"
"""Under which a header has what is no tensor."""


def encode(tensors: Mapping[str, Tensor], meta: Mapping[str, Any] | None = None) -> bytes:
    """Tensors and JSON facts as the bytes of one safetensors file."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata=metadata_of(meta or {}))


def metadata_of(meta: Mapping[str, Any]) -> dict[str, str]:
    """JSON facts as a header has them."""
    facts = {"schema_version": SCHEMA_VERSION, "facts": dict(meta)}
    return {"ensemble_svc": json.dumps(facts, sort_keys=True)}  # one key, for the format keeps no order


def decode(body: bytes, path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors and facts of ``encode``'s bytes; ``path`` is for the message alone.

    Raises:
        CorruptArtifact: bytes that are not such a file, or one of another schema version.
    """
    try:
        tensors = safetensors.torch.load(body)
        size = int.from_bytes(body[:8], "little")
        header = json.loads(body[8 : 8 + size]).get(METADATA, {})
    except (SafetensorError, ValueError) as fault:
        raise CorruptArtifact(f"{path} is not a tensor file of this project: {fault}") from fault
    return tensors, check_metadata(header, path)


def check_metadata(header: Mapping[str, str], path: Path) -> dict[str, Any]:
    """The facts that ``metadata_of`` made a header's metadata of.

    Raises:
        CorruptArtifact: those of another kind of file, or of another schema version.
    """
    try:
        facts = json.loads(header["ensemble_svc"])
        version, meta = facts["schema_version"], dict(facts["facts"])
    except (KeyError, ValueError) as fault:
        raise CorruptArtifact(f"{path} is not a tensor file of this project: {fault}") from fault
    if version != SCHEMA_VERSION:
        raise CorruptArtifact(f"{path} has schema version {version}; this release reads {SCHEMA_VERSION}")
    return meta


def unstack(tensors: Mapping[str, Tensor], index: int) -> Tensors:
    """One member's slices of tensors stacked over K members."""
    return {name: tensor[index] for name, tensor in tensors.items()}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The same tensors under ``prefix/name``."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    """The inverse of ``prefixed``: those below ``prefix``, without it."""
    head = f"{prefix}/"
    return {name.removeprefix(head): t for name, t in tensors.items() if name.startswith(head)}
