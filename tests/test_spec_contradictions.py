"""Rules between keys, and what the members of an ensemble may vary."""

from __future__ import annotations

from math import lcm
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_jobs import jobs

from ensemble_svc.errors import SpecError
from ensemble_svc.evaluate.metrics import METRICS
from ensemble_svc.spec.contradictions import contradictions, resolve_vary
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.measured import METRICS_OF
from ensemble_svc.spec.yaml import read

REGRESSION = "{data: {source: diabetes}, task: regression, "
CSV = "{name: csv, path: a, target: t}"
SPARSE = "training: {regularizers: [sparsity]}"
RENORM = "{model: {name: mlp, norm: batch_renorm}, "
PRESSURE = "{data: {source: diabetes}, task: multitask, tasks: {bp: {kind: regression}}, "
TWO = "{t: {kind: regression}, u: {kind: classification}}"
BOTH = "data: {source: {name: csv, path: a, target: [t, u]}}, task: multitask"
FLAT = "{data: {source: digits, preprocess: [decorrelate]}, training: {regularizers: [cutmix]}}"
OOB = (
    "{data: {source: digits, validation: oob}, ensemble: {resample: bootstrap}, "
    "training: {schedule: {name: plateau, metric: accuracy}}}"
)
RULES = [
    ("data.validation", "data: {source: digits, validation: 0.5, test: 0.5}", "leave no rows to train on"),
    ("data.validation", "data: {source: digits, validation: dev, test: dev}", "no row may both select and report"),
    ("data.test", "data: {source: digits, test: train}", "'train' is what members are trained on"),
    ("task", "data: {source: diabetes}", "write 'task: regression'"),
    ("task", "{data: {source: breast_cancer}, task: regression}", "write 'task: classification'"),
    ("data.source.target", "data: {source: {name: csv, path: a, target: [t, u]}}", "a classification has one target"),
    ("data.source.target", "data: {source: {name: csv, path: a, target: []}}", "a job needs a target"),
    ("data.preprocess.1", f"data: {{source: {CSV}, preprocess: [impute, impute]}}", "already step 0"),
    ("data.preprocess.1", f"data: {{source: {CSV}, preprocess: [impute, {{name: impute, strategy: mean}}]}}", "step 0"),
    ("data.preprocess.0", f"data: {{source: {CSV}, preprocess: [per_channel_center]}}", "use standardize"),
    ("data.augment.0", f"data: {{source: {CSV}, augment: [flip]}}", "'flip' is for images"),
    ("model", f"{{data: {{source: {CSV}}}, model: lenet}}", "'lenet' is for images"),
    ("training.early_stopping", "{data: {source: digits, validation: 0}, training: {early_stopping: {}}}", "needs"),
    ("training.early_stopping.metric", "training: {early_stopping: {metric: rmse}}", "allowed: nll, accuracy"),
    ("training.early_stopping.metric", REGRESSION + "training: {early_stopping: {metric: accuracy}}}", "nll, rmse"),
    ("training.average", "{data: {source: digits, validation: 0}, training: {average: best_n}}", "needs validation"),
    ("training.average.metric", "training: {average: {name: best_n, metric: rmse}}", "allowed: nll, accuracy"),
    ("training.average.every", "training: {epochs: 8, average: {name: swa, every: 3}}", "3 epochs do not fit"),
    ("training.loss", "training: {loss: mse}", "allowed: auto, cross_entropy"),
    ("training.loss", "training: {loss: gaussian_nll}", "allowed: auto, cross_entropy"),
    ("training.loss", REGRESSION + "training: {loss: cross_entropy}}", "gaussian_nll, mse"),
    ("evaluate.metrics.1", "evaluate: {metrics: [nll, rmse]}", "not a measure of classification"),
    ("evaluate.metrics.0", REGRESSION + "evaluate: {metrics: [ece]}}", "not a measure of regression"),
    ("training.regularizers.0", REGRESSION + "training: {regularizers: [cutmix]}}", "use mixup"),
    ("training.regularizers.0", f"{{data: {{source: {CSV}}}, training: {{regularizers: [cutmix]}}}}", "for images"),
    ("training.regularizers.2", "training: {regularizers: [mixup, cutmix, mixup]}", "already item 0"),
    ("task", "task: multitask", "'multitask' needs tasks"),
    ("tasks", f"tasks: {TWO}", "write 'task: multitask'"),
    ("tasks.v", f"{{{BOTH}, tasks: {{t: {{kind: regression}}, u: {{kind: regression}}, v: {{kind: regression}}}}}}",
     "a task without target"),
    ("data.source.target", f"{{{BOTH}, tasks: {{t: {{kind: regression}}}}}}", "'u' is a target without task"),
    ("data.source", f"{{task: multitask, tasks: {TWO}}}", "'digits' has one target"),
    ("tasks", f"{{{BOTH}, tasks: {{t: {{kind: regression, weight: 0}}, u: {{kind: regression, weight: 0}}}}}}",
     "have the weight 0, all of them"),
    ("tasks.t.loss", f"{{{BOTH}, tasks: {{t: {{kind: regression, loss: cross_entropy}}, u: {{kind: regression}}}}}}",
     "not a loss for regression; allowed: auto, gaussian_nll, mse"),
    ("tasks.a/b", "{data: {source: {name: npz, path: a}}, task: multitask, tasks: {a/b: {kind: regression}}}",
     "names no task"),
    ("training.loss", f"{{{BOTH}, tasks: {TWO}, training: {{loss: mse}}}}", "of several give each its own"),
    ("training.task_weights", "training: {task_weights: uncertainty}", "there is one"),
    ("training.early_stopping.metric", f"{{{BOTH}, tasks: {TWO}, training: {{early_stopping: {{metric: rmse}}}}}}",
     "allowed: nll"),
    ("evaluate.metrics.0", PRESSURE + "evaluate: {metrics: [ece]}}", "allowed: nll, rmse"),
    ("training.regularizers.0", PRESSURE + "training: {regularizers: [cutmix]}}", "'bp' is a number; use mixup"),
    ("training.optimizer.nesterov", "training: {optimizer: {name: sgd, nesterov: true}}", "needs momentum"),
    ("training.schedule.floor", "training: {schedule: {name: cosine, floor: 0.1, decay: 100}}", "give one of them"),
    ("training.schedule.floor", "training: {schedule: {name: linear, floor: 0.1, decay: 1}}", "both say where"),
    ("training.schedule.gamma", "training: {schedule: {name: step, gamma: 0.1, decay: 9}}", "follows from decay 9"),
    ("training.schedule.decay", "training: {epochs: 10, schedule: {name: step, decay: 9}}", "in 10 epochs there"),
    ("training.schedule.metric", "training: {schedule: {name: plateau, metric: rmse}}", "nll, accuracy, train"),
    ("training.schedule.metric", REGRESSION + "training: {schedule: {name: plateau, metric: accuracy}}}", "nll, rmse"),
    (
        "training.schedule.metric",
        "{data: {source: digits, validation: 0}, training: {schedule: {name: plateau, metric: accuracy}}}",
        "use train_loss",
    ),
    ("model.norm", "{model: {name: mlp, norm: batch}, training: {batch_size: 1}}", "at least two rows per step"),
    ("model.norm", "{model: resnet, training: {batch_size: 1}}", "at least two rows per step"),
    ("model.norm", "{model: {name: mlp, norm: batch_renorm}, training: {batch_size: 1}}", "at least two rows per step"),
    ("model.norm", "model: {name: mlp, norm: instance}", "the units of mlp have one"),
    ("model.activation", "model: {name: resnet, activation: maxout}", "a residual sum is one"),
    ("model.init", "model: {name: mlp, init: zeros, activation: maxout}", "alike they stay"),
    ("model.init", "model: {name: mlp, init: zeros, activation: prelu}", "nothing but 0"),
    ("model.init", "model: {name: lenet, init: dirac, norm: weight}", "weights of length 0"),
    ("model.init", "model: {name: mlp, init: fixup}", "mlp has none"),
    ("model.init", "model: {name: resnet, init: fixup}", "in place of a norm"),
    ("training.regularizers.0", "{model: {name: python, factory: 'a:b'}, " + SPARSE + "}", "add yours to your loss"),
    ("training.regularizers.0", "{compute: {compile: on}, " + SPARSE + "}", "give compile: off"),
    ("training.regularizers.0", "{compute: {processes_per_member: 2}, " + SPARSE + "}", "of the whole batch"),
    ("training.regularizers.0.kind", "training: {regularizers: [{name: sparsity, kind: kl}]}", "or kind: l1"),
    ("model.norm", "model: {name: mlp, tied: true, norm: batch}", "of several tied layers"),
    ("model.init", "model: {name: mlp, tied: true, init: lsuv}", "tied layers have one weight"),
    ("training.regularizers.0", "{model: {name: mlp, norm: weight}, training: {regularizers: [max_norm]}}", "drop one"),
    ("compute.processes_per_member", RENORM + "compute: {processes_per_member: 2}}", "use norm: batch"),
    ("training.regularizers.0", FLAT, "'decorrelate' flattens them"),
    ("training.schedule.metric", OOB, "data.validation is oob; use train_loss"),
    ("compute.gpus_per_member", "compute: {gpus_per_member: 0.5, device: cpu}", "give 0 or auto"),
    ("compute.gpus_per_member", "compute: {gpus_per_member: 1.5}", "above 1 give a whole number"),
    ("compute.gpus_per_member", "compute: {gpus_per_member: 2, pack: 4}", "over 2 processes trains alone"),
    ("compute.gpus_per_member", "{compute: {gpus_per_member: 8}, training: {batch_size: 4}}", "batches of 4 rows"),
    ("compute.processes_per_member", "compute: {gpus_per_member: 2, processes_per_member: 1}", "one GPU of its own"),
    ("compute.processes_per_member", "compute: {gpus_per_member: 0.5, processes_per_member: 2}", "2 on 0.5 GPUs"),
    ("compute.processes_per_member", "compute: {processes_per_member: 2, pack: 3}", "compute.pack is 3"),
    ("compute.processes_per_member", "{compute: {processes_per_member: 5}, training: {batch_size: 4}}", "at least one"),
    ("model.options.a.1", "model: {name: python, factory: 'a:b', options: {a: [1, .inf]}}", "must be a finite number"),
]  # fmt: skip
FINE = [
    "data: {source: digits, augment: [flip, crop], preprocess: [per_channel_center, standardize]}",
    "{data: {source: {name: csv, path: a, target: t}, split: {name: column, column: s}, validation: 0.5, test: 0.9}}",
    "{data: {source: {name: npz, path: a}, split: {name: indices, path: i}, validation: 0.5, test: 0.9}}",
    "{data: {source: digits, validation: 0, test: 0}}",
    "{data: {source: {name: csv, path: a, target: [t, u]}}, task: regression}",
    "{data: {source: digits, validation: dev, test: test}, training: {early_stopping: {}}}",
    "training: {optimizer: {name: sgd, nesterov: true, momentum: 0.9}}",
    "training: {epochs: 11, schedule: {name: step, decay: 9}}",
    "training: {schedule: {name: cosine, decay: 100, floor: 0}}",
    "{data: {source: digits, validation: 0}, training: {schedule: plateau}}",
    "training: {regularizers: [mixup, cutmix]}",
    "{data: {source: digits, preprocess: [{name: whiten, method: zca}]}, training: {regularizers: [cutmix]}}",
    f"{{{BOTH}, tasks: {TWO}, training: {{task_weights: uncertainty}}, evaluate: {{metrics: [ece, rmse]}}}}",
    "{data: {source: diabetes}, task: multitask, tasks: {s1: {kind: regression, weight: 0}, bp: {kind: regression}}}",
    "{model: {name: mlp, norm: layer}, training: {batch_size: 1}}",
    "compute: {gpus_per_member: 0, device: cpu}",
    "compute: {gpus_per_member: 0.5, processes_per_member: 1, pack: 3}",
    "compute: {gpus_per_member: 2, processes_per_member: 2, pack: 1}",
    "{compute: {gpus_per_member: 0, processes_per_member: 4, pack: off}, training: {batch_size: 4}}",
    "ensemble: {vary: {model.hidden: [[], [8, 8]], training.optimizer: [sgd, {name: adamw, lr: 0.1}]}}",
    "ensemble: {members: 1, vary: {training.early_stopping.patience: [2, 3], model.norm: [none, batch]}}",
    "{training: {regularizers: [l1]}, ensemble: {vary: {training.regularizers.0.strength: [0, 1]}}}",
    "{model: {name: python, factory: 'a:b'}, ensemble: {vary: {model.options.depth: [1, 2]}}}",
]
VARIED = [
    ("model.dropout: []", "model.dropout", "holds no value"),
    ("lr: [1]", "lr", "Did you mean 'training.optimizer.lr'?"),
    ("optimizer.lr: [1]", "optimizer.lr", "Did you mean 'training.optimizer.lr'?"),
    ("training.optimzer.lr: [1]", "training.optimzer.lr", "Did you mean 'training.optimizer.lr'?"),
    ("training.optimizer.momentum: [0.9]", "training.optimizer.momentum", "no such key"),
    ("data.test: [0.3]", "data.test", "model, training or data.augment"),
    ("seed: [1, 2]", "seed", "no such key"),
    ("'': [1]", "''", "no such key"),
    ("model..dropout: [1]", "model..dropout", "no such key"),
    ("model.hidden.7: [1]", "model.hidden.7", "no such key"),
    ("training.optimizer.lr: [0.1, x, -1]", "training.optimizer.lr.1", "'x' is not allowed; must be a number above 0"),
    ("training.optimizer.lr: [.inf]", "training.optimizer.lr.0", "must be a finite number"),
    ("model.hidden: [[8], 8]", "model.hidden.1", "Write a list: [8]."),
    ("model.hidden: [[8, 0]]", "model.hidden.0", "model.hidden.1: 0 is not allowed"),
    ("training.optimizer: [adamww]", "training.optimizer.0", "Did you mean 'adamw'?"),
    ("training.optimizer: [{name: sgd, lrr: 1}]", "training.optimizer.0", "training.optimizer.lrr: unknown key."),
    ("{training.optimizer.lr: [1], training.optimizer: [sgd]}", "training.optimizer", "lies within 'training.op"),
    ("{training.optimizer.lr: [1], training.optimizer.name: [sgd]}", "training.optimizer.name", "lies within"),
    ("training.loss: [auto, mse]", "training.loss", "member 1 would have training.loss: 'mse' is not a loss"),
]  # fmt: skip


