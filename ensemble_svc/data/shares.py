"""Shares of rows drawn at random, in equal proportion from each class.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import DataError
from ensemble_svc.spec.randomness import derive_seed

Counts = npt.NDArray[np.int64]
Quotas = npt.NDArray[np.floating]


def draw_shares(
    num_rows: int,
    shares: Sequence[float],
    *,
    labels: Array | None,
    classes: Sequence[str],
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the test and of the validation rows; they do not overlap.

    The test rows do not depend on the validation share, unless a class is so small that both must
    shrink for one row to be left to train on.

    Args:
        shares: of test and validation; 0 draws none.
        labels: [num_rows] class numbers to keep in proportion: every split's count of a class is
            within one row of its share. None draws without regard to them.
        classes: names, for messages.

    Raises:
        DataError: shares that leave no row to train on or round to none, or a class with fewer
            rows than there are splits.
    """
    _check_shares(num_rows, shares)
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, -1, "split")))
    strata = _strata(num_rows, labels)
    if labels is not None:
        _check_strata(strata, shares, labels, classes)
    test_C, validation_C = allocate(np.array([len(rows) for rows in strata]), *shares)
    shuffled = [generator.permutation(rows) for rows in strata]
    test = [rows[:t] for rows, t in zip(shuffled, test_C, strict=True)]
    validation = [rows[t : t + v] for rows, t, v in zip(shuffled, test_C, validation_C, strict=True)]
    return np.concatenate(test), np.concatenate(validation)


def allocate(counts_C: Counts, test: float, validation: float) -> tuple[Counts, Counts]:
    """Test and validation rows of each class: within one row of its share in all three splits.

    The rows left over by rounding go to the largest remainders, so that the totals come out as
    asked; every class keeps at least one training row.
    """
    most_C = np.maximum(counts_C - 1, 0)
    quota_C, both_C = counts_C * test, counts_C * (test + validation)
    extra_C = counts_C * validation
    low_C, high_C = _floor(quota_C), np.minimum(_ceil(quota_C), np.subtract(most_C, _floor(extra_C)))
    test_C = _round_to(quota_C, low_C, high_C, round(counts_C.sum() * test))
    low_C = np.maximum(_floor(both_C), np.add(test_C, _floor(extra_C)))
    high_C = np.minimum(np.minimum(_ceil(both_C), np.add(test_C, _ceil(extra_C))), most_C)
    total = int(test_C.sum()) + round(counts_C.sum() * validation)
    taken_C = _round_to(both_C, np.minimum(low_C, high_C), high_C, total)
    return test_C, np.subtract(taken_C, test_C)


def _round_to(quota_C: Quotas, low_C: Counts, high_C: Counts, total: int) -> Counts:
    """Whole numbers from ``low_C`` to ``high_C``, near the quotas, that sum to ``total`` if they can."""
    rounded = low_C.copy()
    order = np.argsort(-(quota_C - low_C), kind="stable")
    room = order[(high_C > low_C)[order]]
    rounded[room[: max(total - int(low_C.sum()), 0)]] += 1
    return rounded


def _floor(quota_C: Quotas) -> Counts:
    return np.floor(quota_C + 1e-9).astype(np.int64)


def _ceil(quota_C: Quotas) -> Counts:
    return np.ceil(quota_C - 1e-9).astype(np.int64)


def _strata(num_rows: int, labels: Array | None) -> list[npt.NDArray[np.int64]]:
    if labels is None:
        return [np.arange(num_rows)]
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order].astype(np.int64))) + 1
    return np.split(order, starts)


def _check_shares(num_rows: int, shares: Sequence[float]) -> None:
    if sum(shares) >= 1:
        raise DataError(
            f"data.test ({shares[0]}) and data.validation ({shares[1]}) together leave no rows to train "
            "on; their sum must be below 1."
        )
    for key, share in zip(("test", "validation"), shares, strict=True):
        if share > 0 and round(num_rows * share) == 0:
            raise DataError(
                f"data.{key}: {share} of {num_rows} rows is no row at all; "
                "take a larger share, or 0 for none."
            )


def _check_strata(
    strata: Sequence[npt.NDArray[np.int64]],
    shares: Sequence[float],
    labels: Array,
    classes: Sequence[str],
) -> None:
    needed = 1 + sum(share > 0 for share in shares)
    small = [rows for rows in strata if len(rows) < needed]
    if small:
        listed = ", ".join(f"'{classes[int(labels[rows[0]])]}' ({len(rows)})" for rows in small[:5])
        raise DataError(
            f"{len(small)} classes have too few rows to stand in all {needed} splits: {listed}; each needs "
            f"at least {needed}. Add rows, merge or drop the class, or write 'data.stratify: false'."
        )
