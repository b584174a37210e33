"""Laws: a history comes back as it was, its columns always in the same order, what a row lacks as NaN."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_svc.store.history import FIRST_COLUMNS, decode_history, encode_history

EXTRA = ("val_accuracy", "val_loss", "aux")
ROW = st.fixed_dictionaries(
    {"epoch": st.integers(0, 10**6)},
    optional={name: st.floats(width=64) for name in (*FIRST_COLUMNS[1:], *EXTRA)},
)
ROWS = st.lists(ROW, min_size=1, max_size=12)


@given(rows=ROWS)
def test_a_history_comes_back(rows: list[dict[str, float]]) -> None:
    found = decode_history(encode_history(rows))
    names = {name for row in rows for name in row}
    assert set(found) == names
    for name, column in found.items():
        wanted = np.array([row.get(name, math.nan) for row in rows], dtype=np.float64)
        np.testing.assert_array_equal(column, wanted)
        assert column.dtype == np.float64


@given(rows=ROWS)
def test_its_bytes_do_not_depend_on_the_order_of_keys(rows: list[dict[str, float]]) -> None:
    through_a_commit = json.loads(json.dumps(rows, sort_keys=True))
    assert encode_history(through_a_commit) == encode_history(rows)
    names = list(decode_history(encode_history(rows)))
    first = [name for name in FIRST_COLUMNS if name in names]
    assert names == first + sorted(set(names) - set(first))


@given(rows=ROWS)
def test_pandas_reads_it_as_it_read_its_own(rows: list[dict[str, float]]) -> None:
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer, index=False)
    own = pd.read_parquet(io.BytesIO(buffer.getvalue()))
    found = pd.read_parquet(io.BytesIO(encode_history(rows)))
    pd.testing.assert_frame_equal(found[own.columns], own)


def test_no_epoch_is_no_column() -> None:
    assert decode_history(encode_history([])) == {}
    with pytest.raises(KeyError):
        decode_history(encode_history([]))["epoch"]
