"""One member over several processes is the member of one process; and how the processes live and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cluster_processes import family, still_running
from cluster_slots import shared_slot
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from kept_ray import KeptRay
from law_runs import assert_same_bits, job_of, payload_of, results
from rank_work import COMPARED, OPTIONS, Work, compare_norms, fail, fit_each, in_turn, places
from whole_runs import artefacts
from whole_runs import job_of as small_job

from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import Session
from ensemble_svc.errors import SpecError, TrainError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.plan.executor import Resources
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.planning import make_plan, prepare
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.optimizers import OPTIMIZERS
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.distributed import run_together
from ensemble_svc.train.fit import fit as fit_alone
from ensemble_svc.train.handover import lay_down, take_up
from ensemble_svc.train.start import fit

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
UNEVEN = {"epochs": 2, "batch_size": 61}
"""718 training rows: the last batch has 47, which two processes cannot share alike."""
CALM = {name: {"eps": 1e-4} for name in ("adam", "adamw", "adagrad")} | {"rmsprop": {"eps": 1e-2}}
"""So that adaptive rules do not scale the round-off of pixels that are nearly constant into drift; RMSprop's first
steps are ten times the rate, since it does not correct its mean."""


def quiet(progress: Progress) -> None:
    """Nobody listens."""


def with_norm(norm: str, **training: Any) -> JobSpec:
    return job_of(
        model={"name": "mlp", "hidden": (32,), "norm": norm},
        training=UNEVEN | training,
        ensemble__members=1,
    )


def names(registry: Any) -> list[str]:
    return [choice.model_fields["name"].default for choice in registry]


def images(**changes: Any) -> JobSpec:
    model = {"name": "resnet", "depth": 8, "width": 4}
    training = {"epochs": 1, "batch_size": 61, "optimizer": SGD}
    return job_of(model=model, training=training, ensemble__members=1, **changes)


def regression(loss: str) -> JobSpec:
    return job_of(
        task="regression",
        data={"source": "diabetes", "preprocess": ("standardize",)},
        training=UNEVEN | {"loss": loss, "optimizer": {"name": "sgd", "lr": 0.01}},
        ensemble={"members": 1, "resample": "bootstrap"},
    )


STOPPING = {"metric": "accuracy", "patience": 1}
ROUGH = {("muon", "batch")}
"""Muon's iteration magnifies round-off some hundred times, and batch norm over processes sums in another order."""
CASES: Mapping[str, JobSpec] = {
    **{
        f"{rule}, norm {norm}": with_norm(
            norm, optimizer={"name": rule, "lr": 0.01, **CALM.get(rule, {})}, clip_norm=0.5
        )
        for rule in names(OPTIMIZERS)
        for norm in ("none", "batch", "layer", "group")
        if (rule, norm) not in ROUGH
    },
    **{
        f"penalty {name}": with_norm("none", optimizer=SGD, regularizers=({"name": name, "strength": 1e-3},))
        for name in ("l1", "l2")  # noise draws apart in each process
    },
    **{f"loss {loss}": regression(loss) for loss in ("mse", "gaussian_nll")},
    "average": with_norm("batch", optimizer=SGD, average={"name": "ema", "decay": 0.9}),
    **{
        f"average {name}": with_norm("batch", optimizer=SGD, average={"name": name, **options})
        for name, options in {"polyak": {}, "swa": {"start": 0.4}, "last_n": {}, "best_n": {}}.items()
    },
    "early stopping": with_norm(
        "batch", optimizer={"name": "sgd", "lr": 0.5}, schedule="constant", epochs=12, early_stopping=STOPPING
    ),
    "images": images(),
    "own network": job_of(
        model={"name": "python", "factory": "rank_work:counting"},
        training=UNEVEN | {"optimizer": SGD},
        ensemble__members=1,
    ),
}
BESIDE: Mapping[str, JobSpec] = {
    "told": with_norm("batch", optimizer=SGD),
    "own statistics": job_of(
        model={"name": "python", "factory": "rank_work:remembering"}, ensemble__members=1
    ),
}
"""Of which other things than the sealed tensors are looked at."""
THREE: Mapping[str, JobSpec] = {
    "fewer rows than processes": with_norm("batch", batch_size=358, optimizer=SGD, epochs=4),
    "images": images(),
}
"""718 = 2 x 358 + 2: in the last batch of the first, one of three processes has no row."""


