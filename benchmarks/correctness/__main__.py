"""Run every comparison and write the page: ``python -m benchmarks.correctness [--out FILE]``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.correctness import cifar
from benchmarks.correctness.comparisons import COMPARISONS

PAGE = Path(__file__).parents[2] / "docs" / "correctness.md"
HEADS = ("accuracy", "NLL", "ECE")
HEAD = """# Is it right?

Each quantity beside an implementation that shares no code with ours, on random problems. The largest difference over
all cases counts. Made by `python -m benchmarks.correctness`; the [laws](laws.md) are tested besides, and so is greedy
selection against AutoGluon's own where that is installed (`tests/test_aggregate_selection.py`).

| quantity | compared with | cases | largest difference | equal within |
|---|---|---|---|---|
"""


def main() -> None:
    """Print and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness", description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="the page; docs/correctness.md")
    options = parser.parse_args()
    options.out.write_text(HEAD + "\n".join([*_rows(), *_networks()]) + "\n")
    print(options.out.read_text())


def _rows() -> Iterator[str]:
    for one in COMPARISONS:
        found = list(one.differences(torch.Generator().manual_seed(0)))
        if not max(found) <= one.within:
            raise SystemExit(f"{one.quantity} differs by {max(found):.3g} from {one.other}")
        yield f"| {one.quantity} | {one.other} | {len(found)} | {max(found):.1e} | {one.within:.0e} |"


def _networks() -> Iterator[str]:
    """The published networks, where their outputs are at hand."""
    folder = os.environ.get("ENSEMBLE_DATA")
    if not folder or not (Path(folder) / cifar.FILE).is_file():
        return
    log_probs, target = cifar.load(Path(folder))
    all_ = cifar.whole(log_probs, target)
    yield ""
    yield "## Eight published CIFAR-10 networks"
    yield ""
    yield (
        f"Their mean probabilities on the 10,000 test images have accuracy {all_['accuracy']:.4f} and NLL "
        f"{all_['nll']:.4f}; "
        "expected: .9691 and .1003. Below, each way is decided on one half of the "
        "rows and "
        "reported on the other, then the halves are swapped."
    )
    yield ""
    yield f"| decided by | {' | '.join(f'{m}, {h} half' for m in HEADS for h in ('second', 'first'))} |"
    yield "|---|---|---|---|---|---|---|"
    for way, (second, first) in cifar.halves(log_probs, target):
        cells = [f"{one[name]:.4f}" for name in ("accuracy", "nll", "ece") for one in (second, first)]
        yield f"| {way} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
