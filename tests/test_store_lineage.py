"""What stands beside a trial's final metrics is what it trained with in the end, also where that changed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from search_runs import SPACE, train
from test_search_pbt import population

from ensemble_svc.cli.roster import members_table
from ensemble_svc.exhibits.trials import trials_of
from ensemble_svc.report.figures import searched
from ensemble_svc.report.html import render
from ensemble_svc.report.rows import differing, member_table
from ensemble_svc.report.text import value
from ensemble_svc.report.view import view_of
from ensemble_svc.store.lineage import changed_words, settings_of
from ensemble_svc.store.reached import Reached
from ensemble_svc.store.run import Run

values = st.dictionaries(st.sampled_from("abc"), st.integers())


@given(values, st.lists(values))
def test_the_last_turn_decides_and_what_it_does_not_name_stays(began: dict, turns: list) -> None:
    entry = {"hyperparameters": began, "lineage": [{"epoch": 1, "from": "x", "values": v} for v in turns]}
    found = settings_of(entry)
    assert found == {**began, **(turns[-1] if turns else {})}
    assert bool(changed_words([entry])) == bool(turns)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A population whose members took over from each other."""
    return train(population(), tmp_path_factory.mktemp("run") / "pbt")


def ends(run: Run) -> dict[str, dict[str, float]]:
    """By id, what each member trained with last, as its history has it."""
    return {m["id"]: run.history(m["id"])[list(SPACE)].iloc[-1].to_dict() for m in run.manifest()["members"]}


def test_every_page_has_the_values_of_the_last_epoch(run: Run) -> None:
    members, last = run.manifest()["members"], ends(run)
    assert any(m["hyperparameters"] != last[m["id"]] for m in members)
    for trial in trials_of(list(SPACE), "nll", members):
        assert trial.values == pytest.approx(last[trial.members[0]])
    table = member_table(members, ())
    for row in table.rows:
        assert row.varied == tuple(value(last[row.id][path]) for path in differing(members))
    reached = Reached(run.path)
    reached.update()
    assert all(dict(m.values) == pytest.approx(last[m.spec.id]) for m in reached.ordered())


def test_the_page_and_the_table_say_that_they_changed(run: Run) -> None:
    members = run.manifest()["members"]
    words = changed_words(members)
    page = render(view_of(run))
    assert words in page
    assert "Took over from" in page
    turned = next(m for m in members if m.get("lineage"))
    assert f"{turned['lineage'][-1]['from']} after epoch {turned['lineage'][-1]['epoch']}" in page
    console = Console(width=200, record=True)
    console.print(members_table(run.manifest()))
    assert words in " ".join(console.export_text().split())
    for key, figure in zip(SPACE, searched.draw(view_of(run)), strict=True):
        told = {row[0]: row[1] for row in figure.numbers.rows}
        assert told == {name: f"{own[key]:.4g}" for name, own in ends(run).items()}


def test_a_run_without_turns_says_nothing_of_them(tmp_path: Path) -> None:
    still = train(population(scheduler={"name": "none"}, trials=2), tmp_path / "run")
    assert changed_words(still.manifest()["members"]) == ""
    page = render(view_of(still))
    assert "Took over from" not in page
    assert "Settings changed while training" not in page
