"""The report shows each searched key against the metric of its trials."""

from __future__ import annotations

from dataclasses import replace

import pytest
from report_views import make_view

from ensemble_svc.report.figures import searched
from ensemble_svc.report.html import render
from ensemble_svc.report.view import RunView

LAWS = {
    "training.optimizer.lr": {"loguniform": [1e-4, 0.1]},
    "model.dropout": {"uniform": [0.0, 0.5]},
    "model.hidden": {"choice": [[8], [4, 4]]},
    "training.batch_size": {"choice": [64]},
}


def view_of(metric: str = "nll", members: int = 9) -> RunView:
    """A finished search: two keys with numbers, one with lists, one with a single value."""
    view = make_view(members=members)
    entries = []
    for k, member in enumerate(view.members):
        values = {
            "training.optimizer.lr": 10 ** (-4 + 3 * k / members),
            "model.dropout": 0.5 * k / members,
            "model.hidden": [8] if k % 2 else [4, 4],
            "training.batch_size": 64,
        }
        entries.append({**member, "hyperparameters": values, "stopped": k < 4})
    manifest = {**view.manifest, "members": entries, "ensemble": {"members": [entries[-1]["id"]]}}
    return replace(view, job={**view.job, "search": {"space": LAWS, "metric": metric}}, manifest=manifest)


@pytest.mark.parametrize("metric", ["nll", "accuracy"])
def test_each_key_with_numbers_has_a_dot_for_every_trial(metric: str) -> None:
    figures = searched.draw(view_of(metric))
    assert [figure.title for figure in figures] == ["training.optimizer.lr", "model.dropout"]
    for figure in figures:
        marks = [figure.drawing.count(f'class="{kind}"') for kind in searched.KINDS]
        assert marks == [4, 4, 1]
        assert [kind for kind, _ in figure.legend] == list(searched.KINDS)


def test_it_stands_on_the_page_of_a_search_alone() -> None:
    page = render(view_of())
    assert "What was searched" in page
    assert "What was searched" not in render(make_view())
    assert "What was searched" not in render(replace(view_of(), job={**view_of().job, "search": None}))


def test_words_of_a_key_are_text() -> None:
    view = view_of()
    bad = "model.options.<script>"
    entries = [{**m, "hyperparameters": {bad: m["hyperparameters"]["model.dropout"]}} for m in view.members]
    job = {**view.job, "search": {"space": {bad: {"uniform": [0, 1]}}, "metric": "nll"}}
    page = render(replace(view, job=job, manifest={**view.manifest, "members": entries}))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_key_within_a_choice_has_its_dots_too() -> None:
    """Of the trials that have it; the key of the choice has words for values, and no dots."""
    view = view_of()
    law = {"choice": [{"name": "sgd", "momentum": {"uniform": [0.0, 0.9]}}, "adamw"]}
    entries = [
        {**m, "hyperparameters": {"training.optimizer": "sgd", "training.optimizer.momentum": k / 10}}
        if k % 2
        else {**m, "hyperparameters": {"training.optimizer": "adamw"}}
        for k, m in enumerate(view.members)
    ]
    job = {**view.job, "search": {"space": {"training.optimizer": law}, "metric": "nll"}}
    changed = replace(view, job=job, manifest={**view.manifest, "members": entries})
    (figure,) = searched.draw(changed)
    assert figure.title == "training.optimizer.momentum"
    dots = sum(figure.drawing.count(f'class="{kind}"') for kind in searched.KINDS)
    assert dots == sum(k % 2 for k in range(len(view.members)))
    assert "momentum" in render(changed)