def slots_of(cases: Mapping[str, JobSpec], folder: Path, processes: int) -> Work:
    """Each case's payload and slot."""
    work = []
    for name, job in cases.items():
        payload, plan = payload_of(job, folder / name)
        (slot,) = plan.slots
        work.append((payload, slot.model_copy(update={"processes": processes})))
    return work


def trained(cases: Mapping[str, JobSpec], folder: Path) -> dict[str, Stack]:
    """Each case by one process."""
    for payload, slot in slots_of(cases, folder, 1):
        fit_alone(payload, slot, quiet)
    return {name: sealed_in(folder / name) for name in cases}


def sealed_in(run: Path) -> Stack:
    """The only member's tensors, with the epochs it trained and the one it keeps."""
    (event,) = sealed(run).values()
    return results(run)[0] | {name: torch.tensor(event[name]) for name in ("epochs", "best_epoch")}


@dataclass(frozen=True)
class Together:
    """What several processes ended with in one start, and what they reported."""

    stacks: Mapping[str, Stack]
    heard: Sequence[Progress]


def together(cases: Mapping[str, JobSpec], folder: Path, processes: int) -> Together:
    """Say where they are, share batch norms and train each case."""
    heard: list[Progress] = []
    acts = [(places, None), (compare_norms, batches()), (fit_each, slots_of(cases, folder, processes))]
    run_together(in_turn, acts, shared_slot(processes, cpus=7), heard.append)
    return Together({name: sealed_in(folder / name) for name in cases}, heard)


