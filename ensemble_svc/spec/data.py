"""The ``data`` section: where rows come from, how they are split and prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from ensemble_svc.registry import Choice, Registry, Shorthand, Spec
from ensemble_svc.spec.augment import Augment
from ensemble_svc.spec.fields import DataPath, Factory, Fraction
from ensemble_svc.spec.preprocess import Preprocess


class Digits(Choice):
    """1,797 8x8 grey images of the ten digits (UCI optical recognition; ships with scikit-learn)."""

    name: Literal["digits"] = "digits"


class BreastCancer(Choice):
    """569 rows, 30 features, benign or malignant (UCI Wisconsin; ships with scikit-learn)."""

    name: Literal["breast_cancer"] = "breast_cancer"


class Diabetes(Choice):
    """442 rows, 10 features, disease progression after a year (Efron et al. 2004; regression)."""

    name: Literal["diabetes"] = "diabetes"


class Npz(Choice):
    """Arrays in a ``.npz`` file.

    Either one pair of arrays (``x``, ``y``), or a pair for each named split: ``X_train`` and
    ``y_train``, ``X_test`` and ``y_test``. Images may be [N,H,W], [N,H,W,C] or [N,C,H,W].
    ``class_names`` is read when present.
    """

    name: Literal["npz"] = "npz"
    path: DataPath
    """The file."""
    x: str = "x"
    """Name of the feature array, or its prefix before ``_train``; case does not matter."""
    y: str = "y"
    """Name of the target array, or its prefix."""
    layout: Literal["auto", "NHWC", "NCHW"] = "auto"
    """Order of an image array's axes; ``auto`` takes the axis of size 1, 3 or 4 as channels."""


class Table(Choice):
    """Options that csv and parquet share."""

    path: DataPath
    """The file."""
    target: str | tuple[str, ...]
    """The target column; several for a regression with several outputs."""
    drop: tuple[str, ...] = ()
    """Columns that are not features."""
    categorical: tuple[str, ...] = ()
    """Columns read as categories although they hold numbers; text columns always are."""
    id: str | None = None
    """Column with each row's id, carried into predictions; the row number when absent."""


class Csv(Table):
    """A comma-separated file with a header line."""

    name: Literal["csv"] = "csv"
    separator: Annotated[str, Field(min_length=1, max_length=1)] = ","
    """The character between fields."""


class Parquet(Table):
    """A parquet file."""

    name: Literal["parquet"] = "parquet"


class ImageFolder(Choice):
    """A folder with one sub-folder per class, or ``train/`` and ``test/`` with such folders each."""

    name: Literal["image_folder"] = "image_folder"
    path: DataPath
    """The folder."""
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Height and width to resize to; without it all images must have one size."""
    mode: Literal["RGB", "L"] = "RGB"
    """Colour or grey."""


class Idx(Choice):
    """The MNIST file format (IDX), plain or gzipped."""

    name: Literal["idx"] = "idx"
    path: DataPath
    """Folder with ``train-images-idx3-ubyte[.gz]`` and its three companions."""


class PythonSource(Choice):
    """Your own function: ``factory(**options)`` returns a dict of arrays.

    Keys: ``x``, ``y`` and, when wanted, ``classes``, ``features``, ``row``, ``splits`` (name to
    row indices).
    """

    name: Literal["python"] = "python"
    factory: Factory
    """``module:function``, imported from the job's working directory."""
    options: Mapping[str, Any] = {}
    """Keyword arguments for the factory."""


Source = Annotated[
    Digits | BreastCancer | Diabetes | Npz | Csv | Parquet | ImageFolder | Idx | PythonSource,
    Field(discriminator="name"),
    Shorthand(),
]
SOURCES: Registry[Choice] = Registry("source", Source)


class Fractions(Choice):
    """Rows drawn at random by the job's seed, or named splits where the source has them."""

    name: Literal["fractions"] = "fractions"


class Column(Choice):
    """A column of the source whose values are ``train``, ``validation`` and ``test``."""

    name: Literal["column"] = "column"
    column: str
    """The column; it is not a feature."""


class Indices(Choice):
    """Row numbers kept in a ``.npz`` file: ``train_idx`` and ``test_idx``, one row per split."""

    name: Literal["indices"] = "indices"
    path: DataPath
    """The file; its arrays are [splits, rows] or [rows]."""
    index: NonNegativeInt = 0
    """Which of the file's splits."""


Split = Annotated[Fractions | Column | Indices, Field(discriminator="name"), Shorthand()]
SPLITS: Registry[Choice] = Registry("split", Split)


UNSEEN = ("oob", "oof")
"""Words for ``validation``: no split; training rows judge the members that left them out."""


class DataSpec(Spec):
    """Rows, their split, and what is done to them before a network sees them."""

    source: Source
    """Where the rows come from."""
    split: Split = Fractions()
    """How rows are told apart for training and reporting."""
    validation: Fraction | str = 0.15
    """Share of the rows for early stopping and selection, or a named split of the source. ``oob`` (bags) and ``oof``
    (folds) keep no such rows: the ensemble is selected and calibrated on training rows, each judged by the
    members that did not see it."""
    test: Fraction | str = 0.2
    """Share of the rows for the report alone, or a named split of the source."""
    stratify: bool = True
    """Keep the classes' shares equal in all splits (classification)."""
    preprocess: tuple[Preprocess, ...] = ()
    """Steps in order, fitted on each member's own training rows and stored with it."""
    stream: Literal["auto", "on", "off"] = "auto"
    """How rows reach a device: kept there whole (``off``), or as one stream of batches that all members of
    a pack read (``on``), each weighing a row by how often its bag holds it. ``auto`` streams data larger
    than ``device_gib``."""
    device_gib: PositiveFloat = 4.0
    """Gibibytes of rows that a device may keep."""
    augment: tuple[Augment, ...] = ()
    """Random changes of training images, drawn anew for each batch."""
    standardize_target: bool = True
    """Regression: train on a target of mean 0 and deviation 1; predictions come back in its units."""
