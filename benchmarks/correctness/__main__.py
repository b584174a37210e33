"""Run every comparison and write the page: ``python -m benchmarks.correctness [--out FILE]``."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from benchmarks.children import PEERS
from benchmarks.correctness import cifar
from benchmarks.correctness.comparison import all_within
from benchmarks.correctness.comparisons import COMPARISONS
from benchmarks.correctness.peers import PEER_COMPARISONS, asked

PAGE = Path(__file__).parents[2] / "docs" / "correctness.md"
HEADS = ("accuracy", "NLL", "ECE")
HEAD = """# Is it right?

Each quantity beside an implementation that shares no code with ours, on random problems. The largest difference over
all cases counts. Made by `python -m benchmarks.correctness`; the [laws](laws.md) are tested besides.

| quantity | compared with | cases | largest difference | equal within |
|---|---|---|---|---|
"""


PEERS_HEAD = """
## Libraries with an environment of their own

Asked in the environment of `make bench-peers`, by a process that knows nothing of ours; `tests/test_correctness.py`
asks again where that is installed. AutoGluon is installed without what it asks for (`benchmarks/peers/apart.txt`); its
selection runs as it is. Most sums of torch-uncertainty run in float32.

| quantity | compared with | cases | largest difference | equal within |
|---|---|---|---|---|
"""
PEERS_TAIL = """
Its `TemperatureScaler` cannot be fitted to an ensemble of two networks: "{ensemble}"
Ours is fitted to the mixture, or to one temperature of all members by what their mixture says. timm's
`avg_checkpoints.py` is a script of its repository that neither its wheel nor its source release holds, so its rule is
written out above.
"""


def main() -> None:
    """Print and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness", description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="the page; docs/correctness.md")
    options = parser.parse_args()
    parts = (HEAD, *_lines(_rows()), *_lines(_peers(options.out)), *_lines(_networks()))
    options.out.write_text("".join(parts))
    print(options.out.read_text())


def _rows() -> Iterator[str]:
    for one in COMPARISONS:
        found = list(one.differences(torch.Generator().manual_seed(0)))
        if not all_within(found, one.within):
            raise SystemExit(f"{one.quantity} differs by {found} from {one.other}")
        yield f"| {one.quantity} | {one.other} | {len(found)} | {max(found):.1e} | {one.within:.0e} |"


def _peers(page: Path) -> Iterator[str]:
    """What the peers' environment says; what the page said before where it is not installed."""
    if not PEERS.is_file():
        old = page.read_text() if page.is_file() else ""
        found = re.search(r"^## Libraries.*?(?=^## |\Z)", old, flags=re.DOTALL | re.MULTILINE)
        yield from ["", *found[0].rstrip().split("\n")] if found else ()
        return
    given, answers = asked(0)
    yield from PEERS_HEAD.rstrip().split("\n")
    for one in PEER_COMPARISONS:
        answer = answers[one.question]
        if "missing" in answer:
            raise SystemExit(f"{answer['package']} could not be imported: {answer['missing']}")
        differences = one.differences(given, answers)
        if not all_within(differences, one.within):
            raise SystemExit(f"{one.quantity} differs by {differences} from {one.other}")
        yield (
            f"| {one.quantity} | {one.other} {answer['version']} | {len(differences)} | {max(differences):.1e} "
            f"| {one.within:.0e} |"
        )
    yield from (
        PEERS_TAIL.format(ensemble=answers["temperatures"]["answer"]["ensemble"][0]).rstrip().split("\n")
    )


def _lines(lines: Iterable[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)


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