def batches() -> list[list[torch.Tensor]]:
    """Of every shape that a batch norm takes, the last with fewer rows than three processes."""
    draw = torch.Generator().manual_seed(5)
    return [
        [torch.randn(rows, *shape, generator=draw, dtype=torch.float64) * 3 + 7 for rows in (8, 7, 2)]
        for shape in ((5,), (5, 4), (5, 4, 3), (5, 3, 2, 2))
    ]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Outputs, gradients and statistics of batch norms are those of the whole batch, or this fails."""
    return together({**CASES, **BESIDE}, tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def by_three(tmp_path_factory: pytest.TempPathFactory) -> Together:
    """Likewise; one process has no row of the last batches."""
    return together(THREE, tmp_path_factory.mktemp("three"), 3)


def assert_close(shared: Stack, alone: Stack) -> None:
    assert shared.keys() == alone.keys()
    for name, value in alone.items():
        torch.testing.assert_close(
            shared[name], value, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_the_member_of_one(case, by_two, tmp_path):
    """Law 1 for processes: shares of one batch, the last one uneven, and what is sealed is the same."""
    assert_close(by_two.stacks[case], trained({case: CASES[case]}, tmp_path)[case])


def test_early_stopping_stops(by_two):
    """Or the law above would say nothing of it."""
    assert by_two.stacks["early stopping"]["epochs"] < 12


@pytest.mark.parametrize("case", THREE)
def test_three_processes_train_the_member_of_one(case, by_three, tmp_path):
    assert_close(by_three.stacks[case], trained({case: THREE[case]}, tmp_path)[case])


@pytest.mark.parametrize("processes", [2, 3])
def test_batch_norm_over_processes_is_that_of_the_whole_batch(processes, by_two, by_three):
    """Outputs, gradients and running statistics, to the last digits of double precision; also with a rowless rank."""
    compared = [p.epoch for p in (by_two if processes == 2 else by_three).heard if p.pack == COMPARED]
    assert compared == [len(batches()) * len(OPTIONS)]


def test_progress_is_told_in_the_parent_as_one_process_would(by_two, tmp_path):
    ((payload, slot),) = slots_of({"told": BESIDE["told"]}, tmp_path, 1)
    told = list[Progress]()
    fit(payload, slot, told.append)
    shared = [p for p in by_two.heard if p.pack == slot.pack.id]
    assert [p.epoch for p in shared] == [1, 2]
    for one, two in zip(told, shared, strict=True):
        assert (one.pack, one.epoch, one.epochs) == (two.pack, two.epoch, two.epochs)
        (alone,), (with_another,) = one.members, two.members
        assert with_another.train_loss == pytest.approx(alone.train_loss, rel=1e-5)
        assert with_another.metric == pytest.approx(alone.metric, rel=1e-5)


def test_processes_know_their_place_and_share_the_cores(by_three):
    heard = by_three.heard[:3]
    assert sorted(p.pack for p in heard) == ["0/3 2", "1/3 2", "2/3 2"]
    assert {(p.epoch, p.epochs) for p in heard} == {(3, 3)}


@pytest.mark.parametrize("what", ["refusal", "the transform of column 3 divided by zero"])
def test_a_failure_is_told_by_its_cause_not_by_those_who_waited(what):
    """Our own faults keep their kind; others are TrainErrors of one line, with the traceback as their cause."""
    kind, words = (
        (SpecError, "Did you mean 'adamw'") if what == "refusal" else (TrainError, f"^ValueError: {what}$")
    )
    with pytest.raises(kind, match=words) as told:
        run_together(fail, what, shared_slot(2), quiet)
    assert "in fail" in str(told.value.__cause__)
    assert family(os.getpid()) == [os.getpid()]


def test_a_batch_norm_that_cannot_be_shared_is_refused(tmp_path):
    job = job_of(model={"name": "python", "factory": "rank_work:own_norm"}, ensemble__members=1)
    ((payload, slot),) = slots_of({"it": job}, tmp_path, 2)
    with pytest.raises(SpecError, match="OwnNorm at body.1"):
        fit(payload, slot, quiet)


def test_statistics_of_the_users_own_layers_are_those_of_the_first_process(by_two):
    """The network itself looks whether they are, at each step."""
    assert by_two.stacks["own statistics"]["epochs"] == 3


class TestResume:
    """Law 3 for processes: killed and started again, the member ends with the bits of the undisturbed one."""

    JOB = job_of(
        training={
            "epochs": 4,
            "batch_size": 61,
            "average": {"name": "ema", "decay": 0.9},
            "early_stopping": {"metric": "nll", "patience": 3},
        },
        model={"name": "mlp", "hidden": (16,), "norm": "batch", "dropout": 0.2},
        ensemble__members=1,
    )

    @pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
    def test_a_killed_process_ends_the_others_and_is_retried_to_the_same_bits(self, processes, tmp_path):
        ((payload, slot),) = slots_of({"it": self.JOB}, tmp_path / "undisturbed", processes)
        fit(payload, slot, quiet)
        ((payload, slot),) = slots_of({"it": self.JOB}, tmp_path / "killed", processes)
        others, asked, failures = list[int](), list[float](), list[tuple[str, bool, float]]()

        def kill_once(slot: Slot, progress: Progress) -> None:
            if progress.epoch == 2 and not asked:
                *others[:], last = family(os.getpid())[1:]
                asked.append(time.monotonic())
                os.kill(last, signal.SIGKILL)

        def note(slot: Slot, reason: str, again: bool) -> None:
            failures.append((reason, again, time.monotonic() - asked[0]))
            assert still_running(others, after_s=0.0) == []

        payload = replace(payload, commit_every_s=0.0)
        LocalExecutor(1).run([slot], fit, payload, on_progress=kill_once, on_failure=note)
        ((reason, again, seconds),) = failures
        assert reason == f"process {processes} of the member's was killed by SIGKILL"
        assert again
        assert seconds < 5
        starts = Journal(Path(payload.run) / "journal.jsonl").of_kind("start")
        assert len(starts) == 2, "one start for each attempt, whatever the number of processes"
        assert_same_bits(*(results(tmp_path / name / "it") for name in ("undisturbed", "killed")))

    def test_two_processes_commit_what_one_goes_on_with(self, tmp_path):
        """Nothing drawn inside a step, or the draws would be others."""
        job = with_norm("batch", optimizer=SGD, epochs=4)
        ((payload, slot),) = slots_of({"it": job}, tmp_path, 2)
        payload = replace(payload, commit_every_s=0.0)
        with pytest.raises(KeyboardInterrupt):
            fit(payload, slot, interrupt_at(3))
        heard: list[Progress] = []
        fit(payload, slot.model_copy(update={"processes": 1}), heard.append)
        assert [p.epoch for p in heard] == [3, 4]
        assert_close(sealed_in(tmp_path / "it"), trained({"it": job}, tmp_path / "alone")["it"])


def interrupt_at(epoch: int) -> Any:
    def report(progress: Progress) -> None:
        if progress.epoch == epoch:
            raise KeyboardInterrupt

    return report


PARENT = """
import sys
from rank_work import wait
from cluster_slots import shared_slot
from ensemble_svc.train.distributed import run_together

