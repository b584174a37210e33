"""Rows from elsewhere, as rows of words: how well each score tells them from the usual ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ensemble_svc.report.text import DASH, clean, is_number


@dataclass(frozen=True)
class Elsewhere:
    """One data set from elsewhere."""

    source: str
    rows: str
    usual_rows: str
    scores: tuple[tuple[str, str, str, str, str], ...]
    """(score, AUROC, AUPR, FPR at 95 %, AUROC of the mean member)."""


def elsewhere(summary: Mapping[str, Any]) -> list[Elsewhere]:
    """The data sets that a split was compared with."""
    return [
        Elsewhere(
            clean(source, limit=80),
            f"{found['rows']:,}",
            f"{found['usual_rows']:,}",
            tuple(_rows(found["scores"])),
        )
        for source, found in (summary.get("ood") or {}).items()
    ]


def _rows(scores: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    for task, own in by_task(scores).items():
        for name, one in own.items():
            ensemble, member = one["ensemble"], one.get("mean_member") or {}
            label = f"{clean(task, limit=30)} {name}".strip().replace("_", " ")
            values = (ensemble["auroc"], ensemble["aupr_out"], ensemble["fpr95"], member.get("auroc"))
            auroc, aupr, fpr, of_member = (_percent(value) for value in values)
            yield label, auroc, aupr, fpr, of_member


def by_task(scores: Mapping[str, Any]) -> Mapping[str, Any]:
    """The scores of each of several tasks; those of a lone one under the empty name."""
    first: Mapping[str, Any] = next(iter(scores.values()), {})
    return {"": scores} if "ensemble" in first else scores


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if is_number(value) else DASH