def job_of(text: str) -> JobSpec:
    data, _ = read(text)
    return JobSpec.model_validate({"name": "x", "data": {"source": "digits"}, **data})


@pytest.mark.parametrize("path, text, words", RULES, ids=[rule[1] for rule in RULES])
def test_a_contradiction_is_told_at_its_key(path: str, text: str, words: str) -> None:
    (fault,) = contradictions(job_of(text))
    assert fault.path == path
    assert words in fault.message
    with pytest.raises(SpecError, match=path):
        parse_job(job_of(text).model_dump())


@pytest.mark.parametrize("text", FINE)
def test_what_makes_sense_is_let_through(text: str) -> None:
    assert contradictions(job_of(text)) == []


def test_the_strength_of_an_augmentation_may_vary() -> None:
    data = "data: {source: digits, augment: [flip, {name: crop, padding: 2}]}"
    vary = "{data.augment.0.p: [0.1, 0.9], data.augment.1.padding: [0, 1, 2]}"
    job = job_of(f"{{{data}, ensemble: {{vary: {vary}}}}}")
    assert contradictions(job) == []
    found = [tuple(resolve_vary(job, i).augment) for i in range(3)]
    assert [(flip.p, crop.padding) for flip, crop in found] == [(0.1, 0), (0.9, 1), (0.1, 2)]
    faults = contradictions(job_of(f"{{{data}, ensemble: {{vary: {{data.augment.0.p: [2.0]}}}}}}"))
    assert [fault.path for fault in faults] == ["ensemble.vary.data.augment.0.p.0"]


