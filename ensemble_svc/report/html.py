"""The report as one self-contained page: no script, no network, nothing loaded from beside it.

Whatever a user or a stranger named (runs, classes, features, reasons, hosts) is text: jinja2
escapes all of it, the SVG goes through an XML writer, and the page's own policy forbids every
source but this one style sheet, which it names by its hash, and pictures that stand in the page itself.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ensemble_svc.report.bytask import tasks_of, titled
from ensemble_svc.report.decision import decided
from ensemble_svc.report.elsewhere import elsewhere
from ensemble_svc.report.examples import examples
from ensemble_svc.report.expected import expected
from ensemble_svc.report.figure import Figure
from ensemble_svc.report.figures import (
    confusion,
    curves,
    doubt,
    numbers,
    parallel,
    picks,
    placement,
    rates,
    reliability,
    risk,
    searched,
    size,
    strip,
    trials,
)
from ensemble_svc.report.findings import told
from ensemble_svc.report.panel import width_of
from ensemble_svc.report.picked import LOST, picked
from ensemble_svc.report.portrait import portraits
from ensemble_svc.report.prospect import prospects
from ensemble_svc.report.rows import member_table, metric_rows
from ensemble_svc.report.search import Searched
from ensemble_svc.report.text import clean, count, duration, is_number
from ensemble_svc.report.tiles import tiles
from ensemble_svc.report.verdict import judge, unfinished
from ensemble_svc.report.view import RunView, view_of
from ensemble_svc.store.atomic import write_atomic
from ensemble_svc.store.lineage import changed_words
from ensemble_svc.store.members import parted
from ensemble_svc.store.run import Run

OPEN_UP_TO = 24
"""Members beyond which their table starts folded."""
MEMBERS_UP_TO = 300
"""Lines of that table at most."""
LOST_UP_TO = 20
PACKS_UP_TO = 100


@dataclass(frozen=True)
class Section:
    """A headed part of the page that holds figures."""

    anchor: str
    title: str
    figures: tuple[Figure, ...]
    note: str = ""


def render(view: RunView) -> str:
    """The whole page for one run."""
    page, style = _templates()
    content = _content(view)
    has_pictures = any(row.picture for some in content["examples"] for row in some.rows)
    pictures = "img-src data:; " if has_pictures else ""
    policy = b64encode(sha256(style.encode()).digest()).decode()
    return page.render(
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{policy}'; {pictures}base-uri 'none'; form-action 'none'",
        **content,
    )


@cache
def _templates() -> tuple[Template, str]:
    """The page and its style sheet, compiled once for the pages of a whole process."""
    pages = Environment(
        loader=PackageLoader("ensemble_svc.report", "templates"),
        autoescape=True,
        finalize=_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return pages.get_template("report.html.j2"), pages.get_template("report.css").render()


def write_report(run: Run) -> str:
    """Write the run's ``report.html``; returns its SHA-256. The same run gives the same bytes.

    Raises:
        StoreError: a folder that cannot be written, or a run whose files are not what was written.
    """
    return write_atomic(run.path / "report.html", render(view_of(run)).encode())


def _text(shown: Any) -> Any:
    return clean(shown, limit=100_000) if isinstance(shown, str) and not isinstance(shown, Markup) else shown


def _content(view: RunView) -> dict[str, Any]:
    manifest = view.manifest
    shown = picked(view.members, MEMBERS_UP_TO, {parted(own)[0] for own in view.chosen})
    members = member_table(shown, _member_metrics(view), of=view.members)
    lost = [member for member in view.members if member.get("status") in LOST and member.get("reason")]
    return {
        "name": manifest.get("name") or view.job.get("name") or "run",
        "facts": _facts(view),
        "verdict": judge(view.metrics, manifest),
        "decided": [*decided(manifest, view.metrics), *prospects(manifest, view.metrics)],
        "unfinished": unfinished(manifest),
        "confidence": f"{100 * view.confidence:g} %",
        "tiles": tiles(view),
        "warnings": list(manifest.get("warnings") or ()),
        "sections": [section for section in _sections(view) if section.figures],
        "later": [section for section in _later(view) if section.figures],
        "splits": [
            (titled(task, split), own.get("rows"), metric_rows(own))
            for split, summary in _by_report(view)
            for task, own in tasks_of(summary).items()
        ],
        "has_best": any((s.get("gain") or {}).get("over_best_member") for s in view.metrics.values()),
        "compared": any(len((s.get("members") or {}).get("each", ())) > 1 for s in view.metrics.values()),
        "portraits": portraits(view),
        "examples": examples(view),
        "elsewhere": elsewhere(view.summary),
        "doubt": [figure for part in view.parts.values() for figure in doubt.draw(part)],
        "portrayed": clean(view.split or "", limit=40),
        "findings": told(view.members),
        "members": members,
        "members_changed": changed_words(view.members),
        "members_open": len(members.rows) <= OPEN_UP_TO,
        "members_all": len(view.members),
        "lost": member_table(lost[:LOST_UP_TO], ()).rows,
        "lost_more": max(0, len(lost) - LOST_UP_TO),
        "placement": placement.draw(view),
        "packs": _packs(view),
        "packs_all": len(manifest.get("packs") or ()),
        "expected": expected(manifest),
        "stages": [(clean(stage), duration(spent)) for stage, spent in view.seconds.items()],
        "hashes": [(label, manifest[key]) for key, label in _HASHES if manifest.get(key)],
        "versions": sorted((manifest.get("versions") or {}).items()),
        "job_text": view.job_text.splitlines(),
    }


_HASHES = (("job_digest", "job"), ("data_hash", "data"), ("split_hash", "split"))


def _facts(view: RunView) -> list[str]:
    """The line under the name: what was trained on what."""
    job, rows = view.job, view.manifest.get("rows") or {}
    source, model = ((job.get(part) or {}) for part in ("data", "model"))
    names = [view.manifest.get("task"), (source.get("source") or {}).get("name"), model.get("name")]
    sizes = [f"{amount:,} {clean(split, limit=30)}" for split, amount in rows.items() if is_number(amount)]
    facts = [clean(name, limit=60) for name in names if name]
    facts += [count(len(view.members), "member")]
    return facts + ([" / ".join(sizes) + " rows"] if sizes else [])


def _by_report(view: RunView) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(view.metrics.items(), key=lambda item: item[0] != view.split)


def _member_metrics(view: RunView) -> list[tuple[str, str]]:
    splits = [split for split in (view.split, "validation") if split]
    names = [
        f"{task}/{name}" if task else name for task, part in view.parts.items() for name in part.headline
    ]
    wanted = [(split, name) for split in dict.fromkeys(splits) for name in names]
    present = {
        (s, n) for m in view.members for s, values in (m.get("metrics") or {}).items() for n in values or ()
    }
    return [pair for pair in wanted if pair in present]


def _sections(view: RunView) -> list[Section]:
    """What the ensemble is worth, and what it says."""
    found = [
        section
        for number, (task, part) in enumerate(view.parts.items())
        for section in _of(part, task, number)
    ]
    found.insert(
        2, Section("search", "What the search found", tuple(_search(view)), changed_words(view.members))
    )
    return found


def _later(view: RunView) -> list[Section]:
    """How it came about."""
    return [
        Section("searched", "What was searched, key by key", tuple(searched.draw(view))),
        Section("curves", "Learning curves", tuple(curves.draw(view))),
        Section("rates", "Which learning rate?", tuple(rates.draw(view))),
    ]


def _search(view: RunView) -> list[Figure]:
    found = Searched.of(view)
    if found is None:
        return []
    makers = (trials.importance, trials.history, trials.survival)
    number = sum(figure is not None for figure in (make(found, width_of(3)) for make in makers))
    beside = [make(found, width_of(number)) for make in makers]
    return [figure for figure in (parallel.draw(found), *beside) if figure is not None]


def _of(view: RunView, task: str, number: int) -> list[Section]:
    """The sections of one task; its figures say whose they are, where there are several."""
    members, end = strip.draw(view), f"-{number}" if number else ""

    def section(anchor: str, title: str, figures: Iterable[Figure]) -> Section:
        named = tuple(replace(figure, title=titled(task, figure.title)) for figure in figures)
        return Section(anchor + end, titled(task, title), named)

    return [
        section("members-against", "Members against the ensemble", (members,) if members else ()),
        section("size", "How many members does it take?", [*size.draw(view), *picks.draw(view)]),
        section("honesty", "Can its confidence be believed?", _honesty(view)),
    ]


def _honesty(view: RunView) -> list[Figure]:
    """What is drawn of single rows; their width depends on how many stand beside each other."""
    mistakes = confusion.draw(view)
    beside = [mistakes] if mistakes and not mistakes.wide else []
    own = ("reliability" in view.summary) + bool(view.shown.get("risk")) + len(beside)
    own += len(view.shown.get("scatter") or ()) + bool(view.shown.get("coverage"))
    width = width_of(own)
    found = [reliability.draw(view, width), *numbers.draw(view, width), risk.draw(view, width), mistakes]
    return [figure for figure in found if figure is not None]


def _packs(view: RunView) -> list[dict[str, str]]:
    entries = {member["id"]: member for member in view.members}
    return [
        {
            "id": clean(pack.get("id", "")),
            "members": f"{len(pack.get('members', ())):,}",
            "place": placement.place(pack, [entries.get(m, {}) for m in pack.get("members", ())]),
            "seconds": duration(pack.get("seconds")),
            "reason": clean(pack.get("reason") or ""),
        }
        for pack in _longest(view.manifest.get("packs") or ())
    ]


def _longest(packs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The packs that have a line, in their order."""
    ranks = sorted(range(len(packs)), key=lambda place: -(packs[place].get("seconds") or 0.0))
    return [packs[place] for place in sorted(ranks[:PACKS_UP_TO])]
