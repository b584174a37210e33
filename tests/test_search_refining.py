"""A space that shrinks from stage to stage, and configurations that are trained again: as laws, and as runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import search_runs
from hypothesis import given, settings
from hypothesis import strategies as st
from search_runs import Killed, killed_at, train
from test_search_space import DOMAINS

from ensemble_svc.aggregate.pools import LikelihoodPool
from ensemble_svc.aggregate.selection import greedy
from ensemble_svc.errors import SpecError
from ensemble_svc.search.narrowing import Span, drawn_within, narrowed
from ensemble_svc.search.refitting import again_of
from ensemble_svc.search.stages import room_in_stage, staged
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.draws import drawn, indices, with_trials
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.search import AGAIN
from ensemble_svc.spec.spaces import Space
from ensemble_svc.spec.yaml import frozen
from ensemble_svc.store.held import spans_in, wall_seconds
from ensemble_svc.store.run import Run

RATE, DROP, OPTIMIZER = "training.optimizer.lr", "model.dropout", "training.optimizer"
UNIT = st.floats(0, 1, exclude_max=True)


@settings(max_examples=150, deadline=None)
@given(DOMAINS, st.lists(UNIT, min_size=1, max_size=5), st.floats(0, 0.5), st.lists(UNIT, max_size=5))
def test_a_narrowed_space_lies_in_the_wider_one_and_spans_the_best(
    domain: Domain, best: list[float], margin: float, points: list[float]
) -> None:
    space, found = Space({"a": domain}), [domain.at(u) for u in best]
    (span,) = narrowed(space, [{"a": value} for value in found], {}, margin).values()
    assert 0 <= span.low <= span.high <= 1
    if domain.choice is not None:
        assert {domain.choice.index(value) for value in found} == set(span.items or ())
    else:
        assert all(span.low - 1e-9 <= domain.quantile(value) <= span.high + 1e-9 for value in found)
    for u in points:
        (value,) = drawn_within(space, {"a": span}, {"a": u}).values()
        assert domain.holds(value)
        if domain.choice is None and margin == 0:
            size = max(found) - min(found)
            assert (
                min(found) - 1e-6 * (1 + abs(size)) <= value <= max(found) + 1e-6 * (1 + abs(size))
                or size > 1e5
            )
    again = narrowed(space, [{"a": value} for value in found], {"a": span}, margin)["a"]
    assert span.low <= again.low <= again.high <= span.high
    assert drawn_within(space, {}, {"a": best[0]}) == {"a": frozen(found[0])}


@given(
    st.sampled_from([Domain(randint=(16, 64)), Domain(quniform=(0.0, 0.4, 0.1)), Domain(randint=(1, 7))]),
    st.lists(UNIT, min_size=1, max_size=4),
)
def test_of_whole_values_those_between_the_best_are_left(domain: Domain, best: list[float]) -> None:
    """And each of them is drawn, and reported."""
    space, found = Space({"a": domain}), [domain.at(u) for u in best]
    (span,) = narrowed(space, [{"a": value} for value in found], {}, 0.0).values()
    drawn = {drawn_within(space, {"a": span}, {"a": u / 997})["a"] for u in range(997)}
    numbers = range(domain.number(min(found)), domain.number(max(found)) + 1)
    assert drawn == {domain.value(number) for number in numbers}
    assert span.ends(domain) == [min(drawn), max(drawn)]


def test_what_no_best_trial_has_stays_as_it_was() -> None:
    law = {"uniform": (0.0, 0.9)}
    items = ({"name": "sgd", "momentum": law}, "adamw")
    space = Space({OPTIMIZER: Domain(choice=items), DROP: Domain(uniform=(0.0, 0.5))})
    spans = narrowed(space, [{OPTIMIZER: "adamw", DROP: 0.1}, {OPTIMIZER: "adamw", DROP: 0.2}], {}, 0.0)
    assert spans[OPTIMIZER].items == (1,)
    assert spans["training.optimizer[0].momentum"] == Span()
    assert (spans[DROP].low, spans[DROP].high) == pytest.approx((0.2, 0.4))


def coarse_of(algorithm: str = "random", **options: Any) -> JobSpec:
    return parse_job(
        {
            "name": "bowl",
            "data": {"source": "digits"},
            "training": {"epochs": 27},
            "search": {
                "space": {RATE: {"loguniform": [1e-6, 1]}, DROP: {"uniform": [0, 0.9]}},
                "trials": 30,
                "algorithm": algorithm,
                "coarse_to_fine": options,
            },
        }
    )


def stages_of(job: JobSpec) -> list[dict[str, Any]]:
    """The events of a whole search of a bowl around a rate of 0.01 and a dropout of 0.3."""
    search, events = job.search, list[dict[str, Any]]()
    tried: list[tuple[dict[str, Any], float | None]] = []
    while len(tried) < search.num_trials:
        stage, room = room_in_stage(search, search.coarse_to_fine, events, len(tried))
        found, facts = staged(job, events, tried, room, stage)
        events.append({"trials": found, **facts})
        tried += [(v, (math.log10(v[RATE]) + 2) ** 2 + (3 * v[DROP] - 0.9) ** 2) for v in found]
    return events


@pytest.mark.parametrize("algorithm", ["random", "sobol"])
def test_stages_shrink_around_the_best_and_train_longer(algorithm: str) -> None:
    job = coarse_of(algorithm, keep=0.3)
    events = stages_of(job)
    assert [event["stage"] for event in events] == [0, 1, 2]
    assert [len(event["trials"]) for event in events] == [10, 10, 10]
    assert [{values["training.epochs"] for values in e["trials"]} for e in events] == [{3}, {9}, {27}]
    assert events == stages_of(job)
    widths = [math.log(e["space"][RATE][1] / e["space"][RATE][0]) for e in events]
    assert widths[0] == pytest.approx(math.log(1e6), rel=1e-3)
    assert widths[0] > widths[1] > widths[2]
    far = [sum(abs(math.log10(v[RATE]) + 2) for v in e["trials"]) / 10 for e in events]
    assert far[2] < 0.6 * far[0]
    low, high = events[2]["space"][RATE]
    assert low < 0.01 < high


def test_stages_of_one_length_say_nothing_of_epochs() -> None:
    assert all("training.epochs" not in v for e in stages_of(coarse_of(growth=1)) for v in e["trials"])


@given(
    st.lists(st.tuples(st.integers(1, 20), st.lists(st.integers(0, 19), max_size=3)), max_size=4),
    st.integers(1, 3),
)
def test_what_is_trained_again_moves_no_other_member(steps: list[tuple[int, list[int]]], seeds: int) -> None:
    """However many trials there are at a time, fewer than before among them."""
    job, refits, before = coarse_of(growth=1), list[dict[str, Any]](), dict[int, Any]()
    job = job.model_copy(update={"search": job.search.model_copy(update={"seeds_per_trial": seeds})})
    for number, chosen in steps:
        trials = tuple({RATE: float(t), DROP: 0.1} for t in range(number))
        refits.append({"after": number, "trials": [t % number for t in chosen], "seeds": 2 * seeds})
        own = with_trials(job, trials, again_of(job, trials, refits))
        found = {index: drawn(own, index // seeds) for index in indices(own)}
        assert len(found) == len(indices(own)) == own.ensemble.members
        assert all(before.get(index, values) == values for index, values in found.items())
        trial_members = [index for index in found if index < AGAIN]
        assert trial_members == list(range(number * seeds))
        assert all(found[index] == trials[index // seeds] for index in trial_members)
        wanted = [t for event in refits for t in event["trials"] if t < number]
        assert len(found) == (number + 2 * len(wanted)) * seeds
        before |= found


def test_what_is_trained_again_of_an_early_stage_trains_as_long_as_the_last() -> None:
    job = coarse_of(keep=0.3)
    trials = tuple(values for event in stages_of(job) for values in event["trials"])
    refits = [{"after": 30, "trials": [0, 12, 29], "seeds": 1}]
    found = again_of(job, trials, refits)
    assert [found[place]["training.epochs"] for place in range(3)] == [27] * 3
    assert [found[place][RATE] for place in range(3)] == [trials[t][RATE] for t in (0, 12, 29)]


def job_of(search: dict[str, Any], **sections: Any) -> JobSpec:
    space = {RATE: {"loguniform": [1e-3, 0.1]}, DROP: {"uniform": [0, 0.5]}}
    training = {"epochs": 4, **sections.pop("training", {})}
    return search_runs.job_of({"space": space, **search}, training=training, **sections)


def weights(run: Run) -> dict[str, str]:
    members = run.manifest()["members"]
    return {m["id"]: m["files"][f"members/{m['id']}/weights.safetensors"] for m in members}


def test_a_search_in_stages_is_trained_and_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    job = job_of({"trials": 6, "coarse_to_fine": {"stages": 2, "keep": 0.4, "growth": 4}})
    run = train(job, tmp_path / "run")
    members = run.manifest()["members"]
    assert [member["epochs"] for member in members] == [1, 1, 1, 4, 4, 4]
    low, high = run.journal.of_kind("asked")[1]["space"][RATE]
    assert all(low <= member["hyperparameters"][RATE] <= high for member in members[3:])
    assert run.manifest()["candidates"] == [member["id"] for member in members[3:]]
    with pytest.raises(Killed):
        train(job, tmp_path / "killed", killed_at(3))
    again = train(job, tmp_path / "killed")
    assert weights(again) == weights(run)
    for one in (run, again):
        manifest = one.manifest()
        rounds = {event["members"]: event["forecast"] for event in reversed(one.journal.of_kind("forecast"))}
        assert len(rounds) == 2
        assert manifest["forecast"]["seconds"] == pytest.approx(
            sum(own["seconds"] for own in rounds.values())
        )
        spent = sum(float(one.history(member["id"])["seconds"].max()) for member in manifest["members"][::3])
        assert manifest["actual"]["seconds"] >= spent
        assert manifest["actual"]["seconds"] == pytest.approx(wall_seconds(spans_in(one.journal)))
        assert manifest["actual"]["device_hours"] * 3600 >= manifest["actual"]["seconds"] * (1 - 1e-6)
    wider = train(
        job_of({"trials": 6, "coarse_to_fine": {"stages": 2, "keep": 0.4, "growth": 4}, "candidates": "all"}),
        run.path,
    )
    assert wider.manifest()["candidates"] == [member["id"] for member in members]
    assert weights(wider) == weights(again)


def test_chosen_configurations_are_trained_again_to_their_end_and_chosen_among(tmp_path: Path) -> None:
    search = {
        "trials": 4,
        "scheduler": {"name": "halving", "factor": 2},
        "candidates": "all",
        "refit": {"seeds": 2},
    }
    with pytest.raises(Killed):
        train(job_of(search), tmp_path / "run", killed_at(6))
    run = train(job_of(search), tmp_path / "run")
    members, (event,) = run.manifest()["members"], run.journal.of_kind("refit")
    said = run.predictions("validation")
    log_likelihood_KN = (
        said["log_probs"][:4].double().gather(2, said["target"].expand(4, -1)[..., None])[..., 0]
    )
    assert event["trials"] == list(dict.fromkeys(greedy(LikelihoodPool(log_likelihood_KN), 50).picks))
    again = members[4:]
    assert [m["hyperparameters"] for m in again] == [
        members[t]["hyperparameters"] for t in event["trials"] for _ in (0, 1)
    ]
    assert {(m["epochs"], m["reason"]) for m in again} == {(4, "")}
    assert len(set(weights(run).values())) == len(members)
    assert {m["reason"][:7] for m in members[:4]} >= {"halving"}
    before = weights(run)
    assert weights(train(job_of(search), tmp_path / "run")) == before
    assert len(run.journal.of_kind("refit")) == 1
    grown = weights(train(job_of({**search, "trials": 5}), tmp_path / "run"))
    assert before.items() <= grown.items()
    assert len(Run(tmp_path / "run").journal.of_kind("refit")) == 2


def values_of(run: Run) -> list[tuple[int, float]]:
    return [(m["index"], m["hyperparameters"][RATE]) for m in run.manifest()["members"]]


def test_a_budget_of_trials_leaves_room_for_what_is_trained_again(tmp_path: Path) -> None:
    run = train(job_of({"trials": 5, "budget": {"trials": 4}, "refit": {"seeds": 2}}), tmp_path / "run")
    (event,) = run.journal.of_kind("refit")
    assert event["trials"]
    assert len(run.manifest()["members"]) == 4 + 2 * len(event["trials"])


def test_fewer_trials_and_more_again_leave_every_member_as_it_was(tmp_path: Path) -> None:
    search = {"refit": {"seeds": 1, "configurations": 2}}
    first = values_of(train(job_of({**search, "trials": 6}), tmp_path / "run"))
    fewer = values_of(train(job_of({**search, "trials": 3}), tmp_path / "run"))
    assert [index for index, _ in fewer if index < AGAIN] == [0, 1, 2]
    run = train(job_of({**search, "trials": 6}), tmp_path / "run")
    again = values_of(run)
    assert set(first) <= set(again)
    assert len(set(again)) == len(again)
    events = run.journal.of_kind("refit")
    assert (
        len({t for event in events for t in event["trials"]})
        == len(again) - 6
        == sum(len(event["trials"]) for event in events)
    )


def test_trials_that_were_stopped_join_only_if_asked(tmp_path: Path) -> None:
    search = {"trials": 4, "scheduler": {"name": "halving", "factor": 2}}
    finished = train(job_of(search), tmp_path / "run").manifest()
    whole = [m["id"] for m in finished["members"] if not m["reason"]]
    assert len(whole) == 1
    assert finished["candidates"] == finished["ensemble"]["members"] == whole
    everyone = train(job_of({**search, "candidates": "all"}), tmp_path / "run").manifest()
    assert everyone["candidates"] == [m["id"] for m in everyone["members"]]


NO_ROWS: dict[str, Any] = {"data": {"validation": 0}, "aggregate": {"select": "all"}}
OUT_OF_BAG: dict[str, Any] = {"data": {"validation": "oob"}, "ensemble": {"resample": "bootstrap"}}
EPOCHS = {"training.epochs": {"randint": [2, 4]}}
EVEN = {"growth": 1}
FAULTS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("coarse_to_fine", {"coarse_to_fine": EVEN, "algorithm": "optuna"}, {}, "finds its own way"),
    ("coarse_to_fine.stages", {"coarse_to_fine": EVEN, "trials": 5}, {}, "too few for 3 stages"),
    ("coarse_to_fine", {"coarse_to_fine": EVEN}, NO_ROWS, "give it a share"),
    ("coarse_to_fine.growth", {"coarse_to_fine": {}}, {}, "less than an epoch"),
    ("coarse_to_fine.growth", {"coarse_to_fine": {"growth": 2}, "space": EPOCHS}, {}, "give growth: 1"),
    (
        "coarse_to_fine",
        {"coarse_to_fine": EVEN, "trials": 6, "first": [{RATE: 0.01, DROP: 0.1}] * 2},
        {},
        "leave no room",
    ),
    ("refit", {"refit": {}}, {"aggregate": {"select": "all"}}, "give greedy"),
    ("refit.seeds", {"refit": {}, "seeds_per_trial": 2}, {}, "is no multiple"),
    ("refit", {"refit": {}}, OUT_OF_BAG, "give it a share"),
]


@pytest.mark.parametrize("path, search, sections, words", FAULTS, ids=[words for *_, words in FAULTS])
def test_what_cannot_be_refined_is_told(
    path: str, search: dict[str, Any], sections: dict[str, Any], words: str
) -> None:
    with pytest.raises(SpecError) as caught:
        job_of(search, **sections)
    told = {fault.path: fault.message for fault in caught.value.faults}
    assert words in told[f"search.{path}"]
