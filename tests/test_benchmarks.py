"""The benchmarks run at a tiny size, contenders that train the same members get the same ones, and all is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]


def python(*words: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    """``python -m …`` in the repository, with or without a folder of data."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("ENSEMBLE_DATA", None)
    environment |= {"ENSEMBLE_DATA": str(data)} if data else {}
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny contest of three and a tiny probe."""
    folder = tmp_path_factory.mktemp("results")
    named = ("--only", "digits16", "rate64", "--contenders", "loop", "ours_packed", "ours_alone")
    done = python("benchmarks.run", "--full", "--tiny", "--repeats", "1", *named, "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def contest(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "digits16.json").read_text())
    return found


def test_a_contest_says_what_ran_where_and_how_it_ended(results: Path) -> None:
    found = contest(results)
    assert set(found["contenders"]) == {"loop", "ours_packed", "ours_alone"}
    assert found["work"]["members"] == 3
    assert {"cpu", "cores", "versions", "date", "commit"} <= set(found["machine"])
    assert [set(one["order"]) for one in found["rounds"]] == [set(found["contenders"])]
    for entry in found["contenders"].values():
        assert len(entry["training_s"]) == len(entry["whole_s"]) == len(entry["accuracy"]) == 1
        assert 0 < entry["training_s"][0] < entry["whole_s"][0]
        assert entry["versions"]["torch"] == torch.__version__


def test_contenders_with_the_same_draws_train_the_same_members(results: Path) -> None:
    loop, *ours = contest(results)["contenders"].values()
    for entry in ours:
        assert entry["nll"] == pytest.approx(loop["nll"], rel=1e-4)
        assert entry["member_accuracy"] == loop["member_accuracy"]


def test_results_name_neither_host_nor_path(results: Path) -> None:
    for path in results.glob("*.json"):
        text = path.read_text()
        assert os.uname().nodename not in text.split('"')
        assert str(ROOT) not in text
        assert str(Path.home()) + "/" not in text


def test_the_table_has_a_row_for_each_contender_and_each_measure(results: Path) -> None:
    table = python("benchmarks.table", str(results)).stdout
    for entry in contest(results)["contenders"].values():
        cells = next(
            line.split(" | ") for line in table.splitlines() if line.startswith(f"| {entry['title']} |")
        )
        assert cells[1] == f"{entry['training_s'][0]:.2f}"
        assert f"{entry['accuracy'][0]:.2%}" in cells
    rate = json.loads((results / "rate64.json").read_text())
    for name in rate["measures"]:
        assert f"{rate['title']}: {name} |" in table
    widths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert widths <= {5, 10}


def test_work_without_its_data_is_named_and_left_out(tmp_path: Path) -> None:
    done = python("benchmarks.run", "--tiny", "--only", "lenet10", "--out", str(tmp_path))
    assert done.returncode == 0
    assert "lenet10: not measured: ENSEMBLE_DATA is not set" in done.stdout
    done = python("benchmarks.run", "--tiny", "--only", "lenet10", "--out", str(tmp_path), data=tmp_path)
    assert "holds no fashion_mnist.npz" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_name_that_stands_for_nothing_is_refused() -> None:
    done = python("benchmarks.run", "--contenders", "oors")
    assert done.returncode == 1
    assert "'oors' is no contender; there are loop, " in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_gpu_benchmark_refuses_in_one_line_where_there_is_none() -> None:
    done = python("benchmarks.gpu")
    assert done.returncode == 1
    assert done.stderr.startswith("no CUDA device here; ")
    assert done.stderr.count("\n") == 1


def test_the_gpu_benchmark_runs_through_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    done = python("benchmarks.gpu", "--device", "cpu", "--tiny", "--repeats", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    for name in ("64 MLP over one", "32 LeNet-5 over one", "bf16 matmul rate"):
        assert all(value > 0 for value in found["measures"][name]["values"])
    assert len(found["measures"]["64 MLP over one"]["values"]) == 2
    table = python("benchmarks.table", str(tmp_path)).stdout
    assert "cpu: 64 MLP over one | ≤ 2 |" in table


def test_what_is_made_of_predictions_is_measured_small_and_judged_at_full_size_alone(tmp_path: Path) -> None:
    done = python("benchmarks.aggregate", "--quick", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ("streamed", "greedy")}
    assert all(entry["values"][0] > 0 for one in found.values() for entry in one["measures"].values())
    assert set(found["greedy"]["measures"]) == {"nll", "accuracy", "brier"}
    assert "resamples of the gain" in done.stdout
    assert "### Targets" not in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_the_search_benchmark_runs_through(tmp_path: Path) -> None:
    done = python("benchmarks.search", "--tiny", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    digits = json.loads((tmp_path / "search_digits.json").read_text())["measures"]
    for title in ("Tune, reuse_actors", "Tune"):
        assert digits[f"{title}, over ours in one process"]["values"][0] > 0
        ends = (digits[f"ours - {title}, {end} end of 95 %"]["values"][0] for end in ("low", "high"))
        assert next(ends) < next(ends)
    trials = json.loads((tmp_path / "search_trials.json").read_text())["measures"]
    assert trials["ours, peak of 8"]["values"][0] > 100
    assert "search of the digits" in python("benchmarks.table", str(tmp_path)).stdout


def test_batch_evaluation_and_the_loop_measure_the_same(tmp_path: Path) -> None:
    """It refuses to time two that do not say the same accuracy and NLL of the same rows."""
    done = python("benchmarks.batch_eval", "--tiny", "--repeats", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "batch_eval.json").read_text())
    assert found["measures"]["ratio"]["values"][0] > 0
    assert "ratio" in python("benchmarks.table", str(tmp_path)).stdout
