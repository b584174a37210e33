"""Bad input gets one sentence with place, value and remedy; hostile files run no code and eat no memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_data_sources import MAKERS, idx_bytes, make_idx, make_image_folder

from ensemble_svc.data import image, paths
from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.sources import load
from ensemble_svc.errors import DataError
from ensemble_svc.spec.data import Csv, Idx, ImageFolder, Npz, Parquet, PythonSource
from ensemble_svc.spec.job import Task


def csv(folder: Path, text: str, *, task: Task = "regression", **options: Any) -> Dataset:
    (folder / "t.csv").write_text(text)
    return load(Csv(path="t.csv", **{"target": "y", **options}), task=task, directory=folder)


def npz(folder: Path, *, task: Task = "classification", **arrays: Any) -> Dataset:
    np.savez(folder / "t.npz", **arrays)
    return load(Npz(path="t.npz"), task=task, directory=folder)


@pytest.mark.parametrize(
    "text, options, says",
    [
        ("a,y\n", {}, r"no rows"),
        ("", {}, r"t\.csv: the file is empty"),
        ("a,y\n1,2\n3\n", {}, r"line 3: Expected 2 columns, got 1"),
        ("a,y\n1,2\n", {"target": "z"}, r"target names column 'z', which is not there.*Columns: a, y"),
        ("age,y\n1,2\n", {"drop": ("agee",)}, r"drop names column 'agee'.*Did you mean 'age'"),
        ("a,a,y\n1,2,3\n", {}, r"two columns are called 'a'"),
        (",a,y\n0,2,3\n", {}, r"column 1 has no name \(a saved row index\?\)"),
        ("a,y\n1,2\n2,abc\n", {}, r"row 2, column 'y': 'abc' is no number"),
        ("a,y\n2020-01-01,2\n2020-01-02,3\n", {}, r"column 'a' holds date32.*drop: \['a'\]"),
        ("y\n1\n2\n", {}, r"no feature columns are left"),
        ("a,y\n1,2\n", {"target": ("y", "y")}, r"column 'y' is the target"),
        ("a,y\n1,2\n", {"target": ()}, r"empty list"),
        ("k,a,y\n1,1,2\n,3,4\n", {"id": "k"}, r"row 2, id column 'k': the id is missing"),
        ("a,y\n1e39,2\n3,4\n", {}, r"row 1, column 'a'.*1e\+39 is too large"),
    ],
)  # fmt: skip
def test_bad_csv(text: str, options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        csv(tmp_path, text, **options)


@pytest.mark.parametrize(
    "text, says",
    [
        ("a,y\n1,x\n2,\n", r"row 2, column 'y'.*label is missing"),
        ("a,y\n1,1\n2,2.5\n", r"row 2, column 'y'.*2\.5 is no class.*task: regression"),
    ],
)
def test_bad_labels_of_a_table(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        csv(tmp_path, text, task="classification")


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,y\n\xff\xfe,2\n")
    with pytest.raises(DataError, match="column 'a' holds binary"):
        load(Csv(path="t.csv", target="y"), task="regression", directory=tmp_path)
    with pytest.raises(DataError, match=r"t\.csv.*UTF8"):
        load(Csv(path="t.csv", target="y", categorical=("a",)), task="regression", directory=tmp_path)


def test_lists_in_a_parquet_file(tmp_path: Path) -> None:
    pd.DataFrame({"a": [[1], [2]], "y": [1, 2]}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="column 'a' holds list"):
        load(Parquet(path="t.parquet", target="y"), task="regression", directory=tmp_path)


@pytest.mark.parametrize(
    "arrays, says",
    [
        ({"x": np.ones((3, 2)), "y": [0, 5, 1], "class_names": ["a", "b"]}, r"row 2.*label 5;.*0 to 1 \(a,"),
        ({"x": np.ones((3, 2)), "y": [0, -1, 1]}, r"row 2.*label -1"),
        ({"x": np.ones((3, 2)), "y": [0, 1.5, 1]}, r"row 2.*label 1\.5.*task: regression"),
        ({"x": np.ones((3, 2)), "y": [0, np.nan, 1]}, r"row 2.*label nan"),
        ({"x": np.ones((3, 2)), "y": [0, 10**9, 1]}, r"row 2.*label 1000000000"),
        ({"x": np.ones((3, 2)), "y": ["a", "z", "b"], "class_names": ["a", "b"]}, r"row 2.*'z' is no class"),
        ({"x": np.ones((3, 2)), "y": np.ones((3, 2))}, r"shape \(3, 2\)"),
        ({"x": np.ones((3, 2)), "y": [0, 1]}, r"'x' has shape \(3, 2\), 'y' has shape \(2,\)"),
        ({"x": np.ones((0, 2)), "y": np.ones(0)}, r"no rows"),
        ({"x": np.ones((3, 2, 2, 2, 2)), "y": [0, 1, 0]}, r"shape \(3, 2, 2, 2, 2\); allowed"),
        ({"x": np.array(["a", "b"]), "y": [0, 1]}, r"features are numbers"),
        ({"z": np.ones(3), "y": [0, 1, 1]}, r"no array 'x'.*holds: z, y"),
        ({"X_train": np.ones((2, 1)), "y_train": [0, 1], "X_test": np.ones((2, 1))}, r"no array 'y_test'"),
        ({"X_train": np.ones((2, 1)), "y_train": [0, 1], "X_test": np.ones((2, 3)), "y_test": [0, 1]},
         r"'X_train' has rows of \(1,\).*'X_test' of \(3,\).*must agree"),
        ({"X_train": np.ones((2, 1)), "y_train": [0, 1], "X_test": np.ones((2, 1)), "y_test": [0, -3]},
         r"row 2 of 'test', .*: y: label -3"),
        ({"x": np.ones((2, 2)), "y": [0, 1], "feature_names": ["a", "a"]}, r"2 feature names \(1 differ"),
    ],
)  # fmt: skip
def test_bad_npz(arrays: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        npz(tmp_path, **arrays)


@pytest.mark.parametrize(
    "body, says",
    [
        ("def other(): ...", r"no function 'build'"),
        ("def build(a): ...", r"options do not fit .*missing a required argument: 'a'"),
        ("def build(): return 3", r"returned int; it must return a dict"),
        ("def build(): return {'x': [1.0]}", r"returned no 'y'"),
        ("def build(): return {'x': [1.0], 'y': [1.0], 'class': []}", r"key 'class'.*Did you mean 'classes'"),
        ("def build(): return {'x': [[1.0], [2.0, 3.0]], 'y': [1.0, 2.0]}", r"'x' is not an array"),
        ("def build(): return {'x': [1.0, 2.0], 'y': [1.0, 2.0], 'splits': {'train': [0, 7]}}",
         r"split 'train', entry 2: 7; rows are numbered 0 to 1"),
        ("import not_there_at_all", r"no module named 'not_there_at_all'"),
    ],
)  # fmt: skip
def test_bad_factories(body: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "bad_rows.py").write_text(body)
    with pytest.raises(DataError, match=says):
        load(PythonSource(factory="bad_rows:build"), task="regression", directory=tmp_path)


def test_a_bug_in_the_users_factory_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "bug_rows.py").write_text("def build(): return 1 / 0")
    with pytest.raises(ZeroDivisionError):
        load(PythonSource(factory="bug_rows:build"), task="regression", directory=tmp_path)


def test_paths_that_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits.npz").write_bytes(b"x")
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    for path, says in (
        ("digit.npz", r"no such file.*Did you mean 'digits\.npz'"),
        ("$NO_SUCH_VARIABLE/a.npz", r"environment variable NO_SUCH_VARIABLE is not set"),
        (".", r"is a folder, not a file"),
        ("digits.npz", r"cannot be read, it may be damaged"),
        ("digits.npz/below.npz", r"no such file|Not a directory"),
    ):
        with pytest.raises(DataError, match=says):
            load(Npz(path=path), task="classification", directory=tmp_path)
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(DataError, match="pipe or device"):
        load(Npz(path="pipe.npz"), task="classification", directory=tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        load(ImageFolder(path="digits.npz"), task="classification", directory=tmp_path)


@pytest.mark.parametrize("name", ["npz", "parquet", "idx", "image_folder"])
def test_a_file_cut_short_anywhere_is_named(name: str, tmp_path: Path) -> None:
    source, task, _ = MAKERS[name](tmp_path)
    files = [path for path in sorted(tmp_path.rglob("*")) if path.is_file() and path.suffix != ".txt"]
    for path in files[:2]:
        whole = path.read_bytes()
        for quarter in range(4):
            path.write_bytes(whole[: len(whole) * quarter // 4])
            with pytest.raises(DataError, match=path.name):
                load(source, task=task, directory=tmp_path)
        path.write_bytes(whole)
    load(source, task=task, directory=tmp_path)


@pytest.mark.parametrize("name", ["npz", "parquet", "idx", "image_folder", "csv"])
def test_garbled_files_end_in_our_error_or_in_data(name: str, tmp_path: Path) -> None:
    """Bytes overwritten at random: never another exception."""
    source, task, _ = MAKERS[name](tmp_path)
    path = next(p for p in sorted(tmp_path.rglob("*")) if p.is_file() and p.suffix != ".txt")
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(60):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), size=3):
            broken[at] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            load(source, task=task, directory=tmp_path)
        except DataError:
            continue


class Marker:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_pickles_in_arrays_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    np.savez(tmp_path / "t.npz", x=np.array([Marker(marker)] * 2, dtype=object), y=[0, 1])
    with pytest.raises(DataError, match="holds Python objects"):
        load(Npz(path="t.npz"), task="classification", directory=tmp_path)
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Marker(marker)))
        archive.writestr("y.npy", pickle.dumps(Marker(marker)))
    with pytest.raises(DataError, match="damaged"):
        load(Npz(path="p.npz"), task="classification", directory=tmp_path)
    assert not marker.exists()


def test_declared_sizes_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that promises terabytes, a zip that unpacks to gigabytes, an idx that lies."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros((2, 2)))
    lie = stream.getvalue().replace(b"(2, 2), }", b"(2, 9999999999), }".ljust(9))
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("x.npy", lie)
        archive.writestr("y.npy", stream.getvalue())
    with pytest.raises(DataError, match=r"lie\.npz.*declares shape"):
        load(Npz(path="lie.npz"), task="classification", directory=tmp_path)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(3 << 20))
    monkeypatch.setattr(paths, "FREE_BYTES", 1 << 20)
    with pytest.raises(DataError, match="say they unpack to 3,145,728"):
        load(Npz(path="bomb.npz"), task="classification", directory=tmp_path)
    source, task, _ = make_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 4_000_000_000) + b"\0")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte.*4,000,000,000"):
        load(source, task=task, directory=tmp_path)


def test_bad_idx_folders(tmp_path: Path) -> None:
    source, task, _ = make_idx(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="4 images, but 3 labels"):
        load(source, task=task, directory=tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: there is no such file"):
        load(Idx(path="."), task=task, directory=tmp_path)


def test_bad_image_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, task, _ = make_image_folder(tmp_path)
    folder = tmp_path / "images" / "train" / "cat"
    Image.new("RGB", (9, 9)).save(folder / "other.png")
    with pytest.raises(DataError, match=r"other\.png: is 9 x 9 pixels.*a\.png is 6 x 4.*size: \[6, 4\]"):
        load(source, task=task, directory=tmp_path)
    Image.fromarray(np.full((6, 4), 40000, np.uint16)).save(folder / "other.png")
    with pytest.raises(DataError, match=r"other\.png: pixel mode I;16"):
        load(source, task=task, directory=tmp_path)
    monkeypatch.setattr(image, "MOST_PIXELS", 20)
    with pytest.raises(DataError, match="at most 20"):
        load(source, task=task, directory=tmp_path)
    monkeypatch.undo()
    (folder / "other.png").unlink()
    (tmp_path / "images" / "train" / "cow").mkdir()
    with pytest.raises(DataError, match="cow: this class has no images"):
        load(source, task=task, directory=tmp_path)
    (tmp_path / "images" / "extra").mkdir()
    with pytest.raises(DataError, match="but also 'extra'"):
        load(source, task=task, directory=tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no folders of images"):
        load(ImageFolder(path="empty"), task=task, directory=tmp_path)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A valid header of 50,000 x 50,000 pixels in front of no data."""
    _, task, _ = make_image_folder(tmp_path)
    bomb = tmp_path / "images" / "train" / "cat" / "a.png"
    whole = bomb.read_bytes()
    head = b"IHDR" + struct.pack(">II", 50_000, 50_000) + whole[24:29]
    bomb.write_bytes(whole[:12] + head + struct.pack(">I", zipfile.crc32(head)) + whole[33:])
    with pytest.raises(DataError, match=r"a\.png"):
        load(ImageFolder(path="images"), task=task, directory=tmp_path)
