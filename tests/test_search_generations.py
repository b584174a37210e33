"""Populations that lie in several packs: the same turns as inside one pack, whoever trains them, also after a death."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kept_ray import KeptRay
from search_runs import (
    DECAY,
    DROP,
    HIDDEN,
    MIXED,
    RATE,
    SPACE,
    STILL,
    Killed,
    assert_same_weights,
    killed_at,
    train,
    weights,
)
from test_search_pbt import NOISE, lineages, population
from test_search_rungs import BROKEN, fragile, small

from ensemble_svc import pipeline
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import Session
from ensemble_svc.errors import QuorumError
from ensemble_svc.listening import Listener
from ensemble_svc.plan.executor import Node, Resources
from ensemble_svc.plan.plan import Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.planning import make_plan, prepare
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.model import PythonModel
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.progress import FILE
from ensemble_svc.store.reached import Reached
from ensemble_svc.store.run import Run

REGRESSION = {"data": {"source": "diabetes"}, "ensemble": {"resample": "bootstrap"}}
"""Members whose rows, and so the scales of inputs and targets, differ."""


def spread(**sections: Any) -> JobSpec:
    """Five trials."""
    if sections.get("data") != REGRESSION["data"]:
        return population(STILL, trials=5, **sections)
    job = population(STILL, trials=5, **{**sections, "data": {}})
    data = {**job.model_dump(mode="json"), "task": "regression"}
    data["data"] = {**REGRESSION["data"], "preprocess": ["standardize"], "test": 0.3}
    data["training"] = {"epochs": 4, "batch_size": 32}
    return parse_job(data)


def assert_alike(run: Run, other: Run) -> None:
    """The same turns with the same values, and weights to float tolerance."""
    assert lineages(run) == lineages(other)
    assert_same_weights(run, other)


def donors(run: Run) -> set[tuple[str, str]]:
    """Each member that went on from another's state, with the other."""
    return {(m["id"], turn["from"]) for m in run.manifest()["members"] for turn in m.get("lineage", [])}


def packs_of(run: Run) -> dict[str, str]:
    return {member: pack["id"] for pack in run.manifest()["packs"] for member in pack["members"]}


@pytest.mark.parametrize(
    "sections",
    [
        {"training": {"optimizer": "adamw"}},
        {"training": {"optimizer": {"name": "sgd", "momentum": 0.9}}},
        {"training": {"optimizer": "muon", "average": "ema"}},
        {"training": {"average": "best_n", "early_stopping": {"patience": 9}}},
        {"training": {"average": {"name": "swag", "start": 0.3, "samples": 2}}},
        {"ensemble": {"resample": {"name": "kfold", "folds": 2}}},
        REGRESSION,
    ],
    ids=str,
)
def test_several_packs_turn_as_one_does(sections: dict[str, Any], tmp_path: Path) -> None:
    """Law 1 for a population: in packs of 2, 2 and 1, and in one; with all that a member holds."""
    whole = train(spread(**sections), tmp_path / "whole")
    run = train(spread(**sections, compute={"pack": 2}), tmp_path / "apart")
    assert len(donors(whole)) > 2
    assert_alike(run, whole)
    assert any(packs_of(run)[one] != packs_of(run)[other] for one, other in donors(run))
    assert [event["epoch"] for event in run.journal.of_kind("rung")] == [1, 2, 3]
    assert not whole.journal.of_kind("rung")


def test_each_structure_is_a_population_of_its_own(tmp_path: Path) -> None:
    """And the key that tells them apart stays as it was, whatever the other keys do."""
    job = population(MIXED, trials=8, training={"epochs": 3})
    run = train(job, tmp_path / "run")
    assert sorted(len(event["members"]) for event in run.journal.of_kind("start")) == [2, 6]
    apart = train(
        population(MIXED, trials=8, training={"epochs": 3}, compute={"pack": 2}), tmp_path / "apart"
    )
    assert_alike(run, apart)
    hidden = {m["id"]: tuple(m["hyperparameters"][HIDDEN]) for m in run.manifest()["members"]}
    assert {hidden[one] for one, _ in donors(run)} == {(8,), (4, 4)}
    assert all(hidden[one] == hidden[other] for one, other in donors(run))
    for member in run.manifest()["members"]:
        kept = [tuple(turn["values"][HIDDEN]) for turn in member.get("lineage", [])]
        assert set(kept) <= {hidden[member["id"]]}


