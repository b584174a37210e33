"""The ``image_folder`` source: one sub-folder per class, read with Pillow.

Shapes: N images, C channels, H x W pixels.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from ensemble_svc.data.arrays import Arrays, assemble
from ensemble_svc.data.dataset import Dataset
from ensemble_svc.data.npz import SYNONYMS
from ensemble_svc.data.paths import find_folder, reading
from ensemble_svc.errors import DataError
from ensemble_svc.spec.data import ImageFolder
from ensemble_svc.spec.job import Task

MOST_PIXELS = 64_000_000
"""Pixels of the largest image that is decoded; beyond lie mistakes and decompression bombs."""
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
"""Pixel modes with 8 bits or fewer for a channel, which convert without clipping."""

Mode: TypeAlias = Literal["RGB", "L", "RGBA"]


def load_image_folder(source: ImageFolder, *, task: Task, directory: Path) -> Dataset:
    """All images, by split, class and name; a row's id is its path within the folder.

    Raises:
        DataError: no images, a class folder without any, images of different sizes, damaged ones.
    """
    if task != "classification":
        raise DataError("data.source 'image_folder' has classes; write 'task: classification'.")
    folder = find_folder(source.path, directory)
    files, labels, bounds = list_images(folder)
    raw = Arrays(
        x=read_images(files, mode=source.mode, size=source.size),
        y=np.array(labels, dtype=str),
        origin=str(folder),
        row=np.array([file.relative_to(folder).as_posix() for file in files], dtype=str),
        splits={split: np.arange(*bound) for split, bound in bounds.items() if split},
        layout="NCHW",
    )
    return assemble(raw, task=task)


def list_images(folder: Path) -> tuple[list[Path], list[str], dict[str, tuple[int, int]]]:
    """Every image with its class, and where each split begins and ends.

    Raises:
        DataError: no images, or a class folder without any.
    """
    files: list[Path] = []
    labels: list[str] = []
    bounds: dict[str, tuple[int, int]] = {}
    for split, root in _split_folders(folder).items():
        start = len(files)
        for class_folder in _folders(root):
            found = image_files(class_folder)
            if not found:
                raise DataError(f"{class_folder}: this class has no images ({_suffixes()}).")
            files += found
            labels += [class_folder.name] * len(found)
        bounds[split] = (start, len(files))
    if not files:
        raise DataError(f"{folder}: there are no folders of images; each class has a folder of its own.")
    return files, labels, bounds


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and below, by name; hidden files and other kinds are passed over."""
    with reading(folder):
        below = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)
        return [p for p in below if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file()]


def read_images(files: Sequence[Path], *, mode: Mode, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """[N, C, H, W].

    Args:
        size: height and width to resize to (bilinear, antialiased).

    Raises:
        DataError: naming the image that is damaged, too large, deeper than 8 bits, or not of the
            first one's size.
    """
    first = _read_image(files[0], mode, size)
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    for i, file in enumerate(files):
        image = first if i == 0 else _read_image(file, mode, size)
        if image.shape != first.shape:
            raise DataError(
                f"{file}: is {_size(image)} pixels (height x width), {files[0].name} is {_size(first)}; "
                f"all images must have one size. Write data.source.size: [{first.shape[1]}, "
                f"{first.shape[2]}] to resize them."
            )
        images[i] = image
    return images


def _read_image(file: Path, mode: Mode, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    faults = (SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
    with reading(file, *faults), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, lower limit on pixels; ours is below
        with file.open("rb") as stream:
            Image.open(stream, formats=FORMATS).verify()  # a cut PNG may still decode; its checksums tell
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise DataError(
                    f"{file}: {image.height} x {image.width} pixels; at most {MOST_PIXELS:,} are read."
                )
            if image.mode not in MODES:
                raise DataError(
                    f"{file}: pixel mode {image.mode}; images of 8 bits a channel are read. Convert it first."
                )
            pixels = image.convert(mode)
            if size is not None:
                pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
            array = np.asarray(pixels, dtype=np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _split_folders(folder: Path) -> dict[str, Path]:
    """Named splits where there is a ``train`` folder; else the folder itself, under no name."""
    named = {SYNONYMS.get(each.name, each.name): each for each in _folders(folder)}
    if "train" not in named:
        return {"": folder}
    strange = sorted(set(named) - {"train", "test", "validation"})
    if strange:
        raise DataError(
            f"{folder}: has 'train', so its folders are splits, but also '{strange[0]}'. "
            "Allowed beside it: test and validation (or val)."
        )
    return {name: named[name] for name in ("train", "validation", "test") if name in named}


def _folders(folder: Path) -> list[Path]:
    with reading(folder):
        return sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")


def _size(image: npt.NDArray[np.uint8]) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))
