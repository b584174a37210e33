"""Another ensemble of the members that a run has, without training: new choices, or new held-out rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, HeldOut
from ensemble_svc.conclude import gather, read_rival, those_eligible, write_metrics
from ensemble_svc.data.conform import conform
from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.data.inputs import piece_rows
from ensemble_svc.data.sources import load, load_several
from ensemble_svc.data.streams import as_known
from ensemble_svc.deciding import best_on_validation, decided, held_out
from ensemble_svc.errors import DataError, OtherJob, StoreError
from ensemble_svc.exhibits.exhibit import write_exhibits
from ensemble_svc.familiar import DECIDING, keep_deciding, marks
from ensemble_svc.foreign import extend_metrics, imputes
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.planning import Prepared
from ensemble_svc.predictor import Ensemble
from ensemble_svc.report.html import write_report
from ensemble_svc.rereading import own_data
from ensemble_svc.rival import Rival
from ensemble_svc.souping import FILE, make, soup_members
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_source
from ensemble_svc.spec.search import takes_cut
from ensemble_svc.spec.tasks import kinds
from ensemble_svc.splits import Splits, read_predictions
from ensemble_svc.store.atomic import TEMPORARY, sweep
from ensemble_svc.store.begin import changes
from ensemble_svc.store.lock import sole_driver
from ensemble_svc.store.manifest import amend_manifest, candidate_ids, record_ensemble
from ensemble_svc.store.mapped import laid_out, let_go, map_tensors
from ensemble_svc.store.members import candidates, sealed
from ensemble_svc.store.run import Run
from ensemble_svc.store.tensors import Tensors

MAY_CHANGE = ("aggregate", "compute", "evaluate", "search.candidates")
"""Keys that may differ from the run's own job where members only become another ensemble."""


def reselect(run: Run, job: JobSpec, *, data: str | None = None, directory: Path) -> Decision:
    """Decide the ensemble anew as ``job.aggregate`` says, and measure and report it.

    The old one stays in the journal; the new one has the next version in the manifest.

    Args:
        job: the run's own with another ``aggregate`` section, or other ``search.candidates``.
        data: a labelled source whose rows decide, in place of the run's validation rows. They must be neither
            rows that are reported nor rows that members were trained on.

    Raises:
        StoreError: no finished member.
        EnsembleError: rows that cannot be selected from or calibrated on.
        DataError: a source that the members cannot read, or the run's own.
    """
    with sole_driver(run.path):
        manifest = run.manifest()
        ids = candidate_ids(job, manifest["members"])
        if not ids:
            raise StoreError(f"{run.path} has no finished member to choose from")
        own = own_data(run)
        predictions, gathered = _predictions(run, job, ids, own)
        new = None if data is None else _new_rows(run, job, data, directory)
        rows = held_out(job, predictions) if new is None else _said(run, ids, new)
        decision = decided(job, job.aggregate, ids, rows)
        let_go()
        metrics = {own: m for entry in manifest["members"] for own, m in candidates(entry).items()}
        best = best_on_validation(job, [metrics[own] for own in ids])
        rival = _rival(run, job, manifest, predictions)
        members = soup_members(decision, [_spec(entry) for entry in finished(manifest)])
        soup, files = make(run, job, own, members, sealed(run.path))
        files["metrics.json"] = write_metrics(
            run, job, decision, ids, predictions, best=best, soup=soup, rival=rival
        )
        files |= gathered | ({} if new is None else keep_deciding(run, new))
        known = None if isinstance(own, str) else own
        files |= write_exhibits(run, job, decision, ids, predictions, known)
        other = new is not None or _chooses_otherwise(job, run.job())
        record_ensemble(run.journal, decision.model_dump(mode="json"), reselected=other)
        dropped = [name for name in (FILE, DECIDING) if name not in files]
        amend_manifest(run.path, files, dropped=dropped, candidates=ids)
        amend_manifest(run.path, extend_metrics(run, job, directory))
        amend_manifest(run.path, {"report.html": write_report(run)})
    return decision


def check_change(run: Run, job: JobSpec) -> None:
    """Make sure that the job differs from the run's own in how members become an ensemble alone.

    Raises:
        OtherJob: it would train other members, or split other rows.
    """
    if found := changes(run.job(), job, MAY_CHANGE):
        words = "only the aggregate and evaluate sections and search.candidates can change without training"
        raise OtherJob(f"{words}: {', '.join(found)}")


