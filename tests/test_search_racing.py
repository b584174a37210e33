"""Trials that Tune's schedulers stop as results come: each is the undisturbed trial, cut off where the journal says."""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kept_ray import KeptRay
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler
from search_runs import DROP, HIDDEN, RATE, SPACE, Killed, job_of, killed_at, train

from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.races import Referee, Runner
from ensemble_svc.cluster.session import Session
from ensemble_svc.errors import PlanError, SpecError, StoreError
from ensemble_svc.listening import Listener
from ensemble_svc.local import LocalExecutor
from ensemble_svc.plan.executor import Node, Resources
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.plan.race import Race, Verdict
from ensemble_svc.planning import make_plan, prepare
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import load_job
from ensemble_svc.spec.schedulers import Asha, Median
from ensemble_svc.store.run import Run

ON_RAY = {"executor": "ray", "commit_every_s": 0.0}
ASHA = {"name": "asha", "factor": 2, "min_epochs": 1}
EPOCHS = 6


def race_of(scheduler: Asha | Median, earlier: list[Verdict], said: list[Verdict], **options: Any) -> Race:
    options = {"higher_is_better": False, "epochs": 9, **options}
    packs = frozenset(map(str, range(20)))
    return Race(scheduler, packs=packs, earlier=tuple(earlier), record=said.append, **options)


RESULTS = st.lists(st.tuples(st.integers(0, 5), st.floats(width=32)), max_size=40)
SCHEDULERS = st.one_of(
    st.builds(Asha, factor=st.integers(2, 4), min_epochs=st.integers(1, 3)),
    st.builds(Median, min_epochs=st.integers(1, 3), min_trials=st.integers(1, 3)),
)


def epochs_of(results: list[tuple[int, float]]) -> Iterator[tuple[str, int, float]]:
    """Each trial's results at epochs 1, 2, …, in the order in which they come."""
    seen: Counter[int] = Counter()
    for trial, value in results:
        seen[trial] += 1
        if seen[trial] < 9:
            yield str(trial), seen[trial], value


@given(SCHEDULERS, RESULTS, st.integers(0, 40), st.booleans())
def test_a_referee_that_is_told_again_says_what_it_would_have_said(
    scheduler: Asha | Median, results: list[tuple[int, float]], cut: int, higher: bool
) -> None:
    whole, before, after = list[Verdict](), list[Verdict](), list[Verdict]()
    undisturbed = Referee(race_of(scheduler, [], whole, higher_is_better=higher))
    first = Referee(race_of(scheduler, [], before, higher_is_better=higher))
    told = list(epochs_of(results))
    for result in told:
        undisturbed.hear(*result)
    for result in told[:cut]:
        first.hear(*result)
    second = Referee(race_of(scheduler, before, after, higher_is_better=higher))
    for result in told:  # a trial that goes on from an earlier commit shows some epochs again
        second.hear(*result)
    assert repr(before + after) == repr(whole)


@given(st.integers(2, 4), st.integers(1, 3), RESULTS)
def test_asha_stops_whom_tunes_asha_stops(factor: int, first: int, results: list[tuple[int, float]]) -> None:
    """Tune's scheduler hears every epoch, ours those of its rungs."""
    said = list[Verdict]()
    referee = Referee(race_of(Asha(factor=factor, min_epochs=first), [], said))
    tunes = ASHAScheduler("epoch", "loss", "min", max_t=9, grace_period=first, reduction_factor=factor)
    stopped = set()
    for trial in range(6):
        tunes.on_trial_add(None, Runner(str(trial)))  # type: ignore[arg-type]
    for trial, epoch, value in epochs_of([(t, v) for t, v in results if math.isfinite(v)]):
        referee.hear(trial, epoch, value)
        if any(trial == other for other, _ in stopped):
            continue
        row = {"epoch": epoch, "loss": value}
        if tunes.on_trial_result(None, Runner(trial), row) == TrialScheduler.STOP:  # type: ignore[arg-type]
            stopped.add((trial, epoch))
    assert {(v.pack, v.epoch) for v in said if v.stops} == stopped


def test_a_trial_that_diverged_stops_and_spoils_no_rung() -> None:
    said = list[Verdict]()
    referee = Referee(race_of(Asha(factor=2), [], said))
    for pack, value in enumerate([0.1, float("nan"), 0.05, float("inf"), 0.3, 0.04]):
        referee.hear(str(pack), 1, value)
    assert [verdict.stops for verdict in said] == [False, True, False, True, True, False]


