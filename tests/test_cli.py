"""The command line: what it prints, how it refuses, and that it loads no more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet
import pytest

JOB = """\
name: small
data: {source: digits, preprocess: [standardize], test: 0.5}
model: {name: mlp, hidden: [16]}
training: {epochs: 4, batch_size: 64, optimizer: {name: adamw, lr: 0.01}}
ensemble: {members: 2}
evaluate: {resamples: 100}
compute: {executor: local}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run, trained through the command line in a process of its own."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "job.yaml").write_text(JOB)
    command = [sys.executable, "-m", "ensemble_svc", "train", "job.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout
    return folder / "runs" / "small"


class TestRefusals:
    """One clear message, exit 2, no traceback, nothing half-written."""

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (("members: 2", "members: 0"), ["line 5", "ensemble.members", "0"]),
            (("epochs: 4", "epochz: 4"), ["training.epochz", "epochs"]),
            (("name: mlp", "name: mpl"), ["mpl", "mlp"]),
            (("batch_size: 64", "batch_size: many"), ["training.batch_size", "many"]),
            (("source: digits", "source: {name: csv, path: absent.csv, target: y}"), ["absent.csv"]),
            (("source: digits", "source: {name: csv, path: empty.csv, target: y}"), ["empty.csv"]),
            (
                ("source: digits", "source: {name: csv, path: table.csv, target: why}"),
                ["why", "data.source.target", "columns: a, b, y"],
            ),
            (
                ("source: digits", "source: {name: csv, path: holes.csv, target: y}"),
                ["row 3", "'b'", "impute"],
            ),
            (
                ("source: digits", "source: {name: csv, path: infinite.csv, target: y}"),
                ["row 2", "'a'", "inf"],
            ),
            (("source: digits", "source: {name: npz, path: labels.npz}"), ["-1"]),
            (("name: mlp, hidden: [16]", "name: lenet"), ["lenet"]),
            (("preprocess: [standardize]", "validation: absent"), ["absent"]),
        ],
    )
    def test_a_bad_job(self, change, told, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        rows = [f"{i % 7},{i % 5}.5,{'cat' if i % 2 else 'dog'}" for i in range(40)]
        Path("table.csv").write_text("\n".join(["a,b,y", *rows]))
        Path("holes.csv").write_text("\n".join(["a,b,y", *rows[:2], "1,,cat", *rows[3:]]))
        Path("infinite.csv").write_text("\n".join(["a,b,y", rows[0], "inf,1,cat", *rows[2:]]))
        Path("empty.csv").write_text("")
        np.savez("labels.npz", x=np.random.default_rng(0).normal(size=(20, 3)), y=np.arange(20) % 3 - 1)
        assert change[0] in JOB
        Path("job.yaml").write_text(JOB.replace(*change))
        outcome = command("train", "job.yaml")
        assert outcome.code == 2, outcome.err
        assert outcome.err.startswith("error: ")
        for words in told:
            assert words.lower() in outcome.err.lower()
        assert "Traceback" not in outcome.err
        left = [p for p in Path("runs").rglob("*") if p.is_file() and p.suffix == ".safetensors"]
        assert not left

    def test_constant_target(self, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("flat.csv").write_text("\n".join(["a,y", *[f"{i},5" for i in range(40)]]))
        text = (
            JOB.replace("source: digits", "source: {name: csv, path: flat.csv, target: y}")
            + "task: regression\n"
        )
        Path("job.yaml").write_text(text)
        outcome = command("train", "job.yaml")
        assert outcome.code == 2
        assert "constant" in outcome.err.lower() or "same" in outcome.err.lower()

    def test_an_unreachable_cluster(self, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("job.yaml").write_text(JOB)
        outcome = command("train", "job.yaml", "--address", "127.0.0.1:9", "--executor", "ray")
        assert outcome.code == 2
        assert "no cluster answers" in outcome.err
        assert ":9" in outcome.err

    @pytest.mark.parametrize("verb", ["status", "report", "evaluate"])
    def test_a_folder_without_a_run(self, verb, command, tmp_path):
        outcome = command(verb, tmp_path)
        assert outcome.code == 2
        assert "holds no run" in outcome.err


class TestVerbs:
    def test_plan_says_why(self, command, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        Path("job.yaml").write_text(JOB)
        plan = json.loads(command("plan", "job.yaml", "--json").out)
        assert [len(slot["pack"]["members"]) for slot in plan["slots"]] == [2]
        assert plan["slots"][0]["reason"]
        assert list(tmp_path.iterdir()) == [tmp_path / "job.yaml"]
        assert "one structure" in command("plan", "job.yaml").out

    def test_validate_and_set(self, command, tmp_path):
        path = tmp_path / "job.yaml"
        path.write_text(JOB)
        assert command("validate", path).code == 0
        resolved = command("validate", path, "--resolved", "--set", "training.epochs=9").out
        assert "epochs: 9" in resolved
        assert command("validate", path, "--set", "training.epocs=9").code == 2

    def test_schema_and_choices_are_json(self, command):
        assert "properties" in json.loads(command("schema").out)
        assert {"adamw", "sgd"} <= {
            c["name"] for c in json.loads(command("choices", "optimizer", "--json").out)["optimizer"]
        }
        assert command("choices", "optimiser").code == 2
        assert "adamw" in command("choices").out

    def test_doctor_names_the_cores(self, command):
        assert "CPU cores" in command("doctor").out

    def test_status(self, command, finished):
        found = json.loads(command("status", finished, "--json", "--verify").out)
        assert [m["status"] for m in found["members"]] == ["done", "done"]
        assert found["damaged"] == []
        assert "done" in command("status", finished).out

    def test_evaluate_gives_the_stored_numbers_and_those_of_new_data(self, command, finished):
        stored = json.loads(command("evaluate", finished, "--json").out)
        again = json.loads(command("evaluate", finished, "--json", "--data", "digits").out)["data"]
        assert stored["test"]["rows"] < again["rows"] == 1797
        assert again["ensemble"]["accuracy"] > 0.8

    def test_evaluate_takes_many_runs_and_says_what_else_is_asked(self, command, finished, tmp_path):
        np.savez(tmp_path / "odd.npz", x=np.zeros((20, 1, 8, 8), np.float32))
        wishes = ("--ood", tmp_path / "odd.npz", "--shift")
        found = json.loads(command("evaluate", finished, finished, "--json").out)
        assert list(found) == [str(finished)]
        told = command("evaluate", finished, *wishes)
        assert told.code == 0, told.err
        assert "20 rows from elsewhere" in told.out
        assert "Accuracy on worsened images" in told.out
        both = command("evaluate", finished, finished, "--ood", tmp_path / "odd.npz")
        assert both.out.count("20 rows from elsewhere") == 2
        assert command("evaluate", finished, "--slices", "x").code == 2

    def test_evaluate_refuses_data_of_another_kind(self, command, finished):
        outcome = command("evaluate", finished, "--data", "breast_cancer")
        assert outcome.code == 2
        assert "Traceback" not in outcome.err

    @pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
    def test_predict_gives_every_row_back_in_order(self, suffix, command, finished, tmp_path):
        images = np.random.default_rng(0).uniform(0, 16, size=(9, 1, 8, 8)).astype(np.float32)
        np.savez(tmp_path / "new.npz", x=images)
        out = tmp_path / f"predictions{suffix}"
        outcome = command("predict", finished, "--input", tmp_path / "new.npz", "--output", out)
        assert outcome.code == 0, outcome.err
        table = read(out)
        assert [int(r) for r in table["row"]] == list(range(9))
        total = sum(np.asarray(table[f"p_{c}"], dtype=float) for c in range(10))
        np.testing.assert_allclose(total, 1, atol=1e-5)
        assert {"prediction", "entropy", "mutual_information"} <= set(table)

    def test_predict_refuses_an_unknown_format(self, command, finished, tmp_path):
        outcome = command("predict", finished, "--input", tmp_path / "x.npz", "--output", tmp_path / "x.xls")
        assert outcome.code == 2
        assert ".xls" in outcome.err


class TestEach:
    """``--each``: several runs in one command."""

    @pytest.fixture
    def there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        Path("job.yaml").write_text(JOB)
        return tmp_path / "runs" / "small"

    def test_the_mean_over_the_runs(self, command, there):
        told = json.loads(command("train", "job.yaml", "--each", "seed=3:5", "--json").out)
        runs = [json.loads((there / f"seed={seed}" / "metrics.json").read_text()) for seed in (3, 4)]
        values = [run["test"]["ensemble"]["accuracy"] for run in runs]
        summary = told["summary"]["test"]["ensemble"]["accuracy"]
        assert summary["mean"] == pytest.approx(sum(values) / 2)
        assert summary["standard_error"] == pytest.approx(abs(values[0] - values[1]) / 2)
        assert (told["values"], told["short"]) == (["3", "4"], {})
        assert json.loads((there / "each.json").read_text())["summary"] == told["summary"]

    def test_every_run_is_told_when_it_ends(self, command, there):
        outcome = command("train", "job.yaml", "--each", "seed=0,1,0")
        assert outcome.code == 0
        assert "4 members to train in 2 slots" in outcome.err
        assert [line.split(":")[0] for line in outcome.err.splitlines() if line.startswith("seed=")] == [
            "seed=0",
            "seed=1",
        ]
        assert "mean ± standard error" in outcome.out

    @pytest.mark.parametrize(
        ("each", "told"),
        [
            ("training.epochs=2,0", ["training.epochs", "0"]),
            ("training.epoch=1:3", ["training.epoch", "epochs"]),
            ("data.source=digits,breast", ["breast"]),
            ("data.test=0.5,0.999", ["data.test=0.999: ", "leave no rows"]),
            ("data.validation=0.1,holdout", ["data.validation=holdout: ", "Named splits: none"]),
            ("seed", ["--each seed", "KEY=A:B"]),
            ("seed=5:5", ["KEY=A:B"]),
        ],
    )
    def test_a_bad_value_is_refused_before_anything_starts(self, each, told, command, there):
        outcome = command("train", "job.yaml", "--each", each)
        assert outcome.code == 2, outcome.err
        assert all(words in outcome.err for words in told)
        assert not there.exists()

    def test_a_run_short_of_its_quorum_is_named_and_the_others_are_summarised(self, command, there):
        Path("job.yaml").write_text(JOB.replace("name: adamw, lr: 0.01", "name: sgd, lr: 0.05"))
        each = "training.optimizer.lr=0.05,1e30,0.1"
        outcome = command("train", "job.yaml", "--each", each)
        assert outcome.code == 1
        assert "training.optimizer.lr=1e30: 0 of 2 members finished" in outcome.err
        found = json.loads((there / "each.json").read_text())
        assert list(found["short"]) == ["1e30"]
        assert found["summary"]["test"]["ensemble"]["accuracy"]["runs"] == 2
        assert "mean ± standard error" in outcome.out


def read(path: Path) -> dict[str, Any]:
    """A table of any of the three formats as columns."""
    if path.suffix == ".npz":
        return dict(np.load(path))
    table = pa_parquet.read_table(path) if path.suffix == ".parquet" else pa_csv.read_csv(path)
    columns: dict[str, Any] = table.to_pydict()
    return columns


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["validate", "job.yaml"],
        ["plan", "job.yaml"],
        ["choices"],
        ["schema"],
        ["train", "--help"],
    ],
)
def test_light_verbs_load_no_torch(arguments, tmp_path):
    (tmp_path / "job.yaml").write_text(JOB)
    code = (
        "import sys; sys.argv = ['ensemble-svc', *sys.argv[1:]]\n"
        "from ensemble_svc.cli.main import run\n"
        "try: run()\n"
        "except SystemExit as left: assert not left.code, left.code\n"
        "heavy = {'torch', 'ray', 'lightning', 'kornia', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
