"""Laws of the sources: every registered one loads, the same rows twice, in the promised types."""

from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import datasets

from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.sources import load, load_data
from ensemble_svc.errors import DataError
from ensemble_svc.spec.data import (
    SOURCES,
    BreastCancer,
    Column,
    Csv,
    DataSpec,
    Diabetes,
    Digits,
    Idx,
    ImageFolder,
    Npz,
    Parquet,
    PythonSource,
    Source,
)
from ensemble_svc.spec.job import Task

Made = tuple[Source, Task, int]


def make_npz(folder: Path) -> Made:
    x = np.random.default_rng(0).normal(size=(12, 3))
    np.savez(folder / "rows.npz", x=x, y=np.arange(12) % 3)
    return Npz(path="rows.npz"), "classification", 12


def mixed_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "city": ["Rome", None, "Bern", "Rome"],
            "age": [30.5, 41.0, None, 7.0],
            "code": [10, 2, 2, 10],
            "flag": [True, False, True, True],
            "key": ["007", "008", "9", "x1"],
            "price": [1.5, 2.5, 3.5, 4.5],
            "size": [1.0, 2.0, 3.0, 5.0],
        }
    )


def make_csv(folder: Path) -> Made:
    mixed_frame().to_csv(folder / "rows.csv", index=False)
    target = ("price", "size")
    return Csv(path="rows.csv", target=target, categorical=("code",), id="key"), "regression", 4


def make_parquet(folder: Path) -> Made:
    mixed_frame().to_parquet(folder / "rows.parquet")
    target = ("price", "size")
    return Parquet(path="rows.parquet", target=target, categorical=("code",), id="key"), "regression", 4


def make_image_folder(folder: Path) -> Made:
    for i, name in enumerate(
        ("train/cat/a.png", "train/cat/b.PNG", "train/dog/a.jpg", "val/cat/x.png", "test/dog/y.png")
    ):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 6), (i * 10, 0, 200)).save(path)
    (folder / "images" / "train" / "cat" / "notes.txt").write_text("no image")
    return ImageFolder(path="images"), "classification", 5


def idx_bytes(array: np.ndarray) -> bytes:
    kind = {"uint8": 0x08, "float32": 0x0D}[array.dtype.name]
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def make_idx(folder: Path) -> Made:
    rng = np.random.default_rng(1)
    for stem, n in (("train", 6), ("t10k", 4)):
        images = rng.integers(0, 256, size=(n, 5, 7), dtype=np.uint8)
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(n, dtype=np.uint8) % 2))
    return Idx(path="."), "classification", 10


def make_python(folder: Path) -> Made:
    (folder / "my_rows.py").write_text(
        "import numpy as np\n"
        "def build(n):\n"
        "    x = np.linspace(0, 1, n)\n"
        "    return {'x': x, 'y': np.sin(x), 'features': ['t'], 'row': [f'r{i}' for i in range(n)],\n"
        "            'splits': {'train': range(1, n), 'test': [0]}}\n"
    )
    return PythonSource(factory="my_rows:build", options={"n": 9}), "regression", 9


MAKERS: dict[str, Callable[[Path], Made]] = {
    "digits": lambda _: (Digits(), "classification", 1797),
    "breast_cancer": lambda _: (BreastCancer(), "classification", 569),
    "diabetes": lambda _: (Diabetes(), "regression", 442),
    "npz": make_npz,
    "csv": make_csv,
    "parquet": make_parquet,
    "image_folder": make_image_folder,
    "idx": make_idx,
    "python": make_python,
}


def read(made: Made, folder: Path) -> Dataset:
    return load(made[0], task=made[1], directory=folder)


@pytest.mark.parametrize("name", SOURCES.by_name)
def test_every_source_keeps_the_promises_of_a_dataset(name: str, tmp_path: Path) -> None:
    """A source that is registered but not made here fails."""
    made = MAKERS[name](tmp_path)
    _, task, num_rows = made
    data = read(made, tmp_path)
    assert len(data) == len(data.y) == len(data.row) == num_rows
    assert len(set(data.row.tolist())) == num_rows
    if data.kind == "table":
        assert data.x.ndim == 2
        assert data.x.dtype == np.float32
        assert len(data.features) == data.x.shape[1]
        assert data.features[len(data.features) - len(data.categories) :] == tuple(data.categories)
    else:
        assert data.x.ndim == 4
        assert data.x.dtype in (np.uint8, np.float32)
    if task == "classification":
        assert data.y.dtype == np.int64
        assert data.y.shape == (num_rows,)
        assert 0 <= data.y.min() <= data.y.max() < len(data.classes)
    else:
        assert data.y.dtype == np.float32
        assert data.y.shape == (num_rows, len(data.targets))
        assert data.classes == ()
    positions = np.concatenate([np.empty(0, np.int64), *data.splits.values()])
    assert len(np.unique(positions)) == len(positions)
    assert data.x.flags.c_contiguous
    assert read(made, tmp_path).hash == data.hash


