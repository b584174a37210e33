"""RayExecutor: every slot a Ray Tune trial.

Tune only schedules: it gives out shares of GPUs, restarts what died and carries progress home. Its own
state (``RUN/tune``) is written and never read; what is done stands in the run folder.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import ray
from ray import tune
from ray.tune.execution import class_cache
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ensemble_svc.cluster.cargo import Cargo
from ensemble_svc.cluster.interrupt import Interrupts, catch_interrupts
from ensemble_svc.cluster.listener import Halted, Listener, Silence
from ensemble_svc.cluster.races import Referees
from ensemble_svc.cluster.session import connect
from ensemble_svc.cluster.worker import NamedByPack, pack_of, run_task, train_slot
from ensemble_svc.errors import ClusterError
from ensemble_svc.local import this_machine
from ensemble_svc.plan.executor import (
    RAY_START_S,
    Call,
    Fit,
    Node,
    OnFailure,
    OnProgress,
    Resources,
    Task,
    refuse_oversized,
)
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.race import Race
from ensemble_svc.spec.job import JobSpec

P = TypeVar("P")

MOST_PRELOADED = 4
"""Cores up to which each worker of an embedded Ray loads what training needs before it is asked to train."""
WORKERS_WAIT_S = 30.0
"""How long to wait for room before measuring is given up."""

# Tune would copy these from our environment, AWS secrets among them, into each actor's runtime environment:
# Ray writes that into a log, shows it to whoever lists actors, and passes over the workers that wait already.
class_cache.ENV_VARS_TO_PROPAGATE.clear()
class_cache.DEFAULT_ENV_VARS.clear()


@dataclass(frozen=True)
class RayExecutor:
    """Trains slots on the cluster that this process is connected to (see ``session.connect``)."""

    state: Path
    """Folder for Tune's own state, ``RUN/tune``; on several machines it must be shared by them."""
    retries: int = 2
    """How often one slot is tried again."""
    races: tuple[Race, ...] = ()
    """Searches whose trials are stopped by Tune's schedulers."""

    def racing(self, races: Sequence[Race]) -> Self:
        """As :meth:`ensemble_svc.plan.executor.Executor.racing` says."""
        return replace(self, races=(*self.races, *races))

    def resources(self) -> Resources:
        """What the living nodes have in all, whoever uses it now."""
        nodes = tuple(_nodes())
        cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
        return Resources(cpus, gpus, nodes, start_s=RAY_START_S)

    @contextmanager
    def workers(self, number: int, payload: P, *, cpus: int, gpus: float) -> Iterator[Call[P]]:
        """As :meth:`ensemble_svc.plan.executor.Executor.workers` says; each task is a Ray task.

        The processes wait idle between calls, so what they have loaded stays loaded; slots get other processes.
        """
        wanted = {"CPU": float(cpus), "GPU": float(gpus)}
        bundle = {name: amount for name, amount in wanted.items() if amount}
        group = placement_group([bundle] * number, strategy="STRICT_PACK")
        try:
            if not group.wait(WORKERS_WAIT_S):
                raise ClusterError(f"no machine has room for {number} workers with {cpus} CPUs each now")
            shared = ray.put(payload)
            yield lambda tasks: ray.get([_start(task, shared, group, i) for i, task in enumerate(tasks)])
        except ray.exceptions.RayError as lost:
            raise ClusterError(f"the cluster was lost while steps were timed: {_root(lost)}") from lost
        finally:
            remove_placement_group(group)

    def run(
        self,
        slots: Sequence[Slot],
        fit: Fit[P],
        payload: P,
        *,
        on_progress: OnProgress,
        on_failure: OnFailure,
    ) -> None:
        """As :meth:`ensemble_svc.plan.executor.Executor.run` says.

        Raises:
            ClusterError: the cluster was lost, or Tune itself failed.
        """
        refuse_oversized(slots, self.resources())
        by_pack = {slot.pack.id: slot for slot in slots}
        if not by_pack:
            return
        with _quiet(), catch_interrupts() as interrupts:
            listener = Listener(by_pack, on_progress, on_failure, interrupts)
            self._fit(_trainable(by_pack, fit, payload), by_pack, listener, interrupts)

    def _fit(
        self, trainable: Any, by_pack: Mapping[str, Slot], listener: Listener, interrupts: Interrupts
    ) -> None:
        tuner = tune.Tuner(
            trainable,
            param_space={"pack": tune.grid_search(list(by_pack)), "run": self.state.absolute().parent.name},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                trial_name_creator=_pack_of,
                trial_dirname_creator=_pack_of,
                scheduler=Referees(self.races, listener.fault),
            ),
            run_config=tune.RunConfig(
                name=datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f"),
                storage_path=str(self.state.absolute()),
                failure_config=tune.FailureConfig(max_failures=self.retries),
                callbacks=[listener, Silence()],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except Halted:
            raise KeyboardInterrupt(interrupts.signal) from None
        except (tune.TuneError, ray.exceptions.RayError, ConnectionError) as lost:
            raise ClusterError(f"the cluster was lost while slots were training: {_root(lost)}") from lost


def _start(task: Task[P], shared: Any, group: Any, position: int) -> Any:
    """Start a task in one bundle of a placement group."""
    bundle = group.bundle_specs[position]
    where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=position)
    remote: Any = ray.remote
    worker = remote(run_task).options(
        num_cpus=bundle.get("CPU", 0),
        num_gpus=bundle.get("GPU", 0),
        max_retries=0,
        scheduling_strategy=where,
        name="measure",
    )
    return worker.remote(task, shared, gpus=bundle.get("GPU", 0))


