"""The members while they train: a live table on a terminal, single lines anywhere else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ensemble_svc.cli.tables import forecast_words, trained_words
from ensemble_svc.cli.watching import facts
from ensemble_svc.pipeline import Listener
from ensemble_svc.plan.plan import Plan, Slot
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.report.text import count
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.reached import Reached

MOST_ROWS = 20
LINE_EVERY_S = 5.0
STYLES = {
    "training": "cyan",
    "retrying": "yellow",
    "failed": "red",
    "diverged": "red",
    "pending": "dim",
    "stopped": "green",
    "done": "green",
}
"""Every status, in the order in which members are shown when there are too many."""


@dataclass(frozen=True)
class Row:
    """What is known of one member."""

    member: MemberProgress
    status: str
    epochs: int = 0
    left_s: float | None = None
    """Seconds until its pack has done all of its epochs, or those up to its next rung, at the pace so far."""


@dataclass
class Board:
    """All members, kept up to date by events; holds no terminal and no clock."""

    rows: dict[str, Row]
    notes: list[str] = field(default_factory=list)
    until: dict[str, int] = field(default_factory=dict)
    """The epoch at which packs pause for a rung of a search."""
    _starts: dict[str, Progress] = field(default_factory=dict)

    @classmethod
    def of(cls, slots: Iterable[Slot]) -> Board:
        """Every member of the slots, not begun."""
        slots = list(slots)
        ids = [member.id for slot in slots for member in slot.pack.members]
        rows = {name: Row(MemberProgress(name, "pending", 0), "pending") for name in ids}
        return cls(rows, until={slot.pack.id: slot.until for slot in slots if slot.until is not None})

    def progress(self, progress: Progress) -> None:
        """A pack has ended an epoch."""
        if progress.note:
            self.notes.append(printable(progress.note))
        last = self.until.get(progress.pack, progress.epochs)
        left_s, ended = self._left(progress, last), progress.epoch >= last
        for member in progress.members:
            if member.id not in self.rows:
                continue
            busy = member.status == "training"
            status = ("done" if last >= progress.epochs else "pending") if busy and ended else member.status
            self.rows[member.id] = Row(member, status, progress.epochs, None if ended or not busy else left_s)

    def failure(self, slot: Slot, reason: str, will_retry: bool) -> None:
        """An attempt at a slot has failed."""
        status = "retrying" if will_retry else "failed"
        for member in slot.pack.members:
            if member.id in self.rows and self.rows[member.id].status not in ("done", "diverged"):
                self.rows[member.id] = replace(self.rows[member.id], status=status, left_s=None)
        ending = "starting it again" if will_retry else "giving it up"
        self.notes.append(printable(f"{slot.pack.id}: {reason}; {ending}"))

    def counts(self) -> str:
        """``3 training, 5 done``."""
        counts = Counter(row.status for row in self.rows.values())
        return ", ".join(f"{counts[status]} {status}" for status in STYLES if counts[status])

    def shown(self, most: int = MOST_ROWS) -> list[Row]:
        """The rows there is room for: all in the job's order, or the most telling first."""
        rows = list(self.rows.values())
        if len(rows) <= most:
            return rows
        return sorted(rows, key=lambda row: list(STYLES).index(row.status))[:most]

    def _left(self, now: Progress, last: int) -> float | None:
        start = self._starts.setdefault(now.pack, now)
        if now.seconds < start.seconds or now.epoch < start.epoch:
            start = self._starts[now.pack] = now
        epochs, seconds = now.epoch - start.epoch, now.seconds - start.seconds
        return (last - now.epoch) * seconds / epochs if epochs > 0 else None


@contextmanager
def follow(job: JobSpec, *, run: Path | None = None, quiet: bool = False) -> Iterator[Listener]:
    """Listeners for a pipeline that show its members on standard error until the block ends.

    Args:
        run: its folder, which says what the events of one slot do not: the best so far, what is left.
        quiet: show nothing, as for a script.
    """
    if quiet:
        yield Listener()
        return
    with MembersView(job.name, run=run) as view:
        yield Listener(
            measuring=view.measuring,
            found=view.found,
            planned=view.planned,
            progress=view.progress,
            failure=view.failure,
            noted=view.noted,
        )


