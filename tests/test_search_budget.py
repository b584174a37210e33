"""The budget of a search: what is used up is not begun, what trains stops and is kept, earlier starts count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept_ray import KeptRay

from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.errors import SpecError
from ensemble_svc.listening import Listener
from ensemble_svc.local import LocalExecutor
from ensemble_svc.plan.executor import Executor
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.report.decision import decided
from ensemble_svc.search import budget as metering
from ensemble_svc.search.budget import Meter
from ensemble_svc.spec.budgets import BudgetSpec
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.run import Run
from ensemble_svc.store.spending import NOT_STARTED, Used, is_spent, raise_sign, used_in

RATE, HIDDEN = "training.optimizer.lr", "model.hidden"
EPOCHS = 6
NOTHING = 1e-9
"""A budget in hours that the first epoch uses up."""


def job_of(search: dict[str, Any], **sections: Any) -> JobSpec:
    data: dict[str, Any] = {
        "name": "budget",
        "data": {"source": "digits", "preprocess": ["standardize"], "test": 0.5},
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": EPOCHS, "batch_size": 128},
        "search": {
            "space": {RATE: {"loguniform": [1e-3, 0.1]}, HIDDEN: {"choice": [[4], [8], [4, 4]]}},
            "trials": 9,
            **search,
        },
        "aggregate": {"select": "greedy"},
        "evaluate": {"resamples": 100},
        "compute": {"executor": "local", "measure": "off", "health": "off"},
        **sections,
    }
    return parse_job(data)


def train(job: JobSpec, out: Path, executor: Executor | None = None) -> Run:
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=executor or LocalExecutor(retries=0))


def by_state(run: Run) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The members that were trained, and those that wait."""
    members = run.manifest()["members"]
    done = [member for member in members if member["status"] == "done"]
    return done, [member for member in members if member["status"] == "pending"]


@pytest.mark.parametrize("limit", ["hours", "device_hours"])
def test_what_trains_stops_and_is_kept_and_the_rest_is_not_begun(tmp_path: Path, limit: str) -> None:
    run = train(job_of({"budget": {limit: NOTHING}}), tmp_path / "run")
    done, waiting = by_state(run)
    assert done
    assert waiting
    assert {member["epochs"] for member in done} == {2}
    assert {member["reason"] for member in done} == {"budget: used up at epoch 2"}
    assert {member["reason"] for member in waiting} == {NOT_STARTED}
    assert len({str(member["spec"]["model"]) for member in done}) == 1
    assert run.manifest()["budget"][limit]["used"] > NOTHING
    assert run.manifest()["budget"]["spent"]
    assert "Budget used" in (run.path / "report.html").read_text()
    assert set(run.manifest()["ensemble"]["members"]) <= {member["id"] for member in done}
    (told,) = [
        line for line in decided(run.manifest(), run.metrics()) if line.startswith("The budget is used up")
    ]
    assert f"stopped {len(done)} of {len(done) + len(waiting)} members and kept {len(waiting)} from" in told


def test_a_larger_budget_goes_on_and_counts_what_was_used(tmp_path: Path) -> None:
    first = train(job_of({"budget": {"hours": NOTHING}}), tmp_path / "run")
    kept, _ = by_state(first)
    used = used_in(first.journal)
    again = train(job_of({"budget": {"hours": NOTHING}}), tmp_path / "run")
    assert by_state(again)[0] == kept, "the same budget begins nothing"
    more = train(job_of({"budget": {"hours": 1.0}}), tmp_path / "run")
    done, waiting = by_state(more)
    assert not waiting
    assert not is_spent(more.path)
    assert [member for member in done if member["reason"]] == kept
    assert {member["epochs"] for member in done if not member["reason"]} == {EPOCHS}
    assert more.manifest()["budget"]["hours"]["used"] * 3600 > used.seconds
    assert not train(job_of({"budget": None}), tmp_path / "run").manifest().get("budget")


def test_what_earlier_starts_used_up_begins_nothing(tmp_path: Path) -> None:
    """A budget of which an earlier start, killed since, has used all."""
    job = job_of({"budget": {"hours": 1.0}})
    train(job_of({"budget": {"hours": NOTHING}}), tmp_path / "run")
    run = Run(tmp_path / "run")
    run.journal.append("used", meter="earlier", seconds=3600.0, device_seconds=1.0)
    before, _ = by_state(run)
    assert by_state(train(job, tmp_path / "run"))[0] == before


def test_trials_end_with_the_budget_of_trials(tmp_path: Path) -> None:
    few = job_of({"budget": {"trials": 4}, "seeds_per_trial": 2})
    assert (few.search.num_trials, few.ensemble.members) == (4, 8)
    assert job_of({"budget": {"trials": 40}}).search.num_trials == 9
    space = {HIDDEN: {"choice": [[4], [8]]}}
    assert (
        job_of(
            {"space": space, "trials": "auto", "algorithm": "grid", "budget": {"trials": 1}}
        ).ensemble.members
        == 1
    )
    run = train(job_of({"budget": {"trials": 2}}), tmp_path / "run")
    before = {member["id"] for member in run.manifest()["members"]}
    after = {
        m["id"] for m in train(job_of({"budget": {"trials": 3}}), tmp_path / "run").manifest()["members"]
    }
    assert (len(before), len(after)) == (2, 3)
    assert before < after
    with pytest.raises(SpecError, match="5 seeds of each trial, and search.budget.trials is 3"):
        job_of({"budget": {"trials": 3}, "seeds_per_trial": 5})