@pytest.fixture(scope="module")
def session(kept_ray: KeptRay) -> Session:
    return kept_ray(num_cpus=2)


def searched(search: Mapping[str, Any], **sections: Any) -> JobSpec:
    compute = {**ON_RAY, **sections.pop("compute", {})}
    training = {"epochs": EPOCHS, **sections.pop("training", {})}
    return job_of({"trials": 8, "scheduler": ASHA, **search}, training=training, compute=compute, **sections)


def race(job: JobSpec, out: Path, listener: Listener | None = None) -> Run:
    executor = RayExecutor(out / "tune", job.compute.retries)
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=executor, listener=listener)


def verdicts(run: Run) -> list[dict[str, Any]]:
    return run.journal.of_kind("verdict")


def trial_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    """The members of each pack, as the manifest has them."""
    by_id = {member["id"]: member for member in run.manifest()["members"]}
    return {pack["id"]: [by_id[name] for name in pack["members"]] for pack in run.manifest()["packs"]}


def curve(run: Run, member: str) -> list[float]:
    return list(pd.read_parquet(run.path / "members" / member / "history.parquet")["val_nll"])


def check(run: Run, factor: int = 2) -> None:
    """Members end as the journal's verdicts say, and the verdicts are those of Tune's scheduler on these results."""
    events = verdicts(run)
    assert len({(event["pack"], event["epoch"]) for event in events}) == len(events)
    tunes = ASHAScheduler("epoch", "loss", "min", max_t=EPOCHS, grace_period=1, reduction_factor=factor)
    for pack in {event["pack"] for event in events}:
        tunes.on_trial_add(None, Runner(pack))  # type: ignore[arg-type]
    for event in events:
        row = {"epoch": event["epoch"], "loss": event["value"]}
        found = tunes.on_trial_result(None, Runner(event["pack"]), row)  # type: ignore[arg-type]
        assert event["stops"] == (found == TrialScheduler.STOP)
    ends = {event["pack"]: event["epoch"] for event in events if event["stops"]}
    for pack, members in trial_of(run).items():
        for member in members:
            assert member["status"] == "done"
            assert member["epochs"] == ends.get(pack, EPOCHS)
            assert member["stopped"] == (pack in ends)
            rung = {1: 1, 2: 2, 4: 3}.get(member["epochs"])
            assert member["reason"] == (
                f"asha: rung {rung}, epoch {member['epochs']}" if pack in ends else ""
            )


