"""A search that learns: it asks for some trials, trains them, and asks for more by what became of them.

What was asked stands in the journal before it trains. A run that was stopped goes on with those trials, whatever
their results turn out to be, and asks for further ones as the undisturbed run would have.
"""

from __future__ import annotations

from dataclasses import replace

from ensemble_svc.course import Ready
from ensemble_svc.listening import Listener
from ensemble_svc.plan.executor import Executor
from ensemble_svc.planning import make_plan, measured_in
from ensemble_svc.registry import frozen
from ensemble_svc.search.asking import Values, ask, losses
from ensemble_svc.search.brackets import ask_bracket, losses_at_rungs
from ensemble_svc.search.climbing import climbed, train_left
from ensemble_svc.spec.askers import Bohb, Tpe
from ensemble_svc.spec.draws import with_trials
from ensemble_svc.spec.ladder import Ladder
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.journal import Journal
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
    if search is None or not search.algorithm.learns:
        return ready
    with ready.clock.stage("search"):
        return _explored(ready, search, executor, listener)


def _explored(ready: Ready, search: SearchSpec, executor: Executor, listener: Listener) -> Ready:
    trials = _known(ready.run.journal, search)
    while True:
        known = _with(ready, trials, executor) if trials else ready
        if len(trials) == search.num_trials:
            return known
        if trials:
            _train(known, executor, listener)
            if is_spent(ready.run.path):
                return known
        trials = (
            *trials,
            *_more(known, trials, min(_round(ready, len(trials)), search.num_trials) - len(trials)),
        )


def _round(ready: Ready, known: int) -> int:
    """The number of trials at the end of the next round: of a batch, or of a bracket."""
    search = ready.job.search
    assert search is not None
    if isinstance(search.algorithm, Tpe):
        return known + search.algorithm.batch
    ladder = Ladder.of(search, ready.job.training.epochs)
    assert ladder is not None
    return ladder.bracket_end(known)


def _known(journal: Journal, search: SearchSpec) -> tuple[Values, ...]:
    """The trials that are settled: those asked before, or those that the job gives."""
    asked = tuple(frozen(values) for event in journal.of_kind(EVENT) for values in event["trials"])
    return (*search.first, *asked)[: search.num_trials]


def _with(ready: Ready, trials: tuple[Values, ...], executor: Executor) -> Ready:
    """The job of these trials alone, and where they train."""
    job = with_trials(ready.job, trials)
    plan = make_plan(job, ready.prepared, executor.resources(), measured_in(ready.run.path))
    check_networks(plan.members, ready.prepared.schema)
    return replace(ready, job=job, plan=plan)


def _train(ready: Ready, executor: Executor, listener: Listener) -> None:
    """Train what is not sealed of a round, and of those before it."""
    train_left(climbed(ready, executor, listener), executor, listener)


def _more(ready: Ready, trials: tuple[Values, ...], count: int) -> tuple[Values, ...]:
    """Ask for more trials, and write them down."""
    search = ready.job.search
    assert search is not None
    members = sorted(ready.plan.members, key=lambda member: member.index) if trials else []
    seals = sealed(ready.run.path)
    if isinstance(search.algorithm, Bohb):
        ladder = Ladder.of(search, ready.job.training.epochs)
        assert ladder is not None
        tried = list(zip(trials, losses_at_rungs(ladder, ready.run.path, members, seals), strict=True))
        asked = ask_bracket(ready.job, search.algorithm, tried, count)
    else:
        found = losses(search, members, seals)
        asked = ask(search, ready.job.seed, list(zip(trials, found, strict=True)), count)
    ready.run.journal.append(EVENT, trials=asked)
    return asked
