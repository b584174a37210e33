"""A search that learns: it asks for some trials, trains them, and asks for more by what became of them.

What was asked stands in the journal before it trains. A run that was stopped goes on with those trials, whatever
their results turn out to be, and asks for further ones as the undisturbed run would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ensemble_svc.course import Ready
from ensemble_svc.listening import Listener
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.planning import make_plan, measured_in
from ensemble_svc.registry import frozen
from ensemble_svc.search.asking import Values, ask
from ensemble_svc.search.brackets import ask_bracket, losses_at_rungs
from ensemble_svc.search.climbing import climbed, train_left
from ensemble_svc.search.refitting import EVENT as REFIT
from ensemble_svc.search.refitting import Laid, chosen, laid_out, own_members, refits_in
from ensemble_svc.search.stages import given, room_in_stage, staged
from ensemble_svc.search.telling import told
from ensemble_svc.spec.askers import Bohb, Tpe
from ensemble_svc.spec.draws import drawn, with_trials
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.schedulers import NoScheduler
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.members import sealed
from ensemble_svc.store.spending import is_spent, settle_sign
from ensemble_svc.train.assemble import check_networks

EVENT = "asked"


def explored(ready: Ready, executor: Executor, listener: Listener) -> Ready:
    """The job with the values of all of its trials; those of every round but the last have been trained.

    Call it under the run's lock, once the run has begun. A job that searches nothing, or whose trials do not
    depend on each other, is returned as it is.

    Raises:
        EnsembleSvcError: as training; the same command again goes on.
    """
    search = ready.job.search
    settle_sign(ready.run.path, search.budget if search else None)
    if search is None or not (search.goes_in_rounds or search.refit or refits_in(ready.run.journal)):
        return ready
    with ready.clock.stage("search"):
        if search.goes_in_rounds:
            trials = _explored(ready, search, executor, listener)
        else:
            trials = tuple(drawn(ready.job, trial) for trial in range(search.num_trials))
        return _refitted(ready, search, trials, executor, listener)


def _explored(ready: Ready, search: SearchSpec, executor: Executor, listener: Listener) -> tuple[Values, ...]:
    """All trials; those of every round but the last have been trained."""
    trials = _known(ready, search)
    while len(trials) < search.num_trials:
        known = _with(_alone(ready), trials, executor) if trials else ready
        if trials:
            _train(known, executor, listener)
            if is_spent(ready.run.path):
                return trials
        trials = (*trials, *_more(ready, known, trials))
    return trials


def _refitted(
    ready: Ready, search: SearchSpec, trials: tuple[Values, ...], executor: Executor, listener: Listener
) -> Ready:
    """The job with all trials and what is trained again; before that is chosen, the trials are trained."""
    journal = ready.run.journal
    refits = refits_in(journal)
    if search.refit is None or any(event["after"] == len(trials) for event in refits):
        return _last(ready, trials, executor)
    known = _with(_alone(ready), trials, executor)
    _train(known, executor, listener)
    if is_spent(ready.run.path):
        return _with(ready, trials, executor)
    members = own_members(list(known.plan.members), _laid(ready, trials), search.seeds_per_trial)
    again = chosen(known, search.refit, members, refits)
    journal.append(REFIT, after=len(trials), trials=again, seeds=search.refit.seeds)
    return _last(ready, trials, executor)


def _last(ready: Ready, trials: tuple[Values, ...], executor: Executor) -> Ready:
    """The job of all members; what is trained again is ranked with nobody, so nothing stops it."""
    known = _with(ready, trials, executor)
    search = known.job.search
    assert search is not None
    done = sealed(ready.run.path)
    laid = _laid(ready, trials)
    left = own_members(list(known.plan.members), laid, search.seeds_per_trial)
    if None not in laid.trial or any(member.digest not in done for member in left):
        return known
    return _with(_unranked(ready), trials, executor)


def _alone(ready: Ready) -> Ready:
    """Without the single model that the whole ensemble is measured against, whose cost is not known before the end."""
    evaluate = ready.job.evaluate.model_copy(update={"single": "none"})
    return replace(ready, job=ready.job.model_copy(update={"evaluate": evaluate}))


def _unranked(ready: Ready) -> Ready:
    assert ready.job.search is not None
    search = ready.job.search.model_copy(update={"scheduler": NoScheduler()})
    return replace(ready, job=ready.job.model_copy(update={"search": search}))


def _known(ready: Ready, search: SearchSpec) -> tuple[Values, ...]:
    """The trials that are settled: those asked before, or those that the job gives."""
    asked = tuple(frozen(values) for event in ready.run.journal.of_kind(EVENT) for values in event["trials"])
    return (*given(ready.job, search), *asked)[: search.num_trials]


def _laid(ready: Ready, trials: tuple[Values, ...]) -> Laid:
    assert ready.job.search is not None
    return laid_out(trials, refits_in(ready.run.journal), ready.job.search.seeds_per_trial)


def _with(ready: Ready, trials: tuple[Values, ...], executor: Executor) -> Ready:
    """The job of these trials, and of what is trained again of them, alone; and where they train."""
    job = with_trials(ready.job, _laid(ready, trials).values)
    plan = make_plan(job, ready.prepared, executor.resources(), measured_in(ready.run.path))
    check_networks(plan.members, ready.prepared.schema)
    return replace(ready, job=job, plan=plan)


def _train(ready: Ready, executor: Executor, listener: Listener) -> None:
    """Train what is not sealed of a round, and of those before it."""
    train_left(climbed(ready, executor, listener), executor, listener)


def _more(ready: Ready, known: Ready, trials: tuple[Values, ...]) -> tuple[Values, ...]:
    """Ask for more trials, and write them down.

    Args:
        ready: as the job is written.
        known: the job of the trials so far.
    """
    search = ready.job.search
    assert search is not None
    members = (
        own_members(list(known.plan.members), _laid(ready, trials), search.seeds_per_trial) if trials else []
    )
    facts = dict[str, Any]()
    if isinstance(search.algorithm, Bohb):
        found = _bracket(ready, search.algorithm, trials, members)
    elif search.coarse_to_fine is not None:
        tried = _tried(known, trials, members)
        asked = ready.run.journal.of_kind(EVENT)
        stage, room = room_in_stage(search, search.coarse_to_fine, asked, len(trials))
        found, facts = staged(ready.job, asked, tried, room, stage)
    else:
        assert isinstance(search.algorithm, Tpe)
        count = min(search.algorithm.batch, search.num_trials - len(trials))
        found = ask(search, ready.job.seed, _tried(known, trials, members), count)
    ready.run.journal.append(EVENT, trials=found, **facts)
    return tuple(frozen(values) for values in found)


def _tried(
    known: Ready, trials: tuple[Values, ...], members: Sequence[MemberSpec]
) -> list[tuple[Values, float | None]]:
    """Every earlier trial with what is told of it."""
    return list(zip(trials, told(known, members) if trials else (), strict=True))


def _bracket(
    ready: Ready, bohb: Bohb, trials: tuple[Values, ...], members: Sequence[MemberSpec]
) -> tuple[Values, ...]:
    """The rest of a bracket of hyperband."""
    search = ready.job.search
    assert search is not None
    ladder = Ladder.of(search, ready.job.training.epochs)
    assert ladder is not None
    at_rungs = losses_at_rungs(ladder, ready.run.path, members, sealed(ready.run.path)) if trials else []
    count = min(ladder.bracket_end(len(trials)), search.num_trials) - len(trials)
    return ask_bracket(ready.job, bohb, list(zip(trials, at_rungs, strict=True)), count)
