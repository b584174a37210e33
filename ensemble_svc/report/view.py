"""What the report shows, as plain values: no file, no tensor, no job object.

Nothing here is as long as the data: what is drawn of single rows was worked out when they were measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_svc.report.bytask import by_task
from ensemble_svc.report.looks import headline, look
from ensemble_svc.report.picked import LOST as LOST
from ensemble_svc.report.picked import spread
from ensemble_svc.report.text import is_number
from ensemble_svc.report.verdict import report_split
from ensemble_svc.store.atomic import read_verified
from ensemble_svc.store.history import decode_history
from ensemble_svc.store.members import candidates, parted
from ensemble_svc.store.run import Run

Columns = Mapping[str, npt.NDArray[np.float64]]

HISTORIES_UP_TO = 400
"""Members whose histories are read; of more the chosen, some lost, and others evenly spread."""


@dataclass(frozen=True)
class RunView:
    """Everything that one page needs of a run."""

    job: Mapping[str, Any]
    """The resolved job."""
    job_text: str
    """The same as the run folder keeps it, YAML."""
    manifest: Mapping[str, Any]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """By split; empty when the run ended before it was measured."""
    histories: Mapping[str, Columns] = field(default_factory=dict)
    """Member id → its columns, one value per epoch; of very many members some."""
    exhibits: Mapping[str, Any] = field(default_factory=dict)
    """What ``exhibits.exhibit`` wrote: curves, matrices and rows of the split that reports; empty in older runs."""

    rates: Mapping[str, Any] = field(default_factory=dict)
    """What the search of the learning rate found; empty where there was none."""

    @property
    def split(self) -> str | None:
        """The split that reports."""
        return report_split(self.metrics)

    @property
    def summary(self) -> Mapping[str, Any]:
        """Metrics of that split."""
        return self.metrics[self.split] if self.split else {}

    @property
    def headline(self) -> list[str]:
        """The metrics to speak of first."""
        return headline(self.summary.get("ensemble", ()))

    @property
    def members(self) -> Sequence[Mapping[str, Any]]:
        """All members of the job, finished or not."""
        return self.manifest.get("members", ())

    @property
    def chosen(self) -> Sequence[str]:
        """Ids of the ensemble's members."""
        return (self.manifest.get("ensemble") or {}).get("members") or ()

    @property
    def candidates(self) -> Sequence[str]:
        """Ids of all that could have been chosen, in the order in which each one's metrics are listed."""
        return self.manifest.get("candidates") or self.chosen

    @property
    def is_selected(self) -> bool:
        """Whether some candidates were left out of the ensemble."""
        return len(self.chosen) < len(self.candidates)

    @property
    def shown(self) -> Mapping[str, Any]:
        """What is drawn of the task; of several tasks ask a part."""
        return (self.exhibits.get("tasks") or {}).get("") or {}

    @property
    def best(self) -> int | None:
        """Position among ``candidates`` of the member that validation would have picked, where it did."""
        if not (self.summary.get("gain") or {}).get("over_best_member"):
            return None
        metrics = {own: m for entry in self.members for own, m in candidates(entry).items()}
        name = (self.job.get("search") or {}).get("metric") or "nll"
        sign = -1 if look(name).higher_is_better else 1
        held = [metrics.get(own) or {} for own in self.candidates]
        scores = [(one.get("validation") or one.get("oob") or {}).get(name) for one in held]
        known = [sign * float(score) for score in scores if is_number(score)]
        return known.index(min(known)) if known and len(known) == len(scores) else None

    @property
    def parts(self) -> Mapping[str, RunView]:
        """The page's matter task by task; of one task the run itself, under the empty name."""
        schema = self.manifest.get("input_schema") or {}
        classes = dict(schema.get("tasks") or ())
        if not classes:
            return {"": self}
        return {
            task: replace(
                self,
                metrics=metrics,
                manifest={
                    **self.manifest,
                    "input_schema": {**schema, "classes": classes[task], "targets": [task], "tasks": []},
                },
                exhibits={
                    **self.exhibits,
                    "tasks": {"": (self.exhibits.get("tasks") or {}).get(task) or {}},
                },
            )
            for task, metrics in by_task(self.metrics).items()
            if task in classes
        }

    @property
    def seconds(self) -> Mapping[str, float]:
        """Wall time of each stage but the report's own, so that the same run gives the same page."""
        stages: Mapping[str, Any] = self.manifest.get("seconds") or {}
        return {name: spent for name, spent in stages.items() if is_number(spent) and name != "report"}

    @property
    def classes(self) -> Sequence[str]:
        """Class names; empty for regression."""
        return (self.manifest.get("input_schema") or {}).get("classes") or ()

    @property
    def targets(self) -> Sequence[str]:
        """Target names."""
        return (self.manifest.get("input_schema") or {}).get("targets") or ()

    @property
    def confidence(self) -> float:
        """Share that the intervals are meant to cover."""
        share = (self.job.get("evaluate") or {}).get("confidence")
        return float(share) if is_number(share) else 0.95


def view_of(run: Run) -> RunView:
    """Read a run folder for its report; every file is verified on the way.

    Raises:
        CorruptArtifact: a file whose bytes are not those that were written.
    """
    job, manifest = run.job(), run.manifest()
    metrics = run.metrics() if "metrics.json" in (manifest.get("files") or {}) else {}
    return RunView(
        job=job.model_dump(mode="json"),
        job_text=(run.path / "job.yaml").read_text("utf-8"),
        manifest=manifest,
        metrics=metrics,
        histories={m["id"]: columns for m in _told(manifest) if (columns := _history(run, m)) is not None},
        rates=_rates(run),
        exhibits=run.exhibits(),
    )


def _told(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The members whose histories are read."""
    members = manifest["members"]
    own = {parted(name)[0] for name in (manifest.get("ensemble") or {}).get("members") or ()}
    chosen = [place for place, member in enumerate(members) if member["id"] in own]
    lost = [place for place, member in enumerate(members) if member.get("status") in LOST]
    few = HISTORIES_UP_TO // 4
    return [members[place] for place in spread(len(members), HISTORIES_UP_TO, (*chosen[:few], *lost[:few]))]


def _history(run: Run, member: Mapping[str, Any]) -> Columns | None:
    """Read with the hash at hand: ``run.history`` looks it up in the manifest anew for every member."""
    for name, sha in (member.get("files") or {}).items():
        if name.endswith("/history.parquet"):
            return decode_history(read_verified(run.path / name, sha))
    return None


def _rates(run: Run) -> Mapping[str, Any]:
    """The journal's record of the rate that ``lr: auto`` stands for."""
    events = run.journal.of_kind("lr_found")
    return events[-1] if events else {}
