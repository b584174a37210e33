"""``export``: what small trained runs become, what the file holds, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from ensemble_svc import exporting, pipeline
from ensemble_svc.cli.main import run as run_app
from ensemble_svc.data.inputs import read_inputs
from ensemble_svc.errors import EnsembleError
from ensemble_svc.exporting import Exported, export
from ensemble_svc.local import LocalExecutor
from ensemble_svc.predictor import Ensemble
from ensemble_svc.serving.check import TOLERANCE
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.yaml import read
from ensemble_svc.store.run import Run

JOBS = {
    "images": """
data: {source: digits, preprocess: [standardize], test: 0.3}
model: {name: mlp, hidden: [16], norm: batch}
training: {epochs: 2, optimizer: {name: adamw, lr: 0.01}}
ensemble: {members: 3}
aggregate: {select: greedy, calibrate: temperature}
""",
    "table": """
data:
  source: {name: csv, path: pets.csv, target: kind}
  preprocess: [impute, standardize]
  test: 0.3
model: {name: mlp, hidden: [8]}
training: {epochs: 2}
ensemble: {members: 3, resample: bootstrap}
""",
    "numbers": """
task: regression
data: {source: diabetes, preprocess: [standardize], test: 0.3}
model: {name: mlp, hidden: [8]}
training: {epochs: 2}
ensemble: {members: 4, vary: {model.hidden: [[8], [4, 4]]}}
aggregate: {calibrate: variance}
""",
}


def pets() -> str:
    draw = np.random.default_rng(0)
    lines = ["weight,colour,age,kind"]
    for _ in range(300):
        kind = draw.choice(["cat", "dog"])
        weight = draw.normal(4 if kind == "cat" else 20, 3)
        age = "" if draw.random() < 0.2 else f"{draw.integers(0, 15)}"
        lines.append(f"{weight:.2f},{draw.choice(['black', 'white', 'red'])},{age},{kind}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    (folder / "pets.csv").write_text(pets())
    for name, text in JOBS.items():
        data, _ = read(f"name: {name}\nevaluate: {{resamples: 100}}\n{text}")
        pipeline.train(
            parse_job(data), out=folder / "runs" / name, directory=folder, executor=LocalExecutor()
        )
    return folder / "runs"


@pytest.fixture(scope="module")
def files(runs: Path) -> dict[str, dict[str, Exported]]:
    return {
        name: {s: export(Run.open(runs / name), runs.parent / f"{name}{s}") for s in exporting.FORMATS}
        for name in JOBS
    }


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("suffix", exporting.FORMATS)
def test_a_trained_run_is_checked_on_random_and_on_its_own_test_rows(name, suffix, runs, files):
    found = files[name][suffix]
    assert found.path.stat().st_size == found.num_bytes
    assert found.checked == {"random": 256, "test": Run.open(runs / name).manifest()["rows"]["test"]}
    assert found.largest <= TOLERANCE
    assert found.note == ""


def test_onnxruntime_alone_reads_a_new_table_as_predict_does(runs, files):
    """Through the file that a user would predict: other columns first, an unknown colour, a missing age."""
    new = runs.parent / "new.csv"
    new.write_text("age,colour,weight\n3,red,4\n,green,22.5\n7,black,9\n")
    ensemble = Ensemble.load(runs / "table")
    x, _ = read_inputs(new, ensemble.schema, missing=True)
    session = onnxruntime.InferenceSession(files["table"][".onnx"].path)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["features"]) == ["weight", "age", "colour"]
    assert json.loads(facts["categories"]) == {"colour": ["black", "red", "white"]}
    assert json.loads(facts["classes"]) == ["cat", "dog"]
    assert json.loads(facts["input"])["shape"] == ["rows", 3]
    probabilities, total, aleatoric, epistemic = session.run(None, {"rows": x})
    wanted = ensemble.predict(x)
    np.testing.assert_allclose(probabilities, wanted.mean, atol=1e-5)
    np.testing.assert_allclose(total, wanted.uncertainty["entropy"], atol=1e-5)
    np.testing.assert_allclose(epistemic, wanted.uncertainty["mutual_information"], atol=1e-5)
    np.testing.assert_allclose(total, aleatoric + epistemic, atol=1e-5)
    assert list(json.loads(facts["outputs"])) == [output.name for output in session.get_outputs()]


def test_torch_export_reads_numbers_in_the_targets_units(runs, files):
    facts = {"targets": "", "members": "", "calibration": ""}
    program = torch.export.load(files["numbers"][".pt2"].path, extra_files=facts)
    ensemble = Ensemble.load(runs / "numbers")
    assert json.loads(facts["targets"]) == ["progression"]
    assert json.loads(facts["members"]) == list(ensemble.decision.members)
    assert json.loads(facts["calibration"])["kind"] == "variance_scale"
    x = np.random.default_rng(0).normal(size=(5, 10)).astype(np.float32) * 0.05
    found, wanted = program.module()(torch.from_numpy(x)), ensemble.predict(x)
    np.testing.assert_allclose(found["mean"].numpy(), wanted.mean, rtol=1e-5)
    for name in ("total", "aleatoric", "epistemic"):
        np.testing.assert_allclose(found[name].numpy(), wanted.uncertainty[name], rtol=1e-4)


def test_a_file_that_differs_is_not_left(runs, monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "TOLERANCE", 0.0)
    with pytest.raises(EnsembleError, match=r"differs from the ensemble by .*is not written"):
        export(Run.open(runs / "images"), tmp_path / "images.onnx")
    assert not list(tmp_path.iterdir())


def test_a_run_whose_data_are_gone_is_checked_on_random_rows_alone(runs, tmp_path):
    (runs.parent / "pets.csv").rename(tmp_path / "away.csv")
    try:
        found = export(Run.open(runs / "table"), tmp_path / "table.pt2")
    finally:
        (tmp_path / "away.csv").rename(runs.parent / "pets.csv")
    assert set(found.checked) == {"random"}
    assert "pets.csv" in found.note


@pytest.mark.parametrize("output", ["model.pt", "model"])
def test_another_format_is_refused(output, runs, tmp_path):
    with pytest.raises(EnsembleError, match=r"use one of \.pt2, \.onnx"):
        export(Run.open(runs / "images"), tmp_path / output)


def test_missing_packages_are_named_with_the_remedy(runs, tmp_path):
    code = (
        "import sys; sys.modules.update(onnxruntime=None, onnxscript=None)\n"
        "from ensemble_svc.cli.main import run\n"
        "for output in ('images.onnx', 'images.pt2'):\n"
        f"    sys.argv = ['ensemble-svc', 'export', {str(runs / 'images')!r}, '--output', output]\n"
        "    try: run()\n"
        "    except SystemExit as left: print(output, 'left with', left.code or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    left = [line for line in done.stdout.splitlines() if "left with" in line]
    assert left == ["images.onnx left with 2", "images.pt2 left with 0"], done.stderr
    assert "onnxruntime, onnxscript: pip install 'ensemble-svc[export]'" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"images.pt2"}


def test_the_verb_prints_the_largest_difference(runs, tmp_path, monkeypatch, capsys):
    output = tmp_path / "numbers.pt2"
    for more in ([], ["--json"]):
        monkeypatch.setattr(
            sys, "argv", ["ensemble-svc", "export", str(runs / "numbers"), "--output", str(output), *more]
        )
        with pytest.raises(SystemExit) as left:
            run_app()
        assert not left.value.code
        printed = capsys.readouterr().out
        if more:
            assert set(json.loads(printed)["differences"]) == {"mean", "total", "aleatoric", "epistemic"}
        else:
            assert "4 members" in printed
            assert "largest difference from the run on 256 random rows and 133 test rows: mean " in printed
