"""What an update rule must know of the parameters besides their numbers: which are matrices, and whose rate differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log

from ensemble_svc.spec.optimizers import Muon, Optimizer


@dataclass(frozen=True)
class Layers:
    """The roles of a network's parameters, by name; one that is not mentioned is like any other."""

    hidden: frozenset[str] = frozenset()
    """Weights of the hidden layers, which ``muon`` takes as matrices."""
    multipliers: Mapping[str, float] = field(default_factory=dict)
    """What multiplies the learning rate of a parameter; 1 where it is not given."""

    def multiplier(self, name: str) -> float:
        """What multiplies the learning rate of the parameter."""
        return self.multipliers.get(name, 1.0)

    def rate(self, rule: Optimizer, name: str) -> float:
        """The learning rate of a parameter at the schedule's factor 1."""
        apart = isinstance(rule, Muon) and name not in self.hidden
        return (rule.adamw_lr if apart and isinstance(rule, Muon) else rule.rate) * self.multiplier(name)

    def parts(self, rule: Optimizer, names: Sequence[str]) -> dict[tuple[bool, float], list[str]]:
        """The parameters that are stepped alike: (whether as matrices, multiplier) → their names."""
        found: dict[tuple[bool, float], list[str]] = {}
        for name in names:
            as_matrix = isinstance(rule, Muon) and name in self.hidden
            found.setdefault((as_matrix, self.multiplier(name)), []).append(name)
        return found


ALIKE = Layers()
"""Every parameter like any other."""


def layers_of(weights: Mapping[str, int], power: float = 0.0) -> Layers:
    """The roles of a network's parameters.

    The input and the output layer are not hidden, as Muon's author has it. A layer's rate is multiplied by
    (m / fan-in)^power, m the geometric mean of all layers' fan-ins: the rates' own geometric mean stays what
    the job says, and a network whose layers have one fan-in trains as ever. Biases and norms keep the rate.

    Args:
        weights: name of each layer's weights → its fan-in, the numbers that a unit of the layer sums, in
            the network's order.
        power: 0 leaves the rates as they are.
    """
    if not weights:
        return ALIKE
    mean = exp(sum(map(log, weights.values())) / len(weights))
    multipliers = {name: (mean / fan_in) ** power for name, fan_in in weights.items()} if power else {}
    return Layers(frozenset([*weights][1:-1]), multipliers)
