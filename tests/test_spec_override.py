"""``--set key=value``: what it may reach, what it replaces, and how its faults are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_jobs import jobs, trees

from ensemble_svc.errors import SpecError
from ensemble_svc.spec.anatomy import value_at
from ensemble_svc.spec.load import load_job
from ensemble_svc.spec.override import apply_overrides, put, split_path
from ensemble_svc.spec.yaml import write

TEXT = """\
name: x
data:
  source: digits
  augment: [flip, {name: crop, padding: 2}]
training:
  optimizer: adamw
  epochs: 3
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(TEXT)
    return path


def found(file: Path, *overrides: str) -> dict[str, Any]:
    return load_job(file, overrides).model_dump()


def refused(file: Path, *overrides: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load_job(file, overrides)
    return caught.value


@pytest.mark.parametrize(
    "override, path, value",
    [
        ("training.epochs=5", "training.epochs", 5),
        (" training.epochs = 5 ", "training.epochs", 5),
        ("training.clip_norm=1e-3", "training.clip_norm", 0.001),
        ("training.clip_norm=", "training.clip_norm", None),
        ("training.early_stopping=null", "training.early_stopping", None),
        ("training.early_stopping.patience=3", "training.early_stopping.metric", "nll"),
        ("training.optimizer.lr=0.1", "training.optimizer.lr", 0.1),
        ("training.schedule.floor=0.5", "training.schedule.floor", 0.5),
        ("training.schedule.floor=0.5", "training.schedule.name", "cosine"),
        ("training.optimizer=sgd", "training.optimizer.name", "sgd"),
        ("training.optimizer={name: sgd, lr: 1}", "training.optimizer.lr", 1.0),
        ("training.optimizer.name=sgd", "training.optimizer.name", "sgd"),
        ("data.augment.1.padding=7", "data.augment.1", {"name": "crop", "padding": 7, "mode": "reflect"}),
        ("data.augment.0.p=0.25", "data.augment.0", {"name": "flip", "p": 0.25}),
        ("data.augment=[]", "data.augment", ()),
        ("data.source={name: npz, path: a=b.npz}", "data.source.path", "a=b.npz"),
        ("data.test=holdout", "data.test", "holdout"),
        ("data.stratify=false", "data.stratify", False),
        ("model.hidden=[3, 4]", "model.hidden", (3, 4)),
        ("model.hidden.1=7", "model.hidden", (128, 7)),
        ("ensemble.vary.training.optimizer.lr=[1e-3, 1e-2]", "ensemble.vary", {"training.optimizer.lr": (0.001, 0.01)}),
        ("ensemble={members: 2}", "ensemble.members", 2),
        ("name=y", "name", "y"),
    ],
)  # fmt: skip
def test_a_key_is_set(file: Path, override: str, path: str, value: object) -> None:
    keys = tuple(int(key) if key.isdigit() else key for key in path.split("."))
    assert value_at(found(file, override), keys) == value


def test_an_option_keeps_the_others_and_a_name_replaces_them(file: Path) -> None:
    both = found(file, "training.optimizer.weight_decay=0.5", "training.optimizer.lr=0.1")["training"][
        "optimizer"
    ]
    assert (both["lr"], both["weight_decay"]) == (0.1, 0.5)
    for name in ("training.optimizer=sgd", "training.optimizer.name=sgd"):
        new = found(file, name, "training.optimizer.momentum=0.9")["training"]["optimizer"]
        assert new == {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
    assert (
        found(file, "data.source={name: npz, path: a}", "data.source.path=b")["data"]["source"]["path"] == "b"
    )


def test_the_last_of_two_wins_but_none_is_undone_unseen(file: Path) -> None:
    assert found(file, "training.epochs=5", "training.epochs=6")["training"]["epochs"] == 6
    assert found(file, "training.optimizer.lr=1", "name=y")["name"] == "y"
    for name in ("training.optimizer=sgd", "training.optimizer.name=sgd", "training={epochs: 3}"):
        error = refused(file, "training.optimizer.lr=0.1", name)
        assert "undoes 'training.optimizer.lr=0.1'; give it before that one" in str(error)


@pytest.mark.parametrize(
    "override, path, words",
    [
        ("training.epochs=x", "training.epochs", "'x' is not allowed; must be a whole number"),
        ("trainin.epochs=5", "trainin", "Did you mean 'training'?"),
        ("training.epoch=5", "training.epoch", "Did you mean 'epochs'?"),
        ("training.optimizer.lrr=5", "training.optimizer.lrr", "Did you mean 'lr'?"),
        (
            "training.optimizer.momentum=0.9",
            "training.optimizer.momentum",
            "is an option of rmsprop, sgd, muon, not of adamw",
        ),
        ("training.optimizer=adamww", "training.optimizer", "Did you mean 'adamw'?"),
        ("training.optimizer.name=adamww", "training.optimizer.name", "Did you mean 'adamw'?"),
        ("training.epochs.x=5", "training.epochs", "{x: 5} is not allowed"),
        ("epochs=5", "epochs", "belongs at training.epochs"),
        ("data.stratify=no", "data.stratify", "YAML 1.2 reads 'no' as text; write false."),
        ("data.augment.2.p=1", "data.augment.2", "the list has items 0 to 1"),
        ("data.augment.x=1", "data.augment.x", "the list has items 0 to 1"),
        ("data.preprocess.0.name=impute", "data.preprocess.0", "set the whole list"),
        ("training.loss=mse", "training.loss", "is not a loss for classification"),
        ("ensemble.vary.lr=[1]", "ensemble.vary.lr", "Did you mean 'training.optimizer.lr'?"),
        ("training.epochs=[1", "training.epochs", "not valid YAML"),
        ("training.epochs=*a", "training.epochs", "alias"),
        ("training.epochs=!!int 3", "training.epochs", "tag"),
        ("training..epochs=3", "", "no key path"),
        ("=3", "", "no key path"),
        ("training.epochs", "", "write key=value"),
        ("", "", "write key=value"),
    ],
)
def test_a_fault_names_the_override(file: Path, override: str, path: str, words: str) -> None:
    error = refused(file, override)
    (fault,) = error.faults
    assert (fault.path, fault.line) == (path, None)
    assert words in fault.message
    assert fault.message.endswith(f"(given by --set {override})")


def test_faults_of_the_file_and_of_overrides_are_told_together(file: Path) -> None:
    file.write_text(TEXT.replace("epochs: 3", "epochs: 0\n  batch_size: 0"))
    error = refused(file, "training.optimizer.lr=x", "nonsense", "data.augment.9=1")
    assert [(f.line, f.path) for f in error.faults] == [
        (None, ""), (None, "data.augment.9"), (None, "training.optimizer.lr"),
        (7, "training.epochs"), (8, "training.batch_size"),
    ]  # fmt: skip


def test_an_override_takes_the_place_of_a_fault(file: Path) -> None:
    file.write_text(TEXT.replace("epochs: 3", "epochs: 0"))
    assert found(file, "training.epochs=4")["training"]["epochs"] == 4
    assert refused(file, "training.clip_norm=1").faults[0].line == 7


def test_control_characters_of_an_override_are_not_printed(file: Path) -> None:
    told = str(refused(file, 'training.epochs="\x1b[2J\\e"', "\x1b[2J\n=3", "a" * 5000))
    assert told.replace("\n", "").isprintable()
    assert len(told) < 2000


@settings(max_examples=60)
@given(jobs(), st.data())
def test_what_is_set_stands_there_and_nothing_else_moves(data: dict[str, Any], draw: st.DataObject) -> None:
    """Law of ``put``, over the keys of random jobs."""
    section = draw.draw(
        st.sampled_from(sorted(key for key, value in data.items() if value and isinstance(value, dict)))
    )
    key = draw.draw(st.sampled_from(sorted(data[section])))
    value = draw.draw(trees)
    new = put(data, (section, key), value)
    expected = (
        {"name": value} if key == "name" and value != data[section]["name"] else {**data[section], key: value}
    )
    assert new == {**data, section: expected}
    assert put(new, (section, key), value) == new, "twice is once"


@settings(max_examples=60)
@given(jobs(), st.data())
def test_writing_a_job_as_overrides_gives_the_job(data: dict[str, Any], draw: st.DataObject) -> None:
    """Every key of a random job, set one by one in any order, on an empty file."""
    pairs = [((k,), v) for k, v in data.items() if not isinstance(v, dict)]
    pairs += [((k, inner), v) for k, d in data.items() if isinstance(d, dict) for inner, v in d.items()]
    named = [pair for pair in pairs if pair[0][-1] == "name"]
    others = draw.draw(st.permutations([pair for pair in pairs if pair[0][-1] != "name"]))
    overrides = [f"{'.'.join(path)}={write({'v': value})[2:]}" for path, value in [*named, *others]]
    read, lines = apply_overrides({}, overrides)
    expected = {key: value for key, value in data.items() if value != {}}
    assert read == expected
    assert all(isinstance(line, str) and line.startswith("--set ") for line in lines.values())


def test_a_path_knows_lists_and_keys_with_dots() -> None:
    data = {"data": {"augment": ("flip",)}, "model": {"name": "python", "factory": "a:b", "options": {}}}
    assert split_path("data.augment.0.p", data) == ("data", "augment", 0, "p")
    assert split_path("ensemble.vary.model.hidden.0", data) == ("ensemble", "vary", "model.hidden.0")
    assert split_path("model.options.a.0", data) == ("model", "options", "a", "0")
