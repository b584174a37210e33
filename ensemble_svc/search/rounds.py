"""A search that learns: it asks for some trials, trains them, and asks for more by what became of them.

What was asked stands in the journal before it trains. A run that was stopped goes on with those trials, whatever
their results turn out to be, and asks for further ones as the undisturbed run would have.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ensemble_svc.course import Ready
from ensemble_svc.listening import Listener
from ensemble_svc.measuring import expect, took
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.planning import make_plan, measured_in
from ensemble_svc.registry import frozen
from ensemble_svc.search.asking import Values, ask
from ensemble_svc.search.brackets import ask_bracket, losses_at_rungs
from ensemble_svc.search.climbing import climbed
from ensemble_svc.search.leaving import train_left
from ensemble_svc.search.refitting import EVENT as REFIT
from ensemble_svc.search.refitting import again_of, chosen, own_members, refits_in
from ensemble_svc.search.stages import given, room_in_stage, staged
from ensemble_svc.search.telling import told
from ensemble_svc.spec.askers import Bohb, Tpe
from ensemble_svc.spec.draws import drawn, with_trials
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.schedulers import NoScheduler, Ranked
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
        known = _own(ready, trials, executor) if trials else ready
        if trials and not _joins(ready, search, len(trials)):
            _train(known, executor, listener)
        if trials and is_spent(ready.run.path):
            return trials
        trials = (*trials, *_more(ready, known, trials))
    return trials


def _joins(ready: Ready, search: SearchSpec, number: int) -> bool:
    """Whether the trials that the job gives wait for others: they are ranked with the first that are asked for."""
    if not isinstance(search.scheduler, Ranked) or ready.run.journal.of_kind(EVENT):
        return False
    ladder = Ladder.of(search, ready.job.training.epochs)
    assert ladder is not None
    return not ladder.in_turn or ladder.bracket(number - 1) == ladder.bracket(number)


def _refitted(
    ready: Ready, search: SearchSpec, trials: tuple[Values, ...], executor: Executor, listener: Listener
) -> Ready:
    """The job with all trials and what is trained again; the trials are trained before any of that is."""
    journal = ready.run.journal
    refits = refits_in(journal)
    if search.refit is None and not refits:
        return _all(ready, trials, executor)
    known, done = _own(ready, trials, executor), sealed(ready.run.path)
    if any(member.digest not in done for member in known.plan.members):
        _train(known, executor, listener)
    is_chosen = search.refit is None or any(event["after"] == len(trials) for event in refits)
    if search.refit is not None and not is_chosen and not is_spent(ready.run.path):
        again = chosen(known, search.refit, own_members(known.plan.members), refits)
        journal.append(REFIT, after=len(trials), trials=again, seeds=search.refit.seeds)
    return _all(_unraced(ready), trials, executor)


def _all(ready: Ready, trials: tuple[Values, ...], executor: Executor) -> Ready:
    """The job of these trials, and of what is trained again of them, alone; and where they train."""
    return _with(ready, trials, again_of(ready.job, trials, refits_in(ready.run.journal)), executor)


def _own(ready: Ready, trials: tuple[Values, ...], executor: Executor) -> Ready:
    """The same without what is trained again, and without what the whole ensemble is measured against."""
    return _with(_alone(ready), trials, {}, executor)


def _alone(ready: Ready) -> Ready:
    """Without the single model that the whole ensemble is measured against, whose cost is not known before the end."""
    evaluate = ready.job.evaluate.model_copy(update={"single": "none"})
    return replace(ready, job=ready.job.model_copy(update={"evaluate": evaluate}))


def _unraced(ready: Ready) -> Ready:
    """What is trained again is compared with nobody: the trials have been, and the rest do not wait for each other."""
    search = ready.job.search
    if search is None or not search.races:
        return ready
    still = search.model_copy(update={"scheduler": NoScheduler()})
    return replace(ready, job=ready.job.model_copy(update={"search": still}))


def _known(ready: Ready, search: SearchSpec) -> tuple[Values, ...]:
    """The trials that are settled: those asked before, or those that the job gives."""
    asked = tuple(frozen(values) for event in ready.run.journal.of_kind(EVENT) for values in event["trials"])
    return (*given(ready.job, search), *asked)[: search.num_trials]


def _with(ready: Ready, trials: tuple[Values, ...], again: Mapping[int, Values], executor: Executor) -> Ready:
    job = with_trials(ready.job, trials, again)
    plan = make_plan(job, ready.prepared, executor.resources(), measured_in(ready.run.path))
    check_networks(plan.members, ready.prepared.schema)
    return replace(ready, job=job, plan=plan)


def _train(ready: Ready, executor: Executor, listener: Listener) -> None:
    """Train what is not sealed of a round, and of those before it."""
    journal, left = ready.run.journal, ready.left(ready.plan.slots, executor.resources())
    if left.slots:
        expect(journal, left, sum(1 for _ in ready.plan.members))
    began = time.monotonic()
    train_left(climbed(ready, executor, listener), executor, listener)
    if left.slots:
        took(journal, time.monotonic() - began)


def _more(ready: Ready, known: Ready, trials: tuple[Values, ...]) -> tuple[Values, ...]:
    """Ask for more trials, and write them down.

    Args:
        ready: as the job is written.
        known: the job of the trials so far.
    """
    search = ready.job.search
    assert search is not None
    members = own_members(known.plan.members) if trials else []
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
