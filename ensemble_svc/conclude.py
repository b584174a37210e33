"""The last arrows: sealed members → predictions [K, N, …] → ensemble → numbers.

What the members say is held of one member at a time, while it is written; afterwards it is looked at through the
pages of its file (``store.mapped``). So memory grows with what one member says, and with 8 bytes for each member and
row where a choice needs the likelihoods of all.

Shapes: K candidates (the members that finished, or what they stand for), N rows.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.decision import Decision
from ensemble_svc.aggregate.outofbag import seen_by
from ensemble_svc.appraising import beside, measure
from ensemble_svc.data.dataset import Array, InputSchema
from ensemble_svc.deciding import best_on_validation, decided, held_out
from ensemble_svc.exhibits.exhibit import write_exhibits
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.planning import Prepared
from ensemble_svc.rival import Rival, rival_of
from ensemble_svc.scoring import measured_by
from ensemble_svc.souping import make, soup_members
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.spec.search import full_epochs, takes_cut
from ensemble_svc.splits import TRAINED, Splits, only_members, only_trained, targets_of
from ensemble_svc.store.atomic import hash_file, read_verified, sweep
from ensemble_svc.store.document import write_document
from ensemble_svc.store.journal import Event
from ensemble_svc.store.mapped import laid_out, let_go, map_tensors
from ensemble_svc.store.members import Sealed, candidates, eligible, read_tensors, sealed, virtual_ids
from ensemble_svc.store.run import Run
from ensemble_svc.store.tensors import Tensors
from ensemble_svc.worth import worth


class Concluded(NamedTuple):
    """What a run ends with."""

    decision: Decision | None
    """None where no member finished."""
    files: dict[str, str]
    """The files that were written, and their SHA-256."""


def conclude(
    run: Run,
    job: JobSpec,
    prepared: Prepared,
    members: Sequence[MemberSpec],
    single: MemberSpec | None = None,
) -> Concluded:
    """Write ``predictions/`` and ``metrics.json`` from the sealed members, and decide the ensemble.

    Members that diverged, failed or were excluded as sick take no part; with none left there is nothing to write.

    Args:
        single: the single model that the ensemble is measured against.
    """
    seals = sealed(run.path)
    done = those_eligible(job, members, seals)
    if not done:
        return Concluded(None, {})
    files, predictions = gather(run, job, prepared, done, seals)
    known = {own: metrics for m in done for own, metrics in candidates(seals[m.digest]).items()}
    ids = list(known)
    decision = decided(job, job.aggregate, ids, held_out(job, predictions))
    let_go()
    best = best_on_validation(job, list(known.values()))
    soup, written = make(run, job, prepared, soup_members(decision, done), seals)
    files |= written
    rival = read_rival(run, job, prepared.schema, single, done, predictions)
    files["metrics.json"] = write_metrics(
        run, job, decision, ids, predictions, best=best, soup=soup, rival=rival
    )
    files |= write_exhibits(run, job, decision, ids, predictions, prepared)
    let_go()
    return Concluded(decision, files)


def write_metrics(
    run: Run,
    job: JobSpec,
    decision: Decision,
    ids: Sequence[str],
    predictions: Splits,
    *,
    best: int | None,
    soup: Mapping[str, Any] | None = None,
    rival: Rival | None = None,
) -> str:
    """Measure the ensemble on validation and test rows, write ``metrics.json``; returns its SHA-256.

    Args:
        ids: of the K candidates of the predictions.
        best: position of the one that was best on validation.
        soup: what is told of the soup, with its ``predictions`` by split.
        rival: the single model that costs what the ensemble does.
    """
    metrics: dict[str, Any] = {}
    seed = derive_seed(job.seed, -1, "bootstrap")
    for name, split in predictions.items():
        if name != "train":
            members, target = only_members(split), split["target"]
            own = best if name == "test" else None
            alone = None if rival is None else rival.on(name)
            metrics[name] = measure(job, decision, ids, members, target, best=own, single=alone)
            if rival is not None:
                metrics[name]["single"] = rival.facts
            if soup is not None:
                metrics[name]["soup"] = beside(job, decision, ids, members, target, soup, name)
            if trained := only_trained(split):
                _add_worth(metrics[name], job, members, trained, target, seed=seed)
            let_go()
    return write_document(run.path / "metrics.json", metrics)


def _add_worth(
    found: dict[str, Any],
    job: JobSpec,
    members: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    target: Tensor,
    *,
    seed: int,
) -> None:
    """Put what the several members of one training are worth under ``trainings``, of several tasks of each."""
    if job.task != "multitask":
        spec = measured_by(job, job.task)
        found["trainings"] = worth(job.task, members, trained, target, spec=spec, seed=seed)
        return
    for (name, task), own in zip(job.tasks.items(), targets_of(job, target), strict=True):
        parts = (part_of(members, name), part_of(trained, name))
        spec = measured_by(job, task.kind)
        found["tasks"][name]["trainings"] = worth(task.kind, *parts, own, spec=spec, seed=seed)
    found["trainings"] = found["tasks"][found["task"]]["trainings"]


def read_rival(
    run: Run,
    job: JobSpec,
    schema: InputSchema,
    single: MemberSpec | None,
    done: Sequence[MemberSpec],
    predictions: Splits,
) -> Rival | None:
    """The single model as it is sealed; None where the job has none."""
    if single is None:
        return None
    targets = {split: own["target"] for split, own in predictions.items() if split != "train"}
    return rival_of(run, job, schema, single, done, sealed(run.path), targets)


def those_eligible(job: JobSpec, members: Sequence[MemberSpec], seals: Sealed) -> list[MemberSpec]:
    """The members that finished and that the job lets into the ensemble, in order."""
    done = [m for m in members if m.digest in seals and seals[m.digest]["status"] == "done"]
    full = full_epochs(job.search, job.training.epochs)
    may = eligible([seals[m.digest] for m in done], cut=takes_cut(job.search), full=full)
    return [member for member, one in zip(done, may, strict=True) if one]


def gather(
    run: Run, job: JobSpec, prepared: Prepared, done: Sequence[MemberSpec], seals: Sealed
) -> tuple[dict[str, str], dict[str, Tensors]]:
    """The members' predictions of every split, written a member at a time and mapped; the files' SHA-256 with them."""
    split = prepared.split
    positions = {"validation": split.validation, "test": split.test}
    if split.unseen:
        positions["train"] = split.train
    files, predictions = dict[str, str](), dict[str, Tensors]()
    sweep(run.path / "predictions")
    for name, rows in positions.items():
        if not len(rows):
            continue
        file, facts = f"predictions/{name}.safetensors", _facts(prepared, rows)
        parts = _parts(run, done, seals, name, rows)
        files[file] = _write(run.path / file, parts, _by_task(job, facts), name, done, seals)
        said = map_tensors(run.path / file)
        predictions[name] = {key: said[key] for key in said if not _is_target(job, key)} | facts
    return files, predictions


def _parts(run: Run, done: Sequence[MemberSpec], seals: Sealed, split: str, rows: Array) -> Iterator[Tensors]:
    """What a split's file holds of each member in turn: its candidates' predictions [S, N, …], those of the trained
    network [1, N, …] where as many others of each are the candidates, and of training rows if it has seen them."""
    numbers = {member.num_virtual for member in done}
    trained = len(numbers) == 1 and 0 not in numbers
    for member in done:
        seal = seals[member.digest]
        parts = _own(run, member, seal, split)
        number = len(next(iter(parts.values())))
        if trained:
            said = read_tensors(run.path, seal["files"], member.id, f"trained-{split}.safetensors")
            parts |= {f"{TRAINED}{key}": value.unsqueeze(0) for key, value in said.items()}
        if split == "train":
            parts["seen"] = _seen(run, seal, rows).expand(number, -1)
        yield parts


def _own(run: Run, member: MemberSpec, seal: Event, split: str) -> Tensors:
    """A member's predictions of a split, [S, N, …] of the S candidates that it is."""
    found = read_tensors(run.path, seal["files"], member.id, f"predictions-{split}.safetensors")
    return found if member.num_virtual else {name: value.unsqueeze(0) for name, value in found.items()}


