"""BOHB asks for brackets of hyperband one at a time, and learns from the rungs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_runs import DROP, MIXED, RATE, SPACE, STILL, Killed, job_of, killed_at, train, trials, weights
from test_search_rungs import decisions

from ensemble_svc.errors import SpecError
from ensemble_svc.search.brackets import ask_bracket, model_rung
from ensemble_svc.spec.askers import Bohb
from ensemble_svc.spec.draws import drawn
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.search import AGAIN
from ensemble_svc.spec.yaml import frozen

BOHB = {"space": SPACE, "algorithm": "bohb", "scheduler": {"name": "hyperband", "factor": 2}, "trials": 10}
SECTIONS: dict[str, Any] = {"training": {"epochs": 4}, "compute": {"commit_every_s": 0.0}}


def test_brackets_are_asked_one_at_a_time_and_a_killed_search_goes_on_to_the_same(tmp_path: Path) -> None:
    """Brackets of 4, 3 and 3 trials; law 3 in the second of them."""
    job = job_of(BOHB, **SECTIONS)
    whole = train(job, tmp_path / "whole")
    asked = [event["trials"] for event in whole.journal.of_kind("asked")]
    assert [len(some) for some in asked] == [4, 3, 3]
    assert trials(whole) == [frozen(values) for some in asked for values in some]
    assert trials(whole)[:4] == [drawn(job, trial) for trial in range(4)]
    epochs = [member["epochs"] for member in whole.manifest()["members"]]
    assert [sorted(epochs[a:b]) for a, b in ((0, 4), (4, 7), (7, 10))] == [[1, 1, 2, 4], [2, 2, 4], [4, 4, 4]]
    with pytest.raises(Killed):
        train(job, tmp_path / "run", killed_at(6))
    again = train(job, tmp_path / "run")
    assert trials(again) == trials(whole)
    assert weights(again) == weights(whole)


def test_trials_that_the_job_gives_are_ranked_with_the_rest_of_their_bracket(tmp_path: Path) -> None:
    first = [{RATE: 0.01, DROP: 0.1}]
    run = train(job_of({**BOHB, "first": first, "trials": 7}, **SECTIONS), tmp_path / "run")
    assert [len(event["trials"]) for event in run.journal.of_kind("asked")] == [3, 3]
    epochs = [member["epochs"] for member in run.manifest()["members"]]
    assert [sorted(epochs[a:b]) for a, b in ((0, 4), (4, 7))] == [[1, 1, 2, 4], [2, 2, 4]]


def test_what_is_trained_again_moves_no_later_trial_to_another_bracket(tmp_path: Path) -> None:
    search = {**BOHB, "refit": {"seeds": 1, "configurations": 1}, "candidates": "all"}
    train(job_of({**search, "trials": 4}, **SECTIONS), tmp_path / "run")
    run = train(job_of({**search, "trials": 7}, **SECTIONS), tmp_path / "run")
    assert [event["after"] for event in run.journal.of_kind("refit")] == [4, 7]
    assert [len(event["trials"]) for event in run.journal.of_kind("asked")] == [4, 3]
    members = [member for member in run.manifest()["members"] if member["index"] < AGAIN]
    epochs = [member["epochs"] for member in members]
    assert [sorted(epochs[a:b]) for a, b in ((0, 4), (4, 7))] == [[1, 1, 2, 4], [2, 2, 4]]


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 4))
def test_the_model_is_of_the_last_rung_with_enough_results(reached: list[int], keys: int) -> None:
    rungs = (1, 3, 9)
    found = model_rung([dict.fromkeys(rungs[:count], 0.5) for count in reached], keys)
    enough = [rung for place, rung in enumerate(rungs) if sum(r > place for r in reached) >= keys + 3]
    assert found == (enough[-1] if enough else None)


def regret(fraction: float, seed: int) -> float:
    """How near a search of a bowl comes to its lowest point; losses at early rungs are blurred."""
    search = {**BOHB, "algorithm": {"name": "bohb", "random_fraction": fraction}, "trials": 60}
    job = job_of(search, training={"epochs": 9}).model_copy(update={"seed": seed})
    ladder = Ladder.of(job.search, 9)
    assert ladder is not None
    assert isinstance(job.search.algorithm, Bohb)
    tried: list[tuple[dict[str, Any], dict[int, float]]] = []
    while len(tried) < 60:
        asked = ask_bracket(job, job.search.algorithm, tried, ladder.bracket_end(len(tried)) - len(tried))
        some = [(v, (math.log10(v[RATE]) + 2) ** 2 + (3 * v[DROP] - 1) ** 2) for v in asked]
        tried += [(values, {1: loss + 0.5, 2: loss + 0.2, 4: loss}) for values, loss in some]
    return min(losses[4] for _, losses in tried)


def test_what_learns_comes_nearer_than_what_does_not() -> None:
    """Median over seeds, at equal trials."""
    learning, blind = (sorted(regret(fraction, seed) for seed in range(7)) for fraction in (1 / 3, 1.0))
    assert learning[3] < 0.7 * blind[3]


@pytest.mark.parametrize("algorithm", ["bohb", "random"])
def test_brackets_of_trials_that_differ_in_their_epochs_are_refused(algorithm: str) -> None:
    key = "training.epochs"
    with pytest.raises(SpecError) as caught:
        job_of({**BOHB, "algorithm": algorithm, "space": {**SPACE, key: {"randint": [2, 9]}}}, **SECTIONS)
    (fault,) = caught.value.faults
    assert fault.path == f"search.space.{key}"
    assert "'hyperband' lays its rungs by those of all" in fault.message


@pytest.mark.parametrize("scheduler", ["none", "halving"])
def test_other_schedulers_are_refused(scheduler: str) -> None:
    with pytest.raises(SpecError) as caught:
        job_of({**BOHB, "scheduler": scheduler}, **SECTIONS)
    (fault,) = caught.value.faults
    assert fault.path == "search.algorithm"
    assert f"proposes the brackets of hyperband, and search.scheduler is '{scheduler}'" in fault.message


@pytest.mark.parametrize("space", [STILL, MIXED], ids=["one structure", "two"])
def test_brackets_of_several_packs_are_asked_and_ranked_as_those_of_one(space: Any, tmp_path: Path) -> None:
    """The same trials stop, so the same are asked for; and law 3 between two rungs of the second bracket."""
    job = job_of({**BOHB, "space": space}, **SECTIONS)
    whole = train(job, tmp_path / "whole")
    compute = {**SECTIONS["compute"], "pack": 2}
    job = job_of({**BOHB, "space": space}, training=SECTIONS["training"], compute=compute)
    apart = train(job, tmp_path / "apart")
    assert trials(apart) == trials(whole)
    assert decisions(apart) == decisions(whole)
    with pytest.raises(Killed):
        train(job, tmp_path / "run", killed_at(9))
    again = train(job, tmp_path / "run")
    assert trials(again) == trials(apart)
    assert weights(again) == weights(apart)
