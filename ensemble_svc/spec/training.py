"""The ``training`` section: budget and rule of one member's optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ensemble_svc.registry import Elementwise, Spec
from ensemble_svc.spec.averages import Average, NoAverage
from ensemble_svc.spec.losses import AutoLoss, Loss
from ensemble_svc.spec.optimizers import AdamW, Optimizer
from ensemble_svc.spec.regularizers import Regularizer
from ensemble_svc.spec.schedules import Cosine, Schedule


class EarlyStopping(Spec):
    """Stop a member whose validation metric no longer improves; keep its best epoch."""

    metric: Literal["nll", "accuracy", "rmse"] = "nll"
    """What is watched, on the validation rows."""
    patience: PositiveInt = 5
    """Epochs without improvement before the member stops."""
    min_delta: NonNegativeFloat = 0.0
    """Smallest change that counts as one."""


LayerRates = Literal["same", "fan_in", "sqrt_fan_in"]


class TrainingSpec(Spec):
    """Budget and rule of one member's optimisation."""

    epochs: Annotated[PositiveInt, Field(le=1_000_000), Elementwise()] = 30
    """Passes over the member's own bag, not over the whole data set."""
    batch_size: PositiveInt | Literal["full"] = 64
    """Rows per step; full: all of the member's bag. The last batch of an epoch is smaller; a last batch of one
    row is dropped."""
    loss: Loss = AutoLoss()
    """What is minimised, and with it what the network's outputs mean."""
    task_weights: Literal["by_hand", "uncertainty"] = "by_hand"
    """Several tasks: their losses are summed by their own weights, or besides by a variance that each member
    learns for each task (Kendall et al. 2018, arXiv:1705.07115)."""
    optimizer: Optimizer = AdamW()
    """The update rule."""
    layer_rates: LayerRates = "same"
    """fan_in: the rate of a layer's weights is the learning rate times m / fan-in, m the geometric mean of all
    layers' fan-ins, so that what a step changes in a unit's sum does not grow with its inputs (Plaut, Nowlan &
    Hinton 1986). sqrt_fan_in: times the root of that, as initial weights are scaled (Hinton 2012, lecture 6)."""
    schedule: Annotated[Schedule, Elementwise()] = Cosine()
    """The learning rate's factor over the steps."""
    regularizers: tuple[Regularizer, ...] = ()
    """Penalties added to the loss, constraints on the weights, and noise in the forward pass."""
    early_stopping: Annotated[EarlyStopping | None, Elementwise()] = None
    """When to stop before the last epoch; null trains all epochs."""
    average: Average = NoAverage()
    """Average of the weights along the way, which predicts instead of the last ones."""
    clip_norm: Annotated[PositiveFloat | None, Elementwise()] = None
    """Largest gradient norm of a member; longer gradients are scaled down to it."""
    on_sick: Annotated[Literal["warn", "restart", "exclude"], Elementwise()] = "warn"
    """What is done about a member that is sick at the end: it diverged, was never better than guessing, or
    collapsed to guessing after it was better. ``warn`` names it, and keeps it in the ensemble unless it diverged;
    ``restart`` trains it again with the same seed and half the learning rate, at most twice, and takes what the
    last start gives; ``exclude`` names it and leaves it out of the ensemble."""
    precision: Literal["32-true", "tf32", "bf16-mixed"] = "32-true"
    """Number format of the arithmetic: float32; float32 with products rounded to 10 bits of mantissa where
    the GPU can (tf32); or products in bfloat16 and weights, sums and losses in float32 (arXiv:1905.12322)."""

    def rows_per_step(self, num_rows: int) -> int:
        """Rows of a full step of a member with ``num_rows`` rows in its bag."""
        return num_rows if self.batch_size == "full" else self.batch_size
