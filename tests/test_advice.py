"""What is said of a job before it trains: a search that leaves no ensemble, or keeps all of its trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_runs import job_of, train
from typer.testing import CliRunner

from ensemble_svc.cli.main import app
from ensemble_svc.errors import StoreError
from ensemble_svc.report.verdict import verdict
from ensemble_svc.spec.advice import advice, num_left
from ensemble_svc.spec.load import dump_job

HALVING = {"name": "halving", "factor": 3}
ALONE = {"trials": 16, "scheduler": HALVING}
LONG = {"training": {"epochs": 12}}


@given(
    trials=st.integers(1, 300), factor=st.integers(2, 5), epochs=st.integers(2, 40), first=st.integers(1, 5)
)
def test_halving_leaves_what_the_rungs_divide_it_down_to(
    trials: int, factor: int, epochs: int, first: int
) -> None:
    search = job_of(
        {"trials": trials, "scheduler": HALVING | {"factor": factor, "min_epochs": first}}, **LONG
    ).search
    assert search is not None
    left, rung = trials, first
    while rung < epochs:
        left, rung = max(1, left // factor), rung * factor
    assert num_left(search, epochs) == left


@pytest.mark.parametrize(
    "search",
    [
        {"trials": 8, "scheduler": HALVING | {"factor": 2}},
        {"trials": 11, "scheduler": {"name": "hyperband", "factor": 2}},
        {"trials": 8, "algorithm": {"name": "optuna", "batch": 3, "startup": 2}, "scheduler": HALVING},
    ],
)
def test_as_many_trials_are_left_as_train_to_the_end(search: dict[str, Any], tmp_path: Path) -> None:
    job = job_of(search, training={"epochs": 4})
    assert job.search is not None
    members = train(job, tmp_path / "run").manifest()["members"]
    assert sum(member["epochs"] == 4 for member in members) == num_left(job.search, 4)


def test_a_search_that_leaves_one_trial_is_warned_of_before_it_trains(tmp_path: Path) -> None:
    (words,) = advice(job_of(ALONE, **LONG))
    assert "halving leaves 1 of 16 trials" in words
    for remedy in ("search.candidates: all", "search.refit", "more trials", "smaller factor"):
        assert remedy in words
    path = tmp_path / "job.yaml"
    path.write_text(dump_job(job_of(ALONE, **LONG)))
    for verb in ("validate", "plan"):
        found = CliRunner().invoke(app, [verb, str(path), "--set", "compute.executor=local"])
        assert words in " ".join(found.output.split()), verb
    assert found.exit_code == 0
    for more in ({"candidates": "all"}, {"refit": {}}, {"seeds_per_trial": 2, "trials": 8}, {"trials": 54}):
        assert not advice(job_of(ALONE | more, **LONG)), more
    assert not advice(job_of(ALONE | {"scheduler": HALVING | {"min_epochs": 6}}, **LONG))


def test_a_search_whose_ensemble_has_every_trial_is_warned_of() -> None:
    every = {"aggregate": {"select": "all"}}
    for search in ({"trials": 9}, {"trials": 9, "scheduler": "hyperband"}, ALONE | {"candidates": "all"}):
        (words,) = advice(job_of(search, **LONG, **every))
        assert words.startswith("aggregate.select: all")
        assert "greedy" in words
        assert not advice(job_of(search, **LONG))
    (words,) = advice(job_of(ALONE, **LONG, **every))
    assert "leaves 1 of 16" in words
    assert not advice(job_of(ALONE | {"trials": 54}, **LONG, **every))


def test_the_answer_of_a_search_that_ends_with_one_member_says_how_it_gets_more(tmp_path: Path) -> None:
    job = job_of({"trials": 4, "scheduler": HALVING}, training={"epochs": 4})
    run = train(job, tmp_path / "run")
    assert run.manifest()["warnings"] == list(advice(job))
    words = verdict(run.metrics(), run.manifest())
    assert words.startswith("One member is no ensemble")
    assert "search.candidates=all" in words
    more = CliRunner().invoke(
        app, ["reselect", str(run.path), "--set", "search.candidates=all", "--select", "all"]
    )
    assert "One member is no ensemble" not in more.output
    one = CliRunner().invoke(app, ["reselect", str(run.path), "--select", "{name: top_k, k: 1}"])
    assert "search.candidates=all" in " ".join(one.output.split())


def test_status_of_a_folder_of_runs_names_the_option_that_shows_them(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "journal.jsonl").touch()
    found = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert isinstance(found.exception, StoreError)
    assert "2 runs" in str(found.exception)
    assert "--watch" in str(found.exception)
