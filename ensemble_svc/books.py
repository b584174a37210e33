"""The books of an evaluation: what rows come to that were read a piece at a time, by anybody.

Law: books of parts of the rows, joined, are those of all rows, whatever the parts: counts to the bit, sums to
round-off, and the rows that are held are the same. What is kept in order (scores of rows, values of a column) is in
that of joining.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ensemble_svc.doubts import Doubts
from ensemble_svc.errors import DataError
from ensemble_svc.evaluate.pieces import SCALAR_BYTES
from ensemble_svc.evaluate.portrayed import Portrayed
from ensemble_svc.evaluate.sample import Sample
from ensemble_svc.evaluate.tally import Tally

MOST_SLICES = 100
Tallies = dict[str, Tally]
"""By task; of a lone one under the empty name."""


@dataclass
class Books:
    """What is known of the rows so far."""

    rows: int = 0
    sample: Sample | None = None
    """All rows up to ``terms.HELD_ROWS``, then so many of them, each as likely."""
    whole: Tallies = field(default_factory=dict)
    portraits: dict[str, Portrayed] = field(default_factory=dict)
    """Of the tasks with classes."""
    slices: dict[str, dict[str, Tallies]] = field(default_factory=dict)
    """Column → value → task."""
    shifted: dict[tuple[str, int], Tallies] = field(default_factory=dict)
    """By corruption and severity."""
    doubts: Doubts = field(default_factory=Doubts)
    trained: int = 0
    """Rows equal to some that members were trained on."""
    chosen: int = 0
    """Further rows equal to some that decided about the ensemble."""
    zero_based: bool = False
    """Whether a label is no number, or is 0; as ``data.streams.Labels``."""

    def join(self, other: Books) -> None:
        """Take in the books of other rows.

        Raises:
            DataError: a column to slice by that has too many values in all.
        """
        self.rows += other.rows
        self.trained += other.trained
        self.chosen += other.chosen
        self.zero_based |= other.zero_based
        if self.sample is None:
            self.sample = other.sample
        elif other.sample is not None:
            self.sample.join(other.sample)
        _join(self.whole, other.whole)
        for task, portrait in other.portraits.items():
            if task in self.portraits:
                self.portraits[task].join(portrait)
            else:
                self.portraits[task] = portrait
        for column, values in other.slices.items():
            own = self.slices.setdefault(column, {})
            check_slices(column, len(own.keys() | values.keys()))
            for value, tallies in values.items():
                _join(own.setdefault(value, {}), tallies)
        for change, tallies in other.shifted.items():
            _join(self.shifted.setdefault(change, {}), tallies)
        self.doubts.join(other.doubts)
        self.bound()

    def bound(self) -> None:
        """Hold no more than ``SCALAR_BYTES`` of the rows for metrics that rank them: those of slices go first."""
        slices = [
            tally for values in self.slices.values() for own in values.values() for tally in own.values()
        ]
        for tallies in (slices, [*self.whole.values()]):
            if sum(t.ranks.bytes for t in (*slices, *self.whole.values())) > SCALAR_BYTES:
                for tally in tallies:
                    tally.ranks.forget()


def _join(known: Tallies, more: Mapping[str, Tally]) -> None:
    for task, tally in more.items():
        if task in known:
            known[task].join(tally)
        else:
            known[task] = tally


def check_slices(column: str, values: int) -> None:
    """Refuse a column of too many values.

    Raises:
        DataError: naming it.
    """
    if values > MOST_SLICES:
        raise DataError(
            f"--slices {column}: it has more than {MOST_SLICES} values; slice by a column of few."
        )
