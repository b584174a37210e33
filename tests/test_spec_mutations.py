"""One thing wrong in a job that names every key: one refusal, at that key and its line, and nothing worse."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any, Literal, get_origin

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spec_jobs import jobs

from ensemble_svc.errors import SpecError
from ensemble_svc.registry import Spec
from ensemble_svc.spec.anatomy import Shape, shape_at, value_at
from ensemble_svc.spec.compose import KeyPath, dotted
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.yaml import read

FULL = [
    """\
name: full
seed: 3
task: classification
data: {source: {name: npz, path: a.npz, x: x, y: y, layout: NHWC},
  split: {name: indices, path: i.npz, index: 1},
  validation: 0.1, test: 0.1, stratify: true, preprocess: [{name: impute, strategy: mean, indicator: true}],
  augment: [{name: flip, p: 0.5}, {name: crop, padding: 4, mode: constant}], standardize_target: false,
  stream: auto, device_gib: 2.0}
model: {name: resnet, depth: 20, width: 16, norm: group, norm_place: after, activation: gelu,
  init: xavier, dropout: 0.1, activation_noise: 0.05, channel_dropout: 0.1}
training: {epochs: 3, batch_size: 8, loss: {name: cross_entropy, label_smoothing: 0.1},
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 0.01},
  schedule: {name: cosine, floor: 0.0, warmup: 3}, regularizers: [{name: l2, strength: 0.1}],
  early_stopping: {metric: accuracy, patience: 3, min_delta: 0.0}, average: {name: ema, decay: 0.9},
  clip_norm: 1.0, precision: 32-true, layer_rates: fan_in, on_sick: restart, task_weights: by_hand}
ensemble: {members: 6, resample: {name: kfold, folds: 4}, snapshots: 0, mc_samples: 0, share_init: false,
  quorum: 0.5}
search: {space: {training.clip_norm: {uniform: [0.5, 2.0]}}, algorithm: random, trials: 6, seeds_per_trial: 1,
  metric: accuracy, objective: loss, candidates: all,
  coarse_to_fine: {stages: 2, keep: 0.5, margin: 0.1, growth: 1}, refit: null, scheduler: none,
  budget: {hours: 2.0, device_hours: 4.0, trials: 6},
  first: [{training.clip_norm: 1.0}]}
aggregate: {combine: mean, select: all, soup: none, calibrate: none, conformal: 0.1}
evaluate: {metrics: [accuracy, ece], bins: 10, resamples: 200, confidence: 0.9, single: none, ood: []}
compute: {pack: 4, device: auto, gpus_per_member: 0.25, processes_per_member: 1, cpus_per_slot: 1, executor: local,
  storage: runs, compile: auto, commit_every_s: 1.0, retries: 1, measure: on,
  health: auto, tensorboard: auto, track: none}
""",
    """\
name: table
task: regression
data: {source: {name: csv, path: a.csv, target: [t], drop: [u], categorical: [v], id: w, separator: ;},
  split: {name: column, column: s}, preprocess: [standardize]}
model: {name: mlp, hidden: [4, 5], tied: true, activation: relu, norm: layer, init: he, dropout: 0.0}
training: {loss: mse, optimizer: {name: adamw, lr: 0.001, betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.0}}
ensemble: {resample: {name: subsample, fraction: 0.5}}
""",
    """\
