"""The metrics of a run of several tasks, task by task; a run of one task is one such part without a name.

Pure and light: the terminal and the page both use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Summary = Mapping[str, Any]


def tasks_of(summary: Summary) -> Mapping[str, Summary]:
    """The summary of each task on one split; that of a lone task under the empty name."""
    return summary.get("tasks") or {"": summary}


def by_task(metrics: Mapping[str, Summary]) -> dict[str, dict[str, Summary]]:
    """Task → split → its summary."""
    found: dict[str, dict[str, Summary]] = {}
    for split, summary in metrics.items():
        for task, own in tasks_of(summary).items():
            found.setdefault(task, {})[split] = own
    return found


def titled(task: str, words: str) -> str:
    """The words with their task in front, where there are several."""
    return f"{task}: {words}" if task else words
