"""``distill``: a student learns what small ensembles say, is an ordinary run, and is compared on rows nobody used."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_runs import job_of
from search_runs import train as trained

from ensemble_svc import pipeline
from ensemble_svc.cli.main import run as run_app
from ensemble_svc.comparing import compare
from ensemble_svc.data.dataset import Lesson
from ensemble_svc.distilling import distill, student_overrides, teach
from ensemble_svc.errors import DataError, OtherJob, SpecError
from ensemble_svc.exporting import export
from ensemble_svc.local import LocalExecutor
from ensemble_svc.planning import DataSets, prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.spec.load import load_job, parse_job
from ensemble_svc.spec.yaml import read
from ensemble_svc.store.document import read_document
from ensemble_svc.store.run import DISTILLATION, Run

JOBS = {
    "classes": """
data: {source: digits, preprocess: [standardize], test: 0.4}
model: {name: mlp, hidden: [16]}
training: {epochs: 5, optimizer: {name: adamw, lr: 0.01}, early_stopping: {patience: 3}}
ensemble: {members: 6}
aggregate: {calibrate: temperature}
""",
    "bags": """
data: {source: digits, preprocess: [standardize], test: 0.4, validation: oob}
model: {name: mlp, hidden: [16]}
training: {epochs: 6, optimizer: {name: adamw, lr: 0.01}}
ensemble: {members: 4, resample: bootstrap, vary: {model.hidden: [[16], [8]]}}
aggregate: {select: greedy, combine: mean}
""",
    "numbers": """
task: regression
data: {source: diabetes, preprocess: [standardize], test: 0.3}
model: {name: mlp, hidden: [16]}
training: {epochs: 40, optimizer: {name: adamw, lr: 0.01}}
ensemble: {members: 6, resample: bootstrap}
""",
    "tasks": """
