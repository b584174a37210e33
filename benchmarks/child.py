"""One contender does one work in this fresh process: ``python -m benchmarks.child WORK CONTENDER OUT [--tiny]``.

What loads torch is imported late: the contender's own package comes first, as in a program of its user.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from benchmarks.contenders import CONTENDERS
from benchmarks.work import WORKS


def main(work_name: str, contender_name: str, out: str, *flags: str) -> None:
    """Train, and write seconds, measures on the test rows and versions as JSON to ``out``."""
    work, contender = WORKS[work_name], CONTENDERS[contender_name]
    work = work.tiny() if "--tiny" in flags else work
    import_module(contender.first)
    data = import_module("benchmarks.data").load(work)
    module = import_module(f"benchmarks.contenders.{contender.module}")
    trained = module.train(work, data, **contender.options)
    mixture_NC = trained.probs.double().mean(0)
    right_N = mixture_NC.argmax(1) == data.y_test
    right_KN = trained.probs.argmax(2) == data.y_test
    found = {
        "training_s": trained.seconds,
        "accuracy": right_N.double().mean().item(),
        "nll": -mixture_NC.gather(1, data.y_test[:, None]).log().mean().item(),
        "member_accuracy": right_KN.double().mean().item(),
        "members": len(trained.probs),
        "threads": trained.threads,
        "versions": {name: version(name) for name in contender.packages},
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
