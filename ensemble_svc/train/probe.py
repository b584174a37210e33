"""Times a few real steps on the real model and data, and throws everything away.

Nothing here changes a member: modules are built anew, torch's random state and its number of threads
are put back. Shapes: K members, S steps of a block, B rows.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from statistics import median

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ensemble_svc.data.dataset import Array
from ensemble_svc.plan.measurement import Timing
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.train.build import build_feed, build_module, training_rows
from ensemble_svc.train.feed import BLOCK_STEPS
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.memory import held_bytes, peak_bytes, reset_peak
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.plugins import bare_trainer
from ensemble_svc.train.start import Probe
from ensemble_svc.train.stream import StreamBatch

WARM_STEPS = 3
LEAST_STEPS = 5
LONGEST_S = 0.6
"""Seconds of one timing, unless its fewest steps take longer."""
BLOCK_S = 0.05
"""Blocks of steps are cut to about this length, for the loop's cost to be spread as in training."""
MOST_STEPS = 64
"""Steps of the rows that are kept for a probe; more rows would only have to be prepared."""
VALIDATION_ROWS = 2048
COMPILED_SHAPES = 2
"""A step is compiled for a full batch and for the smaller last one."""
GROWTH = 1.1
"""A time per member that exceeds the best by this factor has grown; less may be noise."""
LEAP = 2.0
"""And by this factor it has grown beyond doubt."""
UNFIT = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, AssertionError)
"""What a network that cannot be stacked may raise under vmap."""


def sweep(payload: Payload, probe: Probe) -> tuple[Timing, ...]:
    """Timings of packs of each size on each number of threads, the first sizes first.

    Larger packs are left out on threads where the time per member grows, and all that is left when the
    budget is spent; the first timing is made whatever it takes. Packs that cannot be stacked end it.
    """
    device = torch.device(probe.device)
    end, found = time.monotonic() + probe.budget_s, list[Timing]()
    few, left = _Rows.of(payload, probe.members), list(probe.threads)
    longest = min(LONGEST_S, probe.budget_s / 4)
    with _undone(), suppress(*UNFIT):
        _warm_up(few, device)
        for size in probe.sizes:
            if not left:
                break
            module, fixed = few.build(size, device, compiled=probe.compiled)
            for count in list(left):
                if found and time.monotonic() > end:
                    return tuple(found)
                found.append(_time(module, few, count, fixed, seconds=longest, compiled=probe.compiled))
                if _hopeless(found):
                    left.remove(count)
    return tuple(found)


def gpu_bytes() -> int | None:
    """Memory of this process's GPU."""
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(0).total_memory)


def _hopeless(found: Sequence[Timing]) -> bool:
    """Whether larger packs on the last timing's threads are not worth timing.

    They are not when the time per member grew twice in a row, or far at once; or when fewer threads are
    far faster.
    """
    last = found[-1]
    each = [t.step_s / t.members for t in found if t.threads == last.threads]
    fewer = [t.step_s for t in found if t.threads < last.threads and t.members == last.members]
    grew = len(each) > 2 and min(each[-2:]) > GROWTH * min(each[:-2])
    leapt = each[-1] > LEAP * min(each)
    return grew or leapt or bool(fewer and last.step_s > LEAP * min(fewer))


def _warm_up(few: _Rows, device: torch.device) -> None:
    """A few steps whose time and memory do not count: kernels load, allocators grow."""
    module, _ = few.build(1, device)
    _time(module, few, 1, 0, seconds=0.0)


