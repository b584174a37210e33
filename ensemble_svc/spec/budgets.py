"""How much a search may use."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat

from ensemble_svc.registry import Spec
from ensemble_svc.spec.askers import MOST_MEMBERS


class BudgetSpec(Spec):
    """What all starts of a run's search may use together; what is left out has no end.

    Once it is used up no trial is asked for or begun any more, and those that train stop at their next end of an
    epoch, with the weights that they have.
    """

    hours: PositiveFloat | None = None
    """Wall time of training."""
    device_hours: PositiveFloat | None = None
    """Hours of GPUs, or of CPU cores where there is no GPU, that slots hold while they train."""
    trials: Annotated[int, Field(ge=1, le=MOST_MEMBERS)] | None = None
    """Trials, those that are added later included."""
