"""Operators that a library of the peers' environment asks for and that its torch lacks."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch


def declare_missing_operators() -> None:
    """Let torchvision's build for CUDA be imported beside torch's for CPU.

    Its library does not load there, and its Python then stumbles over two operators that no one here calls.
    """
    package = find_spec("torchvision")
    if package is None or package.origin is None:
        return
    try:
        torch.ops.load_library(next(Path(package.origin).parent.glob("_C*.so")))
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor d, Tensor s, float t) -> Tensor")
