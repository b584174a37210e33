"""How long attempts at packs have held their devices, by what the journal says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ensemble_svc.plan.plan import Slot
from ensemble_svc.store.journal import Journal


@dataclass
class Span:
    """An attempt at a pack, from its start to the last that it told; of one that was killed the rest is unknown."""

    members: tuple[str, ...]
    began: float
    """Seconds since 1970."""
    seconds: float = 0.0
    devices: float | None = None
    """GPUs, or cores where it has none; None where an earlier version did not note them."""


def spans_in(journal: Journal) -> list[Span]:
    """All attempts, in the order of their starts.

    A slot whose sick members start anew goes on at once, so that its attempts leave no gap.
    """
    found, open_ = list[Span](), dict[str, Span]()
    for event in journal.of_kind("begin", "start", "commit", "paused", "sealed", "retry", "failed"):
        if event["event"] == "begin":
            open_.clear()
            continue
        known = open_.get(event["pack"])
        is_start = event["event"] == "start"
        if known and (not is_start or "restarts" in event):
            known.seconds = event["time"] - known.began
        if is_start:
            span = Span(tuple(event["members"]), event["time"], devices=event.get("devices"))
            open_[event["pack"]] = span
            found.append(span)
    return found


def seconds_by_pack(spans: Sequence[Span], slots: Sequence[Slot]) -> dict[str, float]:
    """Seconds of each slot's pack, which add up to those of all attempts at their members.

    Where members went on in other packs, as the halves of a pack or the survivors of a rung do, each counts its
    share of the attempt for the pack that it is in here.
    """
    pack_of = {member.id: slot.pack.id for slot in slots for member in slot.pack.members}
    found = {slot.pack.id: 0.0 for slot in slots}
    for span in spans:
        for member in span.members:
            if member in pack_of:
                found[pack_of[member]] += span.seconds / len(span.members)
    return found


def device_seconds(spans: Sequence[Span], slots: Sequence[Slot]) -> float:
    """What the attempts at the slots' members held, in seconds of one GPU, or of one core where there are none."""
    devices = {member.id: slot.gpus or slot.cpus for slot in slots for member in slot.pack.members}
    held = ((span, devices[member]) for span in spans for member in span.members[:1] if member in devices)
    return sum(span.seconds * (planned if span.devices is None else span.devices) for span, planned in held)


def wall_seconds(spans: Sequence[Span]) -> float:
    """Seconds in which some attempt was under way; those beside each other count once."""
    total, until = 0.0, 0.0
    for span in sorted(spans, key=lambda span: span.began):
        end = span.began + span.seconds
        total += max(0.0, end - max(span.began, until))
        until = max(until, end)
    return total
