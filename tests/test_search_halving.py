"""Packed successive halving decides as a search would whose trials each trained alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_runs import HIDDEN, RATE, SPACE, Killed, job_of, killed_at, train, weights

from ensemble_svc.errors import SpecError
from ensemble_svc.plan.executor import Node, Resources
from ensemble_svc.planning import make_plan, prepare
from ensemble_svc.spec.ladder import ranked_out
from ensemble_svc.spec.schedulers import Halving
from ensemble_svc.store.run import Run

HALVED = {"trials": 12, "scheduler": {"name": "halving", "factor": 2, "min_epochs": 1}}
DECISIVE = {"training": {"epochs": 6, "batch_size": 128}, "compute": {"commit_every_s": 0.0}}


@given(st.dictionaries(st.integers(0, 99), st.floats(), min_size=1), st.integers(2, 5))
def test_the_best_go_on_and_one_at_least(losses: Mapping[int, float], factor: int) -> None:
    out = ranked_out(losses, factor)
    kept = losses.keys() - out.keys()
    assert len(kept) == max(1, len(losses) // factor)
    assert sorted(out.values()) == list(range(len(kept) + 1, len(losses) + 1))
    worst = max(math.inf if math.isnan(losses[t]) else losses[t] for t in kept)
    assert all(math.isnan(losses[trial]) or losses[trial] >= worst for trial in out)


@given(st.integers(1, 9), st.integers(2, 5), st.integers(1, 300))
def test_rungs_are_powers_before_the_last_epoch(first: int, factor: int, epochs: int) -> None:
    halving = Halving(factor=factor, min_epochs=first)
    assert list(halving.brackets(epochs)[0]) == [
        rung for k in range(10) if (rung := first * factor**k) < epochs
    ]


def history(run: Run, member: Mapping[str, Any]) -> pd.DataFrame:
    return pd.read_parquet(run.path / "members" / member["id"] / "history.parquet").set_index("epoch")


def reference(run: Run, metric: str, *, factor: int, seeds: int) -> list[int]:
    """Epochs of each member if the trials of a run without halving had been halved."""
    members = run.manifest()["members"]
    curves = [history(run, member)[f"val_{metric}"] for member in members]
    sign, last = (-1 if metric == "accuracy" else 1), len(curves[0])
    epochs = dict.fromkeys(range(len(members) // seeds), last)
    for rung in (factor**k for k in range(10) if factor**k < last):
        standing = [trial for trial in epochs if epochs[trial] == last]
        means = {t: sign * sum(curves[t * seeds + s][rung] for s in range(seeds)) / seeds for t in standing}
        for trial in sorted(standing, key=lambda t: means[t])[max(1, len(standing) // factor) :]:
            epochs[trial] = rung
    return [epochs[k // seeds] for k in range(len(members))]


@pytest.mark.parametrize("factor, metric, seeds", [(2, "nll", 1), (3, "nll", 1), (2, "nll", 2)])
def test_a_pack_stops_the_trials_that_would_be_stopped_apart(
    tmp_path: Path, factor: int, metric: str, seeds: int
) -> None:
    """The task draws nothing inside a step, so packed and alone differ by round-off."""
    space = {RATE: SPACE[RATE], "training.optimizer.weight_decay": {"loguniform": [1e-4, 1.0]}}
    search = {"space": space, "metric": metric, "trials": 12 // seeds, "seeds_per_trial": seeds}
    alone = train(job_of(search, training={"epochs": 6}, compute={"pack": "off"}), tmp_path / "alone")
    halving = {"name": "halving", "factor": factor}
    run = train(job_of({**search, "scheduler": halving}, training={"epochs": 6}), tmp_path / "packed")
    members = run.manifest()["members"]
    assert [m["epochs"] for m in members] == reference(alone, metric, factor=factor, seeds=seeds)
    assert {m["status"] for m in members} == {"done"}
    for member, other in zip(members, alone.manifest()["members"], strict=True):
        own = history(run, member)["val_nll"]
        assert own.to_list() == pytest.approx(
            history(alone, other)["val_nll"][: len(own)].to_list(), rel=1e-3
        )
        assert member["stopped"] == (member["epochs"] < 6) == member["reason"].startswith("halving: rank ")


def test_trials_that_the_job_gives_are_ranked_with_the_first_that_are_asked_for(tmp_path: Path) -> None:
    tpe = {
        "algorithm": {"name": "optuna", "batch": 4, "startup": 4},
        "first": [{RATE: 0.01, "model.dropout": 0.1}],
    }
    run = train(job_of({**HALVED, **tpe, "trials": 5}, **DECISIVE), tmp_path / "run")
    assert sorted(m["reason"] for m in run.manifest()["members"])[1:] == [
        "halving: rank 2 of 2 at epoch 2",
        "halving: rank 3 of 5 at epoch 1",
        "halving: rank 4 of 5 at epoch 1",
        "halving: rank 5 of 5 at epoch 1",
    ]


def test_a_killed_halving_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Law 3: before a rung, at one, and after it."""
    whole = train(job_of(HALVED, **DECISIVE), tmp_path / "whole")
    for number in (1, 2, 3, 5):
        with pytest.raises(Killed):
            train(job_of(HALVED, **DECISIVE), tmp_path / f"{number}", killed_at(number))
        again = train(job_of(HALVED, **DECISIVE), tmp_path / f"{number}")
        assert weights(again) == weights(whole)
        reasons = [[m["reason"] for m in run.manifest()["members"]] for run in (again, whole)]
        assert reasons[0] == reasons[1]


def test_on_one_machine_trials_of_a_structure_share_one_pack() -> None:
    space = {**SPACE, HIDDEN: {"choice": [[8], [4, 4]]}}
    job = job_of({"space": space, "trials": 30, "scheduler": "halving"})
    for machines, number in ((1, 2), (3, 6)):
        nodes = tuple(Node(f"n{k}", 4, 0.0, 2**34) for k in range(machines))
        plan = make_plan(job, prepare(job, Path.cwd()), Resources(4 * machines, 0.0, nodes))
        assert len(plan.slots) == number


FAULTS = [
    ({"training": {"epochs": 1}}, "first stops trials after epoch 1, and training.epochs is 1"),
    ({"data": {"validation": 0}, "aggregate": {"select": "all"}}, "data.validation is 0"),
    ({"compute": {"processes_per_member": 2}}, "over several processes is in none"),
]


@pytest.mark.parametrize("sections, words", FAULTS, ids=[words for _, words in FAULTS])
def test_what_cannot_be_halved_is_told(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        job_of(HALVED, **sections)
    (fault,) = caught.value.faults
    assert (fault.path, words in fault.message) == ("search.scheduler", True)