@pytest.mark.parametrize("text, path, words", VARIED, ids=[vary[0] for vary in VARIED])
def test_what_cannot_vary_is_told_at_its_key(text: str, path: str, words: str) -> None:
    vary = text if text.startswith("{") else f"{{{text}}}"
    faults = contradictions(job_of(f"ensemble: {{vary: {vary}}}"))
    assert [fault.path for fault in faults][:1] == [f"ensemble.vary.{path}"]
    assert words in faults[0].message


def test_several_contradictions_are_told_at_once() -> None:
    text = "task: regression\ntraining: {batch_size: 1, loss: cross_entropy}\nmodel: resnet\nevaluate: {metrics: [ece]}"
    found = {fault.path for fault in contradictions(job_of(text))}
    assert found == {"task", "training.loss", "model.norm", "evaluate.metrics.0"}


def test_the_measures_of_a_task_are_those_that_can_be_computed() -> None:
    for task, names in METRICS_OF.items():
        assert set(names) == {name for name, info in METRICS.items() if task in info.tasks}


@settings(max_examples=50)
@given(jobs())
def test_no_job_makes_the_rules_stumble(data: dict[str, Any]) -> None:
    job = JobSpec.model_validate(data)
    faults = contradictions(job)
    assert all(fault.path and fault.message.isprintable() for fault in faults)
    assert faults == contradictions(job)


