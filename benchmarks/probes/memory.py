"""Peak memory of a pack's whole life, from its first step to its seals, against what it must hold.

The bound is data once + 1.2 x K x (parameters + gradients + optimiser state + activations of one). Memory is the
process's resident set; Linux forgets its peak when 5 is written to ``/proc/self/clear_refs``. A pack of two trains
first, so that what libraries load and keep for themselves is there before.

Shapes: B rows.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import ensemble_svc  # noqa: F401 - first, since it sets how idle threads wait

# isort: split
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.data import Rows, load
from benchmarks.job import write_job
from benchmarks.members import CORES, new_member
from benchmarks.probes.measure import Measures, arguments, forget_peak, status, write
from benchmarks.work import WORKS, Work
from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.train.strand import beside

MIB = 2**20


@dataclass
class Watched:
    """The local executor, which notes how far the process's memory rises while its slots train."""

    inner: LocalExecutor = field(default_factory=LocalExecutor)
    rise: int = 0
    """Bytes."""

    def resources(self) -> Any:
        """The local executor's."""
        return self.inner.resources()

    def run(self, *arguments: Any, **keywords: Any) -> None:
        """Train as the local executor does."""
        before = forget_peak()
        self.inner.run(*arguments, **keywords)
        self.rise = status("VmHWM") - before


def measure(work: Work) -> Measures:
    """Rise of the resident set, the bound, and their ratio."""
    data = load(work)
    beside([_warm_up] * CORES, 1)
    _train(replace(work, members=2, epochs=1), data)
    rise = _train(replace(work, epochs=1), data)
    member = bytes_of_one(work, data)
    once = sum(part.numel() * part.element_size() for part in (data.x, data.y, data.x_test, data.y_test))
    bound = once + 1.2 * work.members * member
    return {
        "peak": ("MiB", rise / MIB),
        "bound": ("MiB", bound / MIB),
        "data once": ("MiB", once / MIB),
        "one member": ("MiB", member / MIB),
        "peak / bound": ("", rise / bound),
    }


def _warm_up(_: Event) -> None:
    """Let this thread's matrix library set up its buffers."""
    x, kernel = torch.randn(64, 3, 32, 32), torch.randn(16, 3, 3, 3)
    torch.conv2d(x, kernel)
    torch.bmm(torch.randn(8, 64, 128), torch.randn(8, 128, 128))


def bytes_of_one(work: Work, data: Rows) -> int:
    """Parameters, gradients, two running values of AdamW, and what one step keeps for its gradients."""
    net = new_member(work, data, 0)
    parameters = sum(p.numel() * p.element_size() for p in net.parameters())
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    x_B, y_B = data.x[: work.batch].clone(), data.y[: work.batch].clone()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = cross_entropy(net(x_B), y_B)
    activations = sum(size for address, size in kept.items() if address not in own)
    loss.backward()
    return 4 * parameters + activations


def _train(work: Work, data: Rows) -> int:
    """Bytes by which the process's memory rose at most while the pack trained."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        job = write_job(work, data, Path(name), pack="all")
        watched = Watched()
        pipeline.train(job, out=Path(name) / "run", directory=Path(name), executor=watched)
        return watched.rise


if __name__ == "__main__":
    (name, out), tiny = arguments()
    write(measure(WORKS[name].tiny() if tiny else WORKS[name]), out)