class MembersView:
    """Shows a board from the plan to the end of the block; its methods are a pipeline's listeners.

    Args:
        name: of the job.
        console: where to; standard error when absent, so that standard output stays clean.
        run: the run folder, for the lines about the whole of it.
    """

    def __init__(self, name: str, console: Console | None = None, *, run: Path | None = None) -> None:
        self.name, self.board = name, Board({})
        self._reached = None if run is None else Reached(run)
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif kind is None and self.board.rows:
            self._line((self._facts() or [self.board.counts()])[0])

    def measuring(self, seconds: float) -> None:
        """A few steps are timed before the members are placed."""
        self._line(f"timing a few steps, for {seconds:.0f} s at most")

    def found(self, rate: float) -> None:
        """The learning rate that auto stands for."""
        self._line(f"training.optimizer.lr: auto is {rate:.4g}")

    def planned(self, plan: Plan, warnings: Sequence[str]) -> None:
        """What is left to train; a search that learns says so in each round."""
        for warning in warnings:
            self._console.print(Text(f"warning: {printable(warning)}", style="yellow"), soft_wrap=True)
        if self._live is not None:
            self._live.stop()
            self._live = None
        trains = plan.model_copy(update={"slots": tuple(slot for slot in plan.slots if _trains(slot))})
        self.board = Board.of(trains.slots)
        if self.board.rows and not self.board.until:
            self._line(forecast_words(plan.forecast) + (", for this round" if self._goes_in_rounds() else ""))
        if self.board.rows and self._console.is_terminal:
            self._live = Live(console=self._console, get_renderable=self._render, refresh_per_second=4)
            self._live.start()
        elif self.board.rows:
            rungs = set(self.board.until.values())
            up_to = f", up to the rung at epoch {min(rungs)}" if len(rungs) == 1 else ""
            self._line(f"{trained_words(trains)} to train in {count(len(trains.slots), 'slot')}{up_to}")

    def progress(self, slot: Slot, progress: Progress) -> None:
        """A pack has ended an epoch."""
        self.board.progress(progress)
        if self._live is None and progress.note:
            self._line(self.board.notes[-1])
        elif self._live is None and time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            tally, *rest = self._facts() or [self.board.counts()]
            self._line("; ".join([tally, _describe(progress), *rest]))

    def failure(self, slot: Slot, reason: str, will_retry: bool) -> None:
        """An attempt at a slot has failed."""
        self.board.failure(slot, reason, will_retry)
        if self._live is None:
            self._line(self.board.notes[-1])

    def noted(self, words: str) -> None:
        """Something that the run does without."""
        self._console.print(Text(f"warning: {printable(words)}", style="yellow"), soft_wrap=True)

    def _line(self, text: str) -> None:
        self._console.print(Text(f"[{_clock(time.monotonic() - self._began)}] {text}"), soft_wrap=True)

    def _goes_in_rounds(self) -> bool:
        """Whether the search asks for its trials in several rounds."""
        if self._reached is None:
            return False
        self._reached.update()
        return (
            self._reached.begun
            and (found := self._reached.spec().search) is not None
            and found.goes_in_rounds
        )

    def _facts(self) -> list[str]:
        """What the run folder says of the whole run; nothing where there is none to look into."""
        if self._reached is None:
            return []
        self._reached.update()
        return facts(self._reached) if self._reached.begun else []

    def _render(self) -> Group:
        shown = self.board.shown()
        parts: list[Table | Text] = [_table(shown)]
        more = len(self.board.rows) - len(shown)
        tally, *rest = self._facts() or [self.board.counts()]
        summary = f"{self.name}: {tally} · {_clock(time.monotonic() - self._began)}"
        parts.append(Text(f"and {more} more; {summary}" if more else summary, style="dim"))
        parts += [Text(words, style="dim") for words in rest]
        parts += [Text(note, style="yellow") for note in self.board.notes[-3:]]
        return Group(*parts)


def _trains(slot: Slot) -> bool:
    """Whether its members train on; others have stopped at a rung, and are sealed as they are."""
    return slot.until is None or slot.since < slot.until


def printable(text: str) -> str:
    """The text without characters that could move the cursor or forge a line."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _table(rows: Sequence[Row]) -> Table:
    metric = next((row.member.metric_name for row in rows if row.member.metric_name), "metric")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("member", "status"):
        table.add_column(name, no_wrap=True)
    for name in ("epoch", "train loss", f"val {metric}", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        member = row.member
        epoch = f"{member.epoch}/{row.epochs}" if row.epochs else "–"
        left = "–" if row.left_s is None else _clock(row.left_s)
        status = Text(row.status, style=STYLES[row.status])
        table.add_row(member.id, status, epoch, _number(member.train_loss), _number(member.metric), left)
    return table


def _describe(progress: Progress) -> str:
    """The pack's epoch and one number, the mean of its members' metric."""
    known = [member.metric for member in progress.members if member.metric is not None]
    name = progress.members[0].metric_name if progress.members else ""
    mean = f", mean validation {name} {_number(sum(known) / len(known))}" if known else ""
    return f"{progress.pack} epoch {progress.epoch}/{progress.epochs}{mean}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
