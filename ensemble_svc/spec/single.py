"""The single model that costs what the ensemble does: which networks have a width, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.model import ConvNet, LeNet, Mlp, Model, PythonModel, ResNet

KEY = ("evaluate", "single")


def widths(model: Model) -> tuple[str, ...]:
    """The options that hold numbers of units or channels; none where a network has no hidden layer of known width."""
    match model:
        case Mlp():
            return ("hidden",) if model.hidden else ()
        case LeNet() | ConvNet():
            return ("channels", "dense")
        case ResNet():
            return ("width",)
        case PythonModel():
            return ()


def single_clashes(job: JobSpec) -> Iterator[Clash]:
    """What speaks against a single model beside the ensemble."""
    wanted = job.evaluate.single
    if wanted == "none":
        return
    if job.search is not None:
        words = f"'{wanted}' is of the job's one recipe, and the members of a search have many; leave one of them out"
        yield Clash((KEY, ("search",)), words)
    if wanted == "width" and not widths(job.model):
        words = f"'width' needs a hidden layer to widen, and model '{job.model.name}' names none; use epochs"
        yield Clash((KEY, ("model",)), words)
    if job.ensemble.members == 1 and not _stands_for_several(job):
        words = f"'{wanted}' compares with an ensemble, and one member is its own single model; leave it out"
        yield Clash((KEY, ("ensemble", "members")), words)


def _stands_for_several(job: JobSpec) -> bool:
    """Whether one training gives several members."""
    return bool(job.ensemble.snapshots or job.ensemble.mc_samples or job.training.average.name == "swag")
