"""JSON documents that carry their own checksum: the manifest and the metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.spec.job import SCHEMA_VERSION
from ensemble_svc.store.atomic import write_atomic

Document = dict[str, Any]

LARGE_FROM = 1_000_000
"""Characters without any layout beyond which a document is large."""
DEEPEST = 3
"""Levels of a large document that are laid out."""
MOST_KNOWN = 64
"""Documents that a process remembers to be sound."""
_known: dict[bytes, None] = {}


def write_document(path: Path, body: Mapping[str, Any]) -> str:
    """Write ``body`` with its schema version and checksum; returns the file's SHA-256."""
    return write_atomic(path, encode_document(body))


def encode_document(body: Mapping[str, Any]) -> bytes:
    """The bytes of the document that holds ``body``."""
    facts = {**body, "schema_version": SCHEMA_VERSION}
    plain = _plain(facts)
    return _text({**facts, "checksum": _checksum(plain)}, large=len(plain) > LARGE_FROM).encode()


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


def _is_sound(text: str) -> bool:
    """Whether the text is what was written, to the byte; the same few documents are read again and again."""
    digest = sha256(text.encode()).digest()
    if digest not in _known:
        facts: Document = json.loads(text)
        checksum = facts.pop("checksum")
        plain, whole = _plain(facts), {**facts, "checksum": checksum}
        layouts = (len(plain) > LARGE_FROM, False)  # earlier versions indented large ones too
        if checksum != _checksum(plain) or not any(text == _text(whole, large=large) for large in layouts):
            return False
        _known[digest] = None
    while len(_known) > MOST_KNOWN:
        del _known[next(iter(_known))]
    return True


def _text(facts: Mapping[str, Any], *, large: bool) -> str:
    """Indented throughout; of a large document, which Python would indent for seconds, a list has an item a line."""
    return (_spread(facts, 0) if large else json.dumps(facts, indent=1)) + "\n"


def _spread(value: Any, depth: int) -> str:
    if depth > DEEPEST or not value or not isinstance(value, dict | list | tuple):
        return json.dumps(value)
    if isinstance(value, dict):
        lines = [f"{json.dumps(str(name))}: {_spread(own, depth + 1)}" for name, own in value.items()]
    else:
        lines = list(map(json.dumps, value))
    first, last = "{}" if isinstance(value, dict) else "[]"
    pad = " " * depth
    return first + ",".join(f"\n{pad} {line}" for line in lines) + f"\n{pad}{last}"


def _plain(facts: Mapping[str, Any]) -> str:
    """What the checksum is of."""
    return json.dumps(facts, sort_keys=True)


def _checksum(plain: str) -> str:
    return sha256(plain.encode()).hexdigest()
