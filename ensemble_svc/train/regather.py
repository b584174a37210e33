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
from ensemble_svc.store.turns import Taken
from ensemble_svc.train.halve import take_part

State = tuple[Tensors, dict[str, Any]]
"""As ``Ledger.state`` and the module's own tensors are committed: tensors, and plain facts."""


NOBODY: Mapping[str, Taken] = {}


def gathered(
    run: Path, members: Sequence[MemberSpec], epoch: int, taken: Mapping[str, Taken] = NOBODY
) -> State | None:
    """The committed state of these members at the end of ``epoch``, from the packs that they were in.

    None where the slice of one of them is missing or damaged; the pack then trains from its start.

    Args:
        taken: the members, by digest, that go on from another's state, which may have been in any pack.
    """
    own = [member.digest for member in members]
    theirs = [taken[digest].source if digest in taken else digest for digest in own]
    wanted = list(dict.fromkeys((*own, *theirs)))
    found = _gathered(run, wanted, epoch)
    return found if found is None or wanted == theirs else _turned(found, wanted, own, theirs, taken)


def _turned(
    state: State, order: Sequence[str], own: Sequence[str], theirs: Sequence[str], taken: Mapping[str, Taken]
) -> State:
    """The state of members of which some have another's tensors, each with a page of its own.

    Args:
        order: digests of the rows of ``state``.
        theirs: whose tensors each of ``own`` has.
    """
    tensors, facts = state
    rows = {digest: row for row, digest in enumerate(order)}
    index = torch.tensor([rows[digest] for digest in theirs])
    entries = [
        _with_turn(facts["entries"][rows[one]], facts["entries"][rows[other]], taken.get(one))
        for one, other in zip(own, theirs, strict=True)
    ]
    moved = {name: value.index_select(0, index) for name, value in tensors.items()}
    return moved, {**facts, "entries": entries, "standing": list(range(len(own)))}


def _with_turn(own: dict[str, Any], other: Mapping[str, Any], turn: Taken | None) -> dict[str, Any]:
    """A member's entry, which keeps what the other does."""
    if turn is None:
        return own
    fact = {"epoch": turn.epoch, "from": turn.name, "values": dict(turn.values)}
    kept = {name: other[name] for name in ("best", "best_epoch")}
    return {**own, **kept, "turns": [*own["turns"], fact]}


def _gathered(run: Path, wanted: Sequence[str], epoch: int) -> State | None:
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
