"""How long a plan will take: the seconds of its slots, laid out over the machines."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from ensemble_svc.plan.candidates import slot_seconds
from ensemble_svc.plan.cost import Work
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.measurement import Timing
from ensemble_svc.plan.plan import Forecast, Pack, Plan, Slot
from ensemble_svc.plan.rooms import Room


def slot_of(
    pack: Pack, room: Room, reason: str, work: Work, timing: Timing | None, *, measured: bool
) -> Slot:
    """The pack's slot with what it takes, as far as that is known."""
    slot = Slot(pack=pack, cpus=room.cpus, gpus=room.gpus, reason=reason)
    if timing is None:
        return slot
    seconds = slot_seconds(work, timing)
    expected = Forecast(
        seconds=seconds,
        device_hours=seconds * (slot.gpus or slot.cpus) / 3600,
        peak_memory_bytes=timing.fixed_bytes + timing.members * timing.member_bytes,
        by="measured" if measured else "formula",
        at_most=work.stops_early,
    )
    return slot.model_copy(update={"forecast": expected, "compile": timing.compiled})


def forecast(slots: Sequence[Slot], resources: Resources) -> Forecast | None:
    """What all slots together take on the machines, started in order as there is room.

    None where some slot's own forecast is unknown, or where there is nothing to do.
    """
    known = [slot.forecast for slot in slots if slot.forecast is not None]
    if not known or len(known) < len(slots):
        return None
    return Forecast(
        seconds=resources.start_s + end_of(slots, [each.seconds for each in known], resources),
        device_hours=sum(each.device_hours for each in known),
        peak_memory_bytes=max(each.peak_memory_bytes for each in known),
        by="measured" if all(each.by == "measured" for each in known) else "formula",
        at_most=any(each.at_most for each in known),
    )


def in_turn(forecasts: Sequence[Forecast]) -> Forecast | None:
    """What several plans take that train one after another; None of none."""
    if not forecasts:
        return None
    return Forecast(
        seconds=sum(each.seconds for each in forecasts),
        device_hours=sum(each.device_hours for each in forecasts),
        peak_memory_bytes=max(each.peak_memory_bytes for each in forecasts),
        by="measured" if all(each.by == "measured" for each in forecasts) else "formula",
        at_most=any(each.at_most for each in forecasts),
    )


def with_forecast(plan: Plan, resources: Resources) -> Plan:
    """The same slots with the forecast of all of them."""
    return plan.model_copy(update={"forecast": forecast(plan.slots, resources)})


def end_of(slots: Sequence[Slot], seconds: Sequence[float], resources: Resources) -> float:
    """When the last slot has ended; each starts on the first machine that has room, in order."""
    free = [[float(node.cpus), node.gpus] for node in resources.machines]
    running: list[tuple[float, int, int]] = []
    now = 0.0
    for position, (slot, spent) in enumerate(zip(slots, seconds, strict=True)):
        most = resources.at_once or len(slots)
        while running and ((at := _room(slot, free)) is None or len(running) >= most):
            now, ended, node = heapq.heappop(running)
            _take(free[node], slots[ended], +1)
        at = _room(slot, free) or 0
        _take(free[at], slot, -1)
        heapq.heappush(running, (now + spent, position, at))
    return max((end for end, _, _ in running), default=0.0)


def _room(slot: Slot, free: Sequence[Sequence[float]]) -> int | None:
    fitting = (i for i, (cpus, gpus) in enumerate(free) if slot.cpus <= cpus and slot.gpus <= gpus + 1e-9)
    return next(fitting, None)


def _take(free: list[float], slot: Slot, sign: int) -> None:
    free[0] += sign * slot.cpus
    free[1] += sign * slot.gpus
