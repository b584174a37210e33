"""The ``training`` section: budget and rule of one member's optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand, Spec

Beta = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Moments:
    """Which statistics of the gradients a rule keeps, for the table that compares the rules."""

    first: bool
    """A running mean of the gradients: momentum."""
    second: bool
    """The gradients' squares, by whose root each weight's step is divided."""
    leaky: bool | None
    """Whether the past is forgotten; None where nothing is kept."""
    corrected: bool
    """Whether the means are freed of the bias of their start at 0."""


class Rule(Choice):
    """What is known of an update rule."""

    moments: ClassVar[Moments]


class Adam(Rule):
    """Steps along the mean of the gradients over the root of the mean of their squares (arXiv:1412.6980)."""

    moments: ClassVar[Moments] = Moments(first=True, second=True, leaky=True, corrected=True)
    name: Literal["adam"] = "adam"
    lr: Annotated[PositiveFloat, Elementwise()] = 1e-3
    """Learning rate at the schedule's factor 1."""
    betas: Annotated[tuple[Beta, Beta], Elementwise()] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Annotated[PositiveFloat, Elementwise()] = 1e-8
    """Added to the denominator."""
    weight_decay: Annotated[NonNegativeFloat, Elementwise()] = 0.0
    """L2 penalty's gradient, added to the loss's, so it is scaled like it; adamw decays apart."""


class AdamW(Rule):
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101)."""

    moments: ClassVar[Moments] = Moments(first=True, second=True, leaky=True, corrected=True)
    name: Literal["adamw"] = "adamw"
    lr: Annotated[PositiveFloat, Elementwise()] = 1e-3
    """Learning rate at the schedule's factor 1."""
    betas: Annotated[tuple[Beta, Beta], Elementwise()] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Annotated[PositiveFloat, Elementwise()] = 1e-8
    """Added to the denominator."""
    weight_decay: Annotated[NonNegativeFloat, Elementwise()] = 0.01
    """Share of each weight taken off per step, times the learning rate."""


class AdaGrad(Rule):
    """Divides each weight's step by the root of the sum of its squared gradients (Duchi et al. 2011)."""

    moments: ClassVar[Moments] = Moments(first=False, second=True, leaky=False, corrected=False)
    name: Literal["adagrad"] = "adagrad"
    lr: Annotated[PositiveFloat, Elementwise()] = 0.01
    """Learning rate at the schedule's factor 1."""
    eps: Annotated[PositiveFloat, Elementwise()] = 1e-10
    """Added to the denominator."""
    weight_decay: Annotated[NonNegativeFloat, Elementwise()] = 0.0
    """L2 penalty's gradient, added to the loss's."""


class RmsProp(Rule):
    """Divides each weight's step by the root of a running mean of its squared gradients (Hinton 2012)."""

    moments: ClassVar[Moments] = Moments(first=False, second=True, leaky=True, corrected=False)
    name: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[PositiveFloat, Elementwise()] = 1e-3
    """Learning rate at the schedule's factor 1."""
    alpha: Annotated[Beta, Elementwise()] = 0.99
    """Decay of the running mean."""
    eps: Annotated[PositiveFloat, Elementwise()] = 1e-8
    """Added to the denominator."""
    momentum: Annotated[Beta, Elementwise()] = 0.0
    """Share of the last step that is kept."""
    weight_decay: Annotated[NonNegativeFloat, Elementwise()] = 0.0
    """L2 penalty's gradient, added to the loss's."""


class Sgd(Rule):
    """Stochastic gradient descent, with momentum when asked (Polyak 1964; Nesterov 1983).

    ``batch_size: full`` makes it plain gradient descent.
    """

    moments: ClassVar[Moments] = Moments(first=True, second=False, leaky=True, corrected=False)
    name: Literal["sgd"] = "sgd"
    lr: Annotated[PositiveFloat, Elementwise()] = 0.1
    """Learning rate at the schedule's factor 1."""
    momentum: Annotated[Beta, Elementwise()] = 0.0
    """Share of the last step that is kept."""
    nesterov: Annotated[bool, Elementwise()] = False
    """Look ahead along the momentum; needs momentum above 0."""
    weight_decay: Annotated[NonNegativeFloat, Elementwise()] = 0.0
    """L2 penalty's gradient, added to the loss's."""


