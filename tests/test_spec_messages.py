"""What a person reads when a job file is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ensemble_svc.errors import SpecError
from ensemble_svc.spec.job import SCHEMA_VERSION
from ensemble_svc.spec.load import load_job, parse_source
from ensemble_svc.spec.yaml import write

MESSAGES = [
    (
        "search: {space: {training.epochs: {randint: [1, 9]}}, algorithm: tpe}",
        "search.algorithm",
        "It is a sampler of optuna: write {name: optuna, sampler: tpe}.",
    ),
    (
        "search: {space: {training.epochs: {randint: [1, 9]}}, algorithm: {name: gp}}",
        "search.algorithm.name",
        "write {name: optuna, sampler: gp}.",
    ),
    (
        "search: {space: {training.epochs: {choice: [3]}}, algorithm: grid, trials: 2}",
        "search.trials",
        "2 trials, and the grid has 1 configuration;",
    ),
    (
        "search: {space: {model.dropout: {normal: [0.1, 0.1]}}}",
        "search.space.model.dropout.normal",
        "-0.2 is not allowed",
    ),
    ("task: regresion", "task", "Did you mean 'regression'?"),
    ("seed: '3'", "seed", "Take the quotes off."),
    ("seed: true", "seed", "true is not allowed; must be a whole number of at least 0."),
    ("epochs: 3", "epochs", "'epochs' belongs at training.epochs."),
    ("training: {lr: 1}", "training.lr", "unknown key"),
    ("training: {epochs: 1e2}", "training.epochs", "Write 100."),
    ("training: {epochs: }", "training.epochs", "null is not allowed"),
    ("training: {epochs: [3]}", "training.epochs", "[3] is not allowed"),
    ("training: {optimizer: {name: adamw, lr: '1e-3'}}", "training.optimizer.lr", "Take the quotes off."),
    (
        "training: {optimizer: {name: adamw, lr: .nan}}",
        "training.optimizer.lr",
        ".nan is not allowed; must be a number above 0, or auto.",
    ),
    ("training: {optimizer: {name: adamw, lr: -1}}", "training.optimizer.lr", "-1 is not allowed"),
    (
        "training: {optimizer: {name: adamw, momentum: 0.9}}",
        "training.optimizer.momentum",
        "'momentum' is an option of rmsprop, sgd, muon, not of adamw.",
    ),
    (
        "training: {optimizer: {name: adamw, betas: [0.9]}}",
        "training.optimizer.betas",
        "must be a list of 2 items, each a number",
    ),
    (
        "training: {optimizer: {name: adamw, betas: [0.9, 2]}}",
        "training.optimizer.betas.1",
        "2 is not allowed",
    ),
    ("training: {optimizer: {lr: 1}}", "training.optimizer", "the name is missing"),
    ("training: {optimizer: {adamw: {lr: 1}}}", "training.optimizer", "Write {name: adamw, …}."),
    (
        "training: {optimizer: 3}",
        "training.optimizer",
        "one of adamw, adam, rmsprop, adagrad, sgd, muon, or a mapping",
    ),
    ("training: {optimizer: }", "training.optimizer", "null is not allowed"),
    ("training: {optimizer: [sgd]}", "training.optimizer", "['sgd'] is not allowed"),
    ("training: 3", "training", "must be a mapping with the keys epochs,"),
    (
        "training: {early_stopping: {metric: acuracy}}",
        "training.early_stopping.metric",
        "Did you mean 'accuracy'?",
    ),
    ("ensemble: {members: 0}", "ensemble.members", "at least 1"),
    ("ensemble: {members: -1}", "ensemble.members", "at least 1"),
    ("ensemble: {members: 1000000000}", "ensemble.members", "at most 100,000"),
    ("ensemble: {vary: {model.dropout: 0.1}}", "ensemble.vary.model.dropout", "Write a list: [0.1]."),
    ("evaluate: {metrics: nll}", "evaluate.metrics", "Write a list: ['nll']."),
    ("evaluate: {metrics: [nll, acuracy]}", "evaluate.metrics.1", "Did you mean 'accuracy'?"),
    ("model: {name: resnet, depth: 21}", "model.depth", "must be one of 8, 14, 20"),
    ("model: {name: python, factory: nets.build}", "model.factory", "must be 'module:function'"),
    ("model: {name: mlp, hidden: [8, 0]}", "model.hidden.1", "must be a whole number of at least 1"),
    ("compute: {pack: 0}", "compute.pack", "must be one of auto, off, or a whole number of at least 1"),
    ("compute: {storage: ''}", "compute.storage", "must be a path"),
    ('compute: {storage: "a\\0b"}', "compute.storage", r"'a\x00b' is not allowed"),
    ("search: {trials: 3}", "search.space", "is missing"),
    ("schema_version: 999", "schema_version", "newer ensemble_svc; upgrade"),
    ("schema_version: true", "schema_version", f"must be {SCHEMA_VERSION}"),
    ("schema_version: '1'", "schema_version", f"must be {SCHEMA_VERSION}"),
]


def refusal(text: str, tmp_path: Path) -> SpecError:
    file = tmp_path / "job.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_job(file)
    assert caught.value.source == str(file)
    return caught.value


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("later.csv", "{name: csv, path: later.csv, target: …}"),
        ("a/b.parquet", "{name: parquet, path: a/b.parquet, target: …}"),
        ("{name: rows.npz}", "{name: npz, path: rows.npz}"),
    ],
)
def test_a_file_in_place_of_a_source_is_told_how_a_source_has_it(given: str, meant: str) -> None:
    with pytest.raises(SpecError, match=re.escape(f"For a file write {meant}.")):
        parse_source(given)


def test_a_fault_reads_as_the_design_says(tmp_path: Path) -> None:
    error = refusal(
        "name: x\ndata: {source: digits}\ntraining:\n"  # lines 1 to 3
        "  optimizer:\n    name: adamw\n    lrr: 1\n  epochs: 0\n",
        tmp_path,
    )
    file = tmp_path / "job.yaml"
    known = "Known: name, lr, betas, eps, weight_decay."
    range_ = "a whole number of at least 1 and at most 1,000,000"
    assert str(error).split("\n") == [
        f"{file}: line 6: training.optimizer.lrr: unknown key. Did you mean 'lr'? {known}",
        f"{file}: line 7: training.epochs: 0 is not allowed; must be {range_}.",
    ]


@pytest.mark.parametrize("text, path, words", MESSAGES, ids=[m[0] for m in MESSAGES])
def test_each_message_says_what_is_allowed_and_what_was_meant(
    text: str, path: str, words: str, tmp_path: Path
) -> None:
    error = refusal(f"name: x\ndata: {{source: digits}}\n{text}\n", tmp_path)
    (fault,) = error.faults
    assert (fault.path, fault.line) == (path, 3)
    assert words in fault.message


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "~",
        "~/x",
        "a b",
        "",
        ".",
        "..",
        ".x",
        "-x",
        "a/b",
        "a\nb",
        "a\n",
        'x"; rm -rf y',
        "$(x)",
        "é",
        "a" * 101,
        "\0",
    ],
)
def test_a_name_is_one_harmless_folder(name: str, tmp_path: Path) -> None:
    error = refusal(write({"name": name, "data": {"source": "digits"}}), tmp_path)
    (fault,) = error.faults
    assert fault.path == "name"
    assert "letters, digits" in fault.message


def test_faults_of_every_kind_are_told_together(tmp_path: Path) -> None:
    text = (
        "name: x\n"
        "data:\n"
        "  source: digits\n"
        "  source: iris\n"  # 4: twice
        "  validation: 0\n"
        "  augment: [{name: crop, padding: -1}, flipp]\n"  # 6: a value and a choice
        "training:\n"
        "  epoch: 3\n"  # 8: a key
        "  early_stopping: {metric: nll}\n"  # 9: contradicts line 5
        "  loss: mse\n"  # 10: contradicts the task
        "compute: {pack: &a 3}\n"  # 11: an anchor
    )
    error = refusal(text, tmp_path)
    assert [(fault.line, fault.path) for fault in error.faults] == [
        (4, "data.source"), (6, "data.augment.0.padding"), (6, "data.augment.1"), (8, "training.epoch"),
        (9, "training.early_stopping"), (10, "training.loss"), (11, "compute.pack"),
    ]  # fmt: skip


def test_a_wrong_value_causes_no_second_fault(tmp_path: Path) -> None:
    """A misspelt task is not also a contradiction with the losses of the other one."""
    error = refusal("name: x\ntask: regresion\ndata: {source: diabetes}\ntraining: {loss: mse}\n", tmp_path)
    assert [fault.path for fault in error.faults] == ["task"]


def test_missing_keys_have_the_line_of_their_section(tmp_path: Path) -> None:
    error = refusal("# c\nname: x\ndata:\n  validation: 0.1\n", tmp_path)
    assert [(f.path, f.line) for f in error.faults] == [("data.source", 3)]
    error = refusal("# c\nseed: 1\n", tmp_path)
    assert [(f.path, f.line) for f in error.faults] == [("name", 2), ("data", 2)]


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "---\n", "null", "[]", "- a\n", "3", "text", "{}"]
)
def test_a_file_that_holds_no_job_is_refused(text: str, tmp_path: Path) -> None:
    assert refusal(text, tmp_path).faults


def test_a_flood_of_faults_is_cut_short(tmp_path: Path) -> None:
    error = refusal("".join(f"key{i}: {i}\n" for i in range(3000)), tmp_path)
    assert 50 < len(error.faults) <= 101
    assert "faults after these" in error.faults[-1].message
