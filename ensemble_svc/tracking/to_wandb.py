"""A run in Weights & Biases, offline: a run for each member and one for the ensemble, in one group."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ensemble_svc.spec.trackers import Wandb
from ensemble_svc.tracking.naming import parameters

if TYPE_CHECKING:
    from ensemble_svc.tracking.book import Book, Page

FOLDER = "wandb"
SEALS = "written"
"""Folder with an empty file for each run that was written to its end, by its seal."""
FLUSH_S = 1.0
"""Seconds between two writings of a run's file, for a page that is looked at meanwhile."""


@dataclass(frozen=True)
class Place:
    """Where the runs of a run folder are kept, and how they are named."""

    mark: str
    name: str
    project: str
    run: Path

    def opened(self, name: str, config: Mapping[str, Any]) -> Any:
        """A run, begun anew; what an earlier start has written of it is taken away.

        Its id is that of its member, so that one that was sent twice is one run.
        """
        import wandb  # here, since it is an extra and takes seconds to load

        self.clear(name)
        settings: dict[str, Any] = {
            "console": "off",
            "silent": True,
            "disable_git": True,
            "disable_code": True,
        }
        if "x_transaction_log_flush_interval" in wandb.Settings.model_fields:
            settings["x_transaction_log_flush_interval"] = FLUSH_S
        return wandb.init(
            project=self.project,
            group=f"{self.name}-{self.mark}",
            id=f"{self.mark}-{name}",
            name=f"{self.name} {name}",
            config=dict(config),
            dir=str(self.run),
            mode="offline",
            reinit="create_new",
            settings=wandb.Settings(**settings),
        )

    def clear(self, name: str) -> None:
        """Take away what was written of a run."""
        for folder in (self.run / FOLDER).glob(f"offline-run-*-{self.mark}-{name}"):
            shutil.rmtree(folder, ignore_errors=True)


def write_wandb(book: Book, tracker: Wandb, run: Path) -> None:
    """Write what was not written yet into ``RUN/wandb``, for ``wandb sync``."""
    done = run / FOLDER / SEALS
    done.mkdir(parents=True, exist_ok=True)
    place = Place(book.mark, book.name, tracker.project or book.job.name, run)
    for page in book.pages:
        if not (done / f"{page.id}-{page.seal}").exists():
            _member(page, place)
            (done / f"{page.id}-{page.seal}").touch()
    if not (done / f"ensemble-{book.seal}").exists():
        _ensemble(book, place)
        (done / f"ensemble-{book.seal}").touch()


def is_written(run: Path, name: str) -> bool:
    """Whether a member's run was written to its end."""
    return any((run / FOLDER / SEALS).glob(f"{name}-*"))


def _member(page: Page, place: Place) -> None:
    rows: dict[int, dict[str, float]] = {}
    for point in page.points:
        rows.setdefault(point.step, {})[point.name] = point.value
    with place.opened(page.id, dict(page.values)) as told:
        for step, row in sorted(rows.items()):
            told.log(row, step=step)
        finals = {f"final/{name}": value for name, value in page.finals.items()}
        told.summary.update(finals | {"status": page.status, "reason": page.reason})


def _ensemble(book: Book, place: Place) -> None:
    with place.opened("ensemble", parameters(book.job)) as told:
        told.summary.update({**book.finals, "status": "finished"})
        if book.report:
            told.save(str(place.run / "report.html"), base_path=str(place.run), policy="now")