def test_a_population_in_one_pack_stays_while_another_meets(tmp_path: Path) -> None:
    """Packs of 3: one structure's few trials never leave theirs, the other's many do."""
    first = [{RATE: 0.01 * (k + 1), DECAY: 0.01, HIDDEN: [4, 4] if k % 3 == 0 else [8]} for k in range(7)]
    sections = {"trials": 7, "search": {"first": first}, "training": {"epochs": 3}}
    run = train(population(MIXED, **sections, compute={"pack": 3}), tmp_path / "run")
    assert_alike(run, train(population(MIXED, **sections), tmp_path / "whole"))
    ids = [member["id"] for member in run.manifest()["members"]]
    inside = {name for event in run.journal.of_kind("turn") for name in event["taken"]}
    across = {told["from"] for event in run.journal.of_kind("rung") for told in event["taken"].values()}
    assert inside
    assert inside <= {ids[0], ids[3], ids[6]}
    assert across
    assert not across & {ids[0], ids[3], ids[6]}


@pytest.mark.parametrize("pack, numbers", [(2, (2, 3, 5, 8)), ("off", (3, 6))])
def test_killed_between_and_within_generations_it_goes_on_to_the_same_bits(
    pack: Any, numbers: tuple[int, ...], tmp_path: Path
) -> None:
    """Law 3: rates, dropout and noise that change, each in the optimiser, in a buffer, in the recipe."""
    noise = {"regularizers": [{"name": "input_noise", "std": 0.1}]}
    space = {**SPACE, RATE: {"loguniform": [1e-4, 0.1]}, NOISE: {"uniform": [0, 0.5]}}
    job = population(space, training=noise, compute={"pack": pack}, trials=4)
    whole = train(job, tmp_path / "whole")
    assert donors(whole)
    for number in numbers:
        with pytest.raises(Killed):
            train(job, tmp_path / str(number), killed_at(number))
        again = train(job, tmp_path / str(number))
        assert weights(again) == weights(whole)
        assert lineages(again) == lineages(whole)


def test_killed_around_a_decision_it_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Before it is written down, between it and its copies, and between one copy and the next."""
    job = population(trials=4, training={"epochs": 3}, compute={"pack": 2})
    kinds = list[str]()
    with pytest.MonkeyPatch.context() as patch:
        _kill_before(patch, kinds, 10**6)
        whole = train(job, tmp_path / "whole")
    assert donors(whole)
    (first, second) = (number for number, kind in enumerate(kinds) if kind == "rung")
    for number in (first, first + 1, first + 3, first + 5, second, second + 2):
        with pytest.MonkeyPatch.context() as patch:
            _kill_before(patch, [], number)
            with pytest.raises(Killed):
                train(job, tmp_path / str(number))
        again = train(job, tmp_path / str(number))
        assert weights(again) == weights(whole), kinds[number - 1 : number + 1]
        assert lineages(again) == lineages(whole)


def _kill_before(patch: pytest.MonkeyPatch, kinds: list[str], number: int) -> None:
    """End the run before it writes its journal's event of this number, counted from 0."""
    append = Journal.append

    def dying(journal: Journal, kind: str, **facts: Any) -> None:
        if len(kinds) == number:
            raise Killed
        kinds.append(kind)
        append(journal, kind, **facts)

    patch.setattr(Journal, "append", dying)


@pytest.mark.parametrize("what", ["sealed", "committed"])
def test_a_damaged_member_is_trained_again_with_all_of_its_population(what: str, tmp_path: Path) -> None:
    """To the same bits: of what is sealed, or of what another goes on from once it was decided."""
    job = population(trials=4, training={"epochs": 3}, compute={"pack": 2})
    whole = weights(run := train(job, tmp_path / "run"))
    if what == "committed":
        run = Run(tmp_path / "cut")
        with pytest.MonkeyPatch.context() as patch:
            kinds = [event["event"] for event in Run(tmp_path / "run").journal.events()]
            _kill_before(patch, [], kinds.index("rung") + 1)
            with pytest.raises(Killed):
                train(job, run.path)
    name = next(
        iter(sorted((run.path / ("members" if what == "sealed" else "packs")).glob("*/*.safetensors")))
    )
    body = bytearray(name.read_bytes())
    body[-5] ^= 1
    name.write_bytes(bytes(body))
    if what == "committed":
        with pytest.raises(QuorumError, match="the same command again trains it from its start"):
            train(job, run.path)
    again = train(job, run.path)
    assert weights(again) == whole
    assert len(again.journal.of_kind("anew")) == 1
    assert lineages(again) == lineages(Run(tmp_path / "run"))
    seen = _seen_up_to(again, b'"anew"', tmp_path / "seen")
    assert [(m.epoch, m.curve, m.turns) for m in seen.ordered()] == [(0, [], {})] * 4


def _seen_up_to(run: Run, words: bytes, copy: Path) -> Reached:
    """Who looks at the run right after the first event with these words; the members have shown epochs before."""
    lines = run.journal.path.read_bytes().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if words in line)
    when = json.loads(lines[at].partition(b" ")[2])["time"]
    copy.mkdir()
    (copy / "journal.jsonl").write_bytes(b"".join(lines[: at + 1]))
    ticks = (run.path / FILE).read_bytes().splitlines(keepends=True)
    (copy / FILE).write_bytes(b"".join(t for t in ticks if json.loads(t)["time"] < when))
    seen = Reached(copy)
    seen.update()
    return seen


