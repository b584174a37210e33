"""One optimiser of K stacked members whose layers are stepped in different ways, or at different rates.

The parameters are divided into parts that are stepped alike: the hidden weights of ``muon`` apart from all
others, and each multiplier of the learning rate apart. A part is a stack of its own.

Shapes: K members.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from torch import Tensor

from ensemble_svc.optim.layers import ALIKE, Layers
from ensemble_svc.optim.muon import MuonStack
from ensemble_svc.optim.rules import restore
from ensemble_svc.optim.stacked import StackedOptimizer
from ensemble_svc.spec.optimizers import Muon, Numberwise, Optimizer


class LayeredOptimizer:
    """Updates a stack of K members in place.

    Args:
        params: as ``StackedOptimizer`` takes them.
        rules: one per member, all of one class.
        layers: the parameters' roles.
        paces: as ``StackedOptimizer`` takes them, and ``vectors``.

    Raises:
        SpecError: a rule whose options contradict each other.
        ValueError: rules of several classes, or parameters that are no stack of K.
    """

    def __init__(
        self,
        params: Mapping[str, Tensor],
        rules: Sequence[Optimizer],
        *,
        layers: Layers = ALIKE,
        paces: Sequence[Hashable] | None = None,
        vectors: bool | None = None,
    ) -> None:
        if len({type(rule) for rule in rules}) != 1:
            raise ValueError("the members of a stack need rules of one class")
        self.params, self.rules, self.num_steps = dict(params), tuple(rules), 0
        self._matrices: list[tuple[float, MuonStack]] = []
        self._others: list[tuple[float, StackedOptimizer]] = []
        for (as_matrices, multiplier), names in layers.parts(rules[0], list(self.params)).items():
            some = {name: self.params[name] for name in names}
            if as_matrices:
                self._matrices.append((multiplier, MuonStack(some, _muons(rules))))
            else:
                part = StackedOptimizer(some, _numberwise(rules), paces=paces, vectors=vectors)
                self._others.append((multiplier, part))

    def regroup(self, paces: Sequence[Hashable]) -> None:
        """Go on with other paces: members whose factors have come to differ, or to agree."""
        for _, part in self._others:
            part.regroup(paces)

    def step(self, factor: float | Sequence[float]) -> None:
        """Take one step along ``.grad``.

        Args:
            factor: what multiplies the learning rates, one for all or one per member; a member whose
                factor is 0 stays as it is.
        """
        self.num_steps += 1
        for multiplier, part in self._others:
            part.step(_times(factor, multiplier))
        if self._matrices:
            each = [factor] * len(self.rules) if isinstance(factor, int | float) else list(factor)
            for multiplier, matrices in self._matrices:
                matrices.step([multiplier * own for own in each])

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for param in self.params.values():
            param.grad = None

    def state(self) -> dict[str, Tensor]:
        """The running values [K, …] by ``buffer/parameter``, as they stand until the next step.

        Where only some members have a momentum, the others' slices mean nothing.
        """
        found = {name: value for _, part in self._others for name, value in part.state().items()}
        return found | self._momenta()

    def load(self, state: Mapping[str, Tensor], num_steps: int) -> None:
        """Go on from a saved state as if never interrupted.

        Raises:
            TrainError: a state of another rule or network.
        """
        restore(self.tensors(), state)
        self.num_steps = num_steps
        for _, part in self._others:
            part.num_steps = num_steps
        for _, matrices in self._matrices:
            matrices.num_steps = num_steps

    def tensors(self) -> dict[str, Tensor]:
        """The live running values by ``buffer/parameter``."""
        return {n: v for _, part in self._others for n, v in part.tensors().items()} | self._momenta()

    def _momenta(self) -> dict[str, Tensor]:
        return {name: value for _, part in self._matrices for name, value in part.tensors().items()}


def _muons(rules: Sequence[Optimizer]) -> list[Muon]:
    return [rule for rule in rules if isinstance(rule, Muon)]


def _numberwise(rules: Sequence[Optimizer]) -> list[Numberwise]:
    """The rules of parameters that are stepped number by number."""
    return [rule.others if isinstance(rule, Muon) else rule for rule in rules]


def _times(factor: float | Sequence[float], multiplier: float) -> float | Sequence[float]:
    if multiplier == 1.0:
        return factor
    return factor * multiplier if isinstance(factor, int | float) else [own * multiplier for own in factor]
