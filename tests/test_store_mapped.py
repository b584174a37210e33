"""Laws of tensor files that nobody holds: their bytes are those of the whole, and their pages are what was written."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.errors import CorruptArtifact, StoreError
from ensemble_svc.store import atomic
from ensemble_svc.store.atomic import hash_file, write_atomic
from ensemble_svc.store.document import write_document
from ensemble_svc.store.mapped import laid_out, let_go, map_tensors
from ensemble_svc.store.run import Run
from ensemble_svc.store.tensors import encode

law = settings(max_examples=60, deadline=None)
TYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
shapes = st.lists(st.integers(0, 4), min_size=2, max_size=3)
stacks = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
        lambda name: name != "__metadata__"
    ),
    st.tuples(st.sampled_from(TYPES), shapes),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mapped")


def drawn(layout: dict[str, tuple[torch.dtype, list[int]]], seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        name: torch.randint(0, 2, shape, generator=draw).to(dtype) for name, (dtype, shape) in layout.items()
    }


@law
@given(layout=stacks, seed=st.integers(0, 2**31), order=st.randoms(use_true_random=False))
def test_parts_in_any_order_make_the_file_of_the_whole(folder, layout, seed, order) -> None:
    tensors, path = drawn(layout, seed), folder / "parts.safetensors"
    parts = [(name, k) for name, value in tensors.items() for k in range(len(value))]
    order.shuffle(parts)
    described = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    with laid_out(path, described, {"split": "test"}) as put:
        for name, k in parts:
            put(name, k, tensors[name][k : k + 1])
    assert path.read_bytes() == encode(tensors, {"split": "test"})
    found = map_tensors(path)
    let_go()
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_what_was_mapped_stays_when_the_file_is_replaced(folder) -> None:
    path = folder / "old.safetensors"
    path.write_bytes(encode({"a": torch.zeros(1000)}))
    found = map_tensors(path)["a"]
    with laid_out(path, {"a": (torch.float32, (1000,))}, {}) as put:
        put("a", 0, torch.ones(1000))
    let_go()
    assert not found.any()
    assert map_tensors(path)["a"].all()


@pytest.mark.parametrize(
    ("first", "part"), [(0, torch.zeros(1, 3)), (2, torch.zeros(1, 2)), (0, torch.zeros(1, 2).double())]
)
def test_a_part_that_does_not_fit_is_refused_and_leaves_no_file(folder, first, part) -> None:
    path = folder / "refused" / "a.safetensors"
    with (
        pytest.raises(CorruptArtifact, match="what the first member has"),
        laid_out(path, {"a": (torch.float32, (2, 2))}, {}) as put,
    ):
        put("a", first, part)
    assert not list(path.parent.iterdir())


def test_a_place_that_cannot_be_written_is_named(folder) -> None:
    (folder / "file").write_text("")
    with (
        pytest.raises(StoreError, match="cannot write"),
        laid_out(folder / "file" / "a.safetensors", {"a": (torch.float32, (1, 1))}, {}) as put,
    ):
        put("a", 0, torch.zeros(1, 1))


def test_other_files_are_refused(folder) -> None:
    path = folder / "other.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CorruptArtifact, match="not a tensor file"):
        map_tensors(path)
    path.write_bytes(encode({"a": torch.zeros(4)})[:-1])
    with pytest.raises(CorruptArtifact, match="not those that its header tells"):
        map_tensors(path)


def test_other_bytes_than_those_recorded_are_refused(folder) -> None:
    path = folder / "recorded.safetensors"
    path.write_bytes(encode({"a": torch.zeros(4)}))
    known = hash_file(path)
    assert known is not None
    assert not map_tensors(path, known)["a"].any()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptArtifact, match="damaged"):
        map_tensors(path, known)
    path.unlink()
    with pytest.raises(CorruptArtifact, match="missing"):
        map_tensors(path, known)


def test_what_is_mapped_is_what_was_verified(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another driver may put its file in the place while this one is hashed."""
    run = Run(folder)
    path = folder / "predictions" / "test.safetensors"
    path.parent.mkdir()
    path.write_bytes(encode({"a": torch.zeros(4)}))
    write_document(folder / "manifest.json", {"files": {"predictions/test.safetensors": hash_file(path)}})

    def meanwhile(file: IO[bytes], name: str) -> Any:
        found = file_digest(file, name)
        write_atomic(path, encode({"a": torch.ones(4), "b": torch.ones(9)}))
        return found

    monkeypatch.setattr(atomic, "file_digest", meanwhile)
    said = run.mapped("test")
    assert list(said) == ["a"]
    assert not said["a"].any()