def test_what_is_left_of_a_population_goes_on_in_one_pack(tmp_path: Path) -> None:
    """One of three trials diverges before they first meet; the others then turn inside one pack, also after a death."""
    space = {RATE: {"loguniform": [1e-3, 1e30]}, DECAY: STILL[DECAY]}
    pbt = {"name": "pbt", "interval": 1, "resample": 0}
    first = [{RATE: rate, DECAY: 0.01} for rate in (0.01, 1e30, 0.003)]
    sections: dict[str, Any] = {"training": {"optimizer": "sgd"}, "ensemble": {"quorum": 0.5}}
    sections["search"] = {"first": first}
    job = population(space, trials=3, scheduler=pbt, **sections, compute={"pack": 2})
    apart = train(job, tmp_path / "apart")
    assert [event["epoch"] for event in apart.journal.of_kind("rung")] == [1]
    assert [event["epoch"] for event in apart.journal.of_kind("turn")] == [2, 3]
    whole = population(space, trials=3, scheduler=pbt, **sections)
    assert lineages(train(whole, tmp_path / "whole")) == lineages(apart)
    for number in (2, 3, 4):
        with pytest.raises(Killed):
            train(job, tmp_path / str(number), killed_at(number))
        again = train(job, tmp_path / str(number))
        assert weights(again) == weights(apart)
        assert lineages(again) == lineages(apart)


def test_networks_of_ones_own_are_a_population_though_each_trains_alone(tmp_path: Path) -> None:
    own = PythonModel(factory=f"{small.__module__}:small")
    job = population(STILL, trials=4).model_copy(update={"model": own})
    run = train(job, tmp_path / "run")
    assert donors(run)
    assert all(len(event["members"]) == 1 for event in run.journal.of_kind("start"))


def test_a_slot_that_fails_for_good_is_compared_no_more(tmp_path: Path) -> None:
    """The same command again goes on with it, from whose state it was to, and leaves the others as they are."""
    first = [{RATE: rate, DECAY: 0.01} for rate in (0.01, 0.02, 0.03, 1e-4)]
    job = population(
        STILL, trials=4, training={"epochs": 3}, ensemble={"quorum": 0.5}, search={"first": first}
    )
    job = job.model_copy(update={"model": PythonModel(factory=f"{fragile.__module__}:fragile")})

    def fail_the_last(slot: Slot, progress: Progress) -> None:
        if (slot.pack.members[0].index, progress.epoch) == (2, 2):
            BROKEN.append(True)

    listener = Listener(progress=fail_the_last, failure=lambda *_: BROKEN.clear())
    before = train(job, tmp_path / "run", listener).manifest()["members"]
    assert [member["status"] for member in before] == ["done", "done", "done", "failed"]
    run = train(job, tmp_path / "run")
    after = run.manifest()["members"]
    assert [member["files"] for member in after[:3]] == [member["files"] for member in before[:3]]
    assert (after[3]["status"], after[3]["epochs"]) == ("done", 3)
    assert [turn["epoch"] for turn in after[3]["lineage"]] == [1]
    assert not run.journal.of_kind("anew")


def test_trials_that_one_pack_does_not_hold_are_spread() -> None:
    """A machine with memory for some of them alone, and several GPUs."""
    small_one = Resources(2, 0.0, (Node("n", 2, 0.0, 2**28),))
    job = population(trials=400)
    plan = make_plan(job, prepare(job, Path.cwd()), small_one)
    assert len(plan.slots) > 1
    four = Resources(8, 4.0, (Node("n", 8, 4.0, 2**36),))
    plan = make_plan(population(trials=40), prepare(job, Path.cwd()), four)
    assert [len(slot.pack) for slot in plan.slots] == [10] * 4


@pytest.fixture(scope="module")
def session(kept_ray: KeptRay) -> Session:
    return kept_ray(num_cpus=2)


@pytest.mark.ray
def test_ray_turns_and_trains_as_this_process_does(session: Session, tmp_path: Path) -> None:
    """Law 2, bit for bit, where dropout draws inside a step too."""
    job = population(
        {**SPACE, DROP: {"uniform": [0, 0.5]}},
        scheduler={"name": "pbt", "interval": 2},
        trials=5,
        compute={"pack": 2, "cpus_per_slot": 1},
    )
    local = train(job, tmp_path / "local")
    assert donors(local)
    executor = RayExecutor(tmp_path / "ray" / "tune", job.compute.retries)
    run = pipeline.train(job, out=tmp_path / "ray", directory=Path.cwd(), executor=executor)
    assert weights(run) == weights(local)
    assert lineages(run) == lineages(local)
