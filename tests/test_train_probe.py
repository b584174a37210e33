"""The probe: it times what it says, keeps to its budget, and leaves no trace in any member."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from law_runs import assert_same_bits, job_of, payload_of, results, train

from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.measuring import measure
from ensemble_svc.plan.executor import Resources
from ensemble_svc.planning import make_plan, measured_in, prepare
from ensemble_svc.report.html import render
from ensemble_svc.report.view import view_of
from ensemble_svc.spec.job import RESAMPLES, JobSpec
from ensemble_svc.store.run import Run
from ensemble_svc.train.memory import held_bytes, peak_bytes, reset_peak
from ensemble_svc.train.probe import sweep
from ensemble_svc.train.start import Load, Probe

CPU = torch.device("cpu")
NETS = """
import torch
from torch import nn

class Split(nn.Module):
    def __init__(self, shape, outputs):
        super().__init__()
        self.flat, self.linear = nn.Flatten(), nn.Linear(torch.Size(shape).numel(), outputs)

    def forward(self, x):
        x = self.flat(x)
        return self.linear(x if x.sum() > 0 else -x)

def build(input_shape, num_outputs):
    return Split(input_shape, num_outputs)
"""


def probe_of(job: JobSpec, sizes: tuple[int, ...], tmp_path: Path, **changes: Any) -> tuple[Any, Probe]:
    payload, plan = payload_of(job, tmp_path / "run")
    members = tuple(sorted(plan.members, key=lambda member: member.index))
    settings = {"threads": (1,), "device": "cpu", "budget_s": 20.0} | changes
    return payload, Probe(members, sizes, **settings)


def test_packs_of_every_size_are_timed_on_every_number_of_threads(tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble_svc.train.probe.LEAP", float("inf"))
    monkeypatch.setattr("ensemble_svc.train.probe.GROWTH", float("inf"))
    job = job_of(ensemble={"members": 4})
    found = sweep(*probe_of(job, (1, 2, 4), tmp_path, threads=(1, 2), budget_s=20.0))
    assert [(timing.members, timing.threads) for timing in found] == [
        (n, t) for n in (1, 2, 4) for t in (1, 2)
    ]
    assert all(0 < t.step_s < 5 and t.epoch_s > 0 and t.at_once == 1 and t.device == "cpu" for t in found)


@pytest.mark.parametrize("choice", list(RESAMPLES), ids=lambda c: c.__name__)
def test_every_resample_can_be_timed(choice, tmp_path):
    job = job_of(ensemble={"members": 2, "resample": choice()}, training__batch_size=300)
    assert [t.members for t in sweep(*probe_of(job, (1, 2), tmp_path))] == [1, 2]


def test_larger_packs_are_left_out_once_the_time_per_member_grows(tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble_svc.train.probe.LEAP", float("inf"))
    monkeypatch.setattr("ensemble_svc.train.probe.GROWTH", 0.0)
    found = sweep(*probe_of(job_of(ensemble={"members": 16}), (1, 2, 4, 8, 16), tmp_path))
    assert [timing.members for timing in found] == [1, 2, 4]


def test_the_first_timing_is_made_whatever_it_takes_and_the_budget_ends_the_rest(tmp_path):
    payload, probe = probe_of(
        job_of(ensemble={"members": 64}), (1, 2, 4, 8, 16, 32, 64), tmp_path, budget_s=0.0
    )
    began = time.monotonic()
    assert [timing.members for timing in sweep(payload, probe)] == [1]
    assert time.monotonic() - began < 10


def test_nothing_of_torch_is_left_changed(tmp_path):
    payload, probe = probe_of(job_of(model={"name": "mlp", "hidden": (8,), "dropout": 0.5}), (1, 3), tmp_path)
    torch.manual_seed(11)
    torch.set_num_threads(1)
    state = torch.random.get_rng_state()
    sweep(payload, Probe(probe.members, (1, 3), (2,), "cpu", 0.5))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == 1
    assert not list(Path(payload.run).iterdir())


def test_a_network_that_cannot_be_stacked_is_timed_alone(tmp_path, monkeypatch):
    (tmp_path / "probe_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    job = job_of(model={"name": "python", "factory": "probe_nets:build"}, ensemble={"members": 4})
    assert [t.members for t in sweep(*probe_of(job, (1, 2, 4), tmp_path))] == [1]


def test_the_rows_that_are_timed_are_few_and_a_batch_is_whole(tmp_path, monkeypatch):
    seen: list[tuple[int, ...]] = []
    from ensemble_svc.train.step import Step

    batch = Step.batch

    def note(self: Step, rows_KB: torch.Tensor) -> Any:
        seen.append((len(self.data.host), *rows_KB.shape))
        return batch(self, rows_KB)

    monkeypatch.setattr(Step, "batch", note)
    monkeypatch.setattr("ensemble_svc.train.probe.MOST_STEPS", 2)
    job = job_of(training={"epochs": 3, "batch_size": 50}, ensemble={"members": 2})
    sweep(*probe_of(job, (2,), tmp_path))
    assert {shape[2] for shape in seen} == {50}
    assert max(shape[0] for shape in seen) <= 2 * 2 * 50 + 288


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_step_is_timed_with_what_compiling_takes(tmp_path):
    payload, probe = probe_of(job_of(ensemble={"members": 2}), (2,), tmp_path)
    (timing,) = sweep(payload, replace(probe, compiled=True))
    assert timing.compiled
    assert timing.compile_s > 10 * timing.step_s > 0


@pytest.mark.parametrize("resample", ["none", "bootstrap"])
def test_streamed_members_are_timed(resample, tmp_path):
    job = job_of(data__stream="on", ensemble={"members": 3, "resample": resample})
    assert [timing.members for timing in sweep(*probe_of(job, (1, 3), tmp_path))] == [1, 3]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is counted on Linux")
def test_the_peak_is_seen_and_counted_anew():
    def fill() -> None:
        np.ones(64 * 2**20, dtype=np.uint8).sum()

    reset_peak(CPU)
    before = peak_bytes(CPU)
    fill()
    assert before is not None
    assert peak_bytes(CPU) - before > 50 * 2**20
    reset_peak(CPU)
    assert peak_bytes(CPU) - held_bytes(CPU) < 16 * 2**20


def run_job(out: Path, **compute: Any) -> tuple[Run, list[float], list[Any]]:
    """A small job trained in this process; what the listener heard of measuring and of plans."""
    told: list[float] = []
    plans: list[Any] = []
    job = job_of(
        ensemble={"members": 3}, evaluate={"resamples": 100}, compute={"executor": "local", **compute}
    )
    listener = pipeline.Listener(measuring=told.append, planned=lambda plan, _: plans.append(plan))
    run = pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor(), listener=listener)
    return run, told, plans


class TestMeasuringARun:
    @pytest.fixture(scope="class")
    @classmethod
    def measured(cls, tmp_path_factory) -> tuple[Run, list[float], list[Any]]:
        return run_job(tmp_path_factory.mktemp("measured") / "run", measure="on", pack=3, cpus_per_slot=1)

    def test_the_plan_is_made_from_what_was_measured(self, measured):
        run, told, [plan] = measured
        assert told == [5.0]
        assert plan.forecast.by == "measured"
        assert plan.slots[0].reason.startswith("measured: ")
        table = measured_in(run.path)
        assert {1} < {timing.members for timing in next(iter(table.groups.values()))} <= {1, 2, 3}

    def test_members_have_the_same_bits_as_without(self, measured, tmp_path):
        run, _, [plan] = measured
        [sizes] = {tuple(len(slot.pack) for slot in plan.slots)}
        other, told, _ = run_job(tmp_path / "run", measure="off", pack=sizes[0], cpus_per_slot=1)
        assert not told
        assert_same_bits(results(run.path), results(other.path))

    def test_it_is_measured_once(self, measured):
        run, _, _ = measured
        _, told, _ = run_job(run.path, measure="on", pack=3, cpus_per_slot=1)
        assert not told
        assert len(run.journal.of_kind("measured")) == 1

    def test_the_light_plan_uses_it(self, measured):
        run, _, [plan] = measured
        job = run.job()
        prepared = prepare(job, Path.cwd())
        again = make_plan(job, prepared, LocalExecutor().resources(), measured_in(run.path))
        assert [slot.reason for slot in again.slots] == [slot.reason for slot in plan.slots]
        elsewhere = make_plan(job, prepared, Resources(cpus=97), measured_in(run.path))
        assert elsewhere.forecast.by == "formula"

    def test_forecast_and_actual_stand_in_the_manifest_and_on_the_page(self, measured):
        run, _, [plan] = measured
        manifest = run.manifest()
        assert manifest["forecast"] == json.loads(plan.forecast.model_dump_json())
        actual = manifest["actual"]
        assert 0 < actual["seconds"] <= manifest["seconds"]["train"] + 60
        assert actual["device_hours"] > 0
        assert actual["peak_memory_bytes"] > 10**8
        page = render(view_of(run))
        assert "Forecast / actual" in page
        assert "from measured steps" in page


def test_a_short_run_is_not_measured_unasked(tmp_path):
    _, told, [plan] = run_job(tmp_path / "run")
    assert not told
    assert plan.forecast.by == "formula"


def test_a_long_run_is_measured_unasked(tmp_path, monkeypatch):
    monkeypatch.setattr("ensemble_svc.measuring.LONG_RUN_S", 0.001)
    _, told, [plan] = run_job(tmp_path / "run")
    assert told
    assert plan.forecast.by == "measured"


def test_equal_timings_serve_bags_of_other_sizes(tmp_path):
    """Folds differ by a row; what is timed is the same."""
    job = job_of(ensemble={"members": 4, "resample": {"name": "kfold", "folds": 4}})
    prepared = prepare(job, Path.cwd())
    assert len({len(slot.pack) for slot in make_plan(job, prepared, Resources(2)).slots}) >= 1
    table = measure(job, prepared, LocalExecutor(), budget_s=2.0)
    assert len(table.groups) == 1
    plan = make_plan(job, prepared, LocalExecutor().resources(), table)
    assert {slot.forecast.by for slot in plan.slots} == {"measured"}


def test_loading_is_a_task_of_its_own(tmp_path):
    payload, _ = payload_of(job_of(), tmp_path / "run")
    assert Load()(payload) == (None if not torch.cuda.is_available() else pytest.approx(1e11, rel=1))


def test_training_after_a_probe_has_the_same_bits_as_before(tmp_path):
    job = job_of(model={"name": "mlp", "hidden": (8,), "dropout": 0.2, "norm": "batch"})
    before = train(job, tmp_path / "before")
    sweep(*probe_of(job, (1, 3), tmp_path))
    assert_same_bits(train(job, tmp_path / "after"), before)
