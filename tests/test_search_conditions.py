"""Laws that stand under choices: what is drawn is what the choices leave, whatever draws it."""

from __future__ import annotations

from collections import Counter
from math import exp, log
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc.errors import SpecError
from ensemble_svc.search.asking import ask
from ensemble_svc.spec.contradictions import resolve_vary
from ensemble_svc.spec.domains import Domain
from ensemble_svc.spec.draws import drawn
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import dump_job, parse_job
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.spec.spaces import Space
from ensemble_svc.spec.yaml import frozen, read

OPTIMIZER, MOMENTUM, RATE = "training.optimizer", "training.optimizer.momentum", "training.optimizer.lr"
NESTED: dict[str, Any] = {
    OPTIMIZER: {
        "choice": [
            {"name": "sgd", "lr": {"loguniform": [0.01, 1.0]}, "momentum": {"quniform": [0, 0.8, 0.4]}},
            {"name": "adamw", "lr": {"loguniform": [1e-4, 1e-2]}},
            {"name": "adam"},
        ]
    },
    "model.hidden": {"choice": [[64], [128, 128]]},
    "model.norm": {"choice": ["none", "batch"]},
    "model.dropout": {"uniform": [0, 0.5], "when": {"model.norm": "none"}},
}
CHILDREN = {"sgd": {RATE, MOMENTUM}, "adamw": {RATE}, "adam": set[str]()}


def job_of(space: dict[str, Any], **search: Any) -> JobSpec:
    return parse_job({"name": "s", "data": {"source": "digits"}, "search": {"space": space, **search}})


def name_in(values: dict[str, Any]) -> str:
    """The optimizer of a configuration."""
    given = values[OPTIMIZER]
    return str(given["name"] if isinstance(given, dict) else given)


def check(values: dict[str, Any]) -> None:
    """A configuration of ``NESTED`` has the keys that its choices leave."""
    keys = set(values) - {OPTIMIZER, "model.hidden", "model.norm"}
    assert keys == CHILDREN[name_in(values)] | (
        {"model.dropout"} if values["model.norm"] == "none" else set()
    )
    if RATE in values:
        low, high = (0.01, 1.0) if name_in(values) == "sgd" else (1e-4, 1e-2)
        assert low <= values[RATE] <= high


@pytest.mark.parametrize("algorithm", ["random", "sobol"])
def test_what_the_choices_leave_is_drawn_and_makes_the_recipe(algorithm: str) -> None:
    job = job_of(NESTED, algorithm=algorithm, trials=64)
    kinds = Counter[str]()
    for trial in range(64):
        values = drawn(job, trial)
        check(values)
        name = name_in(values)
        recipe = resolve_vary(job, trial)
        assert recipe.training.optimizer.name == name
        if RATE in values:
            assert recipe.training.optimizer.lr == values[RATE]
        if MOMENTUM in values:
            assert recipe.training.optimizer.momentum == values[MOMENTUM]
        assert recipe.model.dropout == values.get("model.dropout", job.model.dropout)
        kinds[name] += 1
    assert min(kinds.values()) >= 12
    assert parse_job(read(dump_job(job))[0]) == job


def test_both_forms_of_a_condition_draw_alike() -> None:
    law = {"uniform": [0, 0.9]}
    within = job_of({OPTIMIZER: {"choice": [{"name": "sgd", "momentum": law}, "adamw"]}})
    when = job_of({OPTIMIZER: {"choice": ["sgd", "adamw"]}, MOMENTUM: {**law, "when": {OPTIMIZER: "sgd"}}})
    for trial in range(16):
        one, other = drawn(within, trial), drawn(when, trial)
        assert list(one) == list(other)
        assert one[OPTIMIZER] == other[OPTIMIZER]
        assert (MOMENTUM in one) == (one[OPTIMIZER] == "sgd")
        assert type(resolve_vary(within, trial).training) is type(resolve_vary(when, trial).training)