run_together(wait, None, shared_slot(2), lambda progress: print(progress.epoch, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_parent(number, tmp_path):
    """Nor does a parent without a main guard start anew in its children."""
    modules = {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | modules,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"1\n"
    children = family(parent.pid)[1:]
    assert len(children) == 2
    parent.send_signal(number)
    assert still_running([parent.pid, *children], after_s=5) == []
    parent.communicate()


@settings(max_examples=50)
@given(
    st.lists(
        arrays.arrays(st.sampled_from(["f4", "u1", "i8", "U3"]), arrays.array_shapes(min_side=0)), max_size=4
    )
)
def test_a_handover_gives_each_reader_the_same_memory(values):
    handover = lay_down({"values": values, "name": "x"})
    one, two = (take_up(handover)["values"] for _ in range(2))
    os.close(handover.descriptor)
    for value, first, second in zip(values, one, two, strict=True):
        np.testing.assert_array_equal(first, value)
        assert first.dtype == second.dtype == value.dtype
        assert not first.flags.writeable or not first.size


GPUS = Resources(cpus=8, gpus=4.0)
PLACED = [
    ({"gpus_per_member": 2}, GPUS, (2, 2.0)),
    ({"processes_per_member": 3}, GPUS, (3, 3.0)),
    ({"processes_per_member": 3, "gpus_per_member": 0}, GPUS, (3, 0.0)),
    ({"gpus_per_member": 0.25, "pack": "off"}, GPUS, (1, 0.25)),
    ({"gpus_per_member": 2}, Resources(cpus=4), (1, 0.0)),
    ({"processes_per_member": 2}, Resources(cpus=4), (2, 0.0)),
    ({"processes_per_member": 2, "device": "cpu"}, GPUS, (2, 0.0)),
]


@pytest.mark.parametrize(("compute", "place", "expected"), PLACED, ids=lambda value: str(value)[:60])
def test_members_over_processes_are_slots_of_one(compute, place, expected, tmp_path):
    job = job_of(compute=compute)
    slots = make_plan(job, prepare(job, tmp_path), place).slots
    for slot in slots:
        assert (slot.processes, slot.gpus) == expected
        assert place.holds(slot)
        if slot.processes > 1:
            assert len(slot.pack) == 1
            assert f"{slot.processes} processes share" in slot.reason


@given(st.integers(1, 8), st.integers(1, 16), st.integers(0, 8))
def test_a_smaller_machine_takes_fewer_processes(processes, cpus, gpus):
    for wanted in (0.0, float(processes)):
        slot = shared_slot(processes, cpus=8).model_copy(update={"gpus": wanted})
        fitted = slot.within(cpus=cpus, gpus=float(gpus))
        assert fitted.gpus == min(wanted, gpus)
        assert fitted.cpus == min(8, cpus)
        assert 1 <= fitted.processes <= processes
        assert fitted.processes == (max(1, int(fitted.gpus)) if wanted else processes)


@pytest.fixture(scope="module")
def session(kept_ray: KeptRay) -> Session:
    return kept_ray(num_cpus=2)


@pytest.mark.ray
def test_a_ray_trial_trains_a_member_with_two_processes(session, tmp_path):
    """Law 2, bit for bit; and SIGKILL of the process that leads is a failure that Ray tries again."""
    job = small_job(
        training={"epochs": 6},
        ensemble={"members": 1},
        compute={"processes_per_member": 2, "cpus_per_slot": 2, "commit_every_s": 0.0},
    )
    killed, failures = list[int](), list[tuple[str, bool]]()

    def kill_once(slot: Slot, progress: Progress) -> None:
        if progress.epoch == 3 and not killed:
            killed.append(Journal(tmp_path / "ray" / "journal.jsonl").of_kind("start")[-1]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    listener = pipeline.Listener(progress=kill_once, failure=lambda slot, *told: failures.append(told))
    executors = {"ray": RayExecutor(tmp_path / "ray" / "tune", 1), "local": LocalExecutor(1)}
    ray, local = (
        pipeline.train(
            job,
            out=tmp_path / name,
            directory=Path.cwd(),
            executor=executor,
            listener=listener if name == "ray" else None,
        )
        for name, executor in executors.items()
    )
    assert failures == [("process 1 of the member's was killed by SIGKILL", True)]
    assert artefacts(ray) == artefacts(local)