def _write(
    path: Path,
    parts: Iterator[Tensors],
    facts: Tensors,
    split: str,
    done: Sequence[MemberSpec],
    seals: Sealed,
) -> str:
    """Write the members' parts behind each other, and the facts; returns the file's SHA-256."""
    first = next(parts)
    number = sum(len(virtual_ids(seals[member.digest])) for member in done)
    count = {name: len(done) if name.startswith(TRAINED) else number for name in first}
    layout = {name: (value.dtype, (count[name], *value.shape[1:])) for name, value in first.items()}
    layout |= {name: (value.dtype, tuple(value.shape)) for name, value in facts.items()}
    at = dict.fromkeys(first, 0)
    some: Tensors | None = first
    del first
    with laid_out(path, layout, {"split": split}) as put:
        while some is not None:
            for name in list(some):
                number = len(value := some.pop(name))
                put(name, at[name], value)
                at[name] += number
                del value
            some = next(parts, None)
        for name, value in facts.items():
            put(name, 0, value)
    found = hash_file(path)
    assert found is not None, "it was written just now"
    return found


def _by_task(job: JobSpec, facts: Tensors) -> Tensors:
    """The facts of rows as they are kept: of several tasks with the targets of each."""
    if job.task != "multitask":
        return facts
    each = zip(job.tasks, targets_of(job, facts["target"]), strict=True)
    rest = {name: value for name, value in facts.items() if name != "target"}
    return {**rest, **{f"{name}/target": own for name, own in each}}


def _is_target(job: JobSpec, name: str) -> bool:
    return name in {"target", *(f"{task}/target" for task in job.tasks)}


def _seen(run: Run, seal: Event, train: Array) -> Tensor:
    """Which of the training rows a member was trained on, [1, N]."""
    name = f"members/{seal['member']}/resample.npy"
    rows = np.load(io.BytesIO(read_verified(run.path / name, seal["files"][name])), allow_pickle=False)
    return seen_by([torch.from_numpy(np.searchsorted(train, rows))], len(train)).to(torch.uint8)


def _facts(prepared: Prepared, rows: Array) -> Tensors:
    """Targets and ids of rows; the position stands for an id that is no integer."""
    ids = prepared.dataset.row[rows]
    numeric = np.issubdtype(ids.dtype, np.integer)
    return {
        "target": torch.from_numpy(np.ascontiguousarray(prepared.dataset.y[rows])),
        "row": torch.from_numpy(
            np.ascontiguousarray(ids.astype(np.int64) if numeric else rows.astype(np.int64))
        ),
    }
