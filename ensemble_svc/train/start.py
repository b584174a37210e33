"""The door of this room: what a driver hands to an executor without loading Lightning itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.measurement import Device, Timing
from ensemble_svc.plan.plan import MemberSpec, Slot
from ensemble_svc.store.spending import has_begun, is_spent
from ensemble_svc.train.payload import Payload


def fit(payload: Payload, slot: Slot, report: Report) -> None:
    """``train.fit.fit``, loaded where the slot runs: a driver whose slots run elsewhere saves seconds."""
    if slot.processes > 1:
        from ensemble_svc.train.distributed import fit_together as train_slot
    else:
        from ensemble_svc.train.fit import fit as train_slot
    train_slot(payload, slot, report)


def fit_own(payloads: Mapping[str, Payload], slot: Slot, report: Report) -> None:
    """``fit`` with the payload of the slot's own run; nothing where its budget is used up before the slot began.

    Args:
        payloads: by pack, of all runs that are trained together; what they share is shipped once.
    """
    payload = payloads[slot.pack.id]
    if not is_spent(run := Path(payload.run)) or has_begun(run, slot):
        fit(payload, slot, report)


@dataclass(frozen=True)
class Probe:
    """A task that times packs of some members where it runs; the timings it returns are all alone."""

    members: tuple[MemberSpec, ...]
    """Of one structure; the largest pack has all of them."""
    sizes: tuple[int, ...]
    """Packs to time, in this order."""
    threads: tuple[int, ...]
    device: Device
    budget_s: float
    compiled: bool = False
    """Whether the steps are compiled first."""

    def __call__(self, payload: Payload) -> tuple[Timing, ...]:
        """The timings, ``train.probe`` loaded where they are made."""
        from ensemble_svc.train.probe import sweep

        return sweep(payload, self)


@dataclass(frozen=True)
class Load:
    """A task that loads what training needs and returns the bytes of its GPU, if it has one."""

    def __call__(self, payload: Payload) -> int | None:
        """After this the process trains without delay."""
        from ensemble_svc.train.probe import gpu_bytes

        return gpu_bytes()
