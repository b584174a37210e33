"""The update rules, and what each keeps of the gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand

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
    lr: Annotated[PositiveFloat | Literal["auto"], Elementwise()]
    """Learning rate at the schedule's factor 1; auto finds one before members are made."""

    @property
    def rate(self) -> float:
        """The learning rate as the number that a member's always is.

        Raises:
            ValueError: it is still to be found.
        """
        if self.lr == "auto":
            raise ValueError("training.optimizer.lr is auto; it is to be found before members are made")
        return self.lr


class Adam(Rule):
    """Steps along the mean of the gradients over the root of the mean of their squares (arXiv:1412.6980)."""

    moments: ClassVar[Moments] = Moments(first=True, second=True, leaky=True, corrected=True)
    name: Literal["adam"] = "adam"
    lr: Annotated[PositiveFloat | Literal["auto"], Elementwise()] = 1e-3
    """Learning rate at the schedule's factor 1; auto: the largest half of 10 at which the loss does not diverge."""
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
    lr: Annotated[PositiveFloat | Literal["auto"], Elementwise()] = 1e-3
    """Learning rate at the schedule's factor 1; auto: the largest half of 10 at which the loss does not diverge."""
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
    lr: Annotated[PositiveFloat | Literal["auto"], Elementwise()] = 0.01
    """Learning rate at the schedule's factor 1; auto: the largest half of 10 at which the loss does not diverge."""
    eps: Annotated[PositiveFloat, Elementwise()] = 1e-10
    """Added to the denominator."""
    weight_decay: Annotated[NonNegativeFloat, Elementwise()] = 0.0
    """L2 penalty's gradient, added to the loss's."""


class RmsProp(Rule):
    """Divides each weight's step by the root of a running mean of its squared gradients (Hinton 2012)."""

    moments: ClassVar[Moments] = Moments(first=False, second=True, leaky=True, corrected=False)
    name: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[PositiveFloat | Literal["auto"], Elementwise()] = 1e-3
    """Learning rate at the schedule's factor 1; auto: the largest half of 10 at which the loss does not diverge."""
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
    lr: Annotated[PositiveFloat | Literal["auto"], Elementwise()] = 0.1
    """Learning rate at the schedule's factor 1; auto: the largest half of 10 at which the loss does not diverge."""
    momentum: Annotated[Beta, Elementwise()] = 0.0
    """Share of the last step that is kept."""
    nesterov: Annotated[bool, Elementwise()] = False
    """Look ahead along the momentum; needs momentum above 0."""
    weight_decay: Annotated[NonNegativeFloat, Elementwise()] = 0.0
    """L2 penalty's gradient, added to the loss's."""


class Muon(Rule):
    """Steps hidden weight matrices along their momentum, made orthogonal (Jordan et al. 2024, kellerjordan.github.io).

    Convolutions are matrices of [outputs, all else]. As the author has it, the input and the output layer, biases
    and norms are stepped by AdamW; so a network with fewer than two hidden layers is AdamW's alone.
    """

    moments: ClassVar[Moments] = Moments(first=True, second=False, leaky=True, corrected=False)
    name: Literal["muon"] = "muon"
    lr: Annotated[PositiveFloat | Literal["auto"], Elementwise()] = 0.02
    """Learning rate of the hidden matrices at the schedule's factor 1, or auto."""
    momentum: Annotated[Beta, Elementwise()] = 0.95
    """Decay of the running mean of the gradients."""
    nesterov: Annotated[bool, Elementwise()] = True
    """Look ahead along the momentum."""
    weight_decay: Annotated[NonNegativeFloat, Elementwise()] = 0.01
    """Share of each weight taken off per step, times its learning rate; of AdamW's parameters too."""
    ns_steps: Annotated[PositiveInt, Field(le=99)] = 5
    """Newton-Schulz iterations that make the momentum orthogonal."""
    adamw_lr: Annotated[PositiveFloat, Elementwise()] = 1e-3
    """Learning rate of all other parameters."""
    betas: Annotated[tuple[Beta, Beta], Elementwise()] = (0.9, 0.95)
    """AdamW's, of all other parameters."""
    eps: Annotated[PositiveFloat, Elementwise()] = 1e-8
    """AdamW's, of all other parameters."""

    @property
    def others(self) -> AdamW:
        """The rule of the parameters that are no hidden matrices."""
        return AdamW(lr=self.adamw_lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay)


Numberwise = AdamW | Adam | RmsProp | AdaGrad | Sgd
"""The rules that step each number by itself."""
Optimizer = Annotated[AdamW | Adam | RmsProp | AdaGrad | Sgd | Muon, Field(discriminator="name"), Shorthand()]
OPTIMIZERS: Registry[Choice] = Registry("optimizer", Optimizer)
