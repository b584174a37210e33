"""The page holds what the run found, nothing that a stranger's words could turn it into, and nothing from elsewhere."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_views import make_view

from ensemble_svc.evaluate.metrics import METRICS
from ensemble_svc.report.figures import rates
from ensemble_svc.report.html import render
from ensemble_svc.report.looks import LOOKS
from ensemble_svc.report.text import clean
from ensemble_svc.report.verdict import verdict
from ensemble_svc.report.view import RunView

VOID = {"meta", "link", "br", "img", "input", "hr"}
LOADING = {
    "script",
    "link",
    "image",
    "iframe",
    "object",
    "embed",
    "base",
    "form",
    "use",
    "a",
    "foreignobject",
}
LOADING_ATTRIBUTES = {
    "src",
    "href",
    "xlink:href",
    "srcset",
    "action",
    "data",
    "poster",
    "background",
    "style",
}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onload='alert(1)",
    "javascript:alert(1)",
    "</style><script>x</script>",
    "</svg></title><b onclick=x>",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!--",
    "=cmd|'/C calc'!A1",
    "\x1b[2J\x00\u202e\ud800",
)

words = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=30),
    st.text("<>&\"'/=;:!-[]{}%\\ \n\u2028", min_size=1, max_size=30),
).map(lambda text: f"w{text}w")


class Page(HTMLParser):
    """Tags in order, their attributes, and text by the innermost tag; complains of a tag left open."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[dict[str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append({name: value or "" for name, value in attrs})
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append({name: value or "" for name, value in attrs})

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1:] == [tag], f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    @property
    def text(self) -> str:
        return " ".join(" ".join(data for tag, data in self.texts if tag != "style").split())


VIEWS: Mapping[str, Mapping[str, Any]] = {
    "classification": {},
    "regression": {"task": "regression", "names": ("y",)},
    "regression, three targets": {"task": "regression", "names": ("y", "z", "u"), "rows": 400},
    "one member": {"members": 1},
    "two members": {"members": 2},
    "60 members": {"members": 60, "rows": 60},
    "members lost": {"members": 9, "lost": 4},
    "regression, members lost": {"task": "regression", "members": 5, "lost": 2},
    "all lost": {"members": 3, "lost": 3, "splits": ()},
    "one left": {"members": 3, "lost": 2},
    "no validation": {"splits": ("test",)},
    "no test": {"splits": ("validation",)},
    "few rows": {"rows": 6},
    "one epoch": {"epochs": 1},
    "two classes": {"names": ("benign", "malignant")},
    "16 classes": {"names": tuple(f"class {i}" for i in range(16))},
    "40 classes": {"names": tuple(map(str, range(40)))},
}


@pytest.mark.parametrize("options", VIEWS.values(), ids=VIEWS.keys())
def test_every_shape_of_run_has_a_whole_page_with_its_headline(options: Mapping[str, Any]) -> None:
    view = make_view(**options)
    page = Page(render(view))
    assert " ".join(verdict(view.metrics, view.manifest).split()) in page.text
    assert all(member["id"] in page.text for member in view.members)
    assert "nan" not in re.findall(r"[a-z]+", page.text.lower())
    assert not any(
        "nan" in value or "inf" in value
        for a in page.attributes
        for value in (a.get("d", ""), a.get("x", ""))
    )


def test_a_run_whose_metrics_are_not_finite_has_a_page() -> None:
    view = make_view(members=4)
    summary = dict(view.summary)
    summary["ensemble"] = {**summary["ensemble"], "nll": float("inf"), "brier": float("nan")}
    summary["gain"] = {
        "over_mean_member": {"nll": {"estimate": float("nan"), "low": float("nan"), "high": float("inf")}}
    }
    page = Page(render(replace(view, metrics={"test": summary})))
    assert "∞" in page.text


def test_unmeasured_and_bare_runs_have_a_page() -> None:
    page = Page(render(RunView(job={}, job_text="", manifest={"members": []})))
    assert "No answer yet" in page.text