task: multitask
tasks: {progression: {kind: regression}}
data: {source: diabetes, test: 0.3}
model: {name: mlp, hidden: [4]}
training: {epochs: 1}
ensemble: {members: 1}
""",
}


LONGER = {"classes": ["training.epochs=20"], "bags": [], "numbers": []}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("distill")
    for name in ("classes", "bags", "numbers"):
        data, _ = read(f"name: {name}\nevaluate: {{resamples: 100}}\n{JOBS[name]}")
        pipeline.train(parse_job(data), out=found / name, directory=found, executor=LocalExecutor())
    return found


def student_of(folder: Path, name: str, out: str, *overrides: str, temperature: float = 1.0) -> Run:
    teacher = Run.open(folder / name)
    job = load_job(teacher.path / "job.yaml", student_overrides(teacher, overrides))
    return distill(teacher, job, folder / out, temperature=temperature, executor=LocalExecutor())


@pytest.fixture(scope="module")
def students(folder: Path) -> dict[str, Run]:
    names = ("classes", "bags", "numbers")
    return {name: student_of(folder, name, f"{name}-student", *LONGER[name]) for name in names}


def said(run: Path, x: Any) -> Any:
    return Ensemble.load(run).predict(x).mean


@pytest.mark.parametrize("name", ["classes", "bags", "numbers"])
def test_the_student_is_an_ordinary_run_that_stands_nearer_to_the_ensemble_than_its_members(
    name, folder, students
):
    teacher, student = Run.open(folder / name), students[name]
    prepared = prepare(teacher.job(), folder)
    x = prepared.dataset.x[prepared.split.test]
    ensemble, own = said(teacher.path, x), said(student.path, x)
    each = [said_by(teacher.path, entry["id"], x) for entry in teacher.manifest()["members"]]
    facts = read_document(student.path / DISTILLATION)
    assert facts["rows"] == len(x)
    if name == "numbers":
        apart = [float(np.sqrt(np.mean((one - ensemble) ** 2))) for one in (own, *each)]
        assert apart[0] < np.mean(apart[1:])
    else:
        apart = [float(np.mean(one.argmax(1) == ensemble.argmax(1))) for one in (own, *each)]
        assert apart[0] > np.mean(apart[1:])
        y = prepared.dataset.y[prepared.split.test]
        assert facts["student"]["accuracy"] == pytest.approx(np.mean(own.argmax(1) == y))
        assert facts["ensemble"]["accuracy"] == pytest.approx(np.mean(ensemble.argmax(1) == y))
        assert facts["member"]["accuracy"] == pytest.approx(
            np.mean([np.mean(one.argmax(1) == y) for one in each])
        )
    assert facts["student"]["agreement"] == pytest.approx(apart[0], rel=1e-4)
    assert facts["member"]["agreement"] == pytest.approx(np.mean(apart[1:]), rel=1e-4)
    assert facts["gain"]["nll"]["low"] <= facts["gain"]["nll"]["estimate"] <= facts["gain"]["nll"]["high"]
    assert student.verified(DISTILLATION)
    assert len(student.manifest()["members"]) == 1
    assert student.manifest()["split_hash"] == teacher.manifest()["split_hash"]


def test_a_student_is_compared_and_exported_like_any_run(folder, students, tmp_path):
    first, second = compare([Run.open(folder / "classes"), students["classes"]])["runs"]
    facts = read_document(students["classes"].path / DISTILLATION)
    assert second["metrics"]["nll"] == pytest.approx(facts["student"]["nll"])
    assert second["gain"] == facts["gain"]
    assert first["members"] == facts["members"]
    exported = export(students["classes"], tmp_path / "student.pt2")
    assert exported.checked["test"] == facts["rows"]


def said_by(run: Path, member: str, x: Any) -> Any:
    return Ensemble.load(run, members=[member]).predict(x).mean


def test_the_teacher_says_nothing_of_rows_that_do_not_train(folder):
    teacher = Run.open(folder / "classes")
    prepared = prepare(teacher.job(), folder)
    ensemble, train = Ensemble.load(teacher.path), prepared.split.train
    plain, soft = (teach(ensemble, prepared.dataset, train, t, "me").says for t in (1.0, 4.0))
    others = np.setdiff1d(np.arange(len(prepared.dataset)), train)
    assert len(others) > 100
    assert np.isnan(plain[others]).all()
    np.testing.assert_allclose(plain[train], ensemble.predict(prepared.dataset.x[train]).mean, atol=1e-6)
    np.testing.assert_allclose(soft[train].sum(1), 1, atol=1e-5)
    assert (soft[train].max(1) <= plain[train].max(1) + 1e-6).all()


def test_a_student_believes_its_teacher_and_not_the_targets(folder, tmp_path):
    """A teacher that calls every digit by the next one's name; early stopping, by the targets, is off."""
    teacher = Run.open(folder / "classes")
    job = load_job(
        teacher.path / "job.yaml",
        student_overrides(teacher, ["training.early_stopping=null", "training.epochs=15"]),
    )
    read_data = DataSets()
    prepared = prepare(job, folder, read=read_data)
    data, train = prepared.dataset, prepared.split.train
    says = np.full((len(data), 10), np.nan, dtype=np.float32)
    says[train] = np.eye(10, dtype=np.float32)[(data.y[train] + 1) % 10]
    read_data.put(job, folder, replace(data, lesson=Lesson(says, 1.0, "a liar")))
    student = pipeline.train(
        job, out=tmp_path / "s", directory=folder, executor=LocalExecutor(), read=read_data
    )
    found = said(student.path, data.x[train]).argmax(1)
    assert np.mean(found == (data.y[train] + 1) % 10) > 0.95
    assert student.metrics()["test"]["ensemble"]["accuracy"] < 0.1


def test_the_same_command_again_trains_nothing(folder, students):
    run = students["classes"]
    weights = {p: p.read_bytes() for p in run.path.rglob("weights.safetensors")}
    starts = len(run.journal.of_kind("start"))
    before = read_document(run.path / DISTILLATION)
    student_of(folder, "classes", "classes-student", *LONGER["classes"])
    assert len(run.journal.of_kind("start")) == starts
    assert {p: p.read_bytes() for p in weights} == weights
    assert read_document(run.path / DISTILLATION) == before


