"""Documents of any size come back as they went in, and a byte that changed is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.store import document
from ensemble_svc.store.document import encode_document, read_document, write_document

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=20,
)
bodies = st.dictionaries(
    st.text(min_size=1, max_size=8).filter(lambda n: n != "checksum"), values, max_size=6
)


@pytest.fixture(params=[0, 10**9], ids=["large", "small"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "LARGE_FROM", request.param)


@pytest.mark.usefixtures("layout")
def test_what_is_read_is_what_was_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("document") / "x.json"

    @settings(max_examples=60, deadline=None)
    @given(bodies, st.data())
    def law(body: dict[str, Any], data: Any) -> None:
        write_document(path, body)
        found = read_document(path)
        assert {**found, "schema_version": 0} == {**body, "schema_version": 0}
        written = bytearray(path.read_bytes())
        written[data.draw(st.integers(0, len(written) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(written)
        with pytest.raises(CorruptArtifact):
            read_document(path)

    law()


def test_a_large_document_has_an_item_a_line_and_an_older_layout_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"members": [{"id": str(k), "metrics": {"nll": k / 7}} for k in range(50)]}
    older = encode_document(body)
    monkeypatch.setattr(document, "LARGE_FROM", 100)
    newer = encode_document(body)
    assert json.loads(older) == json.loads(newer)
    assert newer.count(b"\n") < older.count(b"\n") / 3
    for text in (older, newer):
        (tmp_path / "x.json").write_bytes(text)
        assert read_document(tmp_path / "x.json")["members"] == body["members"]