name: several
task: multitask
tasks: {t: {kind: regression, weight: 2.0, loss: mse}, u: {kind: classification, weight: 0.5, loss: cross_entropy}}
data: {source: {name: parquet, path: a.parquet, target: [t, u]}}
model: {name: mlp, hidden: [4], activation: relu, norm: layer, init: he, dropout: 0.0}
training: {task_weights: uncertainty, early_stopping: {metric: nll, patience: 2, min_delta: 0.0}}
ensemble: {members: 2, resample: {name: kfold, folds: 3}}
""",
]
WRONG: tuple[Any, ...] = (
    None, True, "zzz", "1e-3", "no", "", -1, 0, 7, 1.5, 1e9, float("inf"), float("nan"), 10**30, (), {},
    ("zzz",), {"a": 1}, {"name": "zzz"}, {"name": 3}, "a\x00\x1b[2J", "x" * 3000,
)  # fmt: skip
CONTRADICTED = {
    "data.validation": ("training.early_stopping",),
    "training.batch_size": ("model.norm",),
    "training.optimizer.momentum": ("training.optimizer.nesterov",),
    "search.trials": ("ensemble.members",),
    "search.space.training.clip_norm.uniform": ("search.space.training.clip_norm",),
    "search.space.training.clip_norm.uniform.0": ("search.first.0.training.clip_norm",),
    "search.seeds_per_trial": ("ensemble.members",),
    "compute.gpus_per_member": ("compute.processes_per_member",),
}


def test_the_first_job_names_every_key_of_every_section() -> None:
    """So that a new key is mutated too, as soon as it is declared."""
    data, lines = read(FULL[0])
    assert parse_job(data, lines)
    for key in JobSpec.model_fields:
        shape = shape_at(data, (key,))
        section = shape.section(data.get(key)) if shape else None
        if section:
            assert set(data[key]) >= set(section.model_fields) - {"vary"}
    assert parse_job(*read(FULL[1]))


@pytest.mark.parametrize("text", FULL, ids=["image", "table", "several"])
@pytest.mark.parametrize("typo", [lambda key: f"{key}x", lambda key: f"{key[1:]}{key[0]}q", str.upper])
def test_a_misspelt_key_is_named_with_its_line(text: str, typo: Callable[[str], str]) -> None:
    data, _ = read(text)
    for path in [path for path in paths(data) if isinstance(path[-1], str)]:
        key, bad = path[-1], (*path[:-1], typo(path[-1]))
        wrong = renamed(data, path, typo(key))
        with pytest.raises(SpecError) as caught:
            parse_job(wrong, lines := numbered(wrong))
        (fault,) = [fault for fault in caught.value.faults if fault.path == dotted(bad)]
        assert fault.line == lines[bad]
        assert f"Did you mean '{key}'" in fault.message or len(key) <= 3
        assert dotted(path) not in [f.path for f in caught.value.faults], "its absence is no second fault"


@pytest.mark.parametrize("text", FULL, ids=["image", "table", "several"])
def test_a_wrong_value_is_named_with_its_key_and_line(text: str) -> None:
    data, _ = read(text)
    num_refused = 0
    for path, value in product(paths(data), WRONG):
        wrong = changed(data, path, value)
        lines = numbered(wrong)
        try:
            parse_job(wrong, lines)
        except SpecError as error:
            num_refused += 1
            told = str(error)
            assert told.replace("\n", "").isprintable(), f"{dotted(path)}: control characters are printed"
            assert len(told) < 3000
            about = [fault for fault in error.faults if _about(fault.path, path)]
            assert about, f"{dotted(path)}, {value!r}: {told}"
            assert {fault.line for fault in about} <= {n for p, n in lines.items() if _related(p, path)}
        else:
            assert fits(value, shape_at(data, path)), f"{dotted(path)}: {value!r} was accepted"
    assert num_refused > 500


@settings(max_examples=40)
@given(jobs(), st.data())
def test_unknown_keys_anywhere_are_found(data: dict[str, Any], draw: st.DataObject) -> None:
    where = [p for p in [(), *paths(data)] if isinstance(value_at(data, p), dict)]
    path = draw.draw(st.sampled_from(where))
    shape = shape_at(data, path)
    assume(shape is not None and shape.section(value_at(data, path)) is not None)
    wrong = changed(data, path, {**value_at(data, path), "zzz_unknown": 1})
    with pytest.raises(SpecError) as caught:
        parse_job(wrong)
    assert dotted((*path, "zzz_unknown")) in [fault.path for fault in caught.value.faults]


def paths(data: Any, start: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key path of nested data."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, tuple) else ()
    for key, value in items:
        yield (*start, key)
        yield from paths(value, (*start, key))


def changed(data: Any, path: KeyPath, value: Any) -> Any:
    """``data`` with another value at ``path``."""
    if not path:
        return value
    if isinstance(data, tuple):
        return tuple(changed(v, path[1:], value) if i == path[0] else v for i, v in enumerate(data))
    return {k: changed(v, path[1:], value) if k == path[0] else v for k, v in data.items()}


def renamed(data: Any, path: KeyPath, key: str) -> Any:
    """``data`` with the last key of ``path`` written otherwise, in its old place."""
    parent = value_at(data, path[:-1])
    return changed(data, path[:-1], {key if k == path[-1] else k: v for k, v in parent.items()})


def numbered(data: Any) -> dict[KeyPath, int | str]:
    """A line of its own for every key path."""
    return {(): 1} | {path: number for number, path in enumerate(paths(data), start=2)}


def fits(value: Any, shape: Shape | None) -> bool:
    """Whether a value is of a sort that may stand at a place at all: the oracle for what must be refused."""
    assert shape is not None
    if value is None:
        return shape.takes_null or shape.type is Any
    if shape.choices:
        return isinstance(value, str | dict)
    sorts = {get_origin(a.type) or a.type for a in shape.alternatives}
    for sort in (Any, Literal):
        if sort in sorts:
            return True
    wanted = {bool: {bool}, int: {int, float}, float: {float}, str: {str}, tuple: {tuple}, dict: {Mapping}}[
        type(value)
    ]
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return is_finite and (
        bool(wanted & sorts) or (isinstance(value, dict) and any(issubclass(s, Spec) for s in sorts))
    )


def _related(path: KeyPath, other: KeyPath) -> bool:
    return path[: len(other)] == other[: len(path)] or dotted(path) in CONTRADICTED.get(dotted(other), ())


def _about(told: str, path: KeyPath) -> bool:
    """Whether a fault names the key that was changed, its list, one beneath it, or one it contradicts."""
    key = dotted(path)
    within = isinstance(path[-1], int) and told == dotted(path[:-1])
    contradicted = told in CONTRADICTED.get(key, ())
    return told == key or told.startswith(f"{key}.") or within or contradicted
