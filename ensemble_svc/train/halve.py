"""A pack too large for its device becomes two halves, which go on from where it stood.

The journal remembers it, so a later start of the slot goes to the halves at once; and each half is
a pack of its own, with commits of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ensemble_svc.plan.executor import DIED_OF_MEMORY
from ensemble_svc.plan.plan import Slot
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.tensors import Tensors

SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch's allocators write, on a GPU and on a CPU."""


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an exception of torch or numpy says that memory ran out."""
    if isinstance(fault, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(fault, RuntimeError) and any(sign in str(fault) for sign in SIGNS)


def was_halved(run: Path, slot: Slot) -> bool:
    """Whether the slot's pack was halved by an earlier attempt."""
    events = Journal(run / "journal.jsonl").of_kind("halved")
    return any(event["pack"] == slot.pack.id for event in events)


def num_deaths(run: Path, slot: Slot) -> int:
    """Attempts at the slot that were killed for lack of memory, which no exception could tell."""
    events = [e for e in Journal(run / "journal.jsonl").of_kind("retry") if e["pack"] == slot.pack.id]
    return sum(event["reason"].startswith(DIED_OF_MEMORY) for event in events)


def take_part(
    tensors: Tensors, facts: Mapping[str, Any], whole: Sequence[str], part: Sequence[str]
) -> tuple[Tensors, dict[str, Any]]:
    """The committed state of a pack as that of some of its members, as ``Ledger.state`` lays it out.

    Tensors of ``kept`` have a row for each member of the pack, the others one for each that still
    stood in its stack. Where none of the part did, its first member stands in, and trains no more.

    Args:
        whole: digests of the pack's members; those of ``part`` are among them.
    """
    where = {digest: position for position, digest in enumerate(whole)}
    positions = [where[digest] for digest in part]
    rows = {k: row for row, k in enumerate(facts["standing"])}
    standing = [k for k in positions if k in rows]
    kept, stack = torch.tensor(positions), torch.tensor([rows[k] for k in standing] or [0])
    mine = {n: t.index_select(0, kept if n.startswith("kept") else stack) for n, t in tensors.items()}
    entries = [facts["entries"][k] for k in positions]
    return mine, {**facts, "entries": entries, "standing": [positions.index(k) for k in standing] or [0]}
