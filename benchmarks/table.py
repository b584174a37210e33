"""The results as Markdown: ``python -m benchmarks.table [DIR]``, by default benchmarks/results."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import targets

RESULTS = Path(__file__).parent / "results"


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of a folder by name."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {result["name"]: result for result in found}


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """Every contest, then the probes, then the targets."""
    contests = [result for result in results.values() if result["kind"] == "contest"]
    probes = [result for result in results.values() if result["kind"] == "probe"]
    parts = [part for result in contests for part in _contest(result)]
    if probes:
        parts += ["### Ours alone", "", *_probes(probes), ""]
    if rows := list(targets.rows(results)):
        parts += ["### Targets", "", *_targets(rows), ""]
    return "\n".join(parts)


def _contest(result: dict[str, Any]) -> Iterator[str]:
    work, entries = result["work"], result["contenders"]
    yield f"### {result['title']}"
    yield ""
    recipe = f"{work['epochs']} epochs, batches of {work['batch']}, AdamW {work['lr']:g}"
    yield f"{recipe}; {len(result['rounds'])} rounds. {_where(result)}"
    yield ""
    yield from _head(
        (
            "contender",
            "training, s",
            "min – max",
            "against ours, auto",
            "process, s",
            "accuracy",
            "mean member",
            "NLL",
            "threads",
        )
    )
    ours = (
        statistics.median(entries[targets.OURS]["training_s"])
        if _done(entries.get(targets.OURS, {}))
        else None
    )
    ranked = sorted(
        entries.values(), key=lambda e: statistics.median(e["training_s"]) if _done(e) else float("inf")
    )
    for entry in ranked:
        yield _line(_cells(entry, ours))
    yield ""


def _cells(entry: dict[str, Any], ours: float | None) -> Sequence[str]:
    if not _done(entry):
        return (entry["title"], entry.get("skipped") or f"failed: {entry.get('failed')}", *[""] * 7)
    times, middle = entry["training_s"], statistics.median(entry["training_s"])
    return (
        entry["title"],
        f"{middle:.2f}",
        f"{min(times):.2f} – {max(times):.2f}",
        f"{middle / ours:.2f}x" if ours else "",
        f"{statistics.median(entry['whole_s']):.1f}",
        f"{statistics.median(entry['accuracy']):.2%}",
        f"{statistics.median(entry['member_accuracy']):.2%}",
        f"{statistics.median(entry['nll']):.4f}",
        str(entry["threads"]),
    )


def _probes(results: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from _head(("measured", "median", "min – max", "rounds"))
    for result in results:
        for name, entry in result["measures"].items():
            values = entry["values"]
            middle = f"{statistics.median(values):.3g} {entry['unit']}".strip()
            yield _line(
                (
                    f"{result['title']}: {name}",
                    middle,
                    f"{min(values):.3g} – {max(values):.3g}",
                    str(len(values)),
                )
            )
    yield ""
    yield _where(results[-1])


def _targets(rows: Sequence[targets.Row]) -> Iterator[str]:
    yield from _head(("what", "wanted", "measured", "met"))
    for row in rows:
        yield _line((row.what, row.wanted, row.measured, "yes" if row.met else "no"))


def _where(result: dict[str, Any]) -> str:
    machine = result["machine"]
    loads = [one["load_average"] for one in result["rounds"]]
    return (
        f"{machine['cores']} cores of {machine['cpu']}, torch {machine['versions']['torch']}, "
        f"load average {min(loads)} – {max(loads)}, {machine['date']}, commit {machine['commit']}."
    )


def _done(entry: dict[str, Any]) -> bool:
    return bool(entry.get("training_s")) and "failed" not in entry


def _head(cells: Sequence[str]) -> Iterator[str]:
    yield _line(cells)
    yield _line(["---"] * len(cells))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(markdown(read(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)))
