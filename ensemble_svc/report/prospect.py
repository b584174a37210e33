"""What more members would bring, in a sentence; the terminal and the page print the same.

Pure and light: nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensemble_svc.report.bytask import tasks_of
from ensemble_svc.report.looks import look
from ensemble_svc.report.text import clean, count, is_number
from ensemble_svc.report.verdict import Metrics, report_split


def prospects(manifest: Mapping[str, Any], metrics: Metrics) -> list[str]:
    """One sentence for each task whose forecast there is, measured on the split that reports."""
    split = report_split(metrics)
    if split is None:
        return []
    found = [(task, own["forecast"]) for task, own in tasks_of(metrics[split]).items() if own.get("forecast")]
    return [_sentence(task, forecast, _hours_each(manifest)) for task, forecast in found]


def _sentence(task: str, forecast: Mapping[str, Any], hours_each: float | None) -> str:
    face, error = look(forecast["metric"]), forecast["error"]
    places = face.places(error)
    change = f"{face.bare(forecast['estimate'], places, signed=True)} ± {face.bare(error, places)}"
    whose = f"{clean(task, limit=40)}: " if task else ""
    cost = f" for {forecast['more'] * hours_each:.2g} device-hours" if hours_each else ""
    return (
        f"{whose}{count(forecast['more'], 'more member')}: {face.label} {change} (standard error){cost}, "
        f"forecast from subsets of the {forecast['members']:,} there are."
    )


def _hours_each(manifest: Mapping[str, Any]) -> float | None:
    """Device-hours of a member: what the packs held for as long as they trained, over those they trained."""
    single = (manifest.get("single") or {}).get("id")
    packs = [
        pack
        for pack in manifest.get("packs") or ()
        if is_number(pack.get("seconds")) and single not in pack.get("members", ())
    ]
    hours = sum(pack["seconds"] * (pack.get("gpus") or pack.get("cpus") or 0) / 3600 for pack in packs)
    trained = sum(len(pack.get("members", ())) for pack in packs if pack["seconds"] > 0)
    return hours / trained if trained and hours > 0 else None
