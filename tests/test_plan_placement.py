"""Laws of the placement: every member once, nothing larger than a machine, and no candidate faster."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc.errors import PlanError
from ensemble_svc.plan.candidates import EPOCH_S, SEAL_S, SLOT_S, TIE, even, makespan
from ensemble_svc.plan.cost import DataShape
from ensemble_svc.plan.executor import Node, Resources, refuse_oversized
from ensemble_svc.plan.forecast import end_of, forecast
from ensemble_svc.plan.groups import groups_of
from ensemble_svc.plan.measurement import Measured, Timing, between
from ensemble_svc.plan.placement import place
from ensemble_svc.plan.plan import MemberSpec, Plan
from ensemble_svc.spec.job import ComputeSpec, NoResample
from ensemble_svc.spec.model import LeNet, Mlp, Model, PythonModel
from ensemble_svc.spec.training import TrainingSpec

SHAPE = DataShape((1, 28, 28), 10, 60_000, 0)
ROWS = 51_200
TWO_CORES = Resources(2, 0.0, (Node("here", 2),))


def members_of(*models: Model, epochs: int = 1) -> list[MemberSpec]:
    return [
        MemberSpec(
            index=index,
            job_seed=0,
            task="classification",
            data_hash="d",
            split_hash="s",
            preprocess=(),
            augment=(),
            standardize_target=False,
            resample=NoResample(),
            model=model,
            training=TrainingSpec(batch_size=256, epochs=epochs),
        )
        for index, model in enumerate(models)
    ]


def timing(members: int, threads: int, step_s: float, at_once: int = 1, **more: object) -> Timing:
    return Timing.model_validate(
        {"members": members, "threads": threads, "at_once": at_once, "step_s": step_s, **more}
    )


def table(
    members: list[MemberSpec],
    *timings: Timing,
    resources: Resources = TWO_CORES,
    compute: ComputeSpec | None = None,
) -> Measured:
    """The same timings for every structure."""
    rows = {member.index: ROWS for member in members}
    groups = groups_of(members, rows, compute or ComputeSpec(), resources, shape=SHAPE)
    return Measured(groups={group.key: timings for group in groups})


def placed(
    members: list[MemberSpec],
    measured: Measured | None = None,
    resources: Resources = TWO_CORES,
    **compute: object,
) -> Plan:
    rows = {member.index: ROWS for member in members}
    spec = ComputeSpec.model_validate(compute)
    return place(members, rows, spec, resources, measured, shape=SHAPE)


def sizes(plan: Plan) -> list[int]:
    return [len(slot.pack) for slot in plan.slots]


seconds = st.floats(1e-4, 1.0)
timings = st.lists(
    st.builds(timing, st.integers(1, 40), st.sampled_from([1, 2, 4]), seconds, st.sampled_from([1, 2, 4])),
    max_size=12,
)
machines = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(
    lambda cpus: Resources(sum(cpus), 0.0, tuple(Node(f"n{i}", n) for i, n in enumerate(cpus)))
)
kinds = st.sampled_from([Mlp(), Mlp(hidden=(7,)), LeNet(), PythonModel(factory="a:b")])
models = st.lists(kinds, min_size=1, max_size=20)


@settings(max_examples=200)
@given(
    models=models,
    known=timings,
    resources=machines,
    pack=st.sampled_from(["auto", "off", 1, 3, 300]),
    at_once=st.sampled_from([None, 1]),
)
def test_every_member_has_one_slot_and_every_slot_a_machine(models, known, resources, pack, at_once):
    members = members_of(*models)
    resources = Resources(resources.cpus, 0.0, resources.nodes, at_once)
    for measured in (None, table(members, *known, resources=resources)):
        plan = placed(members, measured, resources, pack=pack)
        assert sorted(member.index for member in plan.members) == list(range(len(members)))
        refuse_oversized(plan.slots, resources)
        assert all(len(slot.pack) <= pack for slot in plan.slots if isinstance(pack, int))
        assert pack != "off" or set(sizes(plan)) == {1}
        assert all(slot.cpus >= 1 for slot in plan.slots)
        assert all(len({repr(m.model) for m in slot.pack.members}) == 1 for slot in plan.slots)
        assert Plan.from_json(plan.model_dump_json()) == plan


@settings(max_examples=200)
@given(
    number=st.integers(1, 30),
    cores=st.integers(1, 6),
    alone=seconds,
    growths=st.lists(st.floats(0.5, 3.0), min_size=5, max_size=5),
    threads_gain=st.floats(0.5, 4.0),
    crowding=st.floats(1.0, 2.0),
)
def test_no_candidate_is_faster_than_the_one_taken(number, cores, alone, growths, threads_gain, crowding):
    """Against a search that tries every size and thread count with arithmetic of its own."""
    resources = Resources(cores, 0.0, (Node("here", cores),))
    members, known, step_s = members_of(*[Mlp()] * number, epochs=3), [], alone
    for power, growth in enumerate(growths):
        known += [timing(2**power, 1, step_s), timing(2**power, 1, step_s * crowding, cores)]
        known += [timing(2**power, cores, step_s / threads_gain)] if cores > 1 else []
        step_s *= growth
    plan = placed(members, table(members, *known, resources=resources), resources)
    assert plan.forecast is not None
    found = [
        _total(size, threads, number, cores, known) for size in range(1, number + 1) for threads in {1, cores}
    ]
    assert plan.forecast.seconds <= TIE * min(found) * (1 + 1e-9)
    assert plan.forecast.seconds >= min(found) * (1 - 1e-9)


def _total(size: int, threads: int, number: int, cores: int, known: list[Timing]) -> float:
    """Seconds of all rounds of the slots that this size of pack makes on so many threads."""
    packs = math.ceil(number / size)
    lanes = cores // threads
    crowd = min(lanes, packs)

    def step_s(members: int) -> float:
        low, high = (
            getattr(
                between([t for t in known if (t.threads, t.at_once) == (threads, at_once)], members),
                "step_s",
                math.nan,
            )
            for at_once in (1, lanes)
        )
        return low if lanes == 1 or crowd == 1 else low + (high - low) * (crowd - 1) / (lanes - 1)

    each = [SLOT_S + SEAL_S * n + 3 * (EPOCH_S + (ROWS / 256) * step_s(n)) for n in even(number, packs)]
    rounds = [each[i : i + lanes] for i in range(0, packs, lanes)]
    return min(sum(max(some) for some in rounds), makespan(each, lanes))


def test_a_convolutional_pack_loses_to_processes_beside_each_other():
    """Ten LeNet-5, batch 256, on two cores: 229 ms a packed step against 119 ms for the ten in turn."""
    members = members_of(*[LeNet()] * 10, epochs=10)
    known = [timing(1, 1, 0.0119), timing(10, 1, 0.240), timing(10, 2, 0.229), timing(1, 2, 0.0119)]
    plan = placed(members, table(members, *known, timing(1, 1, 0.0125, 2)))
    assert sizes(plan) == [1] * 10
    assert {slot.cpus for slot in plan.slots} == {1}
    assert "10 alone, 2 at once on 1 core each: 127 s" in plan.slots[0].reason
    assert "one pack of 10 on 2 cores: 459 s" in plan.slots[0].reason


def test_packs_of_dense_networks_win_and_two_on_one_core_each_beat_one_on_both():
    members = members_of(*[Mlp()] * 16, epochs=10)
    known = [timing(1, 1, 0.9e-3), timing(16, 1, 3.2e-3), timing(16, 2, 2.8e-3), timing(1, 2, 0.9e-3)]
    one = placed(members, table(members, *known))
    assert sizes(one) == [16]
    beside = [timing(1, 1, 0.9e-3, 2), timing(8, 1, 1.9e-3, 2)]
    assert sizes(placed(members, table(members, *known, *beside))) == [8, 8]


def test_members_spread_evenly_over_packs():
    assert even(17, 2) == (9, 8)
    members = members_of(*[Mlp()] * 17, epochs=50)
    known = [timing(8, 1, 8e-3, 2), timing(9, 1, 9e-3, 2), timing(17, 1, 17e-3, 1), timing(17, 2, 17e-3)]
    assert sizes(placed(members, table(members, *known))) == [9, 8]


@given(number=st.integers(1, 200), packs=st.integers(1, 200))
def test_even_sizes_differ_by_one_at_most(number, packs):
    found = even(number, min(number, packs))
    assert sum(found) == number
    assert max(found) - min(found) <= 1


def test_of_placements_as_fast_the_one_with_fewest_slots_is_taken():
    members = members_of(*[Mlp()] * 8, epochs=1000)
    known = [timing(n, 1, n * 1e-3) for n in (1, 8)] + [timing(n, 2, n * 1e-3) for n in (1, 8)]
    assert len(placed(members, table(members, *known)).slots) == 1


def test_a_pack_that_memory_does_not_hold_is_not_taken():
    here = Resources(2, 0.0, (Node("here", 2, memory_bytes=4 * 10**9),))
    members = members_of(*[LeNet()] * 12, epochs=9)
    known = [timing(n, 2, 1e-3, member_bytes=10**9, fixed_bytes=0) for n in (1, 12)]
    plan = placed(members, table(members, *known, resources=here), here)
    assert max(sizes(plan)) == 3
    assert plan.forecast is not None
    assert plan.forecast.peak_memory_bytes <= 4 * 10**9


def test_what_the_job_sets_is_kept():
    members = members_of(*[Mlp()] * 9)
    known = [timing(n, t, n * 1e-3, a) for n in (1, 9) for t, a in ((1, 1), (1, 2), (2, 1))]
    for measured in (None, table(members, *known)):
        plan = placed(members, measured, cpus_per_slot=2)
        assert {slot.cpus for slot in plan.slots} == {2}
    quarter = ComputeSpec(gpus_per_member=0.25, pack="off")
    gpus = Resources(8, 2.0, (Node("here", 8, 2.0),))
    seen = [timing(1, 4, 1e-3, device="cuda")]
    for measured in (None, table(members, *seen, resources=gpus, compute=quarter)):
        plan = placed(members, measured, gpus, gpus_per_member=0.25, pack="off")
        assert {slot.gpus for slot in plan.slots} == {0.25}


def test_packs_spread_over_the_gpus_of_the_cluster():
    gpus = Resources(16, 4.0, (Node("a", 8, 2.0), Node("b", 8, 2.0)))
    members = members_of(*[LeNet()] * 10, epochs=30)
    plan = placed(members, None, gpus)
    assert sizes(plan) == [3, 3, 2, 2]
    assert {(slot.gpus, slot.cpus) for slot in plan.slots} == {(1.0, 4)}
    known = [timing(n, 4, 1e-3 * n, device="cuda") for n in (1, 2, 4)]
    assert sizes(placed(members, table(members, *known, resources=gpus), gpus)) == [3, 3, 2, 2]


def test_members_that_cannot_pack_share_a_gpu():
    gpus = Resources(8, 1.0, (Node("here", 8, 1.0),))
    alone = placed(members_of(*[LeNet()] * 6), None, gpus, pack="off")
    assert {slot.gpus for slot in alone.slots} == {0.25}
    unknown = placed(members_of(*[PythonModel(factory="a:b")] * 6), None, gpus)
    assert {slot.gpus for slot in unknown.slots} == {1.0}


def test_a_pack_that_loses_to_members_in_turn_on_a_gpu_leaves_them_shares_of_it():
    gpus = Resources(8, 1.0, (Node("here", 8, 1.0, 10**11),))
    members = members_of(*[LeNet()] * 6, epochs=100)
    known = [timing(1, 4, 1e-3, device="cuda"), timing(6, 4, 9e-3, device="cuda")]
    known += [timing(1, 4, 1.2e-3, 2, device="cuda"), timing(3, 4, 6e-3, 2, device="cuda")]
    plan = placed(members, table(members, *known, resources=gpus), gpus)
    assert sizes(plan) == [1] * 6
    assert {slot.gpus for slot in plan.slots} == {0.5}


def test_a_compiled_step_is_taken_when_the_steps_repay_it():
    for epochs, compiled in ((1, False), (100, True)):
        members = members_of(*[Mlp()] * 4, epochs=epochs)
        known = [timing(4, 2, 2e-3), timing(4, 2, 1e-3, compiled=True, compile_s=10.0)]
        assert [slot.compile for slot in placed(members, table(members, *known)).slots] == [compiled]


def test_a_structure_that_was_not_measured_borrows_timings():
    members = members_of(*[Mlp(hidden=(64,))] * 3, *[Mlp(hidden=(2048, 2048))] * 3)
    known = [timing(n, t, n * 1e-3, a) for n in (1, 3) for t, a in ((1, 1), (1, 2), (2, 1))]
    rows = {member.index: ROWS for member in members}
    small = groups_of(members, rows, ComputeSpec(), TWO_CORES, shape=SHAPE)[0]
    plan = placed(members, Measured(groups={small.key: tuple(known)}))
    spent = {slot.pack.members[0].model.hidden: slot.forecast.seconds for slot in plan.slots}
    assert {slot.forecast.by for slot in plan.slots} == {"measured"}
    assert spent[2048, 2048] > 10 * spent[64,]


class TestRules:
    @pytest.mark.parametrize("model", [Mlp(), LeNet()])
    def test_a_pack_to_a_machine(self, model):
        plan = placed(members_of(*[model] * 5))
        assert (sizes(plan), plan.slots[0].cpus) == ([5], 2)
        two = Resources(8, 0.0, (Node("one", 4), Node("two", 4)))
        plan = placed(members_of(*[model] * 5), None, two)
        assert [(len(slot.pack), slot.cpus) for slot in plan.slots] == [(3, 4), (2, 4)]

    def test_memory_of_convolutions_is_that_of_those_in_a_step(self):
        here = Resources(2, 0.0, (Node("here", 2, memory_bytes=10**9),))
        plan = placed(members_of(*[LeNet()] * 60), None, here)
        assert sizes(plan) == [60]
        assert plan.slots[0].forecast.peak_memory_bytes < 10**9
        small = Resources(2, 0.0, (Node("here", 2, memory_bytes=7 * 10**8),), at_once=1)
        assert max(sizes(placed(members_of(*[LeNet()] * 600), None, small))) < 256

    def test_a_slot_has_all_cores_where_slots_run_one_at_a_time(self):
        here = Resources(2, 0.0, (Node("here", 2),), at_once=1)
        assert {slot.cpus for slot in placed(members_of(*[LeNet()] * 5), None, here).slots} == {2}

    def test_a_gpu_that_is_not_there_is_refused(self):
        with pytest.raises(PlanError, match="no GPU here"):
            placed(members_of(Mlp()), device="cuda")

    def test_memory_bounds_the_pack_by_formula(self):
        here = Resources(2, 0.0, (Node("here", 2, memory_bytes=10**9),))
        plan = placed(members_of(*[Mlp(hidden=(2048, 2048))] * 8), None, here)
        assert max(sizes(plan)) < 8
        assert "memory holds" in plan.slots[0].reason


class TestForecasts:
    def test_of_unknown_networks_there_is_none(self):
        plan = placed(members_of(Mlp(), PythonModel(factory="a:b")))
        assert plan.forecast is None
        assert forecast((), TWO_CORES) is None

    @given(spent=st.lists(st.floats(0.1, 9), min_size=1, max_size=12), lanes=st.integers(1, 5))
    def test_equal_slots_end_as_lanes_do(self, spent, lanes):
        slots = placed(members_of(*[LeNet()] * len(spent)), pack="off", cpus_per_slot=1).slots
        resources = Resources(lanes, 0.0, (Node("here", lanes),))
        assert end_of(slots, spent, resources) == pytest.approx(makespan(spent, lanes))
        one = Resources(lanes, 0.0, (Node("here", lanes),), at_once=1)
        assert end_of(slots, spent, one) == pytest.approx(sum(spent))

    def test_it_starts_with_the_start_of_processes(self):
        late = Resources(2, 0.0, (Node("here", 2),), start_s=7.0)
        slow, soon = (placed(members_of(Mlp()), None, r).forecast for r in (late, TWO_CORES))
        assert slow.seconds == pytest.approx(soon.seconds + 7)


class TestBetween:
    known = [timing(2, 1, 2.0, member_bytes=10), timing(6, 1, 4.0, member_bytes=30)]

    @pytest.mark.parametrize("members, step_s", [(2, 2.0), (3, 2.5), (6, 4.0), (12, 8.0)])
    def test_a_pack_lies_between_its_neighbours(self, members, step_s):
        found = between(self.known, members)
        assert (found.members, found.step_s) == (members, pytest.approx(step_s))

    def test_a_member_alone_tells_nothing_of_packs(self):
        assert between(self.known, 1) is None
        assert between([timing(1, 1, 1.0)], 2) is None

    def test_tables_come_back_from_json_and_the_later_one_counts(self):
        one, two = Measured(groups={"a": (self.known[0],)}), Measured(groups={"a": (self.known[1],)})
        joined = one.joined(two).joined(Measured(groups={"b": ()}, device_bytes=7))
        assert Measured.from_json(joined.model_dump_json()) == joined
        assert joined.of("a") == (self.known[1],)
        assert joined.of("c") == ()