def laws(depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Laws of finitely many values, some of them choices with laws in their items."""
    plain = st.one_of(
        st.integers(1, 4).map(lambda n: {"randint": [1, n]}),
        st.integers(2, 4).map(lambda n: {"quniform": [1.0, float(n), 1.0]}),
        st.integers(1, 3).map(lambda n: {"choice": list(range(n))}),
    )
    if depth == 2:
        return plain
    items = st.lists(
        st.dictionaries(st.sampled_from("ab"), laws(depth + 1), max_size=2), min_size=1, max_size=3
    )
    nested = items.map(lambda some: {"choice": [{"name": f"n{i}", **one} for i, one in enumerate(some)]})
    return st.one_of(plain, nested)


SPACES = st.dictionaries(st.sampled_from(["p", "q", "r"]), laws(), min_size=1, max_size=3)


def space_of(laws_of: dict[str, Any]) -> Space:
    return Space({key: Domain.model_validate(frozen(law)) for key, law in laws_of.items()})


@settings(max_examples=200)
@given(SPACES, st.data())
def test_a_configuration_comes_back_from_its_values(laws_of: dict[str, Any], data: st.DataObject) -> None:
    space = space_of(laws_of)
    asked: dict[str, Any] = {}

    def value(dim: Any) -> Any:
        asked[dim.name] = dim.domain.at(data.draw(st.floats(0, 1, exclude_max=True)))
        return asked[dim.name]

    values = space.draw(value)
    assert space.placed(values) == asked
    for dim in space.dims:
        assert (dim.name in asked) == dim.is_drawn(asked, space.by_name)


@settings(max_examples=200)
@given(SPACES)
def test_a_grid_has_each_configuration_once_and_all_of_them(laws_of: dict[str, Any]) -> None:
    space = space_of(laws_of)
    count = space.num_cells
    cells = [str(space.cell(number)) for number in range(min(count, 300))]
    assert len(set(cells)) == len(cells)
    assert count == _counted(laws_of)


def test_many_choices_with_laws_of_their_own_are_counted_at_once() -> None:
    items = [{"name": f"n{i}", "a": {"randint": [1, 10]}} for i in range(10)]
    space = space_of({f"k{i}": {"choice": items} for i in range(12)})
    assert space.num_cells == 100**12
    assert space.cell(0) != space.cell(100**12 - 1)


def _counted(laws_of: Any) -> int:
    """Configurations by the form itself: products over keys, sums over items."""
    total = 1
    for law in (value for key, value in laws_of.items() if key != "name"):
        if "choice" in law:
            items = law["choice"]
            total *= sum(
                _counted({k: v for k, v in i.items() if k != "name"}) if isinstance(i, dict) else 1
                for i in items
            )
        else:
            total *= space_of({"x": law}).num_cells
    return total


def test_a_sequence_has_the_same_points_whichever_item_a_choice_falls_on() -> None:
    """Dimensions that are not drawn are passed over; the others stay where they are."""
    fixed, law = {"model.dropout": {"uniform": [0, 0.5]}}, {"uniform": [0, 0.9]}
    within = {**fixed, OPTIMIZER: {"choice": [{"name": "sgd", "momentum": law}, "adamw"]}}
    always = {**fixed, OPTIMIZER: {"choice": ["sgd", "adamw"]}, "training.clip_norm": {"uniform": [1, 2]}}
    one, other = (job_of(space, algorithm="sobol") for space in (within, always))
    for trial in range(16):
        assert drawn(one, trial)["model.dropout"] == drawn(other, trial)["model.dropout"]


def tried_of(
    search: SearchSpec, seed: int, rounds: int, batch: int
) -> list[tuple[dict[str, Any], float | None]]:
    """A search for sgd with a momentum near 0.4 and a rate near 0.1."""
    tried: list[tuple[dict[str, Any], float | None]] = []
    for _ in range(rounds):
        for values in ask(search, seed, tried, batch):
            far = abs(values.get(MOMENTUM, 2.0) - 0.4) + abs(log(values.get(RATE, 1e-4) / 0.1))
            tried.append((values, far if values[OPTIMIZER] == "sgd" else 10.0 + far))
    return tried


def test_what_learns_learns_under_a_choice() -> None:
    search = job_of(NESTED, algorithm={"name": "optuna", "startup": 12, "batch": 4}).search
    assert search is not None
    tried = tried_of(search, 3, 12, 4)
    for values, _ in tried:
        check(values)
        assert search.flat.placed(values).keys()
    assert tried == tried_of(search, 3, 12, 4)
    early, late = tried[:12], tried[-16:]
    share = [sum(v[OPTIMIZER] == "sgd" for v, _ in some) / len(some) for some in (early, late)]
    assert share[1] > max(0.6, share[0])
    assert min(loss for _, loss in late) < min(loss for _, loss in early) + 1e-9


@given(st.floats(1e-3, 10), st.floats(1.5, 100), st.integers(1, 40))
def test_steps_in_the_logarithm_are_the_nearest_to_even_numbers(low: float, ratio: float, n: int) -> None:
    domain = Domain(qloguniform=(low, low * ratio, (low * ratio - low) / n))
    for u in (0.0, 0.2, 0.5, 0.8, 1 - 1e-9):
        value = domain.at(u)
        assert domain.holds(value)
        assert abs(value - exp((1 - u) * log(low) + u * log(low * ratio))) <= 0.5001 * domain.steps[2]


def test_the_given_configurations_give_what_their_choices_leave() -> None:
    first = [{OPTIMIZER: "adamw", RATE: 1e-3, "model.hidden": [64], "model.norm": "batch"}]
    job = job_of(NESTED, first=first)
    assert drawn(job, 0) == frozen(
        {OPTIMIZER: "adamw", RATE: 1e-3, "model.hidden": [64], "model.norm": "batch"}
    )
    assert resolve_vary(job, 0).training.optimizer.lr == 1e-3


SGD = "training.optimizer: {choice: [{name: sgd, momentum: {uniform: [0, 0.9]}}, adamw]}"
PLAIN = "training.optimizer: {choice: [sgd, adamw]}"
NORM = "model.norm: {choice: [none, batch]}"
DROP = "model.dropout: {uniform: [0, 0.5]"


def sgd(options: str) -> str:
    return f"training.optimizer: {{choice: [{{name: sgd, {options}}}, adamw]}}"


FAULTS = [
    ("training.optimizer.choice.0", sgd("momentm: {uniform: [0, 1]}"), "Did you mean"),
    ("training.optimizer.choice.0.momentum.uniform", sgd("momentum: {uniform: [1, 0]}"), "the smaller number first"),
    ("training.optimizer.choice.0.momentum.unifrom", sgd("momentum: {unifrom: [0, 1]}"), "Did you mean 'uniform'?"),
    ("training.optimizer.choice.0.momentum.uniform.1", sgd("momentum: {uniform: [0, 2]}"), "must be"),
    ("training.optimizer.choice.0.momentum.uniform", SGD + "}, algorithm: {name: grid", "a grid has them all"),
    ("training.optimizer.choice.1", PLAIN.replace("adamw", "{name: sgd, lr: {uniform: [1, 2]}}"),
     "one item of"),
    ("training.optimizer.momentum", PLAIN + ", training.optimizer.momentum: {uniform: [0, 1]}",
     "add when: {training.optimizer: sgd}"),
    ("training.optimizer.lr", SGD + ", training.optimizer.lr: {uniform: [0.1, 0.9]}", "lies within"),
    ("training.optimizer.momentum", ("training.optimizer: {choice: [sgd, adamw]}, training.optimizer.momentum: "
      "{uniform: [0, 0.9], when: {training.optimizer: adamw}}"), "add when: {training.optimizer: sgd}"),
    ("model.dropout.when.model.nrm", f"{NORM}, {DROP}, when: {{model.nrm: none}}}}", "Did you mean 'model.norm'?"),
    ("model.dropout.when.model.norm", f"{NORM}, {DROP}, when: {{model.norm: layer}}}}", "is none of the items"),
    ("model.dropout.when.training.clip_norm",
     f"training.clip_norm: {{uniform: [1, 2]}}, {DROP}, when: {{training.clip_norm: 1.0}}}}", "has no choice"),
    ("model.dropout.when.model.dropout", DROP + ", when: {model.dropout: 0.1}}", "the key itself"),
    ("model.dropout.when", DROP + ", when: {}}", "holds no condition"),
    ("model.norm.when", ("model.norm: {choice: [none, batch], when: {model.activation: relu}}, "
      "model.activation: {choice: [relu, tanh], when: {model.norm: none}}"), "cannot stand under"),
    ("model.dropout.qloguniform.0", "model.dropout: {qloguniform: [0, 0.5, 0.1]}", "has no logarithm"),
]  # fmt: skip


@pytest.mark.parametrize("path, text, words", FAULTS, ids=[f"{path}-{words}" for path, _, words in FAULTS])
def test_a_condition_that_cannot_be_is_told_at_its_key(path: str, text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(read(f"name: s\ndata: {{source: digits}}\nsearch: {{space: {{{text}}}}}\n")[0])
    told = {fault.path: fault.message for fault in caught.value.faults}
    assert words in told[f"search.space.{path}"]
    assert len(told) <= 2


BETWEEN = "training.optimizer.momentum"
FIRST = [
    (f"{{training.optimizer: adamw, {BETWEEN}: 0.5}}", f"0.{BETWEEN}", "is not drawn under"),
    ("{training.optimizer: sgd}", "0", "is missing"),
    (f"{{training.optimizer: sgd, {BETWEEN}: 2}}", f"0.{BETWEEN}", "is not in the space"),
    ("{training.optimizer: adam}", "0.training.optimizer", "is not in the space"),
]


@pytest.mark.parametrize("first, path, words", FIRST)
def test_a_configuration_that_is_not_in_the_space_is_told(first: str, path: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_job(
            read(f"name: s\ndata: {{source: digits}}\nsearch: {{space: {{{SGD}}}, first: [{first}]}}\n")[0]
        )
    (fault,) = caught.value.faults
    assert (fault.path, words in fault.message) == (f"search.first.{path}", True)
