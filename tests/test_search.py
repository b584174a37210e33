"""Searches from the job to the chosen ensemble: trials are members, packed, resumed and grown as such."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from search_runs import DROP, HIDDEN, RATE, SPACE, Killed, job_of, killed_at, train, trials, weights
from typer.testing import CliRunner

from ensemble_svc import pipeline
from ensemble_svc.cli.main import app
from ensemble_svc.errors import OtherJob, SpecError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.search.asking import WORST, ask, losses
from ensemble_svc.spec.draws import drawn
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.yaml import frozen
from ensemble_svc.store.members import sealed
from ensemble_svc.store.run import Run


def test_trials_are_members_of_one_pack_and_greedy_chooses_among_them(tmp_path: Path) -> None:
    run = train(job := job_of({"trials": 12}), tmp_path / "run")
    manifest = run.manifest()
    assert trials(run) == [drawn(job, trial) for trial in range(12)]
    assert [len(pack["members"]) for pack in manifest["packs"]] == [12]
    chosen = manifest["ensemble"]["members"]
    assert 1 <= len(chosen) < 12
    validation = run.metrics()["validation"]
    assert validation["ensemble"]["nll"] <= validation["members"]["best"]["nll"]
    assert (
        "Dropout" in (run.path / "report.html").read_text()
        or "dropout" in (run.path / "report.html").read_text()
    )


def test_a_structure_that_varies_makes_a_pack_of_each(tmp_path: Path) -> None:
    space = {**SPACE, HIDDEN: {"choice": [[8], [4, 4]]}}
    run = train(job_of({"space": space, "trials": 8}), tmp_path / "run")
    by_id = {m["id"]: m["hyperparameters"] for m in run.manifest()["members"]}
    packs = [{tuple(by_id[member][HIDDEN]) for member in pack["members"]} for pack in run.manifest()["packs"]]
    assert sorted(map(sorted, packs)) == [[(4, 4)], [(8,)]]


def test_more_trials_leave_the_old_ones_as_they_are(tmp_path: Path) -> None:
    before = weights(train(job_of({"trials": 4}), tmp_path / "run"))
    after = weights(train(job_of({"trials": 6}), tmp_path / "run"))
    assert len(after) == 6
    assert before.items() <= after.items()
    with pytest.raises(OtherJob, match="search.space"):
        train(job_of({"trials": 6, "space": {RATE: SPACE[RATE]}}), tmp_path / "run")
    with pytest.raises(OtherJob, match="search.metric"):
        train(job_of({"trials": 6, "metric": "accuracy"}), tmp_path / "run")


def test_a_search_grows_by_whole_trials(tmp_path: Path) -> None:
    run = train(job_of({"trials": 2, "seeds_per_trial": 2}), tmp_path / "run")
    before = weights(run)
    uneven = CliRunner().invoke(app, ["grow", str(run.path), "--members", "7"])
    assert isinstance(uneven.exception, SpecError)
    assert "give a multiple" in str(uneven.exception)
    grown = CliRunner().invoke(
        app, ["grow", str(run.path), "--members", "6", "--json"], catch_exceptions=False
    )
    assert grown.exit_code == 0
    assert Run(run.path).job().search.num_trials == 3
    assert before.items() <= weights(Run(run.path)).items()
    assert len(weights(Run(run.path))) == 6


@pytest.mark.parametrize("metric, turn", [("accuracy", max), ("nll", min)])
def test_the_best_member_is_the_one_by_the_metric(tmp_path: Path, metric: str, turn: Any) -> None:
    run = train(job_of({"trials": 6, "metric": metric}), tmp_path / "run")
    best = turn(run.manifest()["members"], key=lambda member: member["metrics"]["validation"][metric])
    test = run.metrics()["test"]
    gain = test["gain"]["over_best_member"]["nll"]["estimate"]
    assert gain == pytest.approx(best["metrics"]["test"]["nll"] - test["ensemble"]["nll"], abs=1e-6)


TPE = {"algorithm": {"name": "optuna", "batch": 4, "startup": 4}, "trials": 10}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished search that learned, in three rounds."""
    return train(job_of(TPE), tmp_path_factory.mktemp("tpe") / "run")


def test_rounds_are_asked_trained_and_told(learned: Run) -> None:
    asked = [event["trials"] for event in learned.journal.of_kind("asked")]
    assert [len(some) for some in asked] == [4, 4, 2]
    assert trials(learned) == [frozen(values) for some in asked for values in some]
    assert [len(pack["members"]) for pack in learned.manifest()["packs"]] == [4, 4, 2]
    assert {member["status"] for member in learned.manifest()["members"]} == {"done"}
    assert set(learned.manifest()["seconds"]) >= {"search", "train"}


