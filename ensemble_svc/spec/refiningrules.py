"""Rules of ``search.coarse_to_fine`` and ``search.refit``."""

from __future__ import annotations

from collections.abc import Iterator

from ensemble_svc.spec.aggregate import Greedy
from ensemble_svc.spec.askers import MOST_MEMBERS, Random, Sobol
from ensemble_svc.spec.clash import Clash
from ensemble_svc.spec.compose import KeyPath
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.refining import CoarseToFine, RefitSpec
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.wording import shown

_COARSE: KeyPath = ("search", "coarse_to_fine")
_REFIT: KeyPath = ("search", "refit")
_ROWS: KeyPath = ("data", "validation")


def refining_clashes(job: JobSpec, search: SearchSpec) -> Iterator[Clash]:
    """The rules that the stages of a search, and what is trained again after it, break."""
    if search.coarse_to_fine is not None:
        yield from _stages(job, search, search.coarse_to_fine)
    if search.refit is not None:
        yield from _again(job, search, search.refit)


def _stages(job: JobSpec, search: SearchSpec, stages: CoarseToFine) -> Iterator[Clash]:
    """Stages of some trials and epochs each, the best of which are known."""
    first = stages.ends(search.num_wanted)[0]
    if not isinstance(search.algorithm, Random | Sobol):
        words = (
            f"shrinks the space that random or sobol draw from; '{search.algorithm.name}' finds its own way"
        )
        yield Clash((_COARSE, ("search", "algorithm")), words)
    elif search.num_wanted < 2 * stages.stages:
        words = f"{search.num_wanted} trials are too few for {stages.stages} stages of two or more"
        yield Clash(((*_COARSE, "stages"), ("search", "trials")), words)
    elif len(search.first) >= first:
        words = f"the {len(search.first)} configurations of search.first leave no room in a first stage of {first}"
        yield Clash((_COARSE, ("search", "first")), words)
    if job.data.validation == 0:
        yield Clash(
            (_COARSE, _ROWS), "ranks trials on held-out rows, and data.validation is 0; give it a share"
        )
    if stages.growth == 1:
        return
    where, epochs = (*_COARSE, "growth"), job.training.epochs
    if any(dim.key in ("training", "training.epochs") for dim in search.flat.dims):
        words = (
            f"{stages.growth} sets the epochs of each stage, and search.space has them too; give growth: 1"
        )
        yield Clash((where, ("search", "space")), words)
    elif stages.growth ** (stages.stages - 1) > epochs:
        words = f"{stages.growth} would have the first of {stages.stages} stages train for less than an epoch"
        yield Clash((where, ("training", "epochs")), f"{words} of the {epochs}; lower it")


def _again(job: JobSpec, search: SearchSpec, refit: RefitSpec) -> Iterator[Clash]:
    """Configurations that a selection on rows set aside chooses, and whole trials of them."""
    rows = job.data.validation
    if not isinstance(job.aggregate.select, Greedy):
        words = (
            f"is chosen among by greedy, and aggregate.select is '{job.aggregate.select.name}'; give greedy"
        )
        yield Clash((_REFIT, ("aggregate", "select")), words)
    if rows == 0 or rows in UNSEEN:
        words = f"is chosen on validation rows, and data.validation is {shown(rows)}; give it a share"
        yield Clash((_REFIT, _ROWS), words)
    if job.task == "multitask":
        yield Clash((_REFIT, ("task",)), "is chosen by the rows of one task, and this job has several")
    if refit.seeds * refit.configurations > MOST_MEMBERS:
        words = f"{refit.configurations:,} configurations of {refit.seeds:,} seeds; at most {MOST_MEMBERS:,} members"
        yield Clash(((*_REFIT, "configurations"), (*_REFIT, "seeds")), f"{words} are allowed")
    if refit.seeds % search.seeds_per_trial:
        words = f"{refit.seeds} is no multiple of the {search.seeds_per_trial} seeds of each trial"
        yield Clash(((*_REFIT, "seeds"), ("search", "seeds_per_trial")), words)
