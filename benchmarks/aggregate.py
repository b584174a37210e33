"""Speed and memory of what is made of the members' predictions: ``python -m benchmarks.aggregate [--quick]``.

Combining with all metrics from disk (4 GB in the folder for temporary files), greedy selection, the bootstrap of the
gain. ``--quick`` does each once on sizes of a second. The results go where ``benchmarks.run`` leaves those of the same
probes; the table and the targets are printed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from benchmarks import table
from benchmarks.run import RESULTS, measure
from benchmarks.selection import Selection

PROBES = ("streamed", "greedy", "resamples")
NEEDED_BYTES = 5 * 10**9


def main(words: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.aggregate", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, once")
    parser.add_argument("--only", nargs="+", default=PROBES, choices=PROBES, help="what to measure")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder of the results; by default benchmarks/results")
    options = parser.parse_args(words)
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if "streamed" in options.only and not options.quick and free < NEEDED_BYTES:
        raise SystemExit(
            f"{free / 1e9:.1f} GB are free for temporary files; {NEEDED_BYTES / 1e9:.0f} are needed"
        )
    out = options.out or (RESULTS / "quick" if options.quick else RESULTS)
    chosen = Selection((), tuple(options.only))
    measure(chosen, out, repeats=1 if options.quick else options.repeats, tiny=options.quick)
    found = table.read(out)
    print(table.markdown({name: found[name] for name in options.only if name in found}))


if __name__ == "__main__":
    main()
