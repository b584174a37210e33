"""A run in Weights & Biases, offline: a run for each member and one for the ensemble, in one group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_svc.spec.trackers import Wandb
from ensemble_svc.tracking.book import Book, Page, parameters

FOLDER = "wandb"
SEALS = "written"
"""Folder with an empty file for each run that was written to its end, by its seal."""


def write_wandb(book: Book, tracker: Wandb, run: Path) -> None:
    """Write what was not written yet into ``RUN/wandb``, for ``wandb sync``.

    A run's id is that of its member, so that one that was written twice is one run once it is sent.
    """
    done = run / FOLDER / SEALS
    done.mkdir(parents=True, exist_ok=True)
    for page in book.pages:
        if not (done / f"{page.id}-{page.seal}").exists():
            _member(book, page, tracker, run)
            (done / f"{page.id}-{page.seal}").touch()
    if not (done / f"ensemble-{book.seal}").exists():
        _ensemble(book, tracker, run)
        (done / f"ensemble-{book.seal}").touch()


def _member(book: Book, page: Page, tracker: Wandb, run: Path) -> None:
    rows: dict[int, dict[str, float]] = {}
    for point in page.points:
        rows.setdefault(point.step, {})[point.name] = point.value
    with _opened(book, page.id, dict(page.values), tracker, run) as told:
        for step, row in sorted(rows.items()):
            told.log(row, step=step)
        finals = {f"final/{name}": value for name, value in page.finals.items()}
        told.summary.update(finals | {"status": page.status, "reason": page.reason})


def _ensemble(book: Book, tracker: Wandb, run: Path) -> None:
    with _opened(book, "ensemble", parameters(book.job), tracker, run) as told:
        told.summary.update(dict(book.finals))


def _opened(book: Book, name: str, config: Mapping[str, Any], tracker: Wandb, run: Path) -> Any:
    import wandb  # here, since it is an extra and takes seconds to load

    return wandb.init(
        project=tracker.project or book.job.name,
        group=f"{book.name}-{book.mark}",
        id=f"{book.mark}-{name}",
        name=f"{book.name} {name}",
        config=dict(config),
        dir=str(run),
        mode="offline",
        reinit="create_new",
        settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
    )
