"""What runs in a Ray worker: one slot, its progress reported to Tune as flat rows.

Rows carry ``event``: ``progress``, ``failure`` (the attempt is lost, Tune may try again) or ``refusal``
(no attempt can succeed; the run ends).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from ray import tune
from ray._raylet import setproctitle  # type: ignore[attr-defined]

from ensemble_svc.cluster.cargo import Cargo
from ensemble_svc.collector import collect_seldom
from ensemble_svc.errors import EnsembleSvcError, TrainError, family
from ensemble_svc.local import reason
from ensemble_svc.plan.executor import Fit, Task
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress, to_row

P = TypeVar("P")


class SlotFailed(Exception):
    """An attempt at a slot that failed; the original is its cause and stands in Tune's error.txt.

    The original is not sent itself: an exception of the user's may not survive pickling.
    """


class NamedByPack:
    """Mixed into the Tune actor: its name in Ray's dashboard and ``ray list actors`` is the run's and the pack's.

    Ray asks for the name once per process, so a process that Tune reuses keeps its first pack's name
    there; its process title always follows.
    """

    _name: str

    def setup(self, config: Mapping[str, Any]) -> None:
        """Called by Tune in a new process."""
        self._name = _named(config)
        super().setup(config)  # type: ignore[misc]

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Called by Tune in a process that goes on to another pack."""
        self._name = _named(new_config)
        return bool(super().reset_config(new_config))  # type: ignore[misc]


def _named(config: Mapping[str, Any]) -> str:
    return f"{config['run']} {pack_of(config)}"


def pack_of(config: Mapping[str, Any]) -> str:
    """The pack that a trial of Tune trains."""
    return str(config["pack"])


def train_slot(config: Mapping[str, Any], *, slots: Cargo, fit: Fit[P], payload: P) -> None:
    """The function trainable: fit the slot whose pack the config names.

    Args:
        slots: each one as JSON, by pack.

    Raises:
        SlotFailed: the attempt failed in a way that another attempt may not.
    """
    slot = Slot.from_json(slots[pack_of(config)])
    _claim(slot)

    def report(progress: Progress) -> None:
        tune.report({"event": "progress", **to_row(progress)})
        _set_title(slot)

    try:
        fit(payload, slot, report)
    except EnsembleSvcError as fault:
        if not isinstance(fault, TrainError):
            tune.report({"event": "refusal", "kind": family(fault).__name__, "reason": str(fault)})
            return
        tune.report({"event": "failure", "reason": reason(fault)})
        raise SlotFailed(reason(fault)) from fault
    except Exception as fault:  # users' code may raise anything; it is this slot's failure
        tune.report({"event": "failure", "reason": reason(fault)})
        raise SlotFailed(reason(fault)) from fault


def run_task(task: Task[P], payload: P, *, gpus: float) -> Any:
    """One task in the surroundings of a slot."""
    settle_in(gpus)
    return task(payload)


def _claim(slot: Slot) -> None:
    """Make the process the slot's own."""
    settle_in(slot.gpus)
    _set_title(slot)


def settle_in(gpus: float) -> None:
    """Make the process fit for training.

    A slot without GPUs must not see those of the machine, which Ray leaves visible; Lightning must not
    fork to look for them; relative paths mean what they mean in the job, not in Tune's folder of the trial.
    """
    collect_seldom()
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.setdefault("PL_DISABLE_FORK", "1")
    os.chdir(os.environ.get("TUNE_ORIG_WORKING_DIR", "."))


def _set_title(slot: Slot) -> None:
    """Tune's calls reset the title of the process, so it is set again after each report."""
    setproctitle(f"ray::{slot.pack.id}")
