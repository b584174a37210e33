"""The epochs that a search has yet to train, against searches that are played to their end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import job_of
from test_search_refining import coarse_of, stages_of

from ensemble_svc.plan.members import make_members
from ensemble_svc.report.text import short_keys
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.store.ahead import epochs_ahead
from ensemble_svc.store.held import Span, wall_seconds


def played(ladder: Ladder, num_trials: int, losses: list[float]) -> list[int]:
    """The epochs that each trial trains."""
    epochs = dict.fromkeys(range(num_trials), ladder.epochs)
    living = dict(enumerate(losses[:num_trials]))
    for rung in ladder.rungs:
        for trial in ladder.stopped(living, rung):
            epochs[trial] = rung
            del living[trial]
    return list(epochs.values())


def members_of(job: JobSpec, epochs: list[int], sealed: bool) -> list[Any]:
    specs = make_members(job, "data", "split")
    return [SimpleNamespace(spec=s, epoch=e, sealed=sealed) for s, e in zip(specs, epochs, strict=False)]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["halving", "hyperband"]),
    st.integers(2, 4),
    st.integers(1, 40),
    st.integers(1, 3),
    st.integers(4, 30),
    st.randoms(use_true_random=False),
)
def test_trials_that_stop_at_rungs_are_counted_up_to_where_they_stop(
    name: str, factor: int, trials: int, seeds: int, epochs: int, draws: Any
) -> None:
    scheduler = {"name": name, "factor": factor}
    search = {"trials": trials, "scheduler": scheduler, "seeds_per_trial": seeds}
    job = job_of(search, training={"epochs": epochs})
    ladder = Ladder.of(job.search, epochs)
    assert ladder is not None
    found = played(ladder, trials, [draws.random() for _ in range(trials)])
    assert epochs_ahead(job, []) == seeds * sum(found)
    ended = [e for e in found for _ in range(seeds)]
    assert epochs_ahead(job, members_of(job, ended, sealed=True)) == 0


def test_stages_that_are_not_asked_for_yet_are_counted_with_their_own_epochs() -> None:
    job = coarse_of()
    events = stages_of(job)
    each = [values["training.epochs"] for event in events for values in event["trials"]]
    assert epochs_ahead(job, []) == sum(each)
    assert epochs_ahead(job, members_of(job, [0] * 10, sealed=True)) == sum(each[10:])


def test_of_trials_that_a_rule_stops_at_any_time_the_rest_is_thought_to_train_as_far() -> None:
    job = job_of({"trials": 8, "scheduler": "asha"}, training={"epochs": 10}, compute={"executor": "ray"})
    assert epochs_ahead(job, []) == 80
    known = members_of(job, [4, 6], sealed=True)
    assert epochs_ahead(job, known) == 0.5 * 10 * 6


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 20)), max_size=12))
def test_attempts_beside_each_other_take_their_time_once(spans: list[tuple[float, float]]) -> None:
    found = wall_seconds([Span((), began, seconds) for began, seconds in spans])
    edges = sorted({at for began, seconds in spans for at in (began, began + seconds)})
    inside = [
        b - a
        for a, b in zip(edges, edges[1:], strict=False)
        if any(began <= a and b <= began + s for began, s in spans)
    ]
    assert abs(found - sum(inside)) < 1e-6


@given(
    st.lists(
        st.lists(st.sampled_from(["lr", "model", "0", "std"]), min_size=1, max_size=4).map(".".join),
        unique=True,
    )
)
def test_short_names_end_their_keys_and_tell_them_apart(keys: list[str]) -> None:
    found = short_keys(keys)
    assert list(found) == keys
    assert len(set(found.values())) == len(keys)
    assert all(f".{key}".endswith(f".{name}") for key, name in found.items())
