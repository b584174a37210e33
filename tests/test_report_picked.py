"""Of very many members those are shown that say most, and the page and the tables stay small."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_views import make_view
from rich.console import Console

from ensemble_svc.cli.roster import STATUS_UP_TO, members_table, status_table
from ensemble_svc.report.html import MEMBERS_UP_TO, render
from ensemble_svc.report.picked import LOST, best_first, picked, spread

members = st.lists(
    st.tuples(st.sampled_from(["done", "diverged", "failed", "pending"]), st.none() | st.floats(0, 9)),
    min_size=1,
    max_size=80,
)


def entries(found: list[tuple[str, float | None]], name: str = "nll") -> list[dict[str, Any]]:
    return [
        {
            "id": f"{k:04d}-abc",
            "status": status,
            "metrics": {} if value is None else {"validation": {name: value}},
        }
        for k, (status, value) in enumerate(found)
    ]


@given(members, st.integers(1, 30), st.data())
def test_the_picked_are_few_in_order_and_hold_the_best(found: Any, most: int, data: Any) -> None:
    every = entries(found)
    chosen = set(data.draw(st.lists(st.sampled_from([one["id"] for one in every]), max_size=5)))
    some = picked(every, most, chosen)
    assert len(some) == min(most, len(every)) or len(every) > most >= len(some)
    places = [every.index(one) for one in some]
    assert places == sorted(set(places))
    sound = [one for one in (every[k] for k in best_first(every)) if one["status"] not in LOST]
    if most >= 3 and sound:
        assert sound[0] in some


@pytest.mark.parametrize(("name", "best"), [("nll", 0), ("accuracy", 4)])
def test_the_best_comes_first_whichever_way_the_metric_points(name: str, best: int) -> None:
    every = entries([("done", value) for value in (0.1, 0.2, 0.3, 0.4, 0.5)], name)
    assert best_first(every)[0] == best


@given(st.integers(0, 500), st.integers(1, 60), st.data())
def test_what_is_spread_is_in_bounds_and_keeps_what_it_must(total: int, most: int, data: Any) -> None:
    kept = data.draw(st.lists(st.integers(0, total - 1), max_size=5)) if total else []
    found = spread(total, most, kept)
    assert found == sorted(set(found))
    assert set(kept) <= set(found) <= set(range(total))
    assert len(found) <= max(most + len(kept), min(total, most))


def test_a_page_of_very_many_members_is_not_longer_than_one_of_many() -> None:
    view = make_view(members=MEMBERS_UP_TO + 40, rows=20, epochs=2, lost=30)
    page = render(view)
    table = page.partition('<table class="members">')[2].partition("</table>")[0]
    assert table.count('<tr><th scope="row">') == MEMBERS_UP_TO
    assert f"{MEMBERS_UP_TO + 40} members, {MEMBERS_UP_TO} of them one by one" in page
    assert "and 10 more" in page
    every = [{**view.members[0], "id": f"{k:04d}-x"} for k in range(20_000)]
    large = replace(view, manifest={**view.manifest, "members": every})
    assert len(render(large)) < len(page) + 200_000


def test_a_status_of_very_many_members_counts_those_it_does_not_show() -> None:
    every = entries([("done", float(k)) for k in range(900)] + [("failed", None)] * 100)
    found = {"name": "x", "state": "finished", "epochs": 3, "members": every}
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(status_table(found))
    console.print(members_table({"members": every}, limit=20))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"900 done, 100 failed; {1000 - STATUS_UP_TO} more members than shown" in " ".join(text.split())
    assert text.count("-abc") <= STATUS_UP_TO + 20 + 5
    assert "0000-abc" in text
    assert "0899-abc" in text


def test_many_members_of_one_epoch_have_their_percentiles_drawn() -> None:
    """An area of one epoch has no width: a stroke and a dot stand for it."""
    page = render(make_view(members=60, rows=20, epochs=1))
    curves = page.partition('<section id="curves">')[2].partition("</section>")[0]
    assert "spread-line" in curves
    assert curves.count("member-dot") >= 3