LRS = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=5)
HIDDEN = st.lists(st.lists(st.integers(1, 64), max_size=3), min_size=1, max_size=4)


@settings(max_examples=40)
@given(lrs=LRS, hidden=HIDDEN, members=st.integers(1, 30))
def test_values_are_dealt_in_turn(lrs: list[float], hidden: list[list[int]], members: int) -> None:
    vary = {"training.optimizer.lr": lrs, "model.hidden": hidden}
    job = parse_job(
        {"name": "x", "data": {"source": "digits"}, "ensemble": {"members": members, "vary": vary}}
    )
    for index in range(members):
        model, training, _, varied = resolve_vary(job, index)
        lr, sizes = lrs[index % len(lrs)], tuple(hidden[index % len(hidden)])
        assert varied == {"training.optimizer.lr": lr, "model.hidden": sizes}
        assert (training.optimizer.lr, model.model_dump()["hidden"]) == (lr, sizes)
        same = {"optimizer": job.training.optimizer}
        assert training.model_copy(update=same) == job.training
        assert model.model_copy(update={"hidden": job.model.model_dump()["hidden"]}) == job.model
    period = lcm(len(lrs), len(hidden))
    assert resolve_vary(job, 0) == resolve_vary(job, period)


def test_without_vary_members_have_the_job_itself() -> None:
    job = job_of("ensemble: {members: 3}")
    assert resolve_vary(job, 2) == (job.model, job.training, job.data.augment, {})
    assert resolve_vary(job, 2)[0] is job.model