def test_another_temperature_or_plain_training_is_refused_in_the_student_s_folder(folder, students):
    with pytest.raises(OtherJob, match="the data"):
        student_of(folder, "classes", "classes-student", *LONGER["classes"], temperature=2.0)
    with pytest.raises(OtherJob, match="the data"):
        pipeline.train(
            students["classes"].job(),
            out=students["classes"].path,
            directory=folder,
            executor=LocalExecutor(),
        )


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.hidden=[8]", "training.precision=bf16-mixed"),
        (
            "training.regularizers=[{name: mixup, alpha: 0.3}]",
            "training.loss={name: cross_entropy, label_smoothing: 0.1}",
        ),
        ("training.optimizer.lr=auto", "training.average=swa"),
    ],
    ids=["smaller", "mixed", "found"],
)
def test_the_student_may_be_another_network_in_another_training(overrides, folder, tmp_path):
    student = student_of(
        folder, "classes", str(tmp_path / "s"), *overrides, "training.epochs=8", temperature=2.0
    )
    facts = read_document(student.path / DISTILLATION)
    assert facts["temperature"] == 2.0
    assert facts["student"]["accuracy"] > 0.6
    (entry,) = student.manifest()["members"]
    assert entry["sick"] is None


@pytest.mark.parametrize("loss", ["mse", "gaussian_nll"])
def test_numbers_are_learned_under_either_loss(loss, folder, tmp_path):
    student = student_of(folder, "numbers", str(tmp_path / "s"), f"training.loss={loss}")
    prepared = prepare(student.job(), folder)
    x = prepared.dataset.x[prepared.split.train]
    wanted, found = said(folder / "numbers", x), said(student.path, x)
    spread = wanted.std()
    assert np.sqrt(np.mean((wanted - found) ** 2)) < 0.4 * spread


@pytest.mark.parametrize(
    "override", ["data.test=0.5", "seed=3", "ensemble.members=2", "aggregate.combine=vote"]
)
def test_what_is_the_teacher_s_cannot_be_changed(override, folder):
    with pytest.raises(SpecError, match="teacher's data, split and seed"):
        student_overrides(Run.open(folder / "classes"), [override])


def test_what_cannot_be_distilled_is_refused(folder, tmp_path):
    with pytest.raises(SpecError, match="above 0"):
        student_of(folder, "classes", "no", temperature=0.0)
    with pytest.raises(SpecError, match="regression has none"):
        student_of(folder, "numbers", "no", temperature=2.0)
    data, _ = read(f"name: tasks\n{JOBS['tasks']}")
    pipeline.train(parse_job(data), out=folder / "tasks", directory=folder, executor=LocalExecutor())
    with pytest.raises(DataError, match="several tasks"):
        student_of(folder, "tasks", "no")
    assert not (folder / "no").exists()


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_verb_prints_how_the_student_stands(more, folder, monkeypatch, capsys, tmp_path):
    words = [str(folder / "numbers"), "--output", str(tmp_path / "s"), "--set", "compute.executor=local"]
    monkeypatch.setattr(sys, "argv", ["ensemble-svc", "distill", *words, *more])
    with pytest.raises(SystemExit) as left:
        run_app()
    assert not left.value.code
    printed = capsys.readouterr().out
    facts = read_document(tmp_path / "s" / DISTILLATION)
    if more:
        assert json.loads(printed)["student"] == facts["student"]
    else:
        assert "Gain over ensemble" in printed
        assert "Distance" in printed
    assert torch.isfinite(torch.tensor(list(facts["student"].values()))).all()


def test_the_student_of_a_search_is_one_member_with_the_recipe_of_the_job(tmp_path, monkeypatch):
    search = {"trials": 4, "scheduler": {"name": "halving", "factor": 2}, "candidates": "all"}
    teacher = trained(job_of(search), tmp_path / "teacher")
    words = ["distill", str(teacher.path), "--output", str(tmp_path / "student"), "--json"]
    monkeypatch.setattr(sys, "argv", ["ensemble-svc", *words])
    with pytest.raises(SystemExit) as left:
        run_app()
    assert not left.value.code
    student = Run.open(tmp_path / "student")
    job = student.job()
    assert (job.search, job.ensemble.members, job.training) == (None, 1, teacher.job().training)
    assert len(student.manifest()["members"]) == 1
    facts = read_document(student.path / DISTILLATION)
    assert facts["members"] == len(teacher.manifest()["ensemble"]["members"])
