"""What values a searched key may take, and how likely each is.

A domain is a map from numbers u in [0, 1) to values: u drawn evenly gives its law, and points u spread evenly
(a Sobol sequence) give values spread by that law.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, floor, isclose, log
from statistics import NormalDist
from typing import Any, Final

from pydantic import SerializerFunctionWrapHandler, model_serializer

from ensemble_svc.registry import Spec

DEVIATIONS: Final = 3.0
"""Where a normal law is cut off."""
_MOST: Final = 10**12
"""Values of a domain that are told apart at most."""
_NORMAL = NormalDist()


class Domain(Spec):
    """The law of one key's values; exactly one is given, such as ``{loguniform: [1e-4, 0.1]}``.

    An item of a ``choice`` may hold laws of its own, ``{name: sgd, momentum: {uniform: [0, 0.9]}}``, which are drawn
    where it is the one (``spec.spaces`` lays them flat).
    """

    uniform: tuple[float, float] | None = None
    """Any number from the first to the second."""
    loguniform: tuple[float, float] | None = None
    """Likewise, even in the logarithm: each power of ten is as likely as the next."""
    quniform: tuple[float, float, float] | None = None
    """The first number and steps of the third from it, up to the second; each as likely."""
    qloguniform: tuple[float, float, float] | None = None
    """Likewise, the numbers even in the logarithm before they are rounded to the steps."""
    randint: tuple[int, int] | None = None
    """A whole number from the first to the second, both included."""
    normal: tuple[float, float] | None = None
    """Mean and standard deviation of a normal law, cut off at three deviations."""
    choice: tuple[Any, ...] | None = None
    """One of the values, each as likely."""
    when: Mapping[str, Any] | None = None
    """Keys of the space, each with the value or the list of values of its ``choice`` under which this one is drawn;
    elsewhere the key is as the job has it."""

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}

    @property
    def laws(self) -> list[str]:
        """The laws that are given; one of a domain that makes sense."""
        return [key for key in LAWS if getattr(self, key) is not None]

    @property
    def steps(self) -> tuple[float, float, float] | None:
        """First number, last number and step of a law of such numbers."""
        return self.quniform or self.qloguniform

    @property
    def num_values(self) -> int | None:
        """How many values there are; None where they lie close together."""
        if self.choice is not None:
            return len(self.choice)
        if self.randint is not None:
            return self.randint[1] - self.randint[0] + 1
        if self.steps is not None:
            low, high, step = self.steps
            if step <= 0:
                return None
            return floor(min((high - low) / step * (1 + 1e-12) + 1e-9, _MOST)) + 1
        return None

    def value(self, number: int) -> Any:
        """The value of this number, from 0, of a domain that has ``num_values``."""
        if self.choice is not None:
            return self.choice[number]
        if self.randint is not None:
            return self.randint[0] + number
        assert self.steps is not None
        low, high, step = self.steps
        return min(low + number * step, high)

    def number(self, value: Any) -> int:
        """The inverse of ``value``."""
        if self.choice is not None:
            return self.choice.index(value)
        if self.randint is not None:
            return int(value) - self.randint[0]
        assert self.steps is not None
        return round((value - self.steps[0]) / self.steps[2])

    def quantile(self, value: Any) -> float:
        """Where ``at`` has the value, in [0, 1]: of finitely many values the middle of where it has it."""
        if self.qloguniform is None and (count := self.num_values) is not None:
            return (self.number(value) + 0.5) / count
        if self.normal is not None:
            mean, std = self.normal
            edge = _NORMAL.cdf(-DEVIATIONS)
            u = (_NORMAL.cdf((value - mean) / std) - edge) / (1 - 2 * edge)
        elif (ends := self.loguniform or self.qloguniform) is not None:
            u = log(value / ends[0]) / log(ends[1] / ends[0])
        else:
            assert self.uniform is not None
            u = (value - self.uniform[0]) / (self.uniform[1] - self.uniform[0])
        return min(max(u, 0.0), 1.0)

    def at(self, u: float) -> Any:
        """The value at ``u`` in [0, 1)."""
        if self.qloguniform is not None:
            low, high, _ = self.qloguniform
            return self.near(exp((1 - u) * log(low) + u * log(high)))
        if (count := self.num_values) is not None:
            return self.value(min(int(u * count), count - 1))
        if self.normal is not None:
            mean, std = self.normal
            edge = _NORMAL.cdf(-DEVIATIONS)
            return mean + std * _NORMAL.inv_cdf(edge + u * (1 - 2 * edge))
        if self.loguniform is not None:
            low, high = self.loguniform
            return min(max(exp((1 - u) * log(low) + u * log(high)), low), high)
        assert self.uniform is not None
        low, high = self.uniform
        return min(max((1 - u) * low + u * high, low), high)

    def near(self, number: float) -> float:
        """The value of a law of steps that is nearest to a number."""
        return float(self.value(min(max(self.number(number), 0), (self.num_values or 1) - 1)))

    def holds(self, value: Any) -> bool:
        """Whether it is one of the values."""
        if self.choice is not None:
            return value in self.choice
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        if self.randint is not None:
            return isinstance(value, int) and self.randint[0] <= value <= self.randint[1]
        (_, low), (_, high) = self.ends()
        if self.steps is None or not low <= value <= high:
            return low <= value <= high
        steps = (value - low) / self.steps[2]
        return isclose(steps, round(steps), abs_tol=1e-6)

    def ends(self) -> list[tuple[tuple[str | int, ...], Any]]:
        """Values between which all others lie, or all values of a choice; each with its key in the domain."""
        (law,) = self.laws
        if self.choice is not None:
            return [((law, index), value) for index, value in enumerate(self.choice)]
        if self.normal is not None:
            mean, std = self.normal
            return [((law,), mean - DEVIATIONS * std), ((law,), mean + DEVIATIONS * std)]
        low, high, *_ = getattr(self, law)
        return [((law, 0), low), ((law, 1), high)]


LAWS: Final = tuple(key for key in Domain.model_fields if key != "when")
"""The keys of which a domain has one."""
