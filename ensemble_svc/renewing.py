"""A finished run's report made anew, and first what it shows, where the run has none: no training, no decision."""

from __future__ import annotations

import json

from ensemble_svc.aggregate.decision import Decision
from ensemble_svc.errors import RunInUse, StoreError
from ensemble_svc.exhibits.exhibit import write_exhibits
from ensemble_svc.report.html import write_report
from ensemble_svc.rereading import own_data
from ensemble_svc.splits import read_predictions
from ensemble_svc.store.atomic import hash_file
from ensemble_svc.store.lock import sole_driver
from ensemble_svc.store.manifest import amend_manifest, decision_of
from ensemble_svc.store.run import EXHIBITS, Run


def renew(run: Run) -> str:
    """Write ``report.html`` and note what it is now; ``exhibits.json`` too, where it is missing or damaged, as in runs
    that are older than it.

    Returns:
        Why the report lacks something and what to do, in one sentence; nothing where it is whole.

    Raises:
        StoreError: no finished run, or files that are not what was written.
    """
    try:
        with sole_driver(run.path):
            note = _complete(run)
            amend_manifest(run.path, {"report.html": write_report(run)})
            return note
    except RunInUse:  # who holds it notes its own report at its end
        write_report(run)
        return ""


def _complete(run: Run) -> str:
    """Make what the report shows besides the metrics, from the predictions that the run keeps."""
    manifest = run.manifest()
    files = manifest.get("files", {})
    known = files.get(EXHIBITS)
    if not manifest["ensemble"]["members"] or (known and hash_file(run.path / EXHIBITS) == known):
        return ""
    try:
        predictions = read_predictions(run)
    except StoreError as fault:
        amend_manifest(run.path, {}, dropped=[EXHIBITS] if known else [])
        return f"The report shows the numbers alone, without curves, matrices and rows: {fault}"
    decision, data = Decision.from_json(json.dumps(decision_of(manifest))), own_data(run)
    own = None if isinstance(data, str) else data
    amend_manifest(
        run.path, write_exhibits(run, run.job(), decision, manifest["candidates"], predictions, own)
    )
    if own is None and predictions:
        return f"The report shows no inputs of the rows: {data}"
    return ""