@dataclass(frozen=True)
class _Rows:
    """The first rows of each member's bag, enough for a probe, as data of their own."""

    payload: Payload
    members: tuple[MemberSpec, ...]
    rows: tuple[Array, ...]
    validation: Array

    @classmethod
    def of(cls, payload: Payload, members: Sequence[MemberSpec]) -> _Rows:
        full = training_rows(payload, members)
        smallest = min(map(len, full))
        batch = members[0].training.rows_per_step(smallest)
        num = min(smallest, max(1, min(MOST_STEPS, smallest // batch)) * batch)
        draw = np.random.default_rng(0).permutation(smallest)[:num]
        some = [np.sort(rows[draw]) for rows in full]
        held = payload.split.validation[:VALIDATION_ROWS]
        kept = np.unique(np.concatenate([*some, held]))
        data = payload.dataset
        lesson = data.lesson and data.lesson.take(kept)
        cut = replace(
            data, x=data.x[kept], y=data.y[kept], row=data.row[kept], splits={}, columns={}, lesson=lesson
        )
        rows = tuple(np.searchsorted(kept, rows) for rows in some)
        split = replace(payload.split, train=np.unique(np.concatenate(rows)))
        few = replace(payload, dataset=cut, split=split)
        return cls(few, tuple(members), rows, np.searchsorted(kept, held))

    def build(self, size: int, device: torch.device, *, compiled: bool = False) -> tuple[SlotModule, int]:
        """The module of the first ``size`` members, and the memory that was held before it was built."""
        reset_peak(device)
        fixed = held_bytes(device) or 0
        module = build_module(self.payload, self.members[:size], self.rows[:size], device, compiled=compiled)
        module.keep_books(Ledger(module.recipe, module.weights))
        return module, fixed


def _time(
    module: SlotModule, few: _Rows, threads: int, fixed: int, *, seconds: float, compiled: bool = False
) -> Timing:
    torch.set_num_threads(threads)
    members, device = len(module.recipe.members), module.recipe.device
    step_s, first_s = _time_steps(module, _ShortFeed(few, module), seconds)
    in_steps = peak_bytes(device) or 0
    epoch_s = _time_validation(module, few)
    return Timing(
        members=members,
        threads=threads,
        at_once=1,
        step_s=step_s,
        epoch_s=epoch_s,
        member_bytes=max(0, in_steps - fixed) // members,
        fixed_bytes=fixed + (peak_bytes(device) or 0) - in_steps,
        device="cuda" if device.type == "cuda" else "cpu",
        compiled=compiled,
        compile_s=COMPILED_SHAPES * first_s if compiled else 0.0,
    )


def _time_steps(module: SlotModule, feed: _ShortFeed, seconds: float) -> tuple[float, float]:
    """Median and first wall seconds of an optimiser step as training takes it, through Lightning's own loop."""
    watch = _StopWatch(feed, seconds, module.recipe.device)
    trainer = bare_trainer(module.recipe.device, 1, watch, devices=1)
    trainer.fit(module, train_dataloaders=feed)
    module.take_losses()
    return median(watch.step_s), watch.first_s


def _time_validation(module: SlotModule, few: _Rows) -> float:
    """Wall seconds of the validation rows' forward pass, all of them, from some."""
    if not len(few.validation):
        return 0.0
    rows_N = torch.from_numpy(few.validation).to(module.recipe.device)
    spent = list[float]()
    for _ in range(3):
        began = time.perf_counter()
        module.predict_rows(module.ledger.served(module.weights), rows_N)
        _settle(module.recipe.device)
        spent.append(time.perf_counter() - began)
    return median(spent) * len(few.payload.split.validation) / len(few.validation)


@dataclass
class _ShortFeed:
    """Blocks of steps without an end, short ones first; of a stream, its batches."""

    few: _Rows
    module: SlotModule
    ended: bool = False
    block_steps: int = 1

    def __iter__(self) -> Iterator[Tensor | StreamBatch]:
        size = len(self.module.recipe.members)
        feed = build_feed(self.few.payload, self.module, self.few.rows[:size])
        while True:
            for piece in feed:
                for block in piece.split(self.block_steps) if isinstance(piece, Tensor) else (piece,):
                    if self.ended:
                        return
                    yield block
            feed.set_epoch(feed.epoch + 1)


@dataclass
class _StopWatch(L.Callback):
    """Notes the seconds per step of each block, the first ones left out, and ends the feed in time."""

    feed: _ShortFeed
    seconds: float
    device: torch.device
    step_s: list[float] = field(default_factory=list)
    first_s: float = 0.0
    _steps: int = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        _settle(self.device)
        now = time.perf_counter()
        num = len(batch) if isinstance(batch, Tensor) else 1
        self._steps += num
        step_s = (now - self._last) / num
        self.first_s = self.first_s or step_s
        if self._steps > WARM_STEPS:
            self.step_s.append(step_s)
            self.feed.block_steps = max(1, min(BLOCK_STEPS, int(BLOCK_S / step_s)))
        else:
            self._began = now
        enough = len(self.step_s) >= LEAST_STEPS
        self.feed.ended = enough and now - self._began > self.seconds
        self._last = time.perf_counter()


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _undone() -> Iterator[None]:
    """Put back torch's random state, its number of threads and Lightning's talk."""
    threads = torch.get_num_threads()
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        torch.set_num_threads(threads)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
