"""Laws of the inputs: what was written is read back in the ensemble's terms, in any order and format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ensemble_svc.data.dataset import Dataset, InputSchema
from ensemble_svc.data.inputs import conform, read_inputs
from ensemble_svc.data.schema import describe
from ensemble_svc.data.sources import load
from ensemble_svc.data.split import Split
from ensemble_svc.errors import DataError
from ensemble_svc.spec.data import Csv, DataSpec, ImageFolder, Npz, Parquet
from ensemble_svc.spec.job import Task
from ensemble_svc.spec.preprocess import Impute

NONE = np.empty(0, np.int64)


def schema_of(data: Dataset) -> InputSchema:
    spec = DataSpec.model_validate({"source": "digits", "preprocess": (Impute(),) if data.features else ()})
    return describe(data, Split(np.arange(len(data)), NONE, NONE), spec)


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "city": ["Rome", "Oslo", None, "Bern"],
            "age": [30.5, 41.0, np.nan, 7.0],
            "zip": ["007", "12", "12", "9"],
            "label": ["b", "a", "c", "a"],
        }
    )


def trained(folder: Path) -> tuple[Dataset, InputSchema]:
    frame().to_csv(folder / "train.csv", index=False)
    source = Csv(path="train.csv", target="label", categorical=("zip",))
    data = load(source, task="classification", directory=folder)
    return data, schema_of(data)


def write(table: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_tables_are_matched_by_name_in_any_order(suffix: str, tmp_path: Path) -> None:
    data, schema = trained(tmp_path)
    table = frame()[["zip", "age", "city"]].assign(extra="ignored", key=["k1", "k2", "k3", "k4"])
    path = write(table, tmp_path / f"new{suffix}")
    x, row = read_inputs(path, schema)
    np.testing.assert_array_equal(x, data.x)
    assert x.dtype == np.float32
    assert row.tolist() == [0, 1, 2, 3]
    assert read_inputs(str(path), schema, id_column="key")[1].tolist() == ["k1", "k2", "k3", "k4"]


def test_categories_that_training_did_not_know_become_minus_1(tmp_path: Path) -> None:
    _, schema = trained(tmp_path)
    table = frame().assign(city=["Rome", "Paris", None, "rome"])
    x, _ = read_inputs(write(table, tmp_path / "new.csv"), schema)
    np.testing.assert_array_equal(x[:, 1], np.array([2, -1, np.nan, -1], np.float32))


def test_bad_tables_are_refused_in_words(tmp_path: Path) -> None:
    _, schema = trained(tmp_path)
    for table, says in (
        (frame().rename(columns={"age": "agee"}), r"column 'age', which is not there\. Did you mean 'agee'"),
        (frame().assign(age=["1", "2", "old", "4"]), r"row 3, column 'age': 'old' is no number"),
        (frame().assign(age=[1, 2, np.inf, 4]), r"row 3, column 'age': infinity"),
    ):
        for name in ("bad.csv", "bad.parquet"):
            with pytest.raises(DataError, match=says):
                read_inputs(write(table, tmp_path / name), schema)
    path = write(frame(), tmp_path / "new.csv")
    with pytest.raises(DataError, match="the id names column 'kee'"):
        read_inputs(path, schema, id_column="kee")
    strict = schema.model_copy(update={"indicators": ()})
    with pytest.raises(DataError, match=r"row 3, column 'age': NaN"):
        read_inputs(path, strict)
    assert len(read_inputs(path, strict, missing=True)[0]) == 4
    with pytest.raises(DataError, match=r"inputs are \.csv.*got '\.xlsx'"):
        read_inputs(tmp_path / "new.xlsx", schema)
    with pytest.raises(DataError, match=r"no such file.*Did you mean 'new\.csv'"):
        read_inputs(tmp_path / "nwe.csv", schema)


def test_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(6, 3))
    np.savez(tmp_path / "t.npz", x=table, y=np.arange(6) % 2)
    schema = schema_of(load(Npz(path="t.npz"), task="classification", directory=tmp_path))
    np.savez(tmp_path / "new.npz", X=table[::-1], key=np.array(list("abcdef")))
    x, row = read_inputs(tmp_path / "new.npz", schema, id_column="key")
    np.testing.assert_array_equal(x, table[::-1].astype(np.float32))
    assert row.tolist() == list("abcdef")
    np.savez(tmp_path / "narrow.npz", x=table[:, :2])
    with pytest.raises(DataError, match=r"shape \(2,\); the ensemble reads 3 columns"):
        read_inputs(tmp_path / "narrow.npz", schema)
    np.savez(tmp_path / "two.npz", a=table, b=table)
    with pytest.raises(DataError, match="call the inputs 'x'"):
        read_inputs(tmp_path / "two.npz", schema)


def colour_schema(folder: Path) -> tuple[np.ndarray, InputSchema]:
    colour = np.random.default_rng(0).integers(0, 256, size=(6, 5, 4, 3), dtype=np.uint8)
    np.savez(folder / "c.npz", x=colour, y=np.arange(6) % 2)
    return colour, schema_of(load(Npz(path="c.npz"), task="classification", directory=folder))


def test_image_arrays_in_either_layout(tmp_path: Path) -> None:
    colour, schema = colour_schema(tmp_path)
    for images in (colour, colour.transpose(0, 3, 1, 2)):
        np.savez(tmp_path / "new.npz", x=images)
        x, _ = read_inputs(tmp_path / "new.npz", schema)
        assert x.dtype == np.uint8
        np.testing.assert_array_equal(x, colour.transpose(0, 3, 1, 2))
    for images, says in (
        (colour[:, :4], r"images of shape \(4, 4, 3\); the ensemble reads 3 x 5 x 4"),
        (colour / 255, "images are float32; the ensemble was trained on uint8"),
    ):
        np.savez(tmp_path / "new.npz", x=images)
        with pytest.raises(DataError, match=says):
            read_inputs(tmp_path / "new.npz", schema)


def test_folders_of_images_are_named_by_their_paths(tmp_path: Path) -> None:
    colour, schema = colour_schema(tmp_path)
    folder = tmp_path / "new"
    (folder / "sub").mkdir(parents=True)
    for name, image in (("b.png", colour[0]), ("sub/a.png", colour[1])):
        Image.fromarray(image).save(folder / name)
    x, row = read_inputs(folder, schema)
    assert row.tolist() == ["b.png", "sub/a.png"]
    np.testing.assert_array_equal(x, colour[:2].transpose(0, 3, 1, 2))
    one, name = read_inputs(folder / "b.png", schema)
    np.testing.assert_array_equal(one, x[:1])
    assert name.tolist() == ["b.png"]
    Image.new("RGB", (9, 9)).save(folder / "b.png")
    Image.new("RGB", (9, 9)).save(folder / "sub" / "a.png")
    with pytest.raises(DataError, match="the ensemble reads 3 x 5 x 4"):
        read_inputs(folder, schema)
    assert read_inputs(folder, schema, resize=True)[0].shape == (2, 3, 5, 4)
    _, table_schema = trained(tmp_path)
    with pytest.raises(DataError, match="the ensemble reads a table of 3 columns"):
        read_inputs(folder, table_schema)
    with pytest.raises(DataError, match="the ensemble reads images"):
        read_inputs(tmp_path / "train.csv", schema)


def test_conform_of_the_training_data_changes_nothing(tmp_path: Path) -> None:
    data, schema = trained(tmp_path)
    again = conform(data, schema)
    assert again.hash == data.hash
    image, image_schema = colour_schema(tmp_path)
    del image
    pictures = load(Npz(path="c.npz"), task="classification", directory=tmp_path)
    assert conform(pictures, image_schema).hash == pictures.hash


@pytest.mark.parametrize("seed", range(5))
def test_conform_recodes_any_part_in_any_order(seed: int, tmp_path: Path) -> None:
    """A part of the rows with the columns shuffled has its own codes; conformed, it has the ensemble's."""
    data, schema = trained(tmp_path)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(4)[: rng.integers(1, 5)]
    part = frame().iloc[rows][rng.permutation(frame().columns)]
    write(part, tmp_path / "part.parquet")
    source = Parquet(path="part.parquet", target="label", categorical=("zip",))
    loaded = load(source, task="classification", directory=tmp_path)
    again = conform(loaded, schema)
    np.testing.assert_array_equal(again.x, data.x[rows])
    np.testing.assert_array_equal(again.y, data.y[rows])
    assert again.classes == data.classes
    assert again.features == data.features


