"""What a file says of the graph in it: whoever reads the file needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ensemble_svc import __version__
from ensemble_svc.predictor import Ensemble

CLASSES = {
    "probabilities": "[rows, classes]: of the ensemble, calibrated as the run decided",
    "total": "[rows], nats: entropy of the probabilities",
    "aleatoric": "[rows], nats: the members' mean entropy",
    "epistemic": "[rows], nats: mutual information of class and member",
}
NUMBERS = {
    "mean": "[rows, targets], in the targets' units",
    "total": "[rows, targets], in their squares: variance of the mixture of the members",
    "aleatoric": "[rows, targets]: the members' mean variance",
    "epistemic": "[rows, targets]: variance of the members' means",
}
FORMAT_VERSION = "1"


def describe(ensemble: Ensemble) -> dict[str, str]:
    """Metadata by name, each of them a word or JSON."""
    schema, decision = ensemble.schema, ensemble.decision
    plain = decision.model_dump(mode="json", include={"members", "weights", "combine"})
    fitted = {"calibration": decision.calibration, "conformal": decision.conformal}
    found: Mapping[str, Any] = {
        "input": {"name": "rows", "dtype": schema.dtype, "shape": ["rows", *schema.shape]},
        "outputs": outputs_of(ensemble),
        "classes": schema.classes,
        "targets": schema.targets,
        "features": schema.features,
        "categories": {name: list(values) for name, values in schema.categories},
        "tasks": {name: list(classes) for name, classes in schema.tasks},
        **plain,
        **fitted,
    }
    if decision.tasks:
        found = {**found, "by_task": decision.tasks}
    words = {name: json.dumps(value) for name, value in found.items()}
    return {"ensemble_svc": __version__, "format_version": FORMAT_VERSION, **words}


def outputs_of(ensemble: Ensemble) -> dict[str, str]:
    """What each output of the graph holds, in the graph's order."""
    schema = ensemble.schema
    if not ensemble.tasks:
        return CLASSES if schema.classes else NUMBERS
    each = ((task, CLASSES if schema.part(task).classes else NUMBERS) for task in ensemble.tasks)
    return {f"{task}/{name}": words for task, part in each for name, words in part.items()}
