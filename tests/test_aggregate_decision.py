"""Decisions: made on held-out rows by every registered choice, applied to any, and the same after JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate import decision as decision_module
from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.choosing import decide
from ensemble_svc.aggregate.decision import Decision, HeldOut, apply, equal
from ensemble_svc.aggregate.likelihood import log_likelihood
from ensemble_svc.aggregate.outofbag import out_of_bag_likelihood
from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.errors import EnsembleError
from ensemble_svc.registry import Choice
from ensemble_svc.spec.aggregate import (
    CALIBRATES,
    COMBINES,
    SELECTS,
    AggregateSpec,
    All,
    Mean,
    NoCalibration,
    Rule,
    Variance,
)

law = settings(max_examples=12, deadline=None)
K, N, C, D = 5, 60, 4, 2
IDS = tuple(f"m{k}" for k in range(K))


def classes(seed: int, rows: int = N) -> HeldOut:
    draw = torch.Generator().manual_seed(seed)
    target = torch.randint(C, (rows,), generator=draw)
    skill = torch.linspace(0.2, 2.5, K)[:, None, None]
    logits = torch.randn(K, rows, C, generator=draw) + skill * torch.nn.functional.one_hot(target, C)
    return HeldOut("validation", {"log_probs": logits.log_softmax(-1)}, target)


def numbers(seed: int, rows: int = N) -> HeldOut:
    draw = torch.Generator().manual_seed(seed)
    target = torch.randn(rows, D, generator=draw)
    mean = target + torch.linspace(2, 0.2, K)[:, None, None] * torch.randn(K, rows, D, generator=draw)
    return HeldOut("validation", {"mean": mean, "log_variance": torch.zeros(K, rows, D)}, target)


def specs() -> list[tuple[str, AggregateSpec, str]]:
    """Every registered choice, the other parts as they are by default, with a task that it fits."""
    found = []
    for key, registry in (("combine", COMBINES), ("select", SELECTS), ("calibrate", CALIBRATES)):
        for choice in registry:
            assert issubclass(choice, Rule)
            tasks = ["classification"] if choice is not Variance else ["regression"]
            if not choice.classes_only and choice is not Variance:
                tasks = ["classification", "regression"]
            name = choice.model_fields["name"].default
            found += [(f"{key}-{name}-{task}", AggregateSpec(**{key: choice()}), task) for task in tasks]
    return found


SPECS = specs()
CASES = pytest.mark.parametrize("spec, task", [case[1:] for case in SPECS], ids=[case[0] for case in SPECS])


def rows_of(task: str, seed: int, rows: int = N) -> HeldOut:
    return classes(seed, rows) if task == "classification" else numbers(seed, rows)


def chosen(decision: Decision, held: HeldOut) -> dict[str, Tensor]:
    index = torch.tensor([IDS.index(member) for member in decision.members])
    return {name: value[index] for name, value in held.members.items()}


@CASES
@law
@given(seed=st.integers(0, 10_000))
def test_a_decision_is_the_same_after_json_and_says_a_distribution(spec, task, seed) -> None:
    held, new = rows_of(task, seed), rows_of(task, seed + 1, rows=7)
    decision = decide(spec, IDS, held, seed=1)
    assert Decision.from_json(json.dumps(decision.model_dump(mode="json"))) == decision
    assert sum(decision.weights) == pytest.approx(1)
    assert min(decision.weights) > 0
    assert set(decision.members) <= set(IDS)
    said = apply(decision, chosen(decision, new), None if task == "classification" else new.target)
    if task == "classification":
        torch.testing.assert_close(said["log_probs"].exp().sum(1), torch.ones(7), rtol=1e-4, atol=1e-5)
    else:
        assert said["log_density"].isfinite().all()


@CASES
def test_what_needs_no_rows_is_decided_without_any(spec, task) -> None:
    needs = any(rule.needs_rows for _, rule in spec.rules)
    if not needs:
        decision = decide(spec, IDS, None, seed=0)
        assert decision.members == IDS
        assert decision.rows == "none"


@law
@given(seed=st.integers(0, 10_000))
def test_by_default_it_is_the_equal_mixture_of_all(seed) -> None:
    held = classes(seed)
    decision = decide(AggregateSpec(), IDS, held, seed=0)
    assert decision == equal(IDS)
    torch.testing.assert_close(
        apply(decision, held.members)["log_probs"], combine(held.members)["log_probs"], rtol=0, atol=0
    )


def nll(log_probs: Tensor, target: Tensor) -> float:
    return -log_probs.double().gather(1, target[:, None]).mean().item()


@pytest.mark.parametrize("calibrate", ["temperature", "vector", "isotonic", "before", "auto"])
@law
@given(seed=st.integers(0, 10_000))
def test_calibration_never_makes_the_deciding_rows_less_likely(calibrate, seed) -> None:
    held = classes(seed, rows=400)
    choice: dict[str, Any] = {"name": calibrate}
    if calibrate in ("before", "auto"):
        choice = {"name": "temperature", "when": calibrate}
    spec = AggregateSpec.model_validate({"calibrate": choice})
    decision = decide(spec, IDS, held, seed=0)
    said = apply(decision, held.members)["log_probs"]
    assert (
        nll(said, held.target)
        <= nll(combine(held.members)["log_probs"], held.target) + 2e-2 * (calibrate == "isotonic") + 1e-5
    )
    assert decision.num_rows == 400
    assert decision.rows == "validation"


@law
@given(seed=st.integers(0, 10_000), select=st.sampled_from(["greedy", "stacking"]))
def test_selection_is_no_worse_on_its_rows_than_the_best_member(seed, select) -> None:
    held = classes(seed)
    given_ = (
        {"combine": {"name": "stacking", "prior_rows": 0.0}}
        if select == "stacking"
        else {"select": {"name": "greedy"}}
    )
    decision = decide(AggregateSpec.model_validate(given_), IDS, held, seed=0)
    said = apply(decision, chosen(decision, held))["log_probs"]
    best = min(nll(held.members["log_probs"][k], held.target) for k in range(K))
    assert nll(said, held.target) <= best + 1e-5


@law
@given(seed=st.integers(0, 10_000), alpha=st.sampled_from([0.1, 0.3]))
def test_conformal_answers_cover_what_they_promise_on_new_rows(seed, alpha) -> None:
    for held, new in (
        (classes(seed, 500), classes(seed + 1, 2000)),
        (numbers(seed, 500), numbers(seed + 1, 2000)),
    ):
        decision = decide(AggregateSpec(conformal=alpha), IDS, held, seed=0)
        said, found = apply(decision, new.members), decision.coverage
        assert found is not None
        if "log_probs" in said:
            covered = found.apply(said["log_probs"]).gather(1, new.target[:, None])  # type: ignore[union-attr]
        else:
            low, high = found.apply(said["mean"], said["log_variance"])
            covered = (low <= new.target) & (new.target <= high)
        # 500 deciding rows: the coverage itself scatters by sqrt(alpha (1 - alpha) / 500), here five times that
        assert covered.double().mean() > 1 - alpha - 5 * (alpha * (1 - alpha) / 500) ** 0.5 - 0.02


def test_rows_that_members_were_trained_on_do_not_decide() -> None:
    held = classes(3, rows=300)
    seen = torch.rand(K, 300, generator=torch.Generator().manual_seed(0)) < 0.6
    lying = held.members["log_probs"].clone()
    lying[seen] = (
        torch.nn.functional.one_hot(held.target, C).float().mul(40).log_softmax(-1).expand(K, -1, -1)[seen]
    )
    spec = AggregateSpec.model_validate({"select": "greedy", "calibrate": "temperature", "conformal": 0.1})
    honest, fooled = (
        decide(spec, IDS, HeldOut("oob", {"log_probs": log_probs}, held.target, seen), seed=0)
        for log_probs in (held.members["log_probs"], lying)
    )
    assert honest == fooled
    assert honest.rows == "oob"


def test_too_few_rows_for_a_promise_are_named() -> None:
    with pytest.raises(
        EnsembleError, match="conformal 0.01 needs at least 99 held-out rows, and there are 60"
    ):
        decide(AggregateSpec(conformal=0.01), IDS, classes(0), seed=0)


def test_the_defaults_need_no_rows() -> None:
    defaults: list[type[Choice]] = [Mean, All, NoCalibration]
    assert not any(choice.needs_rows for choice in defaults)  # type: ignore[attr-defined]


@CASES
@pytest.mark.parametrize("conformal", [None, 0.2])
@pytest.mark.parametrize("numbers_at_once", [1, 137])
def test_the_same_is_decided_a_piece_of_the_rows_at_a_time(
    spec: AggregateSpec, task: str, conformal: float | None, numbers_at_once: int, monkeypatch
) -> None:
    spec, held = spec.model_copy(update={"conformal": conformal}), rows_of(task, 3)
    whole = decide(spec, IDS, held, seed=0).model_dump()
    monkeypatch.setattr(decision_module, "PIECE_NUMBERS", numbers_at_once)
    cut = decide(spec, IDS, held, seed=0).model_dump()
    assert_alike(cut, whole)


@pytest.mark.parametrize("score", ["accuracy", "brier"])
def test_other_scores_select_alike_in_pieces(score: str, monkeypatch) -> None:
    spec, held = AggregateSpec(select={"name": "greedy", "score": score}, conformal=0.2), classes(5)
    whole = decide(spec, IDS, held, seed=0).model_dump()
    monkeypatch.setattr(decision_module, "PIECE_NUMBERS", 50)
    assert_alike(decide(spec, IDS, held, seed=0).model_dump(), whole)


@pytest.mark.parametrize("calibrate", ["none", "temperature", "vector", "isotonic"])
@pytest.mark.parametrize("select", ["all", "greedy"])
def test_training_rows_decide_alike_in_pieces(calibrate: str, select: str, monkeypatch) -> None:
    held, draw = classes(7), torch.Generator().manual_seed(1)
    held = HeldOut("oob", held.said, held.target, torch.rand(K, N, generator=draw) < 0.6)
    spec = AggregateSpec(select=select, calibrate=calibrate, conformal=0.2)
    whole = decide(spec, IDS, held, seed=0).model_dump()
    monkeypatch.setattr(decision_module, "PIECE_NUMBERS", 50)
    assert_alike(decide(spec, IDS, held, seed=0).model_dump(), whole)


def test_a_wrong_row_is_named_by_its_place_among_all(monkeypatch) -> None:
    held = classes(0)
    held.said["log_probs"][2, N - 3] += 1
    monkeypatch.setattr(decision_module, "PIECE_NUMBERS", 50)
    spec = AggregateSpec(calibrate="temperature")
    with pytest.raises(EnsembleError, match=f"member 2.* row {N - 3}"):
        decide(spec, IDS, held, seed=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), numbers_at_once=st.integers(1, 500))
def test_chosen_rows_of_chosen_members_are_those(seed: int, numbers_at_once: int) -> None:
    held, draw = classes(seed), torch.Generator().manual_seed(seed)
    who = torch.randperm(K, generator=draw)[:3].tolist()
    rows = torch.randperm(N, generator=draw)[: N // 2].sort().values
    expected = held.said["log_probs"][who][:, rows]
    for chosen in (held.at(rows).of(who), held.of(who).at(rows)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decision_module, "PIECE_NUMBERS", numbers_at_once)
            each = list(chosen.pieces())
        assert torch.equal(chosen.members["log_probs"], expected)
        assert torch.equal(torch.cat([one.said["log_probs"] for one in each], dim=1), expected)
        assert torch.equal(torch.cat([one.target for one in each]), held.target[rows])


def assert_alike(found: Any, expected: Any) -> None:
    """Equal but for the round-off of sums."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert_alike(found[name], value)
    elif isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_alike(one, other)
    else:
        assert found == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected)


@law
@given(seed=st.integers(0, 2**31), size=st.sampled_from([400, 1 << 22]))
def test_no_scale_suits_the_rows_that_some_did_not_see_better_than_the_one_fitted(seed, size) -> None:
    """It scales the members' variances, of which those of their mixture are not a multiple."""
    own, draw = numbers(seed), torch.Generator().manual_seed(seed)
    narrow = {**own.said, "log_variance": torch.full((K, N, D), -3.0)}
    rows = HeldOut("oob", narrow, own.target, torch.rand(K, N, generator=draw) < 0.6)

    def loss(scale: float) -> float:
        wide = VarianceScale(scale, before=True).apply(narrow["log_variance"].double())
        told = log_likelihood({**narrow, "log_variance": wide}, own.target)
        return -out_of_bag_likelihood(told, rows.seen_KN)[0].nanmean().item()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decision_module, "PIECE_NUMBERS", size)
        fitted = decide(AggregateSpec(calibrate=Variance()), IDS, rows, seed=0).calibrator
    assert isinstance(fitted, VarianceScale)
    for ratio in (0.5, 0.9, 1.1, 2):
        assert loss(fitted.value) < loss(fitted.value * ratio)
