"""The paired bootstrap of the gain: the whole table of an ensemble, its members and what it gains over them."""

from __future__ import annotations

import ensemble_svc  # noqa: F401 - first, since it sets how idle threads wait

# isort: split
import torch

from benchmarks.members import CORES
from benchmarks.probes.greedy import members
from benchmarks.probes.measure import Measures, arguments, seconds_of, write
from ensemble_svc.aggregate.predictions import combine
from ensemble_svc.evaluate.summary import summarize
from ensemble_svc.spec.job import EvaluateSpec


def measure(num_members: int, num_rows: int, num_classes: int) -> Measures:
    """Seconds of ``summarize`` with 1,000 resamples."""
    torch.set_num_threads(CORES)
    log_probs, target = members(num_members, num_rows, num_classes)
    each = {"log_probs": log_probs}
    ensemble = combine(each)

    def table() -> object:
        spec = EvaluateSpec(resamples=1000)
        return summarize("classification", each, ensemble, target, spec=spec, best=0, seed=0)

    return {"whole table": ("s", seconds_of(table))}


if __name__ == "__main__":
    (out,), tiny = arguments()
    write(measure(*((3, 500, 10) if tiny else (10, 50_000, 10))), out)