def small(task: Task, **options: Any) -> Dataset:
    x = np.arange(6, dtype=np.float32)[:, None]
    y = np.arange(6) % 2 if task == "classification" else x
    values: dict[str, Any] = {"features": ("a",), "targets": ("y",), **options}
    if task == "classification":
        values.setdefault("classes", ("no", "yes"))
    return Dataset(x, y, np.arange(6), "table", **values)


def test_conform_matches_bare_class_numbers_and_refuses_strangers(tmp_path: Path) -> None:
    schema = schema_of(small("classification"))
    bare = conform(small("classification", classes=("0", "1")), schema)
    np.testing.assert_array_equal(bare.y, np.arange(6) % 2)
    assert bare.classes == ("no", "yes")
    swapped = conform(small("classification", classes=("yes", "no")), schema)
    np.testing.assert_array_equal(swapped.y, 1 - np.arange(6) % 2)
    for data, says in (
        (small("classification", classes=("no", "maybe")), r"row 2: class 'maybe' is not one of .*no, yes"),
        (small("classification", features=("b",)), r"column 'a', which the data do not have"),
        (small("regression"), "the data hold numbers as targets"),
        (
            load(ImageFolder(path="f"), task="classification", directory=picture_folder(tmp_path)),
            "a set of images",
        ),
    ):
        with pytest.raises(DataError, match=says):
            conform(data, schema)
    with pytest.raises(DataError, match="the data hold classes as targets"):
        conform(small("classification"), schema_of(small("regression")))
    with pytest.raises(DataError, match="the ensemble predicts y"):
        conform(small("regression", targets=("y", "z")), schema_of(small("regression")))


