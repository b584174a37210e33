"""The averages of weights: each against a plain loop that stores everything, and against torch's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from law_runs import (
    Killed,
    assert_close,
    assert_same_bits,
    both,
    dying,
    job_of,
    payload_of,
    results,
    train,
)
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, update_bn

from ensemble_svc.optim.schedule import Pace, factor
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.averages import (
    AVERAGES,
    Average,
    BestN,
    Cycles,
    Ema,
    LastN,
    NoAverage,
    Polyak,
    Swa,
    Swag,
)
from ensemble_svc.spec.job import NoResample
from ensemble_svc.spec.model import Mlp
from ensemble_svc.spec.schedules import Cosine, Plateau
from ensemble_svc.spec.training import TrainingSpec
from ensemble_svc.store.members import sealed
from ensemble_svc.train.assemble import Stack, assemble
from ensemble_svc.train.averages import Averages, Best, averages_of
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.recipe import Recipe

AVERAGING = [choice for choice in AVERAGES if choice is not NoAverage]
SPE = 3
"""Steps of an epoch."""
OPTIONS: dict[type, dict[str, tuple[Any, ...]]] = {
    Ema: {"decay": (0.5, 0.9, 0.99)},
    Polyak: {"start": (0.0, 0.4, 0.8)},
    Swa: {"start": (0.0, 0.5, 0.25), "every": (1, 2, 1), "high": (0.5, 1.0, 0.1), "low": (0.5, 0.2, 0.1)},
    Swag: {"start": (0.0, 0.5, 0.25), "every": (1, 1, 1), "scale": (1.0, 0.5, 0.1)},
    LastN: {},
    BestN: {},
}
"""Values that members of one pack may have."""
FEW: dict[type, dict[str, Any]] = {LastN: {"n": 2}, BestN: {"n": 2}, Swag: {"rank": 2, "samples": 3}}
"""What does not vary, small enough for a few epochs to matter."""
starts = st.floats(0, 0.99)
DRAWN = {
    Ema: st.builds(Ema, decay=st.floats(0.01, 0.999)),
    Polyak: st.builds(Polyak, start=starts),
    Swa: st.builds(Swa, start=starts, every=st.integers(1, 4)),
    Swag: st.builds(Swag, start=starts, every=st.integers(1, 4), rank=st.just(3)),
    LastN: st.just(LastN(n=3)),
    BestN: st.just(BestN(n=3)),
}


def name_of(choice: type) -> str:
    return str(choice.model_fields["name"].default)  # type: ignore[attr-defined]


by_name = pytest.mark.parametrize("kind", AVERAGING, ids=name_of)


def recipe_of(averages: Sequence[Average], epochs: Sequence[int]) -> Recipe:
    members = tuple(
        MemberSpec(
            index=k,
            job_seed=0,
            task="classification",
            data_hash="d",
            split_hash="s",
            preprocess=(),
            augment=(),
            standardize_target=False,
            resample=NoResample(),
            model=Mlp(),
            training=TrainingSpec(average=average, epochs=own),
        )
        for k, (average, own) in enumerate(zip(averages, epochs, strict=True))
    )
    return Recipe(members, SPE, torch.device("cpu"), lead=members[0])


def iterate(step: int, num_members: int) -> Stack:
    """Weights after a step; the one of no dimensions and the counter are there too."""
    draw = torch.Generator().manual_seed(step)
    return {
        "matrix": torch.randn(num_members, 3, 2, generator=draw) + 5,
        "scalar": torch.randn(num_members, generator=draw),
        "count": torch.full((num_members,), step),
    }


def metrics_at(epoch: int, num_members: int) -> dict[str, Tensor]:
    """Coarse, so that epochs tie; sometimes not a number."""
    draw = torch.Generator().manual_seed(1000 + epoch)
    nll = torch.randint(0, 4, (num_members,), generator=draw).double()
    return {"nll": nll.masked_fill(nll == 3, torch.nan)}


def run_through(recipe: Recipe, epochs: int) -> tuple[Averages, Stack]:
    """The averages after so many epochs, and what they serve."""
    number = len(recipe.members)
    averages = averages_of(recipe, iterate(0, number))
    assert averages is not None
    weights = iterate(0, number)
    for step in range(1, SPE * epochs + 1):
        weights = iterate(step, number)
        if averages.moving is not None and recipe.moving is not None:
            recipe.moving.update(averages.moving, weights, step)
        if step % SPE == 0:
            averages.take_epoch(step // SPE, weights)
            if isinstance(averages, Best):
                averages.take_ranks(step // SPE, weights, metrics_at(step // SPE, number))
    return averages, averages.served(weights, SPE * epochs)


def steps_averaged(average: Average, k: int, number: int, epochs: int, done: int) -> list[tuple[int, float]]:
    """The steps whose weights are in a member's average after ``done`` of ``epochs``, each with its weight."""
    last, ends = SPE * done, [SPE * e for e in range(1, done + 1)]
    match average:
        case Ema(decay=decay):
            return [(t, decay ** (last - t)) for t in range(1, last + 1)]
        case Polyak(start=start):
            first = min(int(start * SPE * epochs + 1e-9), SPE * epochs - 1)
            return [(t, 1.0) for t in range(first + 1, last + 1)]
        case Cycles(start=start, every=every):
            first = min(int(start * epochs + 1e-9), epochs - 1)
            return [(SPE * e, 1.0) for e in range(first + every, done + 1, every)]
        case LastN(n=n):
            return [(t, 1.0) for t in ends[-n:]]
        case BestN(n=n):
            scores = [(float(metrics_at(t // SPE, number)["nll"][k]), t) for t in ends]
            return [(t, 1.0) for _, t in sorted(s for s in scores if s[0] == s[0])[:n]]
        case NoAverage():
            return []


@by_name
@settings(max_examples=40)
@given(data=st.data(), number=st.integers(1, 4), epochs=st.integers(1, 9))
def test_each_is_the_mean_of_what_it_says(kind, data, number, epochs) -> None:
    """A loop that stores all iterates and averages them in float64, member by member; counters of the newest."""
    averages = data.draw(st.lists(DRAWN[kind], min_size=number, max_size=number))
    each = data.draw(st.lists(st.integers(1, 9), min_size=number, max_size=number))
    recipe = recipe_of(averages, each)
    _, served = run_through(recipe, epochs)
    for k, (average, own) in enumerate(zip(averages, each, strict=True)):
        found = steps_averaged(average, k, number, own, epochs) or [(SPE * epochs, 1.0)]
        shares = torch.tensor([share for _, share in found], dtype=torch.float64)
        for name in ("matrix", "scalar"):
            stored = torch.stack([iterate(t, number)[name][k].double() for t, _ in found])
            mean = torch.tensordot(shares / shares.sum(), stored, dims=1)
            assert served[name].dtype == torch.float32
            tight = {} if kind is Ema else {"rtol": 1.3e-7, "atol": 1e-9}  # a last digit of float32
            torch.testing.assert_close(served[name][k], mean.float(), **tight)
        assert int(served["count"][k]) == max(t for t, _ in found)


@by_name
@settings(max_examples=20)
@given(data=st.data(), value=st.floats(-1e6, 1e6, width=32), epochs=st.integers(1, 9))
def test_a_constant_stays_what_it_is_to_the_bit(kind, data, value, epochs) -> None:
    averages = data.draw(st.lists(DRAWN[kind], min_size=3, max_size=3))
    recipe = recipe_of(averages, [9, 5, 7])
    constant = {"w": torch.full((3, 2), value), "n": torch.full((3,), 7)}
    found = averages_of(recipe, {"w": torch.zeros(3, 2), "n": torch.zeros(3, dtype=torch.int64)})
    assert found is not None
    for step in range(1, SPE * epochs + 1):
        if found.moving is not None and recipe.moving is not None:
            recipe.moving.update(found.moving, constant, step)
        if step % SPE == 0:
            found.take_epoch(step // SPE, constant)
            if isinstance(found, Best):
                found.take_ranks(step // SPE, constant, metrics_at(step // SPE, 3))
    served = found.served(constant, SPE * epochs)
    assert all(torch.equal(served[name], value) for name, value in constant.items())


@pytest.mark.parametrize(
    "average", [Polyak(start=0), Swa(start=0), LastN(n=4), BestN(n=4)], ids=lambda a: a.name
)
def test_one_two_three_four_is_two_and_a_half(average) -> None:
    recipe = recipe_of([average], [4])
    alone = Recipe(recipe.members, 1, recipe.device, lead=recipe.lead)
    found = averages_of(alone, {"w": torch.zeros(1, 2)})
    assert found is not None
    for step in range(1, 5):
        weights = {"w": torch.full((1, 2), float(step))}
        if found.moving is not None and alone.moving is not None:
            alone.moving.update(found.moving, weights, step)
        found.take_epoch(step, weights)
        if isinstance(found, Best):
            found.take_ranks(step, weights, {"nll": torch.tensor([0.5])})
    assert found.served(weights, 4)["w"].tolist() == [[2.5, 2.5]]


def test_a_long_mean_does_not_drift() -> None:
    """Of 400 000 steps around 1; a float32 mean stands still where the changes fall below its last digit."""
    recipe = recipe_of([Polyak(start=0)], [1])
    assert recipe.moving is not None
    held, noise = {"w": torch.zeros(1, 1, dtype=torch.float64)}, torch.linspace(0.99, 1.03, 400_000)
    for step, value in enumerate(noise, 1):
        recipe.moving.update(held, {"w": value.view(1, 1)}, step)
    assert held["w"].item() == pytest.approx(noise.double().mean().item(), rel=1e-12)


@by_name
@settings(max_examples=15)
@given(data=st.data(), keep=st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True))
def test_members_that_are_left_go_on_as_if_the_others_had_never_been(kind, data, keep) -> None:
    drawn = data.draw(st.lists(DRAWN[kind], min_size=4, max_size=4))
    keep = sorted(keep)
    recipe = recipe_of(drawn, [6] * 4)
    averages, served = run_through(recipe, 6)
    averages.select(keep, recipe.select(keep))
    weights = {name: value[keep] for name, value in iterate(SPE * 6, 4).items()}
    for name, value in averages.served(weights, SPE * 6).items():
        assert torch.equal(value, served[name][keep])


@by_name
def test_what_it_holds_is_what_the_plan_counts(kind) -> None:
    """Its own tensors, the kept average, and the one that it serves where that is another."""
    average = kind(**FEW.get(kind, {}))
    weights = {"w": torch.randn(2, 50, 7)}
    ledger = Ledger(recipe_of([average] * 2, [1] * 2), weights)
    for _ in range(SPE):
        ledger.step(weights)
    ledger.end_epoch(1, weights)
    assert ledger.averages is not None
    assert ledger.kept_average is not None
    if isinstance(ledger.averages, Best):
        ledger.averages.take_ranks(1, weights, {"nll": torch.zeros(2)})
    held = ledger.averages.held.values()
    found = sum(value.nbytes for value in held if value.shape[-1] == 7) + ledger.kept_average["w"].nbytes
    served = ledger.served(weights)["w"]
    found += served.nbytes * all(served is not value for value in held)
    if ledger.iterates is not None:
        found += sum(value.nbytes for value in ledger.iterates.held.values() if value.shape[-1] == 7)
    assert found == average.copies * weights["w"].nbytes


def job_for(kind: type, **changes: Any):
    vary = {f"training.average.{key}": values for key, values in OPTIONS[kind].items()}
    return job_of(
        training__average={"name": name_of(kind), **FEW.get(kind, {})},
        training__epochs=4,
        model={"name": "mlp", "hidden": (16,), "norm": "batch"},
        ensemble__vary=vary,
        **changes,
    )


@by_name
def test_packed_with_their_own_options_they_are_as_alone(kind, tmp_path: Path) -> None:
    job = job_for(kind)
    assert len(payload_of(job, tmp_path / "plan")[1].slots) == 1
    together, apart = both(job, tmp_path)
    assert_close(together, apart)
    assert any("averaged" in name for name in together[0])


@by_name
@pytest.mark.parametrize("pack", ["auto", "off"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_killed_and_started_again_they_end_with_the_same_bits(kind, pack, epoch, tmp_path: Path) -> None:
    """With members that stop early, so that packs shrink."""
    stopping = {"metric": "nll", "patience": 1, "min_delta": 0.05}
    job = job_for(kind, compute__pack=pack, training__early_stopping=stopping)
    undisturbed = train(job, tmp_path / "a", commit_every_s=0)
    with pytest.raises(Killed):
        train(job, tmp_path / "b", report=dying(epoch), commit_every_s=0)
    assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))


@by_name
@pytest.mark.parametrize("pack", ["auto", "off"])
def test_statistics_are_those_of_a_pass_over_the_training_rows(kind, pack, tmp_path: Path) -> None:
    job = job_for(kind, compute__pack=pack)
    train(job, tmp_path)
    payload, plan = payload_of(job, tmp_path)
    x = torch.from_numpy(payload.dataset.x[payload.split.train])
    for member in plan.members:
        net = assemble(member, payload.schema)
        averaged = part("averaged", results(tmp_path)[member.index])
        net.load_state_dict(averaged)
        update_bn(x.split(64), net)
        for name, value in net.state_dict().items():
            torch.testing.assert_close(averaged[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [k for k in AVERAGING if k is not BestN], ids=name_of)
def test_what_validates_in_training_is_what_is_sealed(kind, tmp_path: Path) -> None:
    """The last epoch's metrics are those of the sealed average, not of one with statistics of other weights."""
    train(job_for(kind), tmp_path)
    for event in sealed(tmp_path).values():
        last = history(tmp_path, event["member"])[-1]
        for name, value in event["metrics"]["validation"].items():
            assert last[f"val_{name}"] == pytest.approx(value, rel=1e-5)


def test_the_best_epochs_are_those_that_validate_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, stored = job_for(BestN), recorded(monkeypatch)
    train(job, tmp_path)
    events = {event["index"]: event["member"] for event in sealed(tmp_path).values()}
    for k, found in results(tmp_path).items():
        rows = history(tmp_path, events[k])
        best = sorted(range(4), key=lambda e, rows=rows: (rows[e]["val_nll"], e))[:2]
        for name, value in part("averaged", found).items():
            if name.endswith(("weight", "bias")):
                mean = torch.stack([stored[e][name][k].double() for e in best]).mean(0)
                torch.testing.assert_close(value, mean.float(), rtol=1e-6, atol=1e-8)


def test_swa_is_torchs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``AveragedModel`` and ``update_bn`` on the same weights and rows."""
    job, stored = job_for(Swa), recorded(monkeypatch)
    train(job, tmp_path)
    payload, plan = payload_of(job, tmp_path)
    x = torch.from_numpy(payload.dataset.x[payload.split.train])
    for member, taken in zip(plan.members, ([0, 1, 2, 3], [3], [1, 2, 3]), strict=True):
        net = assemble(member, payload.schema)
        theirs = AveragedModel(net)
        for epoch in taken:
            net.load_state_dict({name: value[member.index] for name, value in stored[epoch].items()})
            theirs.update_parameters(net)
        update_bn(x.split(64), theirs)
        ours = part("averaged", results(tmp_path)[member.index])
        for name, value in theirs.module.state_dict().items():
            torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5)
        rates = [row["learning_rate"] for row in history(tmp_path, member.id)]
        own, rule = member.training.average, member.training.optimizer
        assert isinstance(own, Swa)
        assert rates[-1] == pytest.approx(rule.lr * own.low)  # the last step of a cycle


@settings(max_examples=60)
@given(data=st.data(), epochs=st.integers(1, 12), length=st.integers(1, 7))
def test_swas_cycles_follow_the_schedule_and_fall_in_straight_lines(data, epochs, length) -> None:
    high = data.draw(st.floats(0.2, 1))
    swa = Swa(
        start=data.draw(starts),
        every=data.draw(st.integers(1, 4)),
        high=high,
        low=data.draw(st.floats(0.1, high)),
    )
    pace = Pace(Cosine(), epochs * length, length, swa)
    first, cycle = swa.first_epoch(epochs) * length, swa.every * length
    assert first < epochs * length
    for step in range(first):
        assert pace.factor(step) == factor(Cosine(), step, epochs * length, length)
    for step in range(first, epochs * length):
        gone = (step - first) % cycle + 1
        assert pace.factor(step) == pytest.approx(swa.high + (swa.low - swa.high) * gone / cycle)
    assert pace.factor(epochs * length + 5) == pace.factor(epochs * length - 1)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Stack]:
    """The weights at the ends of the epochs to come."""
    stored, end_epoch = list[Stack](), Ledger.end_epoch

    def keep(self: Ledger, epoch: int, weights: Stack) -> None:
        stored.append({name: value.detach().clone() for name, value in weights.items()})
        end_epoch(self, epoch, weights)

    monkeypatch.setattr(Ledger, "end_epoch", keep)
    return stored


def part(file: str, tensors: Stack) -> Stack:
    head = f"{file}.safetensors/"
    return {name.removeprefix(head): value for name, value in tensors.items() if name.startswith(head)}


def history(run: Path, member: str) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = pq.read_table(run / "members" / member / "history.parquet").to_pylist()
    return rows


@given(left=st.floats(1e-6, 1), start=starts, epochs=st.integers(2, 12))
def test_what_plateaus_have_lowered_ends_where_the_cycles_begin(left, start, epochs) -> None:
    swa = Swa(start=start)
    training = TrainingSpec(average=swa, epochs=epochs, schedule=Plateau())
    member = recipe_of([swa], [epochs]).members[0]
    members = (MemberSpec(**dict(member) | {"training": training}),)
    recipe = Recipe(members, SPE, torch.device("cpu"), lead=members[0])
    recipe.lowered[members[0].digest] = left
    for step in range(epochs * SPE):
        cycles = step >= swa.first_epoch(epochs) * SPE
        assert recipe.factor_of_each(step) == [swa.high if cycles else left]