@pytest.mark.parametrize("name", SOURCES.by_name)
def test_a_source_of_the_wrong_task_is_refused_or_read_as_asked(name: str, tmp_path: Path) -> None:
    """Class numbers can be read as numbers; anything else is refused in words, not by a traceback."""
    source, task, _ = MAKERS[name](tmp_path)
    other: Task = "regression" if task == "classification" else "classification"
    if name in ("npz",):
        assert load(source, task=other, directory=tmp_path).classes == ()
    elif name == "idx":
        assert load(source, task=other, directory=tmp_path).y.shape == (10, 1)
    else:
        with pytest.raises(DataError, match=r"task|classification"):
            load(source, task=other, directory=tmp_path)


@pytest.mark.parametrize(
    "source, bunch",
    [
        (Digits(), datasets.load_digits()),
        (BreastCancer(), datasets.load_breast_cancer()),
        (Diabetes(), datasets.load_diabetes(scaled=False)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_shipped_sets_equal_those_of_scikit_learn(source: Source, bunch: object) -> None:
    task: Task = "regression" if source.name == "diabetes" else "classification"
    data = load(source, task=task, directory=Path())
    np.testing.assert_array_equal(data.x.reshape(len(data), -1), bunch.data.astype(np.float32))
    np.testing.assert_array_equal(data.y.reshape(-1), bunch.target)
    if data.kind == "table":
        assert data.features == tuple(bunch.feature_names)
    else:
        assert data.x.shape == (1797, 1, 8, 8)
        assert (data.x.min(), data.x.max()) == (0, 16)
    if task == "classification":
        assert data.classes == tuple(map(str, bunch.target_names))


def test_sources_need_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys; from pathlib import Path; from ensemble_svc.data.sources import load; "
        "from ensemble_svc.spec.data import Digits; "
        "from ensemble_svc.data import split, checks, indices, schema; "
        "load(Digits(), task='classification', directory=Path()); "
        "print(sorted({'torch', 'sklearn', 'pandas', 'scipy', 'kornia'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("maker", [make_csv, make_parquet], ids=["csv", "parquet"])
def test_mixed_tables_become_numbers_then_codes(maker: Callable[[Path], Made], tmp_path: Path) -> None:
    data = read(maker(tmp_path), tmp_path)
    assert data.features == ("age", "flag", "city", "code")
    assert dict(data.categories) == {"city": ("Bern", "Rome"), "code": ("2", "10")}
    expected = [[30.5, 1, 1, 1], [41, 0, np.nan, 0], [np.nan, 1, 0, 0], [7, 1, 1, 1]]
    np.testing.assert_array_equal(data.x, np.array(expected, np.float32))
    np.testing.assert_array_equal(data.y, np.array([[1.5, 1], [2.5, 2], [3.5, 3], [4.5, 5]], np.float32))
    assert data.row.tolist() == ["007", "008", "9", "x1"]
    assert data.targets == ("price", "size")


def test_csv_and_parquet_of_one_frame_are_the_same_data(tmp_path: Path) -> None:
    csv, parquet = read(make_csv(tmp_path), tmp_path), read(make_parquet(tmp_path), tmp_path)
    assert csv.hash == parquet.hash


def test_ids_stay_integers_only_when_nothing_is_lost(tmp_path: Path) -> None:
    for ids, kind in (([3, 1, 2], "i"), (["03", "1", "2"], "U")):
        pd.DataFrame({"id": ids, "a": [1, 2, 3], "y": [1, 2, 3]}).to_csv(tmp_path / "t.csv", index=False)
        data = load(Csv(path="t.csv", target="y", id="id"), task="regression", directory=tmp_path)
        assert data.row.dtype.kind == kind
        assert data.row.tolist() == ids
        assert data.features == ("a",)


def test_class_labels_of_tables_are_ordered(tmp_path: Path) -> None:
    for labels, classes in (
        ([10, 2, 2], ("2", "10")),
        (["b", "a", "b"], ("a", "b")),
        ([1.0, 0.0, 1.0], ("0", "1")),
    ):
        pd.DataFrame({"a": [1, 2, 3], "y": labels}).to_csv(tmp_path / "t.csv", index=False)
        data = load(Csv(path="t.csv", target="y"), task="classification", directory=tmp_path)
        assert data.classes == classes
        assert data.y.tolist() == [
            classes.index(f"{v:g}" if isinstance(v, float) else str(v)) for v in labels
        ]


def test_npz_splits_names_and_layouts(tmp_path: Path) -> None:
    """Files with X_train, y_train, X_test, y_test: uint8 stays uint8, channels come first."""
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, size=(5, 6, 7, 3), dtype=np.uint8)
    arrays = {"X_train": colour[:3], "y_train": [0, 1, 0], "X_test": colour[3:], "y_test": [1, 0]}
    np.savez(tmp_path / "c.npz", **arrays, class_names=["cat", "dog"])
    data = load(Npz(path="c.npz"), task="classification", directory=tmp_path)
    assert data.x.dtype == np.uint8
    np.testing.assert_array_equal(data.x, colour.transpose(0, 3, 1, 2))
    assert data.classes == ("cat", "dog")
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0, 1, 2], "test": [3, 4]}
    np.savez(tmp_path / "g.npz", X_train=colour[:3, :, :, 0], y_train=[0, 1, 0])
    grey = load(Npz(path="g.npz"), task="classification", directory=tmp_path)
    np.testing.assert_array_equal(grey.x, colour[:3, None, :, :, 0])
    np.savez(tmp_path / "n.npz", a=colour.transpose(0, 3, 1, 2), b=[0, 1, 0, 1, 1])
    named = load(Npz(path="n.npz", x="A", y="b"), task="classification", directory=tmp_path)
    np.testing.assert_array_equal(named.x, data.x)
    np.savez(tmp_path / "both.npz", x=np.zeros((4, 3, 5, 3), np.uint8), y=[0, 1, 0, 1])
    with pytest.raises(DataError, match="layout: NHWC or NCHW"):
        load(Npz(path="both.npz"), task="classification", directory=tmp_path)
    told = load(Npz(path="both.npz", layout="NCHW"), task="classification", directory=tmp_path)
    assert told.x.shape == (4, 3, 5, 3)


