"""A job file in, a ``JobSpec`` out, or every fault of the file at once.

Three kinds of fault are told together: what is no plain YAML, what the schema does not allow, and
what contradicts something else. Where one fault would only cause another, the first alone is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from ensemble_svc.errors import SpecError
from ensemble_svc.spec.anatomy import JOB, field_shape
from ensemble_svc.spec.compose import Document, KeyPath, Lines, compose
from ensemble_svc.spec.contradictions import all_clashes
from ensemble_svc.spec.data import DataSpec, Source
from ensemble_svc.spec.faults import Finding, explain, in_order, located, overlaps
from ensemble_svc.spec.job import SCHEMA_VERSION, JobSpec
from ensemble_svc.spec.override import overridden
from ensemble_svc.spec.source import escaped
from ensemble_svc.spec.wording import shown
from ensemble_svc.spec.yaml import frozen, read, write

_VERSION: Final = "schema_version"
_HEADER: Final = "# A job of ensemble_svc with every default written out.\n"
_SOURCE: Final[TypeAdapter[Source]] = TypeAdapter(Source)


def load_job(path: Path, overrides: Sequence[str] = ()) -> JobSpec:
    """The job of a YAML file, with ``overrides`` (``training.epochs=5``) in place of its values.

    Raises:
        SpecError: with every fault of the file and of the overrides.
    """
    source = escaped(str(path), limit=300)
    try:
        document = compose(path)
    except SpecError as error:
        raise SpecError(error.faults, source) from error
    if not document.complete:
        raise SpecError(in_order(document.faults), source)
    data, lines, faults = overridden(document.data, overrides, document.lines)
    return _job(Document(data, lines, (*document.faults, *faults), document.refused), source)


def parse_job(data: Any, lines: Lines | None = None, source: str | None = None) -> JobSpec:
    """The job that plain data (mappings, lists, scalars) describe.

    Args:
        lines: where each key path was given, for the messages.
        source: what the messages call the data, a file's name.

    Raises:
        SpecError: with every fault.
    """
    return _job(Document(frozen(data), lines or {}), source)


def parse_source(text: str) -> Source:
    """A data source as ``data.source`` would have it: a name, or a mapping in YAML's flow style.

    Raises:
        SpecError: with every fault, paths counted from the source.
    """
    data, _ = read(text)
    try:
        return _SOURCE.validate_python(data)
    except ValidationError as error:
        findings = explain(error, data, field_shape(DataSpec, "source") or JOB)
        raise SpecError(in_order(located(findings, {})), "data source") from error


def dump_job(job: JobSpec) -> str:
    """The job as YAML with every default written out; ``load_job`` reads it back as an equal job (law)."""
    return _HEADER + write({_VERSION: SCHEMA_VERSION, **job.model_dump()})


def _job(document: Document, source: str | None) -> JobSpec:
    data, findings = _without_version(document.data)
    try:
        job: JobSpec | None = JobSpec.model_validate(data)
    except ValidationError as error:
        findings += explain(error, data)
        job = _job_without(data, [finding.path for finding in findings])
    faulty = [*document.refused, *(finding.path for finding in findings)]
    findings = [finding for finding in findings if not overlaps(finding.path, document.refused)]
    findings += _contradictions(job, faulty) if job else []
    faults = in_order([*document.faults, *located(findings, document.lines)])
    if faults or job is None:
        raise SpecError(faults, source)
    return job


def _job_without(data: Any, faulty: Sequence[KeyPath]) -> JobSpec | None:
    """The job that the right keys make, the wrong ones taking their defaults; None if they have none."""
    try:
        return JobSpec.model_validate(_without(data, faulty))
    except ValidationError:
        return None


def _contradictions(job: JobSpec, faulty: Sequence[KeyPath]) -> list[Finding]:
    """Contradictions between keys of which none is at fault otherwise."""
    return [
        Finding(clash.paths[0], clash.message)
        for clash in all_clashes(job)
        if not any(overlaps(path, faulty) for path in clash.paths)
    ]


def _without(data: Any, paths: Iterable[KeyPath], at: KeyPath = ()) -> Any:
    """``data`` less the values at ``paths``; a list that holds one goes as a whole."""
    paths = set(paths)
    if not isinstance(data, Mapping):
        return data
    depth = len(at) + 1
    lists = {path[:depth] for path in paths if len(path) > depth and isinstance(path[depth], int)}
    return {
        key: _without(value, paths, (*at, key))
        for key, value in data.items()
        if (*at, key) not in paths | lists
    }


def _without_version(data: Any) -> tuple[Any, list[Finding]]:
    """The data less the version of their format, which must be ours."""
    if not isinstance(data, Mapping) or _VERSION not in data:
        return data, []
    version = data[_VERSION]
    rest = {key: value for key, value in data.items() if key != _VERSION}
    if version == SCHEMA_VERSION and isinstance(version, int) and not isinstance(version, bool):
        return rest, []
    is_newer = isinstance(version, int) and version > SCHEMA_VERSION
    why = "it was written by a newer ensemble_svc; upgrade" if is_newer else "drop the key"
    return rest, [Finding((_VERSION,), f"{shown(version)} is not allowed; must be {SCHEMA_VERSION}: {why}")]
