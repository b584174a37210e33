"""Laws of what is measured in pieces: it is what all rows at once say, and a run's large split is measured so."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_svc import appraising
from ensemble_svc.aggregate.decision import Decision, equal
from ensemble_svc.appraising import measure
from ensemble_svc.cli.measures import remarks
from ensemble_svc.evaluate import pieces
from ensemble_svc.evaluate.tally import Tally
from ensemble_svc.report.decision import decided
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import parse_job

tasks = pytest.mark.parametrize("task", ["classification", "regression"])


def job_of(task: str, **evaluate: Any) -> JobSpec:
    source = "digits" if task == "classification" else {"name": "csv", "path": "x.csv", "target": "y"}
    plain = {"name": "many", "task": task, "data": {"source": source}, "model": {"name": "mlp"}}
    return parse_job(plain | {"ensemble": {"members": 4}, "evaluate": {"resamples": 200, **evaluate}})


def problem(task: str, seed: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    if task == "classification":
        target = torch.randint(3, (120,), generator=draw)
        noise = torch.randn(4, 120, 3, generator=draw) * 2
        return {"log_probs": (noise + torch.nn.functional.one_hot(target, 3)).log_softmax(-1)}, target
    mean, log_variance = torch.randn(2, 4, 120, 2, generator=draw)
    return {"mean": mean, "log_variance": log_variance}, torch.randn(120, 2, generator=draw)


@tasks
@pytest.mark.parametrize(
    ("seed", "numbers", "few"), [(0, 40, True), (1, 700, False), (2, 300, True), (3, 9999, False)]
)
def test_pieces_say_what_all_rows_say(task, seed, numbers, few) -> None:
    """Metrics, estimates of gains, reliability and classes; intervals are of another bootstrap."""
    extra = {"classification": ("aurc", "ece_adaptive"), "regression": ("crps",)}[task]
    job = job_of(task, metrics=("nll", "accuracy" if task == "classification" else "rmse", *extra))
    members, target = problem(task, seed)
    ids = [f"m{k}" for k in range(4)]
    decision = Decision(members=("m0", "m2"), weights=(0.75, 0.25)) if few else equal(ids)
    whole = measure(job, decision, ids, members, target, best=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appraising, "HELD_NUMBERS", 500)
        patch.setattr(pieces, "NUMBERS", numbers)
        cut = measure(job, decision, ids, members, target, best=1)
    sampled = cut.pop("sampled")
    assert sampled["rows"] < 120
    assert {"size_curve", "diversity"} <= set(sampled["what"]) <= set(cut)
    assert set(cut) == set(whole)
    assert cut["ensemble"] == pytest.approx(whole["ensemble"], rel=1e-9)
    assert cut["rows"] == whole["rows"]
    for kind in ("mean", "std", "best", "worst"):
        for name, value in cut["members"][kind].items():
            assert value == pytest.approx(whole["members"][kind][name], rel=1e-9)
    for rival, gains in whole["gain"].items():
        for name, gain in gains.items():
            if name in cut["gain"][rival]:
                assert cut["gain"][rival][name]["estimate"] == pytest.approx(gain["estimate"], abs=1e-9)
    assert cut.get("reliability") == whole.get("reliability")
    assert cut.get("classes") == whole.get("classes")
    if few:
        assert cut["rivals"]["equal_mixture"]["nll"] == pytest.approx(whole["rivals"]["equal_mixture"]["nll"])


def test_a_whole_run_is_measured_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ensemble_svc import pipeline
    from ensemble_svc.local import LocalExecutor

    plain: dict[str, Any] = {
        "name": "many",
        "data": {"source": "digits", "validation": 0.2, "test": 0.3},
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": 2, "batch_size": 128},
        "ensemble": {"members": 3},
        "evaluate": {"resamples": 100},
        "compute": {"executor": "local", "measure": "off"},
    }
    found = {}
    for name, held in (("whole", appraising.HELD_NUMBERS), ("cut", 2000)):
        monkeypatch.setattr(appraising, "HELD_NUMBERS", held)
        run = pipeline.train(
            parse_job(plain), out=tmp_path / name, directory=tmp_path, executor=LocalExecutor()
        )
        found[name] = run.metrics()["test"]
        assert (run.path / "report.html").is_file()
    assert found["cut"]["ensemble"] == pytest.approx(found["whole"]["ensemble"], rel=1e-9)
    rows = found["cut"]["sampled"]["rows"]
    assert 0 < rows < found["cut"]["rows"]
    for told in (remarks, lambda split: decided({}, {"test": split})):
        (said,) = (line for line in told(found["cut"]) if "sample of" in line)
        assert "size curve" in said
        assert f"a sample of {rows:,} " in said
        assert not any("sample of" in line for line in told(found["whole"]))


def test_a_sample_is_named_by_what_is_told_of_it_alone() -> None:
    plain = {
        "name": "searched",
        "data": {"source": "digits"},
        "search": {"space": {"training.optimizer.lr": {"loguniform": [1e-3, 0.1]}}, "trials": 3},
    }
    log_probs_KNC = torch.randn(3, 40, 4).log_softmax(2)
    decision = Decision(members=("a", "c"), weights=(0.5, 0.5), picks=("a", "c"), rows="validation")
    found = appraising.of_some_rows(
        parse_job(plain),
        "classification",
        decision,
        ["a", "b", "c"],
        {"log_probs": log_probs_KNC},
        torch.randint(4, (40,)),
    )
    assert found["searched"]
    assert found["sampled"] == {"rows": 40, "what": ["pick_curve", "diversity"]}


def test_what_each_member_says_is_let_go_once_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a split would be held while it is written."""
    from ensemble_svc import conclude, pipeline
    from ensemble_svc.local import LocalExecutor

    own = conclude._own
    alive: list[weakref.ref[torch.Tensor]] = []
    held: list[int] = []

    def reading(*args: Any) -> Any:
        held.append(sum(one() is not None for one in alive))
        found = own(*args)
        alive.extend(weakref.ref(value) for value in found.values())
        return found

    monkeypatch.setattr(conclude, "_own", reading)
    plain = {
        "name": "held",
        "data": {"source": "digits", "validation": 0.2, "test": 0.3},
        "model": {"name": "mlp", "hidden": [8]},
        "training": {"epochs": 1},
        "ensemble": {"members": 3},
        "evaluate": {"resamples": 100},
        "compute": {"executor": "local", "measure": "off"},
    }
    pipeline.train(parse_job(plain), out=tmp_path / "run", directory=tmp_path, executor=LocalExecutor())
    assert len(alive) == 6
    assert held == [0] * 6
    assert not any(one() is not None for one in alive)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_measured_stays_as_it_is(dtype: torch.dtype) -> None:
    log_probs, target = torch.randn(20, 3, dtype=dtype).log_softmax(1), torch.arange(20) % 3
    before = log_probs.clone()
    Tally(("accuracy", "nll", "brier", "ece"), 1).add([{"log_probs": log_probs}], target)
    assert torch.equal(log_probs, before)
