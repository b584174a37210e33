"""The view of the members: what it counts, what fits on a screen, what may be printed."""

from __future__ import annotations

import io
import re

from cluster_slots import make_slot
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ensemble_svc.cli.live import MOST_ROWS, Board, MembersView, printable
from ensemble_svc.plan.plan import Plan, Slot
from ensemble_svc.plan.progress import MemberProgress, Progress

SLOTS = [make_slot(i, members=k) for i, k in ((0, 1), (1, 4), (2, 30))]


def told(slot: Slot, epoch: int, status: str, seconds: float) -> Progress:
    members = tuple(
        MemberProgress(m.id, status, epoch, 0.5 / (epoch + 1), "nll", 0.25) for m in slot.pack.members
    )
    return Progress(slot.pack.id, epoch, 10, members, seconds)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(SLOTS),
        st.integers(0, 10),
        st.sampled_from(["training", "stopped", "done", "diverged", "failed", "retry"]),
        st.floats(0, 1e6),
    ),
    max_size=15,
)


@settings(max_examples=50)
@given(EVENTS)
def test_every_member_is_counted_once_and_the_screen_holds_what_is_shown(
    events: list[tuple[Slot, int, str, float]],
) -> None:
    board = Board.of(SLOTS)
    for slot, epoch, status, seconds in events:
        if status in ("failed", "retry"):
            board.failure(slot, "why", status == "retry")
        else:
            board.progress(told(slot, epoch, status, seconds))
    assert sum(int(n) for n in re.findall(r"(\d+) \w+", board.counts())) == 35
    assert len(board.shown()) == MOST_ROWS
    assert all(row.left_s is None or row.left_s >= 0 for row in board.rows.values())
    busy = {row.member.id for row in board.rows.values() if row.status in ("training", "retrying")}
    assert len(busy & {row.member.id for row in board.shown()}) == min(len(busy), MOST_ROWS)


def test_the_time_left_follows_the_pace_of_this_attempt() -> None:
    board, slot = Board.of(SLOTS[:1]), SLOTS[0]
    board.progress(told(slot, 4, "training", 100.0))  # the first epoch after a resume holds the start
    board.progress(told(slot, 6, "training", 104.0))
    (row,) = board.rows.values()
    assert row.left_s == 8.0
    board.progress(told(slot, 1, "training", 1.0))
    assert next(iter(board.rows.values())).left_s is None


@settings(max_examples=50)
@given(st.text())
def test_nothing_that_moves_the_cursor_is_printed(reason: str) -> None:
    hostile = f"{reason}\x1b[2J\nforged [red]line\r"
    out = io.StringIO()
    with MembersView("digits", Console(file=out, width=80)) as view:
        view.planned(Plan(slots=tuple(SLOTS)), [hostile])
        view.failure(SLOTS[0], hostile, False)
    text = out.getvalue()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert not any(line.startswith("forged") for line in text.splitlines())
    assert printable(hostile) in text


def test_a_terminal_gets_a_table_and_a_file_gets_lines() -> None:
    def shown(terminal: bool) -> str:
        out = io.StringIO()
        with MembersView("digits", Console(file=out, width=80, force_terminal=terminal)) as view:
            view.planned(Plan(slots=tuple(SLOTS)), [])
            view.progress(SLOTS[1], told(SLOTS[1], 3, "training", 3.0))
        return out.getvalue()

    table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(True))
    assert all(
        name in table for name in ("train loss", "val nll", "3/10", "and 15 more", "digits: 4 training")
    )
    assert max(len(line) for line in table.splitlines()) <= 80
    lines = shown(False)
    assert "\x1b" not in lines
    assert "train loss" not in lines
    assert lines.splitlines()[-1].endswith("4 training, 31 pending")


def test_nothing_left_to_train_shows_nothing() -> None:
    out = io.StringIO()
    with MembersView("digits", Console(file=out, force_terminal=True)) as view:
        view.planned(Plan(slots=()), [])
    assert out.getvalue() == ""
