"""Train the lecture's jobs and write its page.

``python -m benchmarks.lecture [--quick] [--only NAME…] [--out DIR] [--runs DIR]``
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.lecture import page
from benchmarks.lecture.bench import Bench
from benchmarks.lecture.claim import Claim, Found
from benchmarks.lecture.claims import CLAIMS

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Measure the claims that are asked for; the page is written when all of them are."""
    options = _options()
    chosen = [claim for claim in CLAIMS if not options.only or claim.name in options.only]
    results: list[tuple[Claim, Found, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(options.runs or folder), quick=options.quick)
        for claim in chosen:
            began = time.monotonic()
            found = claim.measure(bench)
            results.append((claim, found, time.monotonic() - began))
            print(f"{claim.title}: {found.verdict} ({results[-1][2]:.0f} s). {found.says}", flush=True)
    if options.out or len(chosen) == len(CLAIMS):
        print(f"wrote {page.write(Path(options.out or DOCS), results, quick=options.quick)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lecture", description=__doc__)
    names = [claim.name for claim in CLAIMS]
    parser.add_argument(
        "--only", nargs="+", choices=names, metavar="NAME", help=f"claims: {', '.join(names)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the epochs, to see that all of it runs"
    )
    parser.add_argument("--out", help="folder of the page; docs when all claims are measured")
    parser.add_argument("--runs", help="folder that keeps the runs; else they are let go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
