"""Population based training inside a pack: who copies whom, what goes along, and that it is resumed to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_runs import DROP, HIDDEN, RATE, SPACE, Killed, job_of, killed_at, train, weights

from ensemble_svc.errors import SpecError
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.population import exploited, perturbed
from ensemble_svc.store.run import Run

MOMENTUM, NOISE = "training.optimizer.momentum", "training.regularizers.0.std"
PBT = {"name": "pbt", "interval": 1, "quantile": 0.3}


def population(
    space: Mapping[str, Any] = SPACE, *, scheduler: Mapping[str, Any] = PBT, trials: int = 6, **sections: Any
) -> JobSpec:
    training = {"epochs": 4, "batch_size": 128, **sections.pop("training", {})}
    search = {"space": space, "trials": trials, "scheduler": scheduler, **sections.pop("search", {})}
    return job_of(
        search, training=training, compute={"commit_every_s": 0.0, **sections.pop("compute", {})}, **sections
    )


def lineages(run: Run) -> list[list[dict[str, Any]]]:
    return [member.get("lineage", []) for member in run.manifest()["members"]]


@given(
    st.dictionaries(st.integers(0, 99), st.floats(), min_size=2),
    st.floats(0.01, 0.5),
    st.integers(0, 9),
    st.integers(1, 9),
)
def test_the_worst_take_over_from_the_best(
    losses: Mapping[int, float], quantile: float, seed: int, epoch: int
) -> None:
    found = exploited(losses, quantile, seed=seed, epoch=epoch)
    number = min(max(1, int(quantile * len(losses))), len(losses) // 2)
    assert len(found) == number
    assert not found.keys() & set(found.values())
    rest = {m: math.inf if math.isnan(loss) else loss for m, loss in losses.items()}
    best = sorted(rest.values())[number - 1]
    assert all(rest[donor] <= best for donor in found.values())
    assert all(rest[lost] >= max(rest[m] for m in losses if m not in found) for lost in found)


DOMAINS = [
    Domain(uniform=(0.0, 0.5)),
    Domain(loguniform=(1e-4, 1.0)),
    Domain(quniform=(0.0, 1.0, 0.25)),
    Domain(qloguniform=(1.0, 64.0, 1.0)),
    Domain(randint=(1, 9)),
    Domain(normal=(1.0, 0.3)),
    Domain(choice=(1, 2, 5)),
    Domain(choice=("a",)),
]


@given(st.sampled_from(DOMAINS), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_a_perturbed_value_is_near_and_in_the_domain(domain: Domain, at: float, u: float) -> None:
    value = domain.at(at)
    moved = perturbed(domain, value, u)
    assert domain.holds(moved)
    ends = [end for _, end in domain.ends()]
    assert moved != value or value in (ends[0], ends[-1])
    if domain.num_values is None:
        assert moved in ends or moved == pytest.approx(value * (0.8 if u < 0.5 else 1.2))


def test_members_go_on_from_the_state_of_those_they_copy(tmp_path: Path) -> None:
    """Where nothing is perturbed away, a copy with its donor's rows and values is its donor to the bit.

    A space of one value: all differ by their seed alone, so a copy trains on with rows of its own.
    """
    space = {RATE: {"choice": [0.01]}}
    run = train(population(space, training={"epochs": 3}), tmp_path / "run")
    members = run.manifest()["members"]
    by_id = {member["id"]: member for member in members}
    turned = [(m, turn) for m in members for turn in m.get("lineage", [])]
    assert {turn["epoch"] for _, turn in turned} == {1, 2}
    assert {event["epoch"] for event in run.journal.of_kind("turn")} == {1, 2}
    for member, turn in turned:
        own, theirs = (run.history(m["id"]).set_index("epoch") for m in (member, by_id[turn["from"]]))
        epoch = turn["epoch"]
        assert theirs["val_nll"][epoch] < own["val_nll"][epoch]
        assert own["val_nll"][epoch + 1] < own["val_nll"][epoch]


@pytest.mark.parametrize(
    "training",
    [
        {"optimizer": "adamw"},
        {"optimizer": {"name": "sgd", "momentum": 0.9}},
        {"optimizer": "muon", "average": "ema"},
        {"average": "best_n", "early_stopping": {"patience": 9}},
        {"average": {"name": "swag", "start": 0.3, "samples": 2}},
    ],
    ids=str,
)
def test_a_killed_population_goes_on_to_the_same_bits(training: dict[str, Any], tmp_path: Path) -> None:
    """Law 3: rates, dropout and noise that change, each in the optimiser, in a buffer, in the recipe."""
    noise = {"regularizers": [{"name": "input_noise", "std": 0.1}]}
    space = {**SPACE, RATE: {"loguniform": [1e-4, 0.1]}, NOISE: {"uniform": [0, 0.5]}}
    job = population(space, training={**training, **noise})
    whole = train(job, tmp_path / "whole")
    assert any(lineages(whole))
    for number in (1, 3):
        with pytest.raises(Killed):
            train(job, tmp_path / str(number), killed_at(number))
        again = train(job, tmp_path / str(number))
        assert weights(again) == weights(whole)
        assert lineages(again) == lineages(whole)


def test_values_act_from_the_turn_on_and_stand_in_the_history(tmp_path: Path) -> None:
    run = train(
        population({**SPACE, MOMENTUM: {"uniform": [0, 0.9]}}, training={"optimizer": "sgd"}),
        tmp_path / "run",
    )
    for member in run.manifest()["members"]:
        table: pd.DataFrame = run.history(member["id"]).set_index("epoch")
        values, turns = member["hyperparameters"], {t["epoch"]: t for t in member.get("lineage", [])}
        for epoch in (1, 2, 3, 4):
            assert all(table[key][epoch] == pytest.approx(values[key]) for key in (RATE, DROP, MOMENTUM))
            values = turns[epoch]["values"] if epoch in turns else values
        last = run.tensors(member["id"], "weights.safetensors")
        rates = [float(value) for name, value in last.items() if name.endswith("rate")]
        assert rates
        assert rates == pytest.approx([values[DROP]] * len(rates))


def test_a_population_beats_the_values_it_began_with(tmp_path: Path) -> None:
    """Rates that are far too small: those that are multiplied get ahead."""
    space = {RATE: {"loguniform": [1e-5, 1e-1]}}
    first = [{RATE: 1e-5 * (1 + k)} for k in range(6)]
    search = {"first": first}
    still = train(
        population(space, scheduler={"name": "none"}, search=search, training={"epochs": 8}),
        tmp_path / "still",
    )
    moved = train(population(space, search=search, training={"epochs": 8}), tmp_path / "moved")
    best = [
        min(m["metrics"]["validation"]["nll"] for m in run.manifest()["members"]) for run in (still, moved)
    ]
    assert best[1] < best[0]


FAULTS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"space": {HIDDEN: {"choice": [[8], [4]]}, "training.optimizer": {"choice": ["adam", "sgd"]}}},
        "search.scheduler",
        "every key of the space gives trials other networks",
    ),
    (
        {
            "space": {
                **SPACE,
                "training.optimizer": {
                    "choice": [{"name": "sgd", "momentum": {"uniform": [0, 0.9]}}, "adam"]
                },
            }
        },
        "search.space.training.optimizer",
        "here one depends on another",
    ),
    (
        {"space": {"training.epochs": {"randint": [5, 9]}}},
        "search.space.training.epochs",
        "is settled before",
    ),
    ({"space": {"model.init": {"choice": ["he", "lsuv"]}}}, "search.space.model.init", "is settled before"),
    ({"scheduler": {**PBT, "interval": 4}}, "search.scheduler", "after epoch 4, and training.epochs is 4"),
    ({"trials": 1}, "search.scheduler", "search.trials is 1"),
    ({"search": {"seeds_per_trial": 2}}, "search.scheduler", "search.seeds_per_trial is 2"),
    ({"search": {"algorithm": "optuna"}}, "search.scheduler", "'pbt' changes them"),
    ({"training": {"schedule": "plateau"}}, "search.scheduler", "lowers a member's rate by its own past"),
    ({"data": {"validation": 0}, "aggregate": {"select": "all"}}, "search.scheduler", "data.validation is 0"),
]


@pytest.mark.parametrize("changes, path, words", FAULTS, ids=[words for *_, words in FAULTS])
def test_what_cannot_be_a_population_is_told(changes: dict[str, Any], path: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        population(**changes)
    (fault,) = caught.value.faults
    assert fault.path == path
    assert words in fault.message