Optimizer = Annotated[AdamW | Adam | RmsProp | AdaGrad | Sgd, Field(discriminator="name"), Shorthand()]
OPTIMIZERS: Registry[Choice] = Registry("optimizer", Optimizer)


class Warmed(Choice):
    """A schedule that may begin with a warm-up."""

    warmup: NonNegativeInt = 0
    """Steps of linear rise before it (arXiv:1706.02677); the schedule is laid over those that are left."""


class Constant(Warmed):
    """The same learning rate at every step."""

    name: Literal["constant"] = "constant"


class Cosine(Warmed):
    """Half a cosine from 1 down to ``floor`` over all steps (arXiv:1608.03983)."""

    name: Literal["cosine"] = "cosine"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last factor."""


class Linear(Warmed):
    """A straight line from 1 down to ``floor`` over all steps."""

    name: Literal["linear"] = "linear"
    floor: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The last factor."""


class StepDecay(Warmed):
    """Multiplied by ``gamma`` after every so many epochs."""

    name: Literal["step"] = "step"
    every: PositiveInt = 10
    """Epochs between two drops."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What each drop leaves."""


class Exponential(Warmed):
    """Falls by the same share at every step."""

    name: Literal["exponential"] = "exponential"
    decay: Annotated[float, Field(ge=1)] = 100.0
    """The last factor is one over this."""


class Inverse(Warmed):
    """Falls as 1 / (1 + k t), fast at first and then ever more slowly (Robbins & Monro 1951)."""

    name: Literal["inverse"] = "inverse"
    decay: Annotated[float, Field(ge=1)] = 100.0
    """The last factor is one over this."""


class OneCycle(Choice):
    """Up from a small rate and down to almost none, along half cosines (arXiv:1708.07120)."""

    name: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps in which it rises."""
    start: Annotated[float, Field(ge=1)] = 25.0
    """The first factor is one over this."""
    end: Annotated[float, Field(ge=1)] = 1e4
    """The last factor is the first one over this."""


Schedule = Annotated[
    Constant | Cosine | Linear | StepDecay | Exponential | Inverse | OneCycle,
    Field(discriminator="name"),
    Shorthand(),
]
SCHEDULES: Registry[Choice] = Registry("schedule", Schedule)


class L1(Choice):
    """``strength`` times the sum of the weights' magnitudes (no biases, no norms).

    Added to the loss it hovers about 0; as a proximal step it makes weights exactly 0 (arXiv:0912.3522).
    """

    name: Literal["l1"] = "l1"
    strength: Annotated[NonNegativeFloat, Elementwise()] = 1e-5
    """The multiplier."""
    proximal: bool = False
    """Shrink each weight by rate times strength after each step, in place of the subgradient in the loss."""


class L2(Choice):
    """``strength`` times half the sum of the squared weights, added to the loss (no biases, no norms)."""

    name: Literal["l2"] = "l2"
    strength: Annotated[NonNegativeFloat, Elementwise()] = 1e-4
    """The multiplier."""


class InputNoise(Choice):
    """Gaussian noise on what the network reads, after preprocessing, drawn anew at each step.

    On a linear network with squared error it is an L2 penalty (Bishop 1995).
    """

    name: Literal["input_noise"] = "input_noise"
    std: Annotated[NonNegativeFloat, Elementwise()] = 0.1
    """Standard deviation, on the preprocessed scale."""


class WeightNoise(Choice):
    """Gaussian noise on the weights at each step's forward pass (Graves 2011; no biases, no norms)."""

    name: Literal["weight_noise"] = "weight_noise"
    std: Annotated[NonNegativeFloat, Elementwise()] = 0.01
    """Standard deviation."""


class MaxNorm(Choice):
    """Scales each unit's incoming weights back to ``norm`` after a step that made them longer.

    From the paper of dropout (Srivastava et al. 2014, section 5.1); no biases, no norms.
    """

    name: Literal["max_norm"] = "max_norm"
    norm: Annotated[PositiveFloat, Elementwise()] = 3.0
    """The largest length of a unit's weights."""


