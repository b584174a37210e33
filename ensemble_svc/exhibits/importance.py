"""How much each searched key matters: the share of the metric's variance that it explains by itself and with others.

fANOVA (Hutter, Hoos & Leyton-Brown 2014) as Optuna has it: a forest learns the metric from the trials' values, and its
variance over the space is split among the keys.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_svc.exhibits.trials import Trial

FEWEST = 8
"""Trials below which a forest learns nothing."""
MOST = 256
"""Trials that it learns from at most, evenly spread: what a forest takes grows faster than its trials do."""
SEED = 0


def importance(space: Mapping[str, Mapping[str, Any]], trials: Sequence[Trial]) -> dict[str, Any]:
    """The shares of the keys, the largest first.

    Args:
        space: each key with the law of its values.

    Returns:
        ``shares`` {key: from 0 to 1, sum 1}, ``trials``: how many it was learnt from, ``absent``: keys that some
        trials do not have, which take no part. Nothing where the trials are few, or all as good.
    """
    known = [trial for trial in trials if trial.value is not None and math.isfinite(trial.value)]
    known = known[:: math.ceil(len(known) / MOST)] if known else []
    keys = [key for key in space if all(key in trial.values for trial in known)]
    varied = [key for key in keys if len({str(trial.values[key]) for trial in known}) > 1]
    if len(known) < FEWEST or not varied or len({trial.value for trial in known}) < 2:
        return {}
    shares = _shares({key: space[key] for key in varied}, known)
    absent = [key for key in space if key not in keys]
    return {"shares": shares, "trials": len(known), "absent": absent}


def _shares(space: Mapping[str, Mapping[str, Any]], trials: Sequence[Trial]) -> dict[str, float]:
    import optuna  # here, since a job that does not search need not wait for it

    logging.getLogger("optuna").setLevel(logging.WARNING)
    columns = {key: _column(law, [trial.values[key] for trial in trials]) for key, law in space.items()}
    kinds = {key: kind for key, (kind, _) in columns.items()}
    study = optuna.create_study()
    for number, trial in enumerate(trials):
        params = {key: column[number] for key, (_, column) in columns.items()}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=kinds, value=_number(trial.value))
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=SEED)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(space))
    return {key: float(share) for key, share in found.items()}


def _column(law: Mapping[str, Any], values: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The distribution of a key's values and the values as it has them: numbers, or the places of others."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values) and "choice" not in law:
        low, high = float(min(numbers)), float(max(numbers))
        return FloatDistribution(low, high, log="loguniform" in law and low > 0), [float(v) for v in numbers]
    names = sorted({str(value) for value in values})
    return CategoricalDistribution(names), [str(value) for value in values]


def _number(value: float | None) -> float:
    assert value is not None
    return value
