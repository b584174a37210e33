"""Rows without targets, read for an ensemble that exists: the input of ``predict``.

Shapes: N rows, D columns, images [N, C, H, W].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from ensemble_svc.data.archive import array_names, read_array
from ensemble_svc.data.arrays import as_inputs
from ensemble_svc.data.checks import check_features
from ensemble_svc.data.columns import as_identities, as_numbers, as_words, read_csv, read_parquet, require
from ensemble_svc.data.conform import check_rows, conform
from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.image import SUFFIXES, Mode, image_files, read_images
from ensemble_svc.data.paths import expand, find_file, find_folder
from ensemble_svc.data.table import codes
from ensemble_svc.errors import DataError, did_you_mean

__all__ = ["conform", "read_inputs"]

_MODES: dict[int, Mode] = {1: "L", 3: "RGB", 4: "RGBA"}


def read_inputs(
    path: str | Path,
    schema: InputSchema,
    *,
    id_column: str | None = None,
    separator: str = ",",
    resize: bool = False,
    missing: bool | None = None,
) -> tuple[Array, Array]:
    """Raw rows as the schema has them, and each row's id.

    Reads csv, tsv, parquet and npz files, one image, or a folder of images (and of folders). Columns
    are matched by name, in any order; further ones are ignored. A value of a category that the
    ensemble does not know becomes -1.

    Args:
        id_column: column (or array of an npz) with the ids; else rows are numbered from 0, and
            images are named by their path in the folder.
        resize: images of another size are resized, as ``data.source.size`` did for training.
        missing: whether missing numbers are allowed, because the ensemble imputes them; None
            says so when its training rows had missing numbers.

    Raises:
        DataError: a missing column, a row that does not fit, a file that cannot be read.
    """
    found = expand(str(path), Path())
    kind = found.suffix.lower()
    if found.is_dir() or kind in SUFFIXES:
        x, row = _from_images(found, schema, resize=resize)
    elif kind in (".csv", ".tsv", ".txt"):
        text = (*(name for name, _ in schema.categories), *((id_column,) if id_column else ()))
        file = find_file(str(path), Path())
        table = read_csv(file, separator="\t" if kind == ".tsv" else separator, text=text)
        x, row = _from_table(table, schema, path=file, id_column=id_column)
    elif kind in (".parquet", ".pq"):
        file = find_file(str(path), Path())
        x, row = _from_table(read_parquet(file), schema, path=file, id_column=id_column)
    elif kind == ".npz":
        x, row = _from_npz(find_file(str(path), Path()), schema, id_column=id_column)
    else:
        raise DataError(
            f"{found}: inputs are .csv, .tsv, .parquet or .npz files, or a folder of images; got '{kind}'."
        )
    rows = Dataset(x, np.zeros(len(x)), row, schema.kind, schema.features, dict(schema.categories))
    imputed = bool(schema.indicators) if missing is None else missing
    check_features(rows, np.arange(len(x)), imputed=imputed)
    return x, row


def _from_table(
    table: pa.Table, schema: InputSchema, *, path: Path, id_column: str | None
) -> tuple[Array, Array]:
    if schema.kind != "table":
        raise DataError(f"{path}: is a table, but the ensemble reads images of shape {schema.shape}.")
    require(table, schema.features, key="the ensemble's input", path=path)
    require(table, [id_column] if id_column else [], key="the id", path=path)
    values = dict(schema.categories)
    columns = [
        codes(as_words(table[name], name, path), values[name])[0]
        if name in values
        else as_numbers(table[name], name, path)
        for name in schema.features
    ]
    row = as_identities(table[id_column], id_column, path) if id_column else np.arange(table.num_rows)
    return np.column_stack(columns), row


def _from_npz(path: Path, schema: InputSchema, *, id_column: str | None) -> tuple[Array, Array]:
    names = array_names(path)
    name = next((n for n in names if n.lower() == "x"), names[0] if len(names) == 1 else None)
    if name is None:
        raise DataError(f"{path}: holds the arrays {', '.join(names)}; call the inputs 'x'.")
    x = read_array(path, name)
    if schema.kind == "image":
        x = _images(x, schema, origin=f"{path}: {name}")
    x = as_inputs(x, layout="NCHW", origin=f"{path}: {name}")
    check_rows(x, schema, origin=f"{path}: {name}")
    if id_column is None:
        return x, np.arange(len(x))
    if id_column not in names:
        hint = did_you_mean(id_column, names)
        raise DataError(f"{path}: there is no array '{id_column}' with ids.{hint}")
    row = read_array(path, id_column)
    if row.shape != (len(x),) or row.dtype.kind not in "iuUS":
        raise DataError(
            f"{path}: '{id_column}' has shape {row.shape} of {row.dtype}; ids are {len(x)} integers or words."
        )
    return x, row.astype(np.int64) if row.dtype.kind in "iu" else row.astype(str)


def _images(x: Array, schema: InputSchema, *, origin: str) -> Array:
    """The axes put in the schema's order, which is known here."""
    channels, height, width = schema.shape
    if x.shape[1:] == (height, width) and channels == 1:
        return x[:, None]
    if x.shape[1:] == (height, width, channels) and x.shape[1:] != schema.shape:
        return x.transpose(0, 3, 1, 2)
    if x.shape[1:] != schema.shape:
        raise DataError(
            f"{origin} has images of shape {x.shape[1:]}; the ensemble reads {channels} x {height} x {width} "
            "(channels x height x width; channels may come last)."
        )
    return x


def _from_images(path: Path, schema: InputSchema, *, resize: bool) -> tuple[Array, Array]:
    if schema.kind != "image":
        raise DataError(f"{path}: is images, but the ensemble reads a table of {schema.shape[0]} columns.")
    single = path.suffix.lower() in SUFFIXES and not path.is_dir()
    folder = path.parent if single else find_folder(str(path), Path())
    files = [find_file(str(path), Path())] if single else image_files(folder)
    if not files:
        raise DataError(f"{path}: there are no images ({', '.join(sorted(SUFFIXES))}).")
    channels, height, width = schema.shape
    if channels not in _MODES:
        raise DataError(
            f"{path}: image files cannot hold the {channels} channels that the ensemble reads; use npz."
        )
    x = read_images(files, mode=_MODES[channels], size=(height, width) if resize else None)
    check_rows(x, schema, origin=str(files[0]))
    return x, np.array([file.relative_to(folder).as_posix() for file in files], dtype=str)
