"""Members whose training goes on in another pack: their slices of the packs that were committed at a rung."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.store.commits import read_commit
from ensemble_svc.store.journal import Event, Journal
from ensemble_svc.store.tensors import Tensors
from ensemble_svc.train.halve import take_part

State = tuple[Tensors, dict[str, Any]]
"""As ``Ledger.state`` and the module's own tensors are committed: tensors, and plain facts."""


def gathered(run: Path, members: Sequence[MemberSpec], epoch: int) -> State | None:
    """The committed state of these members at the end of ``epoch``, from the packs that they were in.

    None where the slice of one of them is missing or damaged; the pack then trains from its start.
    """
    wanted = [member.digest for member in members]
    sources = _sources(run, wanted, epoch)
    if len(sources) < len(wanted):
        return None
    parts, order = list[State](), list[str]()
    for event in {event["file"]: event for event in sources.values()}.values():
        own = [digest for digest in wanted if sources[digest] is event]
        try:
            tensors, facts = read_commit(run, event)
        except CorruptArtifact:
            return None
        parts.append(take_part(tensors, facts, event["members"], own))
        order += own
    if any(entry["status"] != "training" for _, facts in parts for entry in facts["entries"]):
        return None
    return _joined(parts, [order.index(digest) for digest in wanted])


def _sources(run: Path, digests: Sequence[str], epoch: int) -> dict[str, Event]:
    """The last commit of that epoch that holds each member."""
    found, wanted = dict[str, Event](), set(digests)
    for event in Journal(run / "journal.jsonl").of_kind("commit"):
        if event["epoch"] == epoch:
            found |= dict.fromkeys(wanted.intersection(event["members"]), event)
    return found


def _joined(parts: Sequence[State], order: Sequence[int]) -> State:
    """States of members that all still train as one, in this order.

    A running value of the optimiser that some pack had no use for is 0 for its members.
    """
    names = dict.fromkeys(name for tensors, _ in parts for name in tensors)
    index = torch.tensor(order)
    whole = {name: torch.cat(_rows(name, parts)).index_select(0, index) for name in names}
    entries = [entry for _, facts in parts for entry in facts["entries"]]
    changed = {"entries": [entries[k] for k in order], "standing": list(range(len(order)))}
    return whole, {**parts[0][1], **changed}


def _rows(name: str, parts: Sequence[State]) -> list[Tensor]:
    like = next(tensors[name] for tensors, _ in parts if name in tensors)
    return [_or_zeros(tensors, name, like, len(facts["entries"])) for tensors, facts in parts]


def _or_zeros(tensors: Mapping[str, Tensor], name: str, like: Tensor, rows: int) -> Tensor:
    return tensors[name] if name in tensors else like.new_zeros(rows, *like.shape[1:])
