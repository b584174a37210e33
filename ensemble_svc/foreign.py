"""Rows from elsewhere: how well the ensemble's doubt tells them from rows like its test rows.

Shapes: K members, N rows of the usual source, M rows from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ensemble_svc.data.conform import conform_inputs
from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.data.inputs import piece_rows, stream_inputs
from ensemble_svc.data.paths import expand
from ensemble_svc.data.shards import TABLES, find_shards
from ensemble_svc.data.sources import load
from ensemble_svc.data.streams import cut, shards_of
from ensemble_svc.doubts import EACH, Doubts
from ensemble_svc.errors import DataError, EnsembleSvcError, StoreError
from ensemble_svc.evaluate.detection import detect
from ensemble_svc.evaluate.overlap import overlap
from ensemble_svc.evaluate.pieces import pieces
from ensemble_svc.planning import Prepared
from ensemble_svc.predictor import Ensemble
from ensemble_svc.rereading import own_data
from ensemble_svc.spec.data import BreastCancer, Csv, Diabetes, Npz, Parquet, Source
from ensemble_svc.spec.job import JobSpec, Task
from ensemble_svc.spec.load import parse_source
from ensemble_svc.spec.preprocess import Impute
from ensemble_svc.splits import chosen_of, only_members
from ensemble_svc.store.document import write_document
from ensemble_svc.store.run import Run

Tell = Callable[[int], None]
_SEVERAL = frozenset("*?[")


def detections(usual: Doubts, foreign: Doubts) -> dict[str, Any]:
    """AUROC, AUPR (both ways) and FPR95 by score: of the ensemble, and the mean over its members' own.

    Returns:
        ``{"rows": M, "usual_rows": N, "scores": {score: {"ensemble": {…}, "mean_member": {…}, "histogram": {…}}}}``,
        the last as ``evaluate.overlap.overlap``; of several tasks ``scores`` by task. ``left_out`` names what of the
        scores would have been too much to hold.
    """
    scores = {
        task: {name: _detection(usual, foreign, task, name) for name in names if name in foreign.names[task]}
        for task, names in usual.names.items()
        if foreign.names
    }
    found = {"rows": foreign.rows, "usual_rows": usual.rows, "scores": scores.get("", scores)}
    left_out = max(usual.left_out, foreign.left_out, key=len)
    return found | ({"left_out": list(left_out)} if left_out else {})


def _detection(usual: Doubts, foreign: Doubts, task: str, name: str) -> dict[str, Any]:
    own_N, other_M = usual.of(task, name), foreign.of(task, name)
    assert own_N is not None
    assert other_M is not None
    found: dict[str, Any] = {"ensemble": asdict(detect(own_N, other_M))}
    if own_N.isfinite().all() and other_M.isfinite().all():
        found["histogram"] = overlap(own_N, other_M)
    own_KN, other_KM = usual.of(task, name + EACH), foreign.of(task, name + EACH)
    if own_KN is not None and other_KM is not None:
        ones = [asdict(detect(own, other)) for own, other in zip(own_KN, other_KM, strict=True)]
        found["mean_member"] = {key: sum(one[key] for one in ones) / len(ones) for key in ones[0]}
    return found


def usual_doubts(run: Run, ensemble: Ensemble, own: Prepared | str) -> Doubts:
    """Of the run's test rows: run forward where they are at hand, else from the predictions that the run keeps, which
    say nothing of the energy.

    Args:
        own: as ``rereading.own_data``.

    Raises:
        StoreError: a run without test rows.
    """
    if "predictions/test.safetensors" not in run.manifest()["files"]:
        raise StoreError(f"{run.path} has no test rows to compare others with; give --data")
    if isinstance(own, str):
        return _stored_doubts(run, ensemble)
    schema = ensemble.schema
    parts = cut(own.dataset, piece_rows(schema), own.split.test)
    missing = imputes(run.job())
    return foreign_doubts(ensemble, (conform_inputs(piece, schema, missing=missing) for piece in parts))


def _stored_doubts(run: Run, ensemble: Ensemble) -> Doubts:
    split, found = run.mapped("test"), Doubts()
    kept = {name: value for name, value in only_members(split).items() if not name.endswith("/target")}
    for rows in pieces(kept):
        some = {name: value[:, rows] for name, value in kept.items()}
        found.add(ensemble, chosen_of(ensemble.decision, run.manifest()["candidates"], some))
    return found


def foreign_doubts(ensemble: Ensemble, rows: Iterable[Dataset], tell: Tell = lambda rows: None) -> Doubts:
    """Of rows from elsewhere.

    Args:
        rows: a piece at a time.
        tell: hears how many were read.

    Raises:
        DataError: rows the ensemble cannot read.
    """
    found = Doubts()
    for piece in rows:
        found.add(ensemble, ensemble.members(piece.x, energy=True))
        tell(found.rows)
    return found


def foreign_rows(text: str, schema: InputSchema, job: JobSpec, directory: Path) -> Iterator[Dataset]:
    """Inputs of a data set from elsewhere, in pieces; labels, where it has any, are not looked at.

    Args:
        text: a path (a file of rows, a folder of them or of images, a pattern) or a source as a job names it.

    Raises:
        DataError: nothing there, no rows, or rows that the ensemble cannot read.
        SpecError: a source that no job could name.
    """
    empty = True
    for piece in _foreign_pieces(text, schema, job, directory):
        empty = False
        yield piece
    if empty:
        raise DataError(f"{text}: there are no rows.")


def _foreign_pieces(text: str, schema: InputSchema, job: JobSpec, directory: Path) -> Iterator[Dataset]:
    missing = imputes(job)
    path = expand(text, directory) if "{" not in text else None
    if path is not None and (path.exists() or _SEVERAL & set(path.name) or path.suffix):
        is_images = path.is_dir() and not any(f.suffix.lower() in TABLES for f in path.iterdir())
        for shard in [path] if is_images else find_shards(str(path), Path()):
            yield from stream_inputs(shard, schema, resize=_resizes(job), missing=missing)
        return
    for source in shards_of(parse_source(text), directory):
        if isinstance(source, Csv | Parquet):
            separator = source.separator if isinstance(source, Csv) else ","
            found = expand(source.path, directory)
            yield from stream_inputs(found, schema, separator=separator, missing=missing)
            continue
        data = load(source, task=_task_for(source, job), directory=directory)
        for piece in cut(data, piece_rows(schema)):
            yield conform_inputs(piece, schema, missing=missing)


def _task_for(source: Source, job: JobSpec) -> Task:
    """A task that the source has targets for."""
    if isinstance(source, Diabetes):
        return "regression"
    if isinstance(source, BreastCancer) or job.task == "multitask":
        return "classification"
    return job.task if isinstance(source, Npz) else "classification"


def _resizes(job: JobSpec) -> bool:
    return getattr(job.data.source, "size", None) is not None


def imputes(job: JobSpec) -> bool:
    """Whether missing numbers are allowed."""
    return any(isinstance(step, Impute) for step in job.data.preprocess)


def check_foreign(job: JobSpec, schema: InputSchema, directory: Path) -> None:
    """Read the first rows of each of ``evaluate.ood``, before anything trains.

    Raises:
        DataError: naming the one that cannot be read.
    """
    for text in job.evaluate.ood:
        try:
            next(foreign_rows(text, schema, job, directory))
        except EnsembleSvcError as fault:
            raise DataError(f"evaluate.ood '{text}': {fault}") from fault


def extend_metrics(run: Run, job: JobSpec, directory: Path, own: Prepared | None = None) -> dict[str, str]:
    """Measure ``evaluate.ood`` and write it into ``metrics.json`` under the test split.

    Args:
        own: the run's data, where they are at hand; read again otherwise.

    Returns:
        The file with its new SHA-256; nothing where there is nothing to measure.

    Raises:
        DataError: as ``foreign_rows``.
    """
    metrics = run.metrics()
    if not job.evaluate.ood or "test" not in metrics:
        return {}
    ensemble = Ensemble.load(run.path)
    usual = usual_doubts(run, ensemble, own or own_data(run))
    found = {
        text: detections(usual, foreign_doubts(ensemble, foreign_rows(text, ensemble.schema, job, directory)))
        for text in job.evaluate.ood
    }
    metrics["test"] = {**metrics["test"], "ood": found}
    return {"metrics.json": write_document(run.path / "metrics.json", metrics)}
