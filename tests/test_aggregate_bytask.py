"""Decisions about members of several tasks: laws over every registered choice, and what each task has of its own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc.aggregate.bytask import decide_tasks
from ensemble_svc.aggregate.choosing import decide
from ensemble_svc.aggregate.decision import Decision, HeldOut, apply
from ensemble_svc.aggregate.diverse import diverse, errors_of
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.outofbag import OutOfBagPool, greedy_out_of_bag
from ensemble_svc.aggregate.stacking import by_likelihood
from ensemble_svc.registry import Choice
from ensemble_svc.spec.aggregate import (
    CALIBRATES,
    COMBINES,
    SELECTS,
    AggregateSpec,
    All,
    Diverse,
    Greedy,
    Stacking,
)
from ensemble_svc.spec.tasks import Task, TaskSpec

KINDS: tuple[Task, ...] = ("classification", "regression")
IDS = tuple(f"m{k}" for k in range(6))
seeds = st.integers(0, 2**32 - 1)


def held(kind: Task, seed: int, *, members: int = 6, rows: int = 60, unseen: bool = False) -> HeldOut:
    """Members of unequal worth, that say something of the truth."""
    draw = torch.Generator().manual_seed(seed)
    noise_K11 = torch.linspace(0.5, 3.0, members)[torch.randperm(members, generator=draw)][:, None, None]
    seen_KN = torch.rand(members, rows, generator=draw) < 0.6 if unseen else None
    if kind == "classification":
        target = torch.randint(3, (rows,), generator=draw)
        logits = 2.0 * torch.nn.functional.one_hot(target, 3)
        said = logits + noise_K11 * torch.randn(members, rows, 3, generator=draw)
        return HeldOut("oob" if unseen else "validation", {"log_probs": said.log_softmax(2)}, target, seen_KN)
    target = torch.randn(rows, 1, generator=draw) * 7
    mean = target + noise_K11 * torch.randn(members, rows, 1, generator=draw)
    spread = torch.randn(members, rows, 1, generator=draw) * 0.3
    return HeldOut("oob" if unseen else "validation", {"mean": mean, "log_variance": spread}, target, seen_KN)


def specs(kind: Task, *, conformal: float | None) -> list[AggregateSpec]:
    """Every registered combination that a job of one such task may ask for."""
    found = []
    for combine, select, calibrate in itertools.product(COMBINES, SELECTS, CALIBRATES):
        rules: tuple[type[Choice], ...] = (combine, select, calibrate)
        only_classes = any(getattr(rule, "classes_only", False) for rule in rules)
        of_numbers = calibrate.model_fields["name"].default == "variance"
        if combine is Stacking and select is not All:
            continue
        if (only_classes and kind == "regression") or (of_numbers and kind == "classification"):
            continue
        own = select(picks=8) if select is Greedy else select()
        found.append(AggregateSpec(combine=combine(), select=own, calibrate=calibrate(), conformal=conformal))
    return found


def close(ours: Any, theirs: Any) -> None:
    """Equal but for round-off, however nested."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            close(ours[key], value)
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            close(a, b)
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    else:
        assert ours == theirs


def alone(decision: Decision, task: str) -> dict[str, Any]:
    """What a decision says of one of its tasks, as that of one task says it."""
    return decision.of(task).model_dump(mode="json")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conformal", [None, 0.2])
@given(seed=seeds, weight=st.sampled_from([0.0, 0.3, 1.0, 4.0]))
@settings(max_examples=2)
def test_one_task_decides_as_it_would_alone(
    kind: Task, conformal: float | None, seed: int, weight: float
) -> None:
    rows = held(kind, seed)
    tasks = {"only": TaskSpec(kind=kind, weight=weight)}
    for spec in specs(kind, conformal=conformal):
        several = decide_tasks(spec, IDS, {"only": rows}, tasks, seed=3)
        close(alone(several, "only"), decide(spec, IDS, rows, seed=3).model_dump(mode="json"))


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds)
@settings(max_examples=6)
def test_one_task_out_of_bag_decides_as_it_would_alone(kind: Task, seed: int) -> None:
    rows = held(kind, seed, unseen=True)
    tasks = {"only": TaskSpec(kind=kind)}
    calibrate = "temperature" if kind == "classification" else "variance"
    for select, fitted in itertools.product((All(), Greedy(picks=6)), ("none", calibrate)):
        rule = next(c for c in CALIBRATES if c.model_fields["name"].default == fitted)()
        spec = AggregateSpec(select=select, calibrate=rule, conformal=0.2)
        several = decide_tasks(spec, IDS, {"only": rows}, tasks, seed=3)
        close(alone(several, "only"), decide(spec, IDS, rows, seed=3).model_dump(mode="json"))


@given(seed=seeds)
@settings(max_examples=2)
def test_a_task_without_weight_chooses_nobody(seed: int) -> None:
    """Whoever is chosen is chosen by the tasks that count; the other is calibrated all the same."""
    rows = {"a": held("classification", seed), "b": held("regression", seed + 1)}
    tasks = {"a": TaskSpec(kind="classification"), "b": TaskSpec(kind="regression", weight=0.0)}
    for spec in specs("classification", conformal=None):
        if isinstance(spec.combine, Stacking):
            continue
        several = decide_tasks(spec, IDS, rows, tasks, seed=3)
        close(alone(several, "a"), decide(spec, IDS, rows["a"], seed=3).model_dump(mode="json"))
        assert (several.of("b").calibration is None) == (spec.calibrate.name == "none")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("conformal", [None, 0.2])
