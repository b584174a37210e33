"""Each figure draws the numbers that it was given, says them in words, and stays small."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from report_views import make_view

from ensemble_svc.evaluate.detection import detect
from ensemble_svc.evaluate.overlap import overlap
from ensemble_svc.exhibits.trials import Trial
from ensemble_svc.report.examples import examples
from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.figures import (
    confusion,
    doubt,
    numbers,
    pairs,
    parallel,
    picks,
    reliability,
    risk,
    size,
    trials,
)
from ensemble_svc.report.html import render
from ensemble_svc.report.looks import look
from ensemble_svc.report.panel import HALF, Panel, Range
from ensemble_svc.report.search import Searched
from ensemble_svc.report.view import RunView

SVG = "{http://www.w3.org/2000/svg}"


def drawn(figure: Figure, kind: str) -> list[list[tuple[float, float]]]:
    """Points of each path of a class, in pixels."""
    found = []
    for element in ET.fromstring(str(figure.drawing)).iter():
        if element.tag.removeprefix(SVG) == "path" and kind in element.get("class", "").split():
            pairs_of = re.findall(r"(-?[\d.]+) (-?[\d.]+)", element.get("d", ""))
            found.append([(float(x), float(y)) for x, y in pairs_of])
    return found


def unplaced(figure: Figure, points: list[tuple[float, float]], x: Range, y: Range) -> np.ndarray[Any, Any]:
    """What pixels say in data coordinates, of axes without logarithms."""
    _, _, width, height = map(float, ET.fromstring(str(figure.drawing)).get("viewBox", "").split())
    across = (np.array([p[0] for p in points]) - Panel.left) / (width - Panel.left - Panel.right)
    down = 1 - (np.array([p[1] for p in points]) - Panel.top) / (height - Panel.top - Panel.bottom)
    return np.stack([x.low + across * (x.high - x.low), y.low + down * (y.high - y.low)])


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_risk_curve_is_the_one_that_is_stored(task: Any) -> None:
    view = make_view(task, names=("y",) if task == "regression" else ("a", "b", "c"))
    figure, stored = risk.draw(view, HALF), view.shown["risk"]
    assert figure is not None
    (line,) = drawn(figure, "ensemble-line")
    power = 0.5 if task == "regression" else 1.0
    curves = [np.asarray(stored[name]) ** power for name in ("ensemble", "best", "mean_member")]
    top = max(curve.max() for curve in curves) * 1.06
    shares, risks = unplaced(figure, line, Range(0, 1), Range(0, top))
    np.testing.assert_allclose(shares, stored["coverage"], atol=2e-4)
    np.testing.assert_allclose(risks, curves[0], atol=top * 5e-4)
    assert figure.numbers is not None
    assert figure.numbers.rows[-1][0] == "100.0"


def test_reliability_after_a_calibration_stands_beside_that_before() -> None:
    view = make_view(names=("a", "b", "c"))
    before = {**view.summary["reliability"], "accuracy": [0.5] * len(view.summary["reliability"]["count"])}
    shown = {**view.shown, "reliability_before": before}
    both = reliability.draw(replace(view, exhibits={**view.exhibits, "tasks": {"": shown}}), HALF)
    alone = reliability.draw(view, HALF)
    assert both is not None
    assert alone is not None
    assert (len(drawn(both, "before-line")), len(drawn(alone, "before-line"))) == (1, 0)
    _, accuracy = unplaced(both, drawn(both, "before-line")[0], Range(0, 1), Range(0, 1))
    np.testing.assert_allclose(accuracy, 0.5, atol=1e-3)
    bins = view.summary["reliability"]
    known = [b for b, count in enumerate(bins["count"]) if count]
    confidence, accuracy = unplaced(alone, drawn(alone, "ensemble-line")[0], Range(0, 1), Range(0, 1))
    np.testing.assert_allclose(confidence, [bins["confidence"][b] for b in known], atol=1e-3)
    np.testing.assert_allclose(accuracy, [bins["accuracy"][b] for b in known], atol=1e-3)


def test_the_confusion_matrix_holds_every_row_and_says_what_it_cut() -> None:
    small = confusion.draw(make_view(names=("a", "b", "c")))
    large = confusion.draw(make_view(members=3, names=tuple(f"class {c}" for c in range(40)), rows=600))
    assert small is not None
    assert large is not None
    cells = [int(text) for text in re.findall(r'class="cell-text[^>]*>([\d,]+)<', str(small.drawing))]
    assert sum(cells) == 240
    assert "of 40 classes the 24 that are mistaken most often" in large.caption
    assert "all others" in str(large.drawing)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_each_pair_of_members_has_both_its_cells(task: Any) -> None:
    view = make_view(task, members=7, names=("y",) if task == "regression" else ("a", "b"))
    figure = pairs.draw(view)
    assert figure is not None
    stored = view.shown["pairs"]
    assert str(figure.drawing).count("<rect") == 7 * 6
    for row in range(7):
        for column in range(row):
            names = f"{stored['members'][row]} and {stored['members'][column]}: errors correlate "
            value = stored["error_correlation"][row][column]
            assert f"{names}{value:.2f}".replace("-0.00", "0.00").replace(" -", " −") in str(figure.drawing)
    assert pairs.draw(make_view(members=1)) is None


def test_snapshots_of_one_member_have_names_of_their_own_and_choose_its_trial() -> None:
    view = make_view(members=3, names=("a", "b"))
    own = [f"{view.chosen[0]}#{s}" for s in (1, 2)] + list(view.chosen[1:2])
    shown = {**view.shown, "pairs": {**view.shown["pairs"], "members": own}}
    figure = pairs.draw(replace(view, exhibits={**view.exhibits, "tasks": {"": shown}}))
    assert figure is not None
    heads = re.findall(r'class="tick"[^>]*>([^<]+)<', str(figure.drawing))
    assert sorted(heads) == ["0.1", "0.1", "0.2", "0.2", "1", "1"]
    job = {**view.job, "search": {"space": {"training.optimizer.lr": {"uniform": [0, 1]}}}}
    ensemble = {**view.manifest["ensemble"], "members": own[:2]}
    searched = Searched.of(replace(view, job=job, manifest={**view.manifest, "ensemble": ensemble}))
    assert searched is not None
    assert [searched.is_chosen(trial) for trial in searched.trials] == [True, False]


def test_a_scatter_has_a_dot_for_every_row_it_says() -> None:
    view = make_view("regression", names=("y", "z"), rows=100)
    figures = numbers.draw(view, HALF)
    assert [str(figure.drawing).count('class="point-dot"') for figure in figures] == [100, 100, 0]
    (line,) = drawn(figures[-1], "ensemble-line")
    levels, inside = unplaced(figures[-1], line, Range(0, 1), Range(0, 1))
    np.testing.assert_allclose(levels, view.shown["coverage"]["levels"], atol=1e-3)
    np.testing.assert_allclose(inside, view.shown["coverage"]["ensemble"], atol=1e-3)


def with_elsewhere(view: RunView) -> RunView:
    torch.manual_seed(0)
    usual, foreign = torch.rand(240), 1 + torch.rand(50)
    one = {"ensemble": vars(detect(usual, foreign)), "histogram": overlap(usual, foreign)}
    found = {"rows": 50, "usual_rows": 240, "scores": {"entropy": one, "mutual_information": one}}
    summary = {**view.summary, "ood": {"some/where.npz": found, "{name: digits}": found}}
    return replace(view, metrics={**view.metrics, "test": summary})


def test_rows_from_elsewhere_have_their_histograms() -> None:
    view = with_elsewhere(make_view())
    figures = doubt.draw(view)
    assert [figure.legend[1][1] for figure in figures] == ["where.npz"] * 2 + ["{name: digits}"] * 2
    assert "in 100.0 % of the pairs" in figures[0].caption
    counts = view.summary["ood"]["some/where.npz"]["scores"]["entropy"]["histogram"]
    (line,) = drawn(figures[0], "usual-line")
    edges = [line[0][0], *(x for x, _ in line[1:-1:2]), line[-1][0]]
    assert np.all(np.diff(edges) >= 0)
    assert len(line) == 2 * len(counts["usual"]) + 2
    assert "Does it doubt what it has never seen?" in render(view)


def test_examples_are_the_stored_rows_with_their_pictures() -> None:
    view = make_view(names=("a", "b", "c"))
    wrong, doubtful = examples(view)
    for shown, kind in ((wrong, "wrong"), (doubtful, "doubtful")):
        facts = view.shown["rows"][kind]
        assert [row.id for row in shown.rows] == [str(fact["position"]) for fact in facts]
        assert [row.right for row in shown.rows] == [fact["said"] == fact["truth"] for fact in facts]
        assert all(row.picture.startswith("data:image/png;base64,iVBOR") for row in shown.rows)
    page = render(view)
    assert page.count("<img ") == len(wrong.rows) + len(doubtful.rows)


def test_rows_of_a_table_stand_in_a_table() -> None:
    view = make_view("regression", names=("y",))
    places = view.exhibits["inputs"]["positions"]
    held = {"positions": places, "ids": places, "features": ["<b>", "colour"], "of": 9,
            "values": [[1.5, "red"]] * len(places), "unusual": [[3.0, None]] * len(places)}  # fmt: skip
    page = render(replace(view, exhibits={**view.exhibits, "inputs": held}))
    assert '<table class="examples">' in page
    assert "&lt;b&gt;" in page
    assert 'class="high"' in page
    assert "<img" not in page
    assert "img-src" not in page


def search_of(trials_: list[Trial], metric: str = "nll", chosen: tuple[str, ...] = ()) -> Searched:
    space = {"model.norm": {"choice": ["none", "batch"]}, "training.lr": {"loguniform": [1e-4, 1.0]},
             "model.dropout": {"uniform": [0, 1]}}  # fmt: skip
    shares = {
        "shares": {"training.lr": 0.7, "model.norm": 0.3},
        "trials": len(trials_),
        "absent": ["model.dropout"],
    }
    return Searched(space, look(metric), trials_, frozenset(chosen), shares)


def some_trials(count: int, seed: int = 0) -> list[Trial]:
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        values = {"model.norm": ["none", "batch"][i % 2], "training.lr": float(10 ** rng.uniform(-4, 0))}
        values |= {"model.dropout": float(rng.uniform())} if i % 3 else {}
        epochs = 4 if i % 2 else 8 if i % 4 else 16
        found.append(Trial(i, values, float(rng.uniform(0.1, 3)), None, epochs, "stopped" if epochs < 16 else "done",
                           f"halving: rank 3 of 9 at epoch {epochs}" if epochs < 16 else "", (f"m{i}",)))  # fmt: skip
    return found


@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_parallel_coordinates_have_a_line_for_every_trial_and_mark_the_chosen(metric: str) -> None:
    searched = search_of(some_trials(40), metric, chosen=("m3", "m7"))
    figure = parallel.draw(searched)
    assert figure is not None
    assert len(drawn(figure, "trial-line")) == 38
    assert len(drawn(figure, "pick-line")) == 2
    assert "not set" in str(figure.drawing)
    order = [
        head.text for head in ET.fromstring(str(figure.drawing)).iter() if head.get("class") == "axis-label"
    ]
    assert order[:3] == ["lr", "norm", "dropout"]
    best = searched.ranked[0]
    lines = drawn(figure, "shade-0" if not searched.is_chosen(best) else "pick-line")
    assert min(line[-1][1] for line in lines) == pytest.approx(parallel.TOP, abs=0.1)
    assert figure.numbers is not None
    assert figure.numbers.rows[0][0].startswith(str(best.number))


def test_a_large_search_is_cut_and_says_so() -> None:
    searched = search_of(some_trials(5000))
    figure = parallel.draw(searched)
    assert figure is not None
    assert f"{len(drawn(figure, 'trial-line'))} of 5,000 trials are drawn" in figure.caption
    assert len(drawn(figure, "trial-line")) <= parallel.LINES_UP_TO
    history = trials.history(searched, HALF)
    assert history is not None
    assert str(history.drawing).count("<circle") <= trials.DOTS_UP_TO
    assert len(str(figure.drawing)) + len(str(history.drawing)) < 900_000


@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_the_history_never_gets_worse_and_ends_at_the_best(metric: str) -> None:
    searched = search_of(some_trials(30), metric)
    figure = trials.history(searched, HALF)
    assert figure is not None
    (line,) = drawn(figure, "ensemble-line")
    heights = [y for _, y in line]
    rising = sorted(heights, reverse=metric == "accuracy")
    assert heights == rising
    assert figure.numbers is not None
    assert searched.face.show(searched.ranked[0].value) in figure.caption


def test_survival_counts_the_trials_of_each_rung_whatever_stopped_them() -> None:
    figure = trials.survival(search_of(some_trials(40)), HALF)
    assert figure is not None
    assert "40 → 20" in str(figure.drawing)
    assert "20 → 10" in str(figure.drawing)
    assert (
        "30 trials of 40 ended early: 30 by halving. Of the epochs of all trials 50 % were trained"
        in figure.caption
    )
    others = [replace(t, reason="" if t.number % 4 else "median: below") for t in some_trials(40)]
    assert "by early stopping" in (trials.survival(search_of(others), HALF) or figure).caption
    assert trials.survival(search_of([replace(t, epochs=5) for t in some_trials(8)]), HALF) is None


def test_importance_has_a_bar_for_each_key_in_order() -> None:
    figure = trials.importance(search_of(some_trials(12)), HALF)
    assert figure is not None
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([\d.]+)"', str(figure.drawing))]
    assert widths[1] / widths[0] == pytest.approx(3 / 7, abs=0.01)
    assert "Without 1 key that only some trials have" in figure.caption


def test_every_figure_has_a_name_and_numbers_for_those_who_do_not_see_it() -> None:
    """All but the strips and the packs, whose numbers are the tables beside them."""
    for view in (make_view(), make_view("regression", names=("y",)), with_elsewhere(make_view())):
        page = render(view)
        assert page.count('role="img"') == page.count("aria-label=") > 6
        assert page.count("The same in numbers") == page.count("<figure") - 2


def test_numbers_are_few_and_the_ends_are_among_them() -> None:
    rows = [(i, i * i) for i in range(1000)]
    spread, first = Numbers.of(("a", "b"), rows, spread=True), Numbers.of(("a", "b"), rows)
    assert (spread.rows[0][0], spread.rows[-1][0]) == ("0", "999")
    assert [row[0] for row in first.rows] == [str(i) for i in range(16)]
    assert spread.left_out == first.left_out == 984
    assert Numbers.of(("a",), [("1",)], spread=True).rows == (("1",),)
    assert Numbers.of(("a",), []).rows == ()


def test_a_page_of_sixteen_members_and_one_of_many_members_and_classes_stay_small() -> None:
    assert len(render(make_view(members=16, rows=400, names=tuple(map(str, range(10)))))) < 600_000
    large = make_view(members=200, rows=60, epochs=10, names=tuple(map(str, range(1000))), splits=("test",))
    assert len(render(large)) < 2_000_000


@pytest.mark.parametrize("searched", [False, True])
def test_a_loss_that_is_infinite_everywhere_has_no_curve_and_the_rest_is_shown(searched: bool) -> None:
    """One row whose truth every member holds to be impossible makes it so."""
    view = make_view(members=4)
    curve: list[dict[str, Any]] = [
        {key: dict.fromkeys(own, math.inf) if key == "nll" else own for key, own in point.items()}
        for point in view.summary["size_curve"]
    ]
    picked = [{"picks": n, "members": n, "accuracy": 0.5 + n / 10, "nll": math.inf} for n in (1, 2, 3)]
    changed = {"searched": True, "pick_curve": picked} if searched else {"size_curve": curve}
    summary = {name: value for name, value in view.summary.items() if name != "size_curve"} | changed
    shown = replace(view, metrics={view.split: summary})
    titles = [figure.title for module in (picks, size) for figure in module.draw(shown)]
    assert titles == [f"Accuracy against {'picks' if searched else 'ensemble size'}"]
    assert "</html>" in render(shown)