def test_a_search_that_learns_asks_no_more(tmp_path: Path) -> None:
    tpe = {"algorithm": {"name": "optuna", "batch": 3, "startup": 3}}
    run = train(job_of({**tpe, "budget": {"hours": NOTHING}}), tmp_path / "run")
    assert len(run.journal.of_kind("asked")) == 1
    assert len(run.manifest()["members"]) == 3
    more = train(job_of({**tpe, "budget": {"hours": 1.0}}), tmp_path / "run")
    assert len(more.manifest()["members"]) == 9
    assert len(more.journal.of_kind("asked")) == 3


def test_a_rung_that_the_budget_kept_trials_from_stops_none(tmp_path: Path) -> None:
    """Two of six have come to it and wait when the budget is used up in the third."""
    search = {
        "trials": 6,
        "scheduler": {"name": "halving", "factor": 2},
        "space": {RATE: {"loguniform": [1e-3, 0.1]}},
    }
    compute = {"executor": "local", "measure": "off", "health": "off", "pack": 1, "commit_every_s": 0.0}
    job, seen = job_of({**search, "budget": {"hours": 1.0}}, compute=compute), []

    def progress(*_: object) -> None:
        seen.append(True)
        if len(seen) == 3:
            raise_sign(tmp_path / "run", "used")
            Run(tmp_path / "run").journal.append("used", meter="own", seconds=3600.0, device_seconds=0.0)

    executor = LocalExecutor(retries=0)
    run = pipeline.train(
        job,
        out=tmp_path / "run",
        directory=Path.cwd(),
        executor=executor,
        listener=Listener(progress=progress),
    )
    done, waiting = by_state(run)
    assert len(done) >= 3
    assert len(done) + len(waiting) == 6
    assert {member["reason"][:7] for member in done} == {"budget:"}
    assert not any(event["out"] for event in run.journal.of_kind("rung"))
    more = train(job_of({**search, "budget": {"hours": 9.0}}, compute=compute), tmp_path / "run")
    after, waiting = by_state(more)
    assert not waiting
    assert [member for member in after if member["id"] in {m["id"] for m in done}] == done


@pytest.mark.ray
def test_the_budget_holds_on_a_cluster(kept_ray: KeptRay, tmp_path: Path) -> None:
    """Slots in processes of their own, of which two train at a time."""
    kept_ray(num_cpus=2)
    executor = RayExecutor(tmp_path / "run" / "tune", retries=0)
    job = job_of(
        {"budget": {"device_hours": NOTHING}},
        training={"epochs": 400, "batch_size": 8},
        compute={"executor": "local", "measure": "off", "health": "off", "device": "cpu"},
    )
    run = train(job, tmp_path / "run", executor)
    done, waiting = by_state(run)
    assert done
    assert len(done) + len(waiting) == 9
    assert all(member["reason"].startswith("budget: used up at epoch") for member in done)
    assert all(member["epochs"] < 400 for member in done)


@dataclass(frozen=True)
class _Pack:
    id: str


@dataclass(frozen=True)
class _Slot:
    """What a meter reads of a slot."""

    pack: _Pack
    cpus: int
    gpus: float = 0.0
    until: int | None = None


spans = st.floats(0.1, 100)
attempts = st.lists(st.tuples(st.lists(spans, min_size=1, max_size=3), spans), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 2), attempts), max_size=4))
def test_device_hours_are_those_that_the_slots_held(
    slots: list[tuple[int, float, list[tuple[list[float], float]]]],
) -> None:
    """Attempts whose epochs took any time; each but a slot's last one fails a while after its last epoch."""
    clock, expected = [0.0], 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metering, "settle_sign", lambda *_: None)
        patch.setattr(metering, "time", SimpleNamespace(monotonic=lambda: clock[0]))
        meter = Meter(Path("nowhere"), BudgetSpec())
        meter._noted = float("inf")
        for number, (cpus, gpus, each) in enumerate(slots):
            slot: Any = _Slot(_Pack(str(number)), cpus, gpus)
            for attempt, (epochs, silent) in enumerate(each):
                began, is_last = clock[0], attempt == len(each) - 1
                for epoch, seconds in enumerate(epochs, 1):
                    clock[0] += seconds
                    over = is_last and epoch == len(epochs)
                    member = MemberProgress("m", "done" if over else "training", epoch)
                    meter.take(slot, Progress(slot.pack.id, epoch, 9, (member,), clock[0] - began))
                held = clock[0] - began
                if not is_last:
                    clock[0] += silent
                    held += silent
                    meter.fail(slot)
                    meter.fail(slot)
                expected += held * (gpus or cpus)
        assert meter.used(clock[0] + 1.0).device_seconds == pytest.approx(expected)


def test_a_budget_is_used_up_by_its_first_part() -> None:
    budget = BudgetSpec(hours=1.0, device_hours=2.0)
    assert not Used(3599.0, 7199.0).beyond(budget)
    assert Used(3600.0, 0.0).beyond(budget) == "1 of 1 hours used"
    assert Used(0.0, 7200.0).beyond(budget) == "2 of 2 device_hours used"


def test_trials_of_several_packs_that_are_ranked_together_end_with_the_budget(tmp_path: Path) -> None:
    """Each structure is a pack, and all of them pause at the first rung; what has begun is sealed."""
    run = train(job_of({"scheduler": "halving", "budget": {"hours": NOTHING}}), tmp_path / "run")
    done, waiting = by_state(run)
    assert done
    assert waiting
    assert {member["reason"] for member in waiting} == {NOT_STARTED}
    assert all(member["epochs"] <= 2 and member["reason"] for member in done)
    more = train(job_of({"scheduler": "halving", "budget": {"hours": 1.0}}), tmp_path / "run")
    after, waiting = by_state(more)
    assert not waiting
    assert [member for member in after if member["id"] in {m["id"] for m in done}] == done
