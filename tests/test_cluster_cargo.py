"""The slots of a run as one block: each is found by its name as it was put in, and nothing else is."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_svc.cluster.cargo import Cargo

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


@given(st.dictionaries(NAMES, st.text(max_size=60), min_size=1, max_size=40), NAMES)
def test_every_text_comes_out_as_it_went_in(texts: dict[str, str], other: str) -> None:
    cargo = pickle.loads(pickle.dumps(Cargo.of(texts)))
    assert {name: cargo[name] for name in texts} == texts
    if other not in texts:
        with pytest.raises(KeyError):
            cargo[other]