Regularizer = Annotated[
    L1 | L2 | MaxNorm | InputNoise | WeightNoise, Field(discriminator="name"), Shorthand()
]
REGULARIZERS: Registry[Choice] = Registry("regularizer", Regularizer)


class CrossEntropy(Choice):
    """Classification: minus the log probability of the true class."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: Annotated[float, Field(ge=0, lt=1), Elementwise()] = 0.0
    """Share of the target spread over all classes (arXiv:1512.00567)."""


class GaussianNll(Choice):
    """Regression: a mean and a variance per target (Nix & Weigend 1994; softplus + 1e-6)."""

    name: Literal["gaussian_nll"] = "gaussian_nll"


class Mse(Choice):
    """Regression: a mean per target; its variance is that of the training residuals, one for all rows."""

    name: Literal["mse"] = "mse"


class AutoLoss(Choice):
    """Cross-entropy for classification, the Gaussian's negative log likelihood for regression."""

    name: Literal["auto"] = "auto"


Loss = Annotated[AutoLoss | CrossEntropy | GaussianNll | Mse, Field(discriminator="name"), Shorthand()]
LOSSES: Registry[Choice] = Registry("loss", Loss)


class NoAverage(Choice):
    """The last (or best) weights as they are."""

    name: Literal["none"] = "none"


class Ema(Choice):
    """Exponential moving average of the weights, one update per step, debiased.

    The averaged weights are those that validate, stop early and predict; their batch-norm
    statistics are re-estimated on the member's training rows.
    """

    name: Literal["ema"] = "ema"
    decay: Annotated[float, Field(gt=0, lt=1), Elementwise()] = 0.999
    """Share of the average kept per step."""


Average = Annotated[NoAverage | Ema, Field(discriminator="name"), Shorthand()]
AVERAGES: Registry[Choice] = Registry("average", Average)


class EarlyStopping(Spec):
    """Stop a member whose validation metric no longer improves; keep its best epoch."""

    metric: Literal["nll", "accuracy", "rmse"] = "nll"
    """What is watched, on the validation rows."""
    patience: PositiveInt = 5
    """Epochs without improvement before the member stops."""
    min_delta: NonNegativeFloat = 0.0
    """Smallest change that counts as one."""


class TrainingSpec(Spec):
    """Budget and rule of one member's optimisation."""

    epochs: Annotated[PositiveInt, Field(le=1_000_000), Elementwise()] = 30
    """Passes over the member's own bag, not over the whole data set."""
    batch_size: PositiveInt | Literal["full"] = 64
    """Rows per step; full: all of the member's bag. The last batch of an epoch is smaller; a last batch of one
    row is dropped."""
    loss: Loss = AutoLoss()
    """What is minimised, and with it what the network's outputs mean."""
    optimizer: Optimizer = AdamW()
    """The update rule."""
    schedule: Annotated[Schedule, Elementwise()] = Cosine()
    """The learning rate's factor over the steps."""
    regularizers: tuple[Regularizer, ...] = ()
    """Penalties added to the loss, constraints on the weights, and noise in the forward pass."""
    early_stopping: Annotated[EarlyStopping | None, Elementwise()] = None
    """When to stop before the last epoch; null trains all epochs."""
    average: Average = NoAverage()
    """Average of the weights along the way (Polyak & Juditsky 1992)."""
    clip_norm: Annotated[PositiveFloat | None, Elementwise()] = None
    """Largest gradient norm of a member; longer gradients are scaled down to it."""
    precision: Literal["32-true", "tf32", "bf16-mixed"] = "32-true"
    """Number format of the arithmetic: float32; float32 with products rounded to 10 bits of mantissa where
    the GPU can (tf32); or products in bfloat16 and weights, sums and losses in float32 (arXiv:1905.12322)."""

    def rows_per_step(self, num_rows: int) -> int:
        """Rows of a full step of a member with ``num_rows`` rows in its bag."""
        return num_rows if self.batch_size == "full" else self.batch_size
