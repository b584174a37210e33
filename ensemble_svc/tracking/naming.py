"""What a tracker finds a run again by, and what it is told of its job; loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ensemble_svc.spec.job import JobSpec


def mark_of(journal: Path) -> str:
    """The same for the same run folder, also where it was moved or goes on."""
    with journal.open("rb") as file:
        return sha256(file.readline()).hexdigest()[:16]


def settings_in_words(index: int, settings: Mapping[str, Any]) -> dict[str, str]:
    """What a member is told of at its start: its number, and the values that are its own by dotted path."""
    return {"index": str(index), **{path: str(value) for path, value in settings.items()}}


def parameters(job: JobSpec) -> dict[str, str]:
    """The job's own options by dotted path, without where it runs."""
    body = job.model_dump(mode="json", exclude={"compute", "name"})
    return dict(_leaves("", body))


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else key, item)
    elif value not in (None, {}, []):
        yield prefix, str(value)