def test_what_was_forecast_of_some_rounds_is_not_held_against_all(learned: Run, tmp_path: Path) -> None:
    """The last round of runs that train together is nobody's alone, so it is not forecast."""
    assert learned.manifest()["forecast"]
    assert learned.manifest()["actual"]
    jobs = {tmp_path / str(seed): job_of(TPE).model_copy(update={"seed": seed}) for seed in range(2)}
    for outcome in pipeline.train_together(jobs, directory=Path.cwd(), executor=LocalExecutor()):
        manifest = outcome.run.manifest()
        assert (manifest["forecast"], manifest["actual"]) == (None, None)


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_a_killed_search_goes_on_to_the_same_trials(learned: Run, tmp_path: Path, number: int) -> None:
    """Law 3 for what learns: in each round, before and after its pack is sealed."""
    with pytest.raises(Killed):
        train(job_of(TPE), tmp_path / "run", killed_at(number))
    again = train(job_of(TPE), tmp_path / "run")
    assert trials(again) == trials(learned)
    assert weights(again) == weights(learned)
    assert again.manifest()["ensemble"]["members"] == learned.manifest()["ensemble"]["members"]


def test_the_same_command_again_asks_for_nothing(tmp_path: Path) -> None:
    job = job_of({**TPE, "trials": 5})
    before = weights(train(job, tmp_path / "run"))
    run = train(job, tmp_path / "run")
    assert weights(run) == before
    assert len(run.journal.of_kind("asked")) == 2
    grown = train(job_of({**TPE, "trials": 7}), tmp_path / "run")
    assert before.items() <= weights(grown).items()
    assert len(trials(grown)) == 7


def test_seeds_of_a_trial_are_judged_together(tmp_path: Path) -> None:
    job = job_of({**TPE, "trials": 5, "seeds_per_trial": 2, "first": [{RATE: 0.01, DROP: 0.25}]})
    run = train(job, tmp_path / "run")
    assert len(trials(run)) == 10
    assert trials(run)[0] == trials(run)[1] == {RATE: 0.01, DROP: 0.25}
    members = [MemberSpec.model_validate(frozen(m["spec"])) for m in run.manifest()["members"]]
    found = losses(job.search, members, sealed(run.path))
    own = [member["metrics"]["validation"]["nll"] for member in run.manifest()["members"]]
    assert found == pytest.approx([(a + b) / 2 for a, b in zip(own[::2], own[1::2], strict=True)])


def test_a_trial_that_diverges_is_the_worst(tmp_path: Path) -> None:
    space = {RATE: {"choice": [0.01, 1e30]}}
    job = job_of(
        {**TPE, "space": space, "trials": 5},
        training={"optimizer": {"name": "sgd"}},
        ensemble={"quorum": 0.1},
    )
    run = train(job, tmp_path / "run")
    members = [MemberSpec.model_validate(frozen(m["spec"])) for m in run.manifest()["members"]]
    found = losses(job.search, members, sealed(run.path))
    assert [loss == WORST for loss in found] == [values[RATE] == 1e30 for values in trials(run)]
    assert {values[RATE] for values in trials(run)} == {0.01, 1e30}


def regret(algorithm: dict[str, Any], seed: int, *, rounds: int = 12, batch: int = 4) -> float:
    """How near a search of a bowl comes to its lowest point."""
    search = parse_job(
        {
            "name": "bowl",
            "data": {"source": "digits"},
            "search": {
                "space": {RATE: {"loguniform": [1e-5, 1]}, DROP: {"uniform": [0, 0.9]}},
                "algorithm": algorithm,
            },
        }
    ).search
    assert search is not None
    tried: list[tuple[dict[str, Any], float | None]] = []
    for _ in range(rounds):
        asked = ask(search, seed, tried, batch)
        tried += [(v, (math.log10(v[RATE]) + 2) ** 2 + (3 * v[DROP] - 1) ** 2) for v in asked]
    return min(loss for _, loss in tried if loss is not None)


def test_what_learns_comes_nearer_than_what_does_not() -> None:
    """Median over seeds, at equal trials; with a startup as long as the search nothing is learned."""
    learning = sorted(regret({"name": "optuna", "startup": 8}, seed) for seed in range(9))
    blind = sorted(regret({"name": "optuna", "startup": 1000}, seed) for seed in range(9))
    assert learning[4] < 0.5 * blind[4]


def test_every_law_is_asked_as_drawn_and_fewer_trials_are_the_first_of_more() -> None:
    laws = {
        RATE: {"loguniform": [1e-5, 1]},
        DROP: {"uniform": [0, 0.9]},
        HIDDEN: {"choice": [[8], [4, 4]]},
        "training.epochs": {"randint": [2, 5]},
        "training.clip_norm": {"normal": [2.0, 0.5]},
        "model.activation_noise": {"quniform": [0, 0.4, 0.1]},
    }
    data = {"name": "laws", "data": {"source": "digits"}, "search": {"space": laws, "algorithm": "optuna"}}
    job = parse_job(data)
    search = job.search
    assert search is not None
    tried = [(drawn(job, trial), None if trial == 3 else float(trial % 7)) for trial in range(20)]
    many, few = (ask(search, 5, tried, count) for count in (8, 3))
    assert many[:3] == few
    assert len({str(values) for values in many}) == 8
    for values in many:
        assert list(values) == list(laws)
        assert all(search.space[key].holds(value) for key, value in values.items())
