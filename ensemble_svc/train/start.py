"""The door of this room: what a driver hands to an executor without loading Lightning itself."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.plan import Slot
from ensemble_svc.train.payload import Payload


def fit(payload: Payload, slot: Slot, report: Report) -> None:
    """``train.fit.fit``, loaded where the slot runs: a driver whose slots run elsewhere saves seconds."""
    if slot.processes > 1:
        from ensemble_svc.train.distributed import fit_together as train_slot
    else:
        from ensemble_svc.train.fit import fit as train_slot
    train_slot(payload, slot, report)


def fit_own(payloads: Mapping[str, Payload], slot: Slot, report: Report) -> None:
    """``fit`` with the payload of the slot's own run.

    Args:
        payloads: by pack, of all runs that are trained together; what they share is shipped once.
    """
    fit(payloads[slot.pack.id], slot, report)
