"""Rules of the ``compute`` section."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ensemble_svc.spec.clash import Clash as Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import Network
from ensemble_svc.spec.norms import BatchRenorm


def compute(job: JobSpec) -> Iterator[Clash]:
    share = job.compute.gpus_per_member
    if isinstance(share, float) and share > 0 and job.compute.device == "cpu":
        paths = (("compute", "gpus_per_member"), ("compute", "device"))
        yield Clash(paths, f"{share} GPUs for members that compute.device keeps on the CPU; give 0 or auto")
        return
    yield from islice(_processes(job), 1)


def _processes(job: JobSpec) -> Iterator[Clash]:
    """A member over several processes: its GPUs, that it trains alone, and a row for each of them."""
    compute, key = job.compute, ("compute", "processes_per_member")
    gpus, asked = compute.gpus_per_member, compute.processes_per_member
    gpus_key: KeyPath = ("compute", "gpus_per_member")
    if gpus != "auto" and gpus > 1 and gpus != int(gpus):
        yield Clash((gpus_key,), f"{gpus:g} GPUs cannot be given out; above 1 give a whole number")
    if asked != "auto" and gpus not in ("auto", 0) and asked != max(1, gpus):
        words = f"{asked} on {gpus:g} GPUs, but each process has one GPU of its own; give auto"
        yield Clash((key, gpus_key), words)
    count, cause = compute.processes(on_gpu=compute.device != "cpu"), gpus_key if asked == "auto" else key
    if count > 1 and isinstance(compute.pack, int) and compute.pack > 1:
        words = f"a member over {count} processes trains alone, and compute.pack is {compute.pack}; set it to auto"
        yield Clash((cause, ("compute", "pack")), words)
    if count > 1 and isinstance(job.model, Network) and isinstance(job.model.norm, BatchRenorm):
        words = f"{count} processes cannot share batch renorm's corrections yet; use norm: batch"
        yield Clash((cause, ("model", "norm")), words)
    rows = job.training.batch_size
    if rows != "full" and count > rows:
        words = (
            f"{count} processes share batches of {rows} rows (training.batch_size); each needs at least one"
        )
        yield Clash((cause, ("training", "batch_size")), words)
