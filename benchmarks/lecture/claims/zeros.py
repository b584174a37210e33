"""Whether weights that begin at 0 ever differ."""

from __future__ import annotations

import torch

from benchmarks.lecture.bench import Bench, by, with_error
from benchmarks.lecture.claim import Claim, Found, Table
from ensemble_svc.store.run import Run


def measure(bench: Bench) -> Found:
    """Distinct units after training, and what they have learned."""
    run = bench.run("zeros")
    groups = by(bench.members("zeros"), "model.init")
    units = {init: [_distinct(run, member.index) for member in some] for (init,), some in groups.items()}
    accuracy = {init: [member.accuracy for member in some] for (init,), some in groups.items()}
    alike = max(units["zeros"]) == 1
    return Found(
        verdict="holds" if alike else "does not hold",
        says=f"After training, a layer of 128 units that began at 0 has {max(units['zeros'])} distinct "
        f"unit, and the network "
        f"{with_error(accuracy['zeros'], factor=100)} % accuracy (xavier: {min(units['xavier'])} distinct "
        f"units, "
        f"{with_error(accuracy['xavier'], factor=100)} %).",
        table=Table(
            ("init", "distinct units of 128, first layer", "test accuracy, %"),
            [(init, f"{max(units[init])}", with_error(accuracy[init], factor=100)) for init in units],
        ),
    )


def _distinct(run: Run, index: int) -> int:
    """Units of the first hidden layer that differ from one another."""
    member = run.manifest()["members"][index]["id"]
    weights = run.tensors(member, "weights.safetensors")
    first = next(
        value
        for name, value in weights.items()
        if name.startswith("body.hidden.0") and name.endswith("weight")
    )
    return len(torch.unique(first, dim=0))


CLAIM = Claim(
    name="zeros",
    title="Weights that begin at 0 never break the symmetry",
    claim="If all weights begin at 0, all units of a layer get the same gradients and stay alike for ever.",
    how="rows of the first layer's weights that differ after 20 epochs, and the accuracy.",
    jobs=("zeros",),
    measure=measure,
)
