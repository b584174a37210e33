"""What is predicted: one answer, or several from one network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import NonNegativeFloat

from ensemble_svc.registry import Spec
from ensemble_svc.spec.losses import AutoLoss, Loss

Task = Literal["classification", "regression"]
"""The kind of one answer."""
JobTask = Literal["classification", "regression", "multitask"]
"""What a job predicts: one answer, or several."""


class TaskSpec(Spec):
    """One of the answers of ``task: multitask``; its key is the name of its target."""

    kind: Task
    """What it is: a class, or a number."""
    weight: NonNegativeFloat = 1.0
    """What its loss counts in the sum that is minimised, and its NLL in the sum that is watched. 0: it is predicted,
    and teaches nothing."""
    loss: Loss = AutoLoss()
    """What of it is minimised."""


Tasks = Mapping[str, TaskSpec]
"""The answers by name, in the order of their columns."""


def kinds(tasks: Tasks) -> dict[str, Task]:
    """The kind of each answer."""
    return {name: task.kind for name, task in tasks.items()}