@pytest.fixture(scope="module")
def raced(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished search whose trials differ in structure too."""
    space = {**SPACE, HIDDEN: {"choice": [[8], [4, 4]]}}
    return race(searched({"space": space}), tmp_path_factory.mktemp("raced") / "run")


@pytest.mark.ray
def test_each_trial_is_a_slot_and_some_are_stopped(raced: Run) -> None:
    check(raced)
    assert [len(pack["members"]) for pack in raced.manifest()["packs"]] == [1] * 8
    assert 0 < sum(member["stopped"] for member in raced.manifest()["members"]) < 8
    assert raced.manifest()["ensemble"]["members"]


@pytest.mark.ray
def test_a_stopped_trial_is_the_undisturbed_one_cut_off(raced: Run, tmp_path: Path) -> None:
    """Bit for bit, its weights and predictions too: the same trial with no more epochs ends in the same place."""
    space = {**SPACE, HIDDEN: {"choice": [[8], [4, 4]]}}
    search = {"space": space, "trials": 8}
    whole = train(job_of(search, training={"epochs": EPOCHS}, compute={"pack": "off"}), tmp_path / "whole")
    for member in raced.manifest()["members"]:
        own = curve(raced, member["id"])
        assert own == curve(whole, member["id"])[: len(own)]
    for member in raced.manifest()["members"]:
        facts = member["metrics"]["validation"]["nll"]
        assert facts == pytest.approx(curve(raced, member["id"])[-1], rel=1e-6)


@pytest.mark.ray
def test_seeds_of_a_trial_stop_together_by_their_mean(session: Session, tmp_path: Path) -> None:
    run = race(searched({"trials": 4, "seeds_per_trial": 2}), tmp_path / "run")
    check(run)
    assert [len(members) for members in trial_of(run).values()] == [2] * 4
    for event in verdicts(run):
        curves = [curve(run, member["id"]) for member in trial_of(run)[event["pack"]]]
        assert event["value"] == pytest.approx(sum(c[event["epoch"] - 1] for c in curves) / 2)


@pytest.mark.ray
@pytest.mark.parametrize("number", [pytest.param(4, marks=pytest.mark.slow), 13])
def test_a_killed_search_goes_on_with_what_was_decided(session: Session, tmp_path: Path, number: int) -> None:
    job = searched({})
    with pytest.raises(Killed):
        race(job, tmp_path / "run", killed_at(number))
    run = Run(tmp_path / "run")
    before, sealed = verdicts(run), {event["pack"] for event in run.journal.of_kind("sealed")}
    starts = len(run.journal.of_kind("start"))
    race(job, tmp_path / "run")
    check(run)
    assert verdicts(run)[: len(before)] == before
    assert not sealed & {event["pack"] for event in run.journal.of_kind("start")[starts:]}
    race(job, tmp_path / "run")
    assert len(run.journal.of_kind("start")) == starts + 8 - len(sealed)


@pytest.mark.ray
def test_a_killed_worker_hears_its_verdict_again(session: Session, tmp_path: Path) -> None:
    """SIGKILL once a trial has shown an epoch whose verdict it may not have heard yet."""
    killed: list[int] = []

    def kill_once(slot: Slot, progress: Progress) -> None:
        ended = [e for e in Run(tmp_path / "run").journal.of_kind("verdict") if e["stops"]]
        if ended and not killed:
            starts = Run(tmp_path / "run").journal.of_kind("start")
            killed.append(next(e["pid"] for e in starts if e["pack"] == ended[0]["pack"]))
            os.kill(killed[0], signal.SIGKILL)

    run = race(searched({}), tmp_path / "run", Listener(progress=kill_once))
    assert killed
    check(run)


@pytest.mark.ray
@pytest.mark.slow
def test_more_trials_race_those_before_them(session: Session, tmp_path: Path) -> None:
    run = race(searched({"trials": 4}), tmp_path / "run")
    before = verdicts(run)
    race(searched({"trials": 8}), tmp_path / "run")
    check(run)
    assert verdicts(run)[: len(before)] == before


@pytest.mark.ray
def test_the_median_rule_stops_what_is_worse_than_the_others(session: Session, tmp_path: Path) -> None:
    run = race(searched({"scheduler": {"name": "median", "min_trials": 2}}), tmp_path / "run")
    tunes = MedianStoppingRule("epoch", "loss", "min", grace_period=1, min_samples_required=2)
    tunes._min_time_slice = float("inf")
    for event in verdicts(run):
        row = {"epoch": event["epoch"], "loss": event["value"]}
        found = tunes.on_trial_result(None, Runner(event["pack"]), row)  # type: ignore[arg-type]
        assert event["stops"] == (found == TrialScheduler.STOP)
    ends = {event["pack"]: event["epoch"] for event in verdicts(run) if event["stops"]}
    assert {p: members[0]["epochs"] for p, members in trial_of(run).items() if members[0]["stopped"]} == ends
    assert ends


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_learns_races_its_rounds(session: Session, tmp_path: Path) -> None:
    tpe = {"name": "optuna", "batch": 4, "startup": 4}
    run = race(searched({"algorithm": tpe}), tmp_path / "run")
    check(run)
    assert len(run.journal.of_kind("asked")) == 2


@pytest.mark.ray
@pytest.mark.parametrize(
    "scheduler", [ASHA, pytest.param({"name": "median", "min_trials": 2}, marks=pytest.mark.slow)]
)
def test_what_raced_is_trained_again_to_its_end(session: Session, tmp_path: Path, scheduler: Any) -> None:
    """What is trained again races nobody, shares a pack, and goes on after a death; the trials stay as they were."""
    refit = {"seeds": 2, "configurations": 2}
    search = {"scheduler": scheduler, "trials": 6, "refit": refit}
    job = searched(search, training={"epochs": 4})

    def die(slot: Slot, progress: Progress) -> None:
        if slot.pack.members[0].is_again and progress.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        race(job, tmp_path / "run", Listener(progress=die))
    run = Run(tmp_path / "run")
    before, sealed = verdicts(run), run.journal.of_kind("sealed")
    race(job, tmp_path / "run")
    (event,) = run.journal.of_kind("refit")
    members = run.manifest()["members"]
    own, again = members[:6], members[6:]
    assert len(again) == 2 * len(event["trials"])
    assert [m["hyperparameters"] for m in again[::2]] == [own[t]["hyperparameters"] for t in event["trials"]]
    assert not any(own[trial]["stopped"] for trial in event["trials"])
    assert all((m["epochs"], m["stopped"]) == (4, False) for m in again)
    assert verdicts(run) == before
    assert {one["pack"] for one in before} <= {slot for slot, some in trial_of(run).items() if len(some) == 1}
    assert run.journal.of_kind("sealed")[: len(sealed)] == sealed
    assert len(sealed) == 6
    starts = len(run.journal.of_kind("start"))
    race(job, tmp_path / "run")
    assert len(run.journal.of_kind("start")) == starts


@pytest.mark.ray
def test_a_verdict_that_cannot_be_written_ends_the_run(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is the caller's, not a trial's that Tune would start again."""

    def full(self: Referee, *_: object) -> None:
        raise StoreError("disk full at RUN/journal.jsonl")

    monkeypatch.setattr(Referee, "hear", full)
    with pytest.raises(StoreError, match="disk full"):
        race(searched({}), tmp_path / "run")
    assert Run(tmp_path / "run").journal.of_kind("retry", "failed") == []


def test_each_trial_has_a_slot_whatever_its_structure() -> None:
    space = {**SPACE, HIDDEN: {"choice": [[8], [4, 4]]}}
    nodes = tuple(Node(f"n{k}", 4, 0.0, 2**34) for k in range(3))
    for seeds, trials in ((1, 30), (3, 10)):
        job = searched({"space": space, "trials": trials, "seeds_per_trial": seeds})
        plan = make_plan(job, prepare(job, Path.cwd()), Resources(12, 0.0, nodes))
        assert [len(slot.pack) for slot in plan.slots] == [seeds] * trials
        assert all(len({m.index // seeds for m in slot.pack.members}) == 1 for slot in plan.slots)


def test_the_job_of_structures_packs_by_them_and_races_apart() -> None:
    path = Path(__file__).parents[1] / "jobs" / "search_structure.yaml"
    counts = {}
    for scheduler in ("none", "asha"):
        job = load_job(path, (f"search.scheduler={scheduler}",))
        plan = make_plan(job, prepare(job, Path.cwd()), Resources(2, 0.0, (Node("n", 2, 0.0, 2**34),)))
        counts[scheduler] = [len(slot.pack) for slot in plan.slots]
    assert len(counts["none"]) == 12
    assert sum(counts["none"]) == 48
    assert counts["asha"] == [1] * 48


def test_an_executor_without_neighbours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="trains one after another; use Ray, or search.scheduler: halving"):
        pipeline.train(searched({}), out=tmp_path / "run", directory=Path.cwd(), executor=LocalExecutor())


FAULTS = [
    ({"training": {"epochs": 1}}, "stops no trial before epoch 1, and training.epochs is 1; give more"),
    ({"scheduler": {"name": "asha", "min_epochs": 6}}, "lower search.scheduler.min_epochs"),
    ({"scheduler": {"name": "median", "min_epochs": 9}}, "'median' stops no trial before epoch 9"),
    ({"data": {"validation": 0}, "aggregate": {"select": "all"}}, "data.validation is 0"),
    ({"compute": {"executor": "local"}}, "set it to ray, or use scheduler: halving"),
    ({"compute": {"processes_per_member": 2}}, "stops a trial in one process"),
    ({"compute": {"pack": "off"}, "seeds_per_trial": 2}, "compute.pack is 'off'"),
    ({"compute": {"pack": 2}, "seeds_per_trial": 3}, "compute.pack is 2"),
    ({"ensemble": {"resample": "kfold"}, "seeds_per_trial": 2}, "folds may differ in their rows"),
]


@pytest.mark.parametrize("changes, words", FAULTS, ids=[words for _, words in FAULTS])
def test_what_cannot_race_is_told(changes: dict[str, Any], words: str) -> None:
    changes = dict(changes)
    search = {key: changes.pop(key) for key in ("scheduler", "seeds_per_trial") if key in changes}
    with pytest.raises(SpecError) as caught:
        searched(search, **changes)
    (fault,) = caught.value.faults
    assert (fault.path, words in fault.message) == ("search.scheduler", True)


def test_only_one_pack_of_seeds_is_no_fault() -> None:
    assert searched({"seeds_per_trial": 2, "space": {RATE: SPACE[RATE], DROP: SPACE[DROP]}}).search
