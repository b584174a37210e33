"""Tune's own schedulers as referees of our searches: what they say is written down before a trial hears of it.

Tune is never asked to stop a trial: it would take the process away before the members are sealed. A trial that is
to stop reads so in the journal and seals itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment.trial import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from ensemble_svc.cluster.worker import pack_of
from ensemble_svc.errors import StoreError
from ensemble_svc.plan.race import Race, Verdict
from ensemble_svc.spec.schedulers import Asha, Median

EPOCH, OBJECTIVE = "epoch", "objective"
"""Where a reported row has them."""


@dataclass(frozen=True)
class Runner:
    """A trial as Tune's schedulers know it; unlike Tune's own it has the same name after a restart."""

    trial_id: str


class Referee:
    """One search's scheduler, told every result so far in the order in which they came."""

    def __init__(self, race: Race) -> None:
        self.race = race
        self._scheduler = _scheduler_of(race)
        self._runners: dict[str, Runner] = {}
        self._known: set[tuple[str, int]] = set()
        self._stopped: set[str] = set()
        for verdict in race.earlier:
            self._told(verdict.pack, verdict.epoch, verdict.value)
            self._note(verdict)

    def hear(self, pack: str, epoch: int, value: float) -> None:
        """A trial's result; what was decided before stays as it is.

        Raises:
            StoreError: the verdict cannot be written.
        """
        settled = pack in self._stopped or (pack, epoch) in self._known
        if settled or not self.race.scheduler.asks(epoch):
            return
        verdict = Verdict(pack, epoch, value, stops=self._told(pack, epoch, value))
        self.race.record(verdict)
        self._note(verdict)

    def _note(self, verdict: Verdict) -> None:
        self._known.add((verdict.pack, verdict.epoch))
        if verdict.stops:
            self._stopped.add(verdict.pack)

    def _told(self, pack: str, epoch: int, value: float) -> bool:
        """Tell the scheduler, and whether the trial is to stop; one that diverged does, and raises no bar."""
        if not math.isfinite(value):
            return True
        if pack not in self._runners:
            self._runners[pack] = Runner(pack)
            self._scheduler.on_trial_add(None, self._runners[pack])
        result = {EPOCH: epoch, OBJECTIVE: value}
        found = self._scheduler.on_trial_result(None, self._runners[pack], result)
        return bool(found == TrialScheduler.STOP)


def _scheduler_of(race: Race) -> Any:
    mode = "max" if race.higher_is_better else "min"
    match race.scheduler:
        case Asha(factor=factor, min_epochs=first):
            return ASHAScheduler(
                EPOCH, OBJECTIVE, mode, max_t=race.epochs, grace_period=first, reduction_factor=factor
            )
        case Median(min_epochs=first, min_trials=others):
            return MedianStoppingRule(
                EPOCH,
                OBJECTIVE,
                mode,
                grace_period=first,
                min_samples_required=others,
                min_time_slice=math.inf,  # type: ignore[arg-type]  # while trials are few it would pause them
            )


class Referees(FIFOScheduler):  # type: ignore[misc]
    """What Tune asks and tells: trials start in their order, and every result goes to the referee of its search.

    Tune's own queue looks at all trials that ended before it finds one that waits, several times for each trial.

    Args:
        fault: takes what Tune would mistake for a fault of the trial.
    """

    def __init__(self, races: Sequence[Race], fault: Callable[[Exception], None]) -> None:
        super().__init__()
        referees = [Referee(race) for race in races]
        self._by_pack = {pack: one for one in referees for pack in one.race.packs}
        self._fault = fault
        self._open: dict[Any, None] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Tune adds a few trials at a time, and each one again that it tries again."""
        self._open[trial] = None

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first that waits; those that have ended are forgotten."""
        self._open = {trial: None for trial in self._open if not trial.is_finished()}
        return next((trial for trial in self._open if trial.status == Trial.PENDING), None)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Tune waits for this before it lets the trial go on."""
        referee, value = self._by_pack.get(pack_of(trial.config)), result.get(OBJECTIVE)
        if referee is not None and value is not None:
            try:
                referee.hear(pack_of(trial.config), result[EPOCH], value)
            except StoreError as fault:
                self._fault(fault)
        return str(TrialScheduler.CONTINUE)
