"""SIGINT and SIGTERM as a wish that is granted between two events, and at once when repeated."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class Interrupts:
    """Which signal has asked for the end."""

    signal: int = 0
    """0 while nothing has been asked."""


@contextmanager
def catch_interrupts() -> Iterator[Interrupts]:
    """Note the first SIGINT or SIGTERM; the second one has its usual effect.

    Outside the main thread, where Python delivers no signals, nothing is caught. Handlers that others
    install meanwhile (Ray's SIGTERM, Tune's SIGUSR1) are gone afterwards.
    """
    caught = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}

    def note(number: int, _frame: FrameType | None) -> None:
        caught.signal = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