def _predictions(
    run: Run, job: JobSpec, ids: Sequence[str], own: Prepared | str
) -> tuple[Splits, dict[str, str]]:
    """What the candidates say by split, with the files and their SHA-256 where it was gathered anew.

    Raises:
        StoreError: others than the run's last may be chosen now, and its data cannot be read again.
    """
    manifest = run.manifest()
    if ids == manifest["candidates"]:
        return read_predictions(run), {}
    if isinstance(own, str):
        raise StoreError(f"{run.path}: other members may be chosen now, and {own}")
    seals, members = sealed(run.path), [_spec(entry) for entry in finished(manifest)]
    files, predictions = gather(run, job, own, those_eligible(job, members, seals), seals)
    return predictions, files


def _chooses_otherwise(job: JobSpec, before: JobSpec) -> bool:
    return job.aggregate != before.aggregate or takes_cut(job.search) != takes_cut(before.search)


def _spec(entry: Mapping[str, Any]) -> MemberSpec:
    return MemberSpec.from_json(json.dumps(entry["spec"]))


def _rival(run: Run, job: JobSpec, manifest: Mapping[str, Any], predictions: Splits) -> Rival | None:
    """The run's single model, calibrated as the job says now; None where it has none."""
    if "single" not in manifest or job.evaluate.single == "none":
        return None
    single, members = _spec(manifest["single"]), [_spec(entry) for entry in finished(manifest)]
    schema = InputSchema.from_json(json.dumps(manifest["input_schema"]))
    return read_rival(run, job, schema, single, members, predictions)


def finished(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of the members that finished."""
    return [entry for entry in manifest["members"] if entry["status"] == "done"]


def _new_rows(run: Run, job: JobSpec, data: str, directory: Path) -> Dataset:
    """A source's rows as the members read them.

    Raises:
        DataError: rows that must not decide, or that the members cannot read.
    """
    schema = InputSchema.from_json(json.dumps(run.manifest()["input_schema"]))
    source = as_known(parse_source(data), schema)
    if job.task == "multitask":
        read = load_several(source, kinds(job.tasks), directory=directory)
    else:
        read = load(source, task=job.task, directory=directory)
    if read.hash == run.rows_hash():
        raise DataError(
            f"{data} holds the run's own rows, those that members were trained on and those that are reported "
            "among them; only other rows can decide. Without --data the run's held-out rows do."
        )
    dataset = conform(read, schema, missing=imputes(job))
    _refuse_own(run, dataset, schema, data)
    return dataset


def _said(run: Run, ids: Sequence[str], rows: Dataset) -> HeldOut:
    """What the candidates say of another source's rows: written a piece of the rows at a time, and mapped."""
    ensemble = Ensemble.load(run.path, members=ids)
    step = piece_rows(ensemble.schema)
    each = (ensemble.members(rows.x[start : start + step]) for start in range(0, max(1, len(rows)), step))
    sweep(run.path / "predictions")
    path = run.path / "predictions" / f"{TEMPORARY}{os.getpid()}-said.safetensors"
    said = {name: stack.transpose(0, 1) for name, stack in _by_row(path, each, len(rows)).items()}
    return HeldOut("data", said, torch.from_numpy(np.ascontiguousarray(rows.y)))


def _by_row(path: Path, pieces: Iterator[Mapping[str, Tensor]], num_rows: int) -> Tensors:
    """Members' predictions [K, n, …] of pieces that follow each other, mapped as [N, K, …]; the file has no name."""
    first = next(pieces)
    layout = {name: (said.dtype, (num_rows, len(said), *said.shape[2:])) for name, said in first.items()}
    start = 0
    with laid_out(path, layout, {}) as put:
        for some in chain([first], pieces):
            for name, said in some.items():
                put(name, start, said.transpose(0, 1))
            start += len(next(iter(some.values()))[0])
    try:
        return map_tensors(path)
    finally:
        path.unlink()


def _refuse_own(run: Run, dataset: Dataset, schema: InputSchema, data: str) -> None:
    """Make sure that no row that is reported, or that members were trained on, is among those that decide.

    Of a run whose source cannot be read again nothing is known.
    """
    prepared = own_data(run)
    if isinstance(prepared, str):
        return
    own = conform(prepared.dataset, schema, missing=imputes(run.job()))
    own_N, new_N = marks(own.x, own.y), marks(dataset.x, dataset.y)
    if both := int(np.isin(new_N, own_N[prepared.split.test]).sum()):
        raise DataError(
            f"{data} holds {both} rows of the run's test split; a row that is reported must not decide. Leave them out."
        )
    if both := int(np.isin(new_N, own_N[prepared.split.train]).sum()):
        raise DataError(
            f"{data} holds {both} rows that members were trained on; they say nothing of how members do on new rows, "
            "and must not decide. Leave them out."
        )
