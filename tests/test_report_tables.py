"""Tables fit a terminal of 100 columns, and a name in them is never markup."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_views import make_view
from rich.console import Console
from rich.table import Table

from ensemble_svc.cli.roster import members_table, status_table
from ensemble_svc.cli.tables import choices_table, metrics_table, plan_table
from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import Pack, Plan, Slot
from ensemble_svc.report.rows import member_table
from ensemble_svc.spec.catalogue import choices
from ensemble_svc.spec.job import JobSpec


def shown(table: Table, width: int = 100) -> str:
    """What a plain terminal shows."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("members", [1, 2, 16])
def test_metrics_fit_with_every_digit(task: Any, members: int) -> None:
    view = make_view(task, members=members, names=("a",) if task == "regression" else ("a", "b"))
    text = shown(metrics_table(view.metrics))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert ("Gain over mean" in text) == (members > 1)
    assert text.index("test, 240 rows") < text.index("validation, 120 rows")


def test_members_are_cut_at_the_limit_with_the_lost_ones_kept() -> None:
    view = make_view(members=30, lost=2)
    text = shown(members_table(view.manifest, limit=5))
    assert "25 more members" in text
    for member in view.members[-2:]:
        assert f"{member['id']} {member['status']}: the loss of step 12" in text
    assert "…" not in text


def test_good_trials_are_told_apart_however_far_bad_ones_scatter() -> None:
    losses = [0.031, 0.034, 0.038, 0.052, 1.9, 2.3]
    members = [
        {"id": f"m{k}", "status": "done", "metrics": {"test": {"nll": loss}}} for k, loss in enumerate(losses)
    ]
    cells = [row.metrics[0] for row in member_table(members, [("test", "nll")]).rows]
    assert len(set(cells)) == len(losses)
    assert [float(cell) for cell in cells] == pytest.approx(losses, abs=0.0051)


def test_a_time_that_all_share_is_said_once() -> None:
    members = [
        {
            "id": f"m{k}",
            "status": "done",
            "seconds": 2.5,
            "hyperparameters": {"training.optimizer.lr": 0.00174861 * k},
        }
        for k in range(1, 4)
    ]
    words = shown(members_table({"members": members}))
    assert words.count("2.5 s") == 1
    assert "0.00175" in words
    assert "0.001748" not in words
    members[0]["seconds"] = 9.0
    assert shown(members_table({"members": members})).count("2.5 s") == 2


@given(
    word=st.text(st.characters(exclude_categories=()), min_size=1, max_size=20)
    | st.sampled_from(["[red]x[/]", "[/]", "\x1b[2J"])
)
@settings(max_examples=25)
def test_no_name_is_markup_or_moves_the_cursor(word: str) -> None:
    view = make_view(members=3, lost=1, rows=30, epochs=1, word=word)
    text = shown(members_table(view.manifest, limit=20), width=400)
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    if word in {"[red]x[/]", "[/]"}:
        assert word in text


def test_every_choice_and_option_is_listed() -> None:
    for kind, entries in choices().items():
        text = shown(choices_table(kind, entries))
        for entry in entries:
            assert entry["name"] in text
            assert all(option["name"] in text for option in entry["options"])
        assert max(map(len, text.splitlines())) <= 100


def test_a_plan_names_its_slots_and_reasons() -> None:
    job = JobSpec.model_validate(
        {"name": "x", "data": {"source": {"name": "digits"}}, "ensemble": {"members": 3}}
    )
    members = make_members(job, "data", "split")
    slots = [Slot(pack=Pack(members=members[:2]), cpus=2, gpus=0.0, reason="one structure [bold]"),
             Slot(pack=Pack(members=members[2:]), cpus=1, gpus=0.5, reason="the rest")]  # fmt: skip
    text = shown(plan_table(Plan(slots=tuple(slots))))
    assert all(slot.pack.id in text and slot.reason in text for slot in slots)
    assert "3 members in 2 slots" in text
    assert "0.5" in text
    assert "nothing to train" in shown(plan_table(Plan(slots=())))


def test_a_status_shows_what_each_member_reached() -> None:
    entry = {"index": 0, "pack": "p", "metrics": {}, "reason": ""}
    found = {
        "name": "run", "path": "/r", "state": "unfinished", "starts": 2, "epochs": 30, "retries": [{}],
        "members": [{**entry, "id": "0000-a", "status": "training", "epochs": 7},
                    {**entry, "id": "0001-b", "status": "failed", "epochs": 0, "reason": "killed by signal 9"}],
    }  # fmt: skip
    text = shown(status_table(found))
    assert "7 of 30" in text
    assert "failed: killed by signal 9" in text
    assert "0 of 2 members done" in text
    assert "started twice, slots retried once" in text


def test_the_tables_need_no_torch() -> None:
    code = "import sys, ensemble_svc.cli.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