def test_idx_holds_what_was_written(tmp_path: Path) -> None:
    data = read(make_idx(tmp_path), tmp_path)
    assert data.x.shape == (10, 1, 5, 7)
    assert data.x.dtype == np.uint8
    packed = gzip.decompress((tmp_path / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert data.x[6:].tobytes() == packed[16:]
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 6, "test": 4}


def test_image_folders_name_their_rows_and_splits(tmp_path: Path) -> None:
    data = read(make_image_folder(tmp_path), tmp_path)
    assert data.x.shape == (5, 3, 6, 4)
    assert data.classes == ("cat", "dog")
    by_id = dict(
        zip(data.row.tolist(), zip(data.y.tolist(), data.x[:, 0, 0, 0].tolist(), strict=True), strict=True)
    )
    assert by_id["train/cat/b.PNG"] == (0, 10)
    assert by_id["test/dog/y.png"] == (1, 40)
    assert {k: [data.row[i] for i in v] for k, v in data.splits.items()}["validation"] == ["val/cat/x.png"]
    small = load(ImageFolder(path="images", size=(2, 3), mode="L"), task="classification", directory=tmp_path)
    assert small.x.shape == (5, 1, 2, 3)


def test_paths_fill_in_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_npz(tmp_path)
    monkeypatch.setenv("MY_DATA", str(tmp_path))
    for path in ("$MY_DATA/rows.npz", "${MY_DATA}/rows.npz"):
        assert len(load(Npz(path=path), task="classification", directory=Path("/nowhere"))) == 12
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(load(Npz(path="~/rows.npz"), task="classification", directory=Path())) == 12


def test_the_split_column_is_no_feature(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "part": ["train", "test"], "note": ["p", "q"], "y": [1.0, 2.0]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    spec = DataSpec(source=Csv(path="t.csv", target="y", drop=("note",)), split=Column(column="part"))
    data = load_data(spec, task="regression", directory=tmp_path)
    assert data.features == ("a",)
    assert data.columns["part"].tolist() == ["train", "test"]
    assert data.columns["note"].tolist() == ["p", "q"]


def test_two_jobs_may_have_modules_of_one_name(tmp_path: Path) -> None:
    for value in (1, 2):
        folder = tmp_path / str(value)
        folder.mkdir()
        (folder / "same_name.py").write_text(
            f"def build(): return {{'x': [[{value}.0], [5.0]], 'y': [0, 1], 'classes': ['no', 'yes']}}"
        )
        data = load(PythonSource(factory="same_name:build"), task="classification", directory=folder)
        assert data.x[0, 0] == value
        assert data.classes == ("no", "yes")


def test_pandas_index_is_not_a_feature(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "y": [1, 2, 3]}, index=["r", "s", "t"])
    frame.to_parquet(tmp_path / "t.parquet")
    data = load(Parquet(path="t.parquet", target="y"), task="regression", directory=tmp_path)
    assert data.features == ("a",)