@given(seed=seeds)
@settings(max_examples=2)
def test_an_ensemble_of_one_says_what_its_member_says(kind: Task, conformal: float | None, seed: int) -> None:
    rows = {"a": held(kind, seed, members=1), "b": held("classification", seed + 1, members=1)}
    tasks = {"a": TaskSpec(kind=kind), "b": TaskSpec(kind="classification")}
    for spec in specs(kind, conformal=conformal):
        if spec.calibrate.needs_rows or spec.combine.name == "vote":  # a vote is no probability
            continue
        found = decide_tasks(spec, IDS[:1], rows, tasks, seed=3)
        assert found.members == IDS[:1]
        for task, own in rows.items():
            said = apply(found.of(task), own.members)
            for key, value in said.items():
                torch.testing.assert_close(value.double(), own.members[key][0].double(), rtol=1e-5, atol=1e-6)


@given(seed=seeds, prior_rows=st.sampled_from([0.0, 10.0]), weight=st.sampled_from([0.0, 2.0]))
@settings(max_examples=8)
def test_each_task_has_the_blend_that_is_best_for_it(seed: int, prior_rows: float, weight: float) -> None:
    rows = {"a": held("classification", seed), "b": held("regression", seed + 1)}
    tasks = {"a": TaskSpec(kind="classification"), "b": TaskSpec(kind="regression", weight=weight)}
    spec = AggregateSpec(combine=Stacking(prior_rows=prior_rows))
    found = decide_tasks(spec, IDS, rows, tasks, seed=3)
    assert sum(found.weights) == pytest.approx(1)
    assert all(value > 0 for value in found.weights)
    for task, own in rows.items():
        blend = by_likelihood(log_likelihood(own.members, own.target), prior_rows=prior_rows)
        given_to = dict(zip(found.members, found.of(task).weights, strict=True))
        for member, expected in zip(IDS, blend.weights, strict=True):
            assert given_to.get(member, 0.0) == pytest.approx(expected, abs=1e-12)


@given(seed=seeds, weight=st.sampled_from([0.25, 1.0, 3.0]), diversity=st.sampled_from([0.0, 0.5, 2.0]))
@settings(max_examples=8)
def test_diverse_members_are_so_in_the_mean_over_the_tasks(
    seed: int, weight: float, diversity: float
) -> None:
    rows = {"a": held("classification", seed), "b": held("regression", seed + 1)}
    tasks = {"a": TaskSpec(kind="classification"), "b": TaskSpec(kind="regression", weight=weight)}
    spec = AggregateSpec(select=Diverse(k=3, diversity=diversity))
    found = decide_tasks(spec, IDS, rows, tasks, seed=3)
    (error_a, apart_a), (error_b, apart_b) = (errors_of(own.members, own.target) for own in rows.values())
    error, apart = ((a + weight * b) / (1 + weight) for a, b in ((error_a, error_b), (apart_a, apart_b)))
    picks = diverse(error, apart, 3, diversity=diversity).picks
    assert found.picks == tuple(IDS[k] for k in picks)


@given(seed=seeds, scale=st.sampled_from([1e-3, 1.0, 1e4]), shift=st.sampled_from([0.0, 30.0]))
@settings(max_examples=20)
def test_the_unit_of_a_number_chooses_nobody(seed: int, scale: float, shift: float) -> None:
    own = held("regression", seed)
    moved = {"mean": own.members["mean"].double() * scale + shift}
    for ours, theirs in zip(
        errors_of(moved, own.target.double() * scale + shift),
        errors_of(own.members, own.target),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@given(seed=seeds, weight=st.sampled_from([0.25, 1.0, 3.0]))
@settings(max_examples=10)
def test_out_of_bag_picks_come_on_top_of_one_vote_each(seed: int, weight: float) -> None:
    first = held("classification", seed, unseen=True)
    other = held("regression", seed + 1)
    rows = {"a": first, "b": HeldOut("oob", other.members, other.target, first.seen_KN)}
    tasks = {"a": TaskSpec(kind="classification"), "b": TaskSpec(kind="regression", weight=weight)}
    found = decide_tasks(AggregateSpec(select=Greedy(picks=5)), IDS, rows, tasks, seed=3)
    assert found.rows == "oob"
    assert set(found.members) == set(IDS)
    assert min(found.weights) >= 1 / (len(IDS) + 5) - 1e-12
    pools = [
        OutOfBagPool(log_likelihood(own.members, own.target), own.seen_KN)
        for own in rows.values()
        if own.seen_KN is not None
    ]
    shares = (1 / (1 + weight), weight / (1 + weight))

    def score(picks: tuple[str, ...]) -> float:
        totals = [pool.empty() for pool in pools]
        for pick in picks:
            totals = [pool.add(t, IDS.index(pick)) for pool, t in zip(pools, totals, strict=True)]
        losses = [
            (t[1].log() - t[0])[pool.judged_N].mean().item() for pool, t in zip(pools, totals, strict=True)
        ]
        return sum(share * loss for share, loss in zip(shares, losses, strict=True))

    for length, value in enumerate(found.scores, start=1):
        assert value == pytest.approx(score(found.picks[:length]), abs=1e-5)
    if found.scores:
        assert found.scores[-1] < score(())
    assert greedy_out_of_bag(pools[0], 5).weights  # the pools are those that one task has


def test_numbers_are_mixed_where_classes_vote() -> None:
    rows = {"a": held("classification", 1), "b": held("regression", 2)}
    tasks = {"a": TaskSpec(kind="classification"), "b": TaskSpec(kind="regression")}
    for combine in COMBINES:
        spec = AggregateSpec(combine=combine())
        if spec.combine.classes_only:
            for known in (rows, None):
                found = decide_tasks(spec, IDS, known, tasks, seed=3)
                assert found.of("a").combine == spec.combine.name
                assert found.of("b").is_plain
