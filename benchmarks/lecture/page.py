"""``docs/lecture.md``: each claim, its command, the measured numbers and the plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.lecture.claim import Claim, Found, Table
from benchmarks.machine import describe

HEAD = """# A lecture's claims, measured

What lectures on training neural networks say, and what came of it when it was tried: one job or more for each claim, on
data that ship with scikit-learn, small enough for two cores. A claim that does not hold here is reported as such; that
it fails on a small task does not mean that it fails everywhere, nor the other way round.

`make lecture` trains every job and writes this page and its plots{quick}. {machine}
"""


def write(folder: Path, results: Sequence[tuple[Claim, Found, float]], *, quick: bool) -> Path:
    """Write ``lecture.md`` and the plots under ``lecture/``; the seconds of each claim stand with it."""
    plots = folder / "lecture"
    plots.mkdir(parents=True, exist_ok=True)
    for _, found, _ in results:
        for plot in found.plots:
            (plots / f"{plot.name}.svg").write_text(plot.svg())
    page = folder / "lecture.md"
    page.write_text("\n".join(_lines(results, quick=quick)) + "\n")
    return page


def _lines(results: Sequence[tuple[Claim, Found, float]], *, quick: bool) -> Iterator[str]:
    whole = sum(seconds for *_, seconds in results)
    note = (
        f" ({whole / 60:.0f} minutes)"
        if not quick
        else " (this one with a tenth of the epochs: no numbers to quote)"
    )
    yield HEAD.format(quick=note, machine=_machine())
    yield from _table(
        Table(
            ("claim", "verdict", "measured"),
            [
                (f"[{claim.title}](#{_anchor(claim.title)})", found.verdict, found.says)
                for claim, found, _ in results
            ],
        )
    )
    for claim, found, seconds in results:
        yield f"\n## {claim.title}\n"
        yield f"**Claim.** {claim.claim}\n"
        yield f"**Measured by.** {claim.how}\n"
        yield "```sh"
        yield from (f"ensemble-svc {claim.verb} jobs/lecture/{job}.yaml" for job in claim.jobs)
        yield f"python -m benchmarks.lecture --only {claim.name}   # this section, {seconds:.0f} s"
        yield "```\n"
        yield f"**{found.verdict.capitalize()}.** {found.says}\n"
        if found.table is not None:
            yield from _table(found.table)
            yield ""
        yield from (f"![{plot.label}](lecture/{plot.name}.svg)" for plot in found.plots)


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.heads)} |"
    yield "|" + "---|" * len(table.heads)
    yield from (f"| {' | '.join(row)} |" for row in table.rows)


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _machine() -> str:
    found = describe()
    return f"Measured on {found['date']}, {found['cores']} cores of {found['cpu']}."