def test_whole_choices_and_list_items_vary() -> None:
    job = job_of(
        "{training: {regularizers: [l1]}, ensemble: {vary: {training.optimizer: [sgd, {name: adamw, lr: 0.5}],"
        " training.regularizers.0.strength: [0, 1, 2], model: [mlp, {name: mlp, hidden: [3]}]}}}"
    )
    assert contradictions(job) == []
    model, training, _, varied = resolve_vary(job, 5)
    assert training.optimizer.model_dump()["name"] == "adamw"
    assert training.optimizer.lr == 0.5
    assert training.regularizers[0].strength == 2
    assert model.model_dump()["hidden"] == (3,)
    assert varied["training.regularizers.0.strength"] == 2


def test_a_job_that_came_back_through_json_varies_alike() -> None:
    job = job_of("ensemble: {vary: {model.hidden: [[8], [16, 4]], training.optimizer.betas: [[0.8, 0.9]]}}")
    again = JobSpec.model_validate_json(job.model_dump_json(), strict=False)
    assert contradictions(again) == []
    assert [resolve_vary(again, i) for i in range(3)] == [resolve_vary(job, i) for i in range(3)]


def test_a_member_that_cannot_be_is_refused_not_crashed() -> None:
    job = job_of("ensemble: {vary: {training.optimizer.lr: [-1]}}")
    with pytest.raises(SpecError, match="member 3"):
        resolve_vary(job, 3)