def _trainable(by_pack: Mapping[str, Slot], fit: Fit[P], payload: P) -> Any:
    """What Tune calls. It unpickles this twice for each trial, so that it holds no slot."""
    slots = Cargo.of({name: slot.model_dump_json() for name, slot in by_pack.items()})
    shared = tune.with_parameters(train_slot, slots=slots, fit=fit, payload=payload)
    shared.__mixins__ = (NamedByPack,)
    wishes = {name: _wish(slot) for name, slot in by_pack.items()}
    ((usual, _),) = Counter(wishes.values()).most_common(1)
    others = {name: wish for name, wish in wishes.items() if wish != usual}
    return tune.with_resources(shared, lambda config: _bundle(others.get(pack_of(config), usual)))


def _wish(slot: Slot) -> tuple[float, float]:
    """Cores and GPUs of a slot."""
    return float(slot.cpus), float(slot.gpus)


def _bundle(wish: tuple[float, float]) -> tune.PlacementGroupFactory:
    wanted = zip(("CPU", "GPU"), wish, strict=True)
    return tune.PlacementGroupFactory([{name: amount for name, amount in wanted if amount}])


def _pack_of(trial: Any) -> str:
    return pack_of(trial.config)


def _nodes() -> Iterator[Node]:
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            memory = int(has["memory"]) if "memory" in has else None
            yield Node(node["NodeName"], int(has.get("CPU", 0)), float(has.get("GPU", 0)), memory)


def _root(fault: BaseException) -> str:
    while fault.__cause__ is not None:
        fault = fault.__cause__
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune's complaints off the screen: what went wrong is told by ``on_failure``."""
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def preloaded_on(here: Resources) -> str:
    """What each worker loads while the driver prepares the data; nothing where they are many, or there are GPUs.

    Ray starts a worker for each core at once, and each holds some 350 MB then.
    """
    return "ensemble_svc.cluster.preloaded" if here.cpus <= MOST_PRELOADED and not here.gpus else ""


@contextmanager
def ray_executor(job: JobSpec, *, address: str | None, run: Path) -> Iterator[RayExecutor]:
    """A connection to Ray for one job, and the executor on it.

    Args:
        address: of a cluster that runs; None embeds one for as long as the block lasts.
        run: the run folder; Tune keeps its state in it.

    Raises:
        ClusterError: as :func:`ensemble_svc.cluster.session.connect` says.
    """
    with connect(address, directory=Path.cwd(), preload=preloaded_on(this_machine())):
        yield RayExecutor(run / "tune", job.compute.retries)
