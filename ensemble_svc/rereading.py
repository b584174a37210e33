"""A run's own data, read again from its source."""

from __future__ import annotations

from ensemble_svc.errors import DataError
from ensemble_svc.planning import Prepared, prepare
from ensemble_svc.store.run import Run


def own_data(run: Run) -> Prepared | str:
    """The data as the run's source gives them today; where it does not, or has other rows now, the reason in words."""
    try:
        prepared = prepare(run.job(), run.directory)
    except DataError as fault:
        return f"the run's data cannot be read: {fault}"
    if prepared.dataset.hash != run.rows_hash():
        return "the run's source holds other data now"
    return prepared