@given(word=words)
@settings(max_examples=25)
def test_no_word_of_a_stranger_changes_the_page_but_as_text(word: str) -> None:
    """Same tags, same attributes, and the word itself stands there to be read."""
    options: dict[str, Any] = {"members": 3, "lost": 1, "rows": 30, "epochs": 2}
    plain = Page(render(make_view(**options, word="plain")))
    page = Page(render(make_view(**options, word=word, names=("alpha", "beta", "gamma", "delta"))))
    assert page.tags == plain.tags
    assert [set(a) for a in page.attributes] == [set(a) for a in plain.attributes]
    assert clean(" ".join(word.split())) in page.text or clean(word) in page.text or not word.isprintable()


@given(
    names=st.lists(words, min_size=3, max_size=3, unique=True),
    task=st.sampled_from(["classification", "regression"]),
)
@settings(max_examples=12)
def test_class_and_target_names_are_text_inside_the_drawings(names: list[str], task: Any) -> None:
    page = Page(render(make_view(task, members=2, rows=30, epochs=2, names=names)))
    plain = Page(render(make_view(task, members=2, rows=30, epochs=2)))
    assert set(page.tags) <= set(plain.tags)
    assert not [name for a in page.attributes for name in a if name.startswith("on")]


@pytest.mark.parametrize("word", HOSTILE)
def test_nothing_is_loaded_and_nothing_runs(word: str) -> None:
    html = render(make_view(members=3, lost=1, rows=40, word=word, names=(word, "b", "c", "d")))
    page = Page(html)
    assert not set(page.tags) & LOADING
    pictures = [a for tag, a in zip(page.tags, page.attributes, strict=True) if tag == "img"]
    assert pictures
    assert all(a.keys() == {"src", "alt", "title"} for a in pictures)
    assert all(re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", a["src"]) for a in pictures)
    others = [a for tag, a in zip(page.tags, page.attributes, strict=True) if tag != "img"]
    names = {name for attributes in others for name in attributes}
    assert not names & LOADING_ATTRIBUTES
    assert not [name for name in names if name.startswith("on")]
    style = "".join(text for tag, text in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    html.encode("utf-8")


def test_the_policy_forbids_all_but_the_one_style_sheet() -> None:
    page = Page(render(make_view(members=2, rows=30)))
    policy = next(a["content"] for a in page.attributes if a.get("http-equiv") == "Content-Security-Policy")
    style = "".join(text for tag, text in page.texts if tag == "style")
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert policy.split("; ")[:3] == ["default-src 'none'", f"style-src 'sha256-{digest}'", "img-src data:"]
    bare = Page(render(replace(make_view(members=2, rows=30), exhibits={})))
    assert "img-src" not in str(bare.attributes)
    assert "unsafe" not in policy


def test_the_same_run_gives_the_same_bytes_whatever_the_report_took() -> None:
    view = make_view(members=3, rows=30)
    timed = {**view.manifest, "seconds": {**view.manifest["seconds"], "report": 3.2}}
    assert render(view) == render(replace(view, manifest=timed))


def test_a_hundred_members_are_drawn_within_ten_seconds() -> None:
    view = make_view(members=100, rows=500, epochs=60)
    began = time.monotonic()
    html = render(view)
    assert time.monotonic() - began < 10
    assert len(html) < 1_000_000


def test_every_metric_has_a_face_that_knows_which_way_is_better() -> None:
    assert set(LOOKS) == set(METRICS)
    assert {name: face.higher_is_better for name, face in LOOKS.items()} == {
        name: metric.higher_is_better for name, metric in METRICS.items()
    }


def test_lost_members_stand_with_their_reasons() -> None:
    view = make_view(members=5, lost=2, word="gradient too large")
    text = Page(render(view)).text
    assert "2 of 5 members failed or diverged" in text
    assert text.count("the loss of step 12 is not finite (gradient too large)") == 2


def test_the_search_of_the_rate_has_its_figure_where_there_was_one() -> None:
    trials = [
        {"lr": 10.0 / 2**i, "loss": 2.0 / (i + 1) if i > 1 else None, "diverged": i < 3} for i in range(6)
    ]
    found = {"suggested": {"halving": 1.25, "range_test": 0.3}, "steps": 50, "trials": trials}
    (figure,) = rates.draw(RunView(job={}, job_text="", manifest={}, rates=found))
    assert "of 6 rates" in figure.caption
    assert "1.25, is taken" in figure.caption
    assert rates.draw(RunView(job={}, job_text="", manifest={})) == []