def test_conform_refuses_what_is_not_finite() -> None:
    schema = schema_of(small("regression"))
    for value in (np.nan, np.inf):
        bad = small("regression")
        bad.x[2, 0] = value
        with pytest.raises(DataError, match="row 3, column 'a'"):
            conform(bad, schema)
        wrong = Dataset(np.ones((6, 1), np.float32), bad.x, np.arange(6), "table", ("a",), targets=("y",))
        with pytest.raises(DataError, match="row 3, target 'y'"):
            conform(wrong, schema)
    x = np.array([[1.0], [np.nan]], np.float32)
    gap = Dataset(x, np.ones((2, 1), np.float32), np.arange(2), "table", ("a",), targets=("y",))
    assert np.isnan(conform(gap, schema, missing=True).x[1, 0])


def picture_folder(folder: Path) -> Path:
    for name in ("a", "b"):
        (folder / "f" / name).mkdir(parents=True)
        Image.new("RGB", (3, 3)).save(folder / "f" / name / "1.png")
    return folder


def test_conform_reads_numbers_as_words_and_words_as_numbers() -> None:
    """A column's kind can differ between two files of one thing; its meaning cannot."""
    words = small("classification", categories={"a": ("0", "1", "2", "3", "4", "5")})
    numbers = small("classification")
    np.testing.assert_array_equal(conform(words, schema_of(numbers)).x, numbers.x)
    np.testing.assert_array_equal(conform(numbers, schema_of(words)).x, words.x)
    odd = small("classification", categories={"a": ("0", "1", "2", "3", "4", "old")})
    with pytest.raises(DataError, match="row 6, column 'a': 'old' is no number"):
        conform(odd, schema_of(numbers))
