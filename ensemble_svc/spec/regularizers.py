"""Penalties added to the loss, constraints on the weights, and noise in the forward pass."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from ensemble_svc.registry import Choice, Elementwise, Registry, Shorthand


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


class Sparsity(Choice):
    """A penalty on what the hidden units of the zoo's networks put out, so that few are active at a time.

    ``l1``: ``strength`` times the sum over units of the mean magnitude of their outputs over the batch's rows, and
    places. ``kl``: of the Kullback-Leibler divergence of their mean output from ``target`` (Ng 2011), for sigmoid.
    """

    name: Literal["sparsity"] = "sparsity"
    kind: Literal["l1", "kl"] = "l1"
    """What is added up."""
    strength: Annotated[NonNegativeFloat, Elementwise()] = 1e-3
    """The multiplier."""
    target: Annotated[float, Field(gt=0, lt=1), Elementwise()] = 0.05
    """For kl: the mean output that is wanted of each unit."""


Regularizer = Annotated[
    L1 | L2 | MaxNorm | InputNoise | WeightNoise | Sparsity, Field(discriminator="name"), Shorthand()
]
REGULARIZERS: Registry[Choice] = Registry("regularizer", Regularizer)
