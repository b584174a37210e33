"""JSON documents that carry their own checksum: the manifest and the metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.spec.job import SCHEMA_VERSION
from ensemble_svc.store.atomic import write_atomic

Document = dict[str, Any]


def write_document(path: Path, body: Mapping[str, Any]) -> str:
    """Write ``body`` with its schema version and checksum; returns the file's SHA-256."""
    return write_atomic(path, encode_document(body))


def encode_document(body: Mapping[str, Any]) -> bytes:
    """The bytes of the document that holds ``body``."""
    facts = {**body, "schema_version": SCHEMA_VERSION}
    return _text({**facts, "checksum": _checksum(facts)}).encode()


def read_document(path: Path) -> Document:
    """The document, without its checksum.

    Raises:
        CorruptArtifact: missing, altered by a single byte, or of another schema version.
    """
    try:
        text = path.read_text()
        sound = _is_sound(text)
        facts: Document = json.loads(text)
        del facts["checksum"]
    except FileNotFoundError:
        raise CorruptArtifact(f"{path} is missing; run the training command again to make it") from None
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise CorruptArtifact(f"{path} is damaged ({fault}); run the training command again") from fault
    if not sound:
        raise CorruptArtifact(f"{path} is damaged: its checksum does not fit; run the training command again")
    if facts["schema_version"] != SCHEMA_VERSION:
        raise CorruptArtifact(
            f"{path} has schema version {facts['schema_version']}; this release reads {SCHEMA_VERSION}"
        )
    return facts


@lru_cache(maxsize=8)
def _is_sound(text: str) -> bool:
    """Whether the text is what was written, to the byte; the same few documents are read again and again."""
    facts: Document = json.loads(text)
    checksum = facts.pop("checksum")
    return checksum == _checksum(facts) and text == _text({**facts, "checksum": checksum})


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1) + "\n"


def _checksum(facts: Mapping[str, Any]) -> str:
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
