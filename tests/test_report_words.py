"""Numbers keep the digits they deserve, and the verdict says what the intervals say."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_views import make_view

from ensemble_svc.report.panel import Range
from ensemble_svc.report.text import clean, count, decimals, duration, joined, number
from ensemble_svc.report.verdict import judge, report_split, verdict

finite = st.floats(-1e12, 1e12)


@given(value=finite, places=st.integers(0, 6))
def test_a_shown_number_is_the_number_to_its_last_digit(value: float, places: int) -> None:
    shown = float(number(value, places).replace("−", "-").replace(",", ""))
    assert abs(shown - value) <= max(0.5 * 10**-places, abs(value) * 0.005) * (1 + 1e-9)
    assert not number(value, places).startswith("−0.000000") or shown != 0


@given(value=finite)
def test_a_number_without_places_is_right_to_three_digits(value: float) -> None:
    shown = float(number(value).replace("−", "-").replace(",", ""))
    assert math.isclose(shown, value, rel_tol=5e-3, abs_tol=1e-300)


@given(spread=st.floats(1e-6, 1e5))
def test_a_spread_shows_one_or_two_digits(spread: float) -> None:
    assert spread * 10 ** decimals(spread) >= 0.95 or decimals(spread) == 6
    assert spread * 10 ** decimals(spread) < 30 * (1 + 1e-9) or decimals(spread) == 0


@given(text=st.text(st.characters(exclude_categories=())))
def test_clean_text_is_one_printable_line_that_can_be_written(text: str) -> None:
    shown = clean(text)
    shown.encode("utf-8")
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in shown)
    assert clean(shown) == shown
    assert len(shown) == min(len(text), 2000)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1234, "0.12 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (None, "—"),
    ],
)
def test_durations_read_as_people_say_them(seconds: Any, words: str) -> None:
    assert duration(seconds) == words


def test_lists_and_counts_read_as_people_say_them() -> None:
    assert joined(["a"]) == "a"
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert (count(1, "member"), count(1200, "member")) == ("1 member", "1,200 members")


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), factor=st.sampled_from([1.0, 100.0]))
def test_ticks_lie_inside_their_axis_in_order(low: float, width: float, factor: float) -> None:
    axis = Range(low, low + width, factor=factor)
    ticks = axis.ticks(5)
    assert 1 <= len(ticks) <= 8
    values = [value for value, _ in ticks]
    assert values == sorted(set(values))
    assert all(-1e-6 <= float(axis.place(v)) <= 1 + 1e-6 for v in values)


@given(low=st.floats(1e-6, 1e3), ratio=st.floats(1.5, 1e7))
def test_logarithmic_ticks_lie_inside_their_axis(low: float, ratio: float) -> None:
    axis = Range(low, low * ratio, log=True)
    values = [value for value, _ in axis.ticks(5)]
    assert values
    assert all(-0.01 <= float(axis.place(v)) <= 1.01 for v in values)


def _metrics(mean: tuple[float, float], best: tuple[float, float] | None) -> dict[str, Any]:
    def gains(bounds: tuple[float, float]) -> dict[str, Any]:
        return {"nll": {"estimate": sum(bounds) / 2, "low": bounds[0], "high": bounds[1]}}

    gain = {"over_mean_member": gains(mean)} | ({"over_best_member": gains(best)} if best else {})
    each = [{"nll": 0.4}, {"nll": 0.5}]
    return {"test": {"ensemble": {"nll": 0.3}, "members": {"each": each}, "gain": gain, "rows": 1234}}


MANIFEST = {"ensemble": {"members": ["a", "b"]}}


@pytest.mark.parametrize(
    ("mean", "best", "tone", "answer"),
    [
        ((0.1, 0.2), (0.05, 0.1), "good", "Yes"),
        ((0.1, 0.2), None, "good", "Yes"),
        ((0.1, 0.2), (-0.1, 0.1), "fair", "In part"),
        ((0.1, 0.2), (-0.3, -0.1), "fair", "In part"),
        ((-0.1, 0.2), (0.1, 0.2), "fair", "Not clearly"),
        ((-0.2, -0.1), (0.1, 0.2), "bad", "No"),
    ],
)
def test_the_answer_follows_the_intervals(mean: Any, best: Any, tone: str, answer: str) -> None:
    found = judge(_metrics(mean, best), MANIFEST)
    assert (found.tone, found.answer) == (tone, answer)
    assert "on 1,234 test rows the ensemble of 2" in found.detail
    assert "[" in found.detail


@given(bounds=st.tuples(st.floats(-5, 5), st.floats(0, 5)))
def test_yes_is_said_only_of_an_interval_above_zero(bounds: tuple[float, float]) -> None:
    low, high = bounds[0], bounds[0] + bounds[1]
    found = judge(_metrics((low, high), None), MANIFEST)
    assert (found.answer == "Yes") == (low > 0)
    assert (found.answer == "No") == (high < 0)


def test_the_verdict_is_one_sentence_with_the_gains_of_both_headline_metrics() -> None:
    view = make_view(members=6)
    sentence = verdict(view.metrics, view.manifest)
    assert sentence.startswith(("Yes: ", "In part: ", "Not clearly: ", "Mixed: ", "No: "))
    assert "accuracy [" in sentence
    assert "NLL [" in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_rows_that_guided_training_are_called_so() -> None:
    view = make_view(members=3, splits=("validation",))
    assert "validation rows, which also guided training," in verdict(view.metrics, view.manifest)


def test_the_test_rows_report_where_there_are_any() -> None:
    assert report_split({"validation": {}, "test": {}}) == "test"
    assert report_split({"validation": {}, "shifted": {}}) == "shifted"
    assert report_split({"train": {}, "validation": {}}) == "validation"
    assert report_split({}) is None


@given(
    mean=st.tuples(st.floats(-5, 5), st.floats(0, 5)),
    best=st.tuples(st.floats(-5, 5), st.floats(0, 5)),
)
def test_the_answer_of_a_search_is_against_the_best_trial_alone(mean: Any, best: Any) -> None:
    """However far its mean trial, which nobody would use, lies behind."""
    low, high = best[0], best[0] + best[1]
    metrics = _metrics((mean[0], mean[0] + mean[1]), (low, high))
    metrics["test"]["searched"] = True
    found = judge(metrics, MANIFEST)
    assert (found.answer == "Yes") == (low > 0)
    assert (found.answer == "No") == (high < 0)
    assert "the best trial chosen on validation" in found.detail
    assert "mean member" not in found.detail


@pytest.mark.parametrize("gain", [{}, {"nll": {"estimate": float("nan"), "low": None, "high": None}}])
def test_there_is_no_answer_to_a_search_without_rows_that_did_not_choose_the_best_trial(gain: Any) -> None:
    """That it beats its mean trial is none."""
    metrics = _metrics((1.0, 2.0), (0.0, 0.0))
    summary = metrics["test"] | {"searched": True}
    summary["gain"] = {"over_mean_member": summary["gain"]["over_mean_member"]}
    if gain:
        summary["gain"]["over_best_member"] = gain
    found = judge({"test" if gain else "validation": summary}, MANIFEST)
    assert (found.tone, found.answer) == ("none", "No answer yet")
    assert "was not compared with the best trial" in found.detail
    assert ("data.test" in found.detail) == (not gain)


@pytest.mark.parametrize(
    ("estimate", "low", "high", "words"),
    [(0.01, -0.04, 0.06, "1 point of accuracy"), (0.02, -0.04, 0.08, "2 points of accuracy")],
)
def test_one_point_is_one_point(estimate: float, low: float, high: float, words: str) -> None:
    gain = {"accuracy": {"estimate": estimate, "low": low, "high": high}}
    summary = {"rows": 90, "ensemble": {"accuracy": 0.9}, "gain": {"over_mean_member": gain}}
    assert words in verdict({"test": summary}, {"ensemble": {"members": ["a", "b"]}})
