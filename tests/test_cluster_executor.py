"""RayExecutor on a real embedded Ray with four GPUs that exist only in its books."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cluster_processes import still_running
from cluster_slots import EPOCHS, Payload, fit_slot, make_slot
from kept_ray import KeptRay
from ray.util.state import list_actors

from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import Session, connect
from ensemble_svc.errors import PlanError, SpecError, StoreError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress

pytestmark = pytest.mark.ray
CANARY = "canary-" + "5e" * 16
RETRIES = 1
QUARTERS = [make_slot(i, gpus=0.25) for i in range(3)]
PAIR, LONE = make_slot(3, cpus=2, gpus=2), make_slot(4)
CRASH, KILLED, DIVERGED = make_slot(5), make_slot(6), make_slot(7)
ACTS = {CRASH.pack.id: "always", KILLED.pack.id: "killed once", DIVERGED.pack.id: "diverge once"}
SLOTS = [CRASH, KILLED, *QUARTERS, PAIR, LONE, DIVERGED]


@dataclass
class Heard:
    """What an executor told, in order."""

    progress: dict[str, list[Progress]] = field(default_factory=dict)
    failures: list[tuple[str, str, bool]] = field(default_factory=list)
    actors: list[tuple[str, int]] = field(default_factory=list)

    def on_progress(self, slot: Slot, progress: Progress) -> None:
        self.progress.setdefault(slot.pack.id, []).append(progress)

    def on_failure(self, slot: Slot, reason: str, again: bool) -> None:
        self.failures.append((slot.pack.id, reason, again))

    def run(self, executor: Executor, slots: list[Slot], payload: Payload) -> Heard:
        executor.run(slots, fit_slot, payload, on_progress=self.on_progress, on_failure=self.on_failure)
        return self


def saw(folder: Path, slot: Slot, attempt: int = 0) -> dict[str, object]:
    return json.loads((folder / f"{slot.pack.id}.{attempt}").read_text())


RUN = "search_digits"
"""Name of the folder of the run that is looked at."""


@pytest.fixture(scope="module")
def session(kept_ray: KeptRay) -> Iterator[Session]:
    kept_ray.end()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", CANARY)
        with connect(num_cpus=4, num_gpus=4, dashboard=True, directory=Path(__file__).parent) as session:
            yield session


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def heard(session: Session, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Heard:
    """One run in which something of everything happens."""
    heard = Heard()
    done = threading.Event()

    def look() -> None:
        while not done.wait(1.0):
            actors = list_actors(address=session.address, filters=[("state", "=", "ALIVE")], detail=True)
            heard.actors += [(actor.repr_name, actor.pid) for actor in actors]

    looking = threading.Thread(target=look)
    looking.start()
    executor = RayExecutor(tmp_path_factory.mktemp("folder") / RUN / "tune", RETRIES)
    try:
        return heard.run(executor, SLOTS, Payload(str(folder), acts=ACTS, epoch_s=0.5))
    finally:
        done.set()
        looking.join()


def test_the_cluster_says_what_it_has(session: Session) -> None:
    resources = RayExecutor(Path("unused")).resources()
    assert session.embedded
    assert (resources.cpus, resources.gpus, len(resources.nodes)) == (4, 4.0, 1)


def test_ray_trains_what_the_local_executor_trains(heard: Heard, tmp_path: Path) -> None:
    """Law 2: the same members with the same numbers, in each slot in the same order."""
    mends = {pack: act for pack, act in ACTS.items() if act == "diverge once"}
    local = Heard().run(
        LocalExecutor(RETRIES),
        [QUARTERS[0].model_copy(update={"gpus": 0.0}), LONE, DIVERGED],
        Payload(str(tmp_path), acts=mends),
    )
    for pack, events in local.progress.items():
        assert [(e.epoch, e.epochs, e.members) for e in events] == [
            (e.epoch, e.epochs, e.members) for e in heard.progress[pack]
        ]


def test_every_slot_that_can_finish_does(heard: Heard) -> None:
    last = {pack: events[-1].epoch for pack, events in heard.progress.items()}
    assert last == {slot.pack.id: 2 if slot is CRASH else EPOCHS for slot in SLOTS}


def test_failures_are_told_by_their_root_and_retried_no_more_than_allowed(heard: Heard) -> None:
    told = {
        pack: [(r, again) for p, r, again in heard.failures if p == pack] for pack, _, _ in heard.failures
    }
    cause = "ValueError: the transform of column 3 divided by zero"
    assert told.pop(CRASH.pack.id) == [(cause, True), (cause, False)]
    assert told.pop(DIVERGED.pack.id) == [("the loss of member 4 is not finite", True)]
    ((reason, again),) = told.pop(KILLED.pack.id)
    assert again
    assert reason.startswith("its process died")
    assert told == {}


def test_slots_get_their_shares_of_gpus_and_cpus_and_no_others(heard: Heard, folder: Path) -> None:
    quarters = [saw(folder, slot) for slot in QUARTERS]
    assert {str(seen["gpus"]).count(",") for seen in quarters} == {0}
    assert len({seen["gpus"] for seen in quarters}) == 1
    assert len(set(str(saw(folder, PAIR)["gpus"]).split(","))) == 2
    assert saw(folder, LONE)["gpus"] == ""
    assert [saw(folder, slot)["threads"] for slot in SLOTS] == [str(slot.cpus) for slot in SLOTS]


def test_the_payload_is_shared_and_the_job_is_where_it_was(heard: Heard, folder: Path) -> None:
    for slot in SLOTS:
        seen = saw(folder, slot)
        assert seen["writeable"] is False, "a copy, not the object store's own memory"
        assert seen["folder"] == os.getcwd()


def test_processes_and_actors_bear_the_name_of_their_run_and_pack(heard: Heard, folder: Path) -> None:
    titles = {slot.pack.id: saw(folder, slot)["title"] for slot in SLOTS}
    assert titles == {pack: f"ray::{pack}" for pack in titles}
    names = {name for name, _ in heard.actors if name}
    assert names
    assert names <= {f"{RUN} {slot.pack.id}" for slot in SLOTS}


def test_no_secret_of_ours_reaches_rays_files(heard: Heard, session: Session) -> None:
    token_file = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    token = token_file.read_text().encode()
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert token_file.parent.stat().st_mode & 0o777 == 0o700
    files = [
        p for p in token_file.parent.rglob("*") if p.is_file() and not p.is_symlink() and p != token_file
    ]
    assert any(p.name == "runtime_env_agent.log" for p in files)
    leaks = [p.name for p in files if any(secret in p.read_bytes() for secret in (token, CANARY.encode()))]
    assert leaks == []


def test_a_slot_larger_than_the_cluster_is_refused_before_anything_starts(
    session: Session, tmp_path: Path
) -> None:
    heard = Heard()
    with pytest.raises(PlanError, match="8 GPUs"):
        heard.run(RayExecutor(tmp_path / "tune"), [LONE, make_slot(9, gpus=8)], Payload(str(tmp_path)))
    assert heard == Heard()
    assert list(tmp_path.iterdir()) == []


def test_a_fault_that_no_retry_can_mend_ends_the_run(session: Session, tmp_path: Path) -> None:
    """It is raised as what it was, although its own class does not survive pickling."""
    heard = Heard()
    acts = {QUARTERS[0].pack.id: "refuse"}
    with pytest.raises(SpecError, match="Did you mean 'adamw'"):
        heard.run(RayExecutor(tmp_path / "tune", 5), QUARTERS[:1], Payload(str(tmp_path), acts=acts))
    assert heard.failures == []


def test_a_fault_of_the_listener_is_the_callers_and_stops_the_workers(
    session: Session, tmp_path: Path
) -> None:
    def full(slot: Slot, progress: Progress) -> None:
        raise StoreError("disk full at RUN/journal.jsonl")

    with pytest.raises(StoreError, match="disk full"):
        RayExecutor(tmp_path / "tune").run(
            [LONE], fit_slot, Payload(str(tmp_path), epoch_s=1.0), on_progress=full, on_failure=print
        )
    assert still_running([int(str(saw(tmp_path, LONE)["pid"]))], after_s=5) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_workers_and_then_the_caller(
    session: Session, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    asked = []

    def interrupt(slot: Slot, progress: Progress) -> None:
        asked.append(time.monotonic())
        os.kill(os.getpid(), number)

    payload = Payload(str(tmp_path), epoch_s=4.0)
    with pytest.raises(KeyboardInterrupt) as stopped:
        RayExecutor(tmp_path / "tune").run(
            [LONE], fit_slot, payload, on_progress=interrupt, on_failure=lambda *_: None
        )
    assert time.monotonic() - asked[0] < 3, "it waited for the end of an epoch"
    assert stopped.value.args == (number,)
    assert still_running([int(str(saw(tmp_path, LONE)["pid"]))], after_s=5) == []
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    if number == signal.SIGINT:  # what the slot had is given back
        whole = make_slot(8, cpus=4)
        assert (
            whole.pack.id
            in Heard().run(RayExecutor(tmp_path / "tune"), [whole], Payload(str(tmp_path))).progress
        )
