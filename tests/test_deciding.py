"""From trained members to other ensembles of them: selected, calibrated, souped, grown, compared; nothing retrained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from ensemble_svc import pipeline, reselecting
from ensemble_svc.aggregate.predictions import average
from ensemble_svc.batch import predict_file
from ensemble_svc.comparing import compare
from ensemble_svc.data import inputs
from ensemble_svc.errors import DataError, EnsembleSvcError, OtherJob
from ensemble_svc.evaluating import Wish, evaluate
from ensemble_svc.local import LocalExecutor
from ensemble_svc.planning import members_of, prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.rereading import own_data
from ensemble_svc.reselecting import check_change, reselect
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.run import Run
from ensemble_svc.store.status import damage
from ensemble_svc.train.assemble import assemble

BASE: dict[str, Any] = {
    "name": "small",
    "data": {"source": "digits", "preprocess": ["standardize"], "validation": 0.2, "test": 0.2},
    "model": {"name": "mlp", "hidden": [16]},
    "training": {"epochs": 3, "batch_size": 128},
    "ensemble": {"members": 4},
    "evaluate": {"resamples": 100},
    "compute": {"executor": "local", "measure": "off"},
}


def train(out: Path, **changes: Any) -> Run:
    job = parse_job(BASE | changes)
    return pipeline.train(job, out=out, directory=Path.cwd(), executor=LocalExecutor(retries=0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("deciding") / "run").path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy that a test may change."""
    import shutil

    return Run(Path(shutil.copytree(trained, tmp_path / "run")))


def with_aggregate(run: Run, **aggregate: Any) -> Any:
    return parse_job(run.job().model_dump(mode="json") | {"aggregate": aggregate})


def test_reselect_is_what_training_with_it_would_have_decided(run: Run, tmp_path: Path) -> None:
    aggregate = {"select": "greedy", "calibrate": "temperature", "conformal": 0.1}
    before = {p: p.read_bytes() for p in run.path.glob("members/*/weights.safetensors")}
    decision = reselect(run, with_aggregate(run, **aggregate), directory=tmp_path)
    straight = train(tmp_path / "straight", aggregate=aggregate)
    found, expected = run.manifest()["ensemble"], straight.manifest()["ensemble"]
    assert found["version"] == 2
    assert {k: v for k, v in found.items() if k != "version"} == {
        k: v for k, v in expected.items() if k != "version"
    }
    assert run.metrics()["test"] == straight.metrics()["test"]
    assert {p: p.read_bytes() for p in before} == before
    assert decision.rows == "validation"
    assert run.metrics()["test"]["gain"]["over_equal_mixture"]["nll"]["estimate"] == pytest.approx(
        run.metrics()["test"]["rivals"]["equal_mixture"]["nll"] - run.metrics()["test"]["ensemble"]["nll"]
    )


def test_no_reported_row_decides(run: Run, tmp_path: Path) -> None:
    """Other test predictions, however bad, decide the same."""
    job = with_aggregate(run, select="greedy", calibrate="vector")
    decision = reselect(run, job, directory=tmp_path)
    other = train(tmp_path / "other", data=BASE["data"] | {"test": 0.2}, aggregate=job.aggregate.model_dump())
    assert other.manifest()["ensemble"]["weights"] == list(decision.weights)
    held = run.predictions("validation")
    assert decision.num_rows == len(held["target"])


def test_the_served_ensemble_says_what_was_measured(run: Run, tmp_path: Path) -> None:
    job = with_aggregate(run, select={"name": "top_k", "k": 2}, calibrate="temperature", conformal=0.2)
    reselect(run, job, directory=tmp_path)
    ensemble = Ensemble.load(run.path)
    assert len(ensemble.decision.members) == 2
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.float32)[:, None]
    rows = run.predictions("test")["row"].numpy()
    said = ensemble.predict(images[rows])
    target = run.predictions("test")["target"].numpy()
    accuracy = (said.mean.argmax(1) == target).mean()
    assert accuracy == pytest.approx(run.metrics()["test"]["ensemble"]["accuracy"], abs=1e-9)
    inside = said.region["inside"][np.arange(len(target)), target].mean()
    assert inside == pytest.approx(run.metrics()["test"]["coverage"]["covered"], abs=1e-9)
    np.savez(tmp_path / "new.npz", x=images[:5])
    predict_file(run.path, tmp_path / "new.npz", tmp_path / "said.csv")
    head = (tmp_path / "said.csv").read_text().splitlines()[0]
    assert '"set"' in head


def test_new_rows_can_decide(run: Run, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.float32)
    np.savez(tmp_path / "own.npz", x=images[:300], y=digits.target[:300])
    reported = len({*run.predictions("test")["row"].tolist()} & {*range(300)})
    own = f"{{name: npz, path: {tmp_path / 'own.npz'}}}"
    with pytest.raises(DataError, match=f"holds {reported} rows of the run's test split"):
        reselect(run, with_aggregate(run, select="greedy"), data=own, directory=tmp_path)
    trained = [*({*range(300)} - {*run.predictions("test")["row"].tolist()} - set(_validation(run)))]
    np.savez(tmp_path / "own.npz", x=images[trained], y=digits.target[trained])
    with pytest.raises(DataError, match=f"holds {len(trained)} rows that members were trained on"):
        reselect(run, with_aggregate(run, select="greedy"), data=own, directory=tmp_path)
    noise = np.random.default_rng(0).normal(size=images[:300].shape).astype(np.float32)
    np.savez(tmp_path / "held.npz", x=images[:300] + noise, y=digits.target[:300])
    source = f"{{name: npz, path: {tmp_path / 'held.npz'}}}"
    decision = reselect(run, with_aggregate(run, select="greedy"), data=source, directory=tmp_path)
    assert decision.rows == "data"
    assert decision.num_rows == 300
    found = evaluate(run, Wish(data=source), tmp_path).metrics["data"]
    assert (found["rows"], found["own_rows"]) == (300, {"trained": 0, "chosen": 300})
    assert not damage(run)
    reselect(run, with_aggregate(run, select="greedy"), directory=tmp_path)
    assert not (run.path / "deciding.safetensors").exists()
    assert evaluate(run, Wish(data=source), tmp_path).metrics["data"]["own_rows"]["chosen"] == 0


def test_what_is_said_of_new_rows_is_written_in_pieces_and_leaves_no_file(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, ids = own_data(run), run.manifest()["candidates"]
    assert not isinstance(prepared, str)
    rows, before = prepared.dataset, sorted((run.path / "predictions").iterdir())
    (run.path / "predictions" / ".tmp-1-said.safetensors").write_text("of one that was killed")
    whole = Ensemble.load(run.path, members=ids).members(rows.x)
    monkeypatch.setattr(inputs, "PIECE_ROWS", 100)
    said = reselecting._said(run, ids, rows)
    assert said.said.keys() == whole.keys()
    for name, stack in whole.items():
        torch.testing.assert_close(said.said[name], stack, rtol=1e-5, atol=1e-6)
    assert sorted((run.path / "predictions").iterdir()) == before


def _validation(run: Run) -> list[int]:
    rows: list[int] = run.predictions("validation")["row"].tolist()
    return rows


def test_the_runs_own_rows_decide_nothing_anew(run: Run, tmp_path: Path) -> None:
    """Rows that report are among them."""
    before = run.manifest()["ensemble"]
    with pytest.raises(DataError, match="only other rows can decide"):
        reselect(run, with_aggregate(run, select="greedy"), data="digits", directory=tmp_path)
    assert run.manifest()["ensemble"] == before


def test_what_would_need_training_is_refused(run: Run) -> None:
    other = parse_job(run.job().model_dump(mode="json") | {"seed": 5})
    with pytest.raises(OtherJob, match="only the aggregate and evaluate sections.*seed: 0 → 5"):
        check_change(run, other)


def test_growing_keeps_the_old_members_and_decides_anew(run: Run) -> None:
    old = [member["digest"] for member in run.manifest()["members"]]
    job = run.job()
    grown = job.model_copy(update={"ensemble": job.ensemble.model_copy(update={"members": 6})})
    pipeline.train(grown, out=run.path, directory=Path.cwd(), executor=LocalExecutor(retries=0))
    manifest = run.manifest()
    assert [member["digest"] for member in manifest["members"]][:4] == old
    assert len(manifest["ensemble"]["members"]) == 6
    assert manifest["ensemble"]["version"] == 2


def test_runs_are_compared_on_the_rows_they_share(run: Run, trained: Path, tmp_path: Path) -> None:
    reselect(run, with_aggregate(run, select={"name": "top_k", "k": 1}), directory=tmp_path)
    found = compare([Run(trained), run])
    first, second = found["runs"]
    assert first["metrics"] == {
        name: pytest.approx(value) for name, value in Run(trained).metrics()["test"]["ensemble"].items()
    }
    assert second["gain"]["nll"]["estimate"] == pytest.approx(
        first["metrics"]["nll"] - second["metrics"]["nll"]
    )
    assert second["gain"]["nll"]["low"] <= second["gain"]["nll"]["estimate"] <= second["gain"]["nll"]["high"]
    same = compare([Run(trained), Run(trained)])["runs"][1]
    assert all(gain == {"estimate": 0, "low": 0, "high": 0} for gain in same["gain"].values())


def test_runs_on_other_data_are_not_compared(run: Run, tmp_path: Path) -> None:
    other = train(tmp_path / "other", data={"source": "breast_cancer", "preprocess": ["standardize"]})
    with pytest.raises(DataError, match="are of other data"):
        compare([run, other])


@pytest.mark.parametrize(
    "resample, validation", [("bootstrap", "oob"), ({"name": "kfold", "folds": 4}, "oof")]
)
def test_training_rows_decide_by_those_that_did_not_see_them(
    resample: Any, validation: str, tmp_path: Path
) -> None:
    data = {"source": "digits", "preprocess": ["standardize"], "validation": validation, "test": 0.2}
    run = train(
        tmp_path / "run",
        data=data,
        ensemble={"members": 4, "resample": resample},
        training={"epochs": 40, "batch_size": 64},
        aggregate={"select": "greedy", "calibrate": "temperature"},
    )
    manifest, split = run.manifest(), run.predictions("train")
    assert manifest["ensemble"]["rows"] == validation
    assert manifest["rows"]["validation"] == 0
    assert manifest["rows"]["train"] == split["seen"].shape[1]
    seen = split["seen"].bool()
    share = seen.double().mean().item()
    assert share == pytest.approx(0.632 if validation == "oob" else 0.75, abs=0.03)
    if validation == "oof":
        assert ((~seen).sum(0) == 1).all()
    for k, member in enumerate(manifest["members"]):
        own = split["log_probs"][k][~seen[k]]
        nll = -own.gather(1, split["target"][~seen[k]][:, None]).double().mean().item()
        assert member["metrics"]["oob"]["nll"] == pytest.approx(nll, rel=1e-5)
        # what a member has seen it knows better: the mask is the right way round
        known = split["log_probs"][k][seen[k]].gather(1, split["target"][seen[k]][:, None]).mean()
        assert own.gather(1, split["target"][~seen[k]][:, None]).mean() < known


def alike(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A network that begins with the same weights, and already knows something, for every member."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, num_outputs))
    return net


def convex(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A layer alone: of its weights' mean the loss is never above the mean of the losses."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))


def test_independent_starts_make_no_soup_and_say_so(tmp_path: Path) -> None:
    run = train(tmp_path / "run", aggregate={"soup": "uniform"}, training={"epochs": 8, "batch_size": 64})
    soup = run.metrics()["test"]["soup"]
    assert max(soup["barriers"]) > 0.05
    assert "No soup" in soup["note"]
    assert "metrics" not in soup
    assert not (run.path / "soup.safetensors").exists()


@pytest.mark.parametrize(("soup", "network"), [("uniform", "alike"), ("greedy", "convex")])
def test_members_of_one_start_make_a_soup_that_is_measured(soup: str, network: str, tmp_path: Path) -> None:
    run = train(
        tmp_path / "run",
        model={"name": "python", "factory": f"test_deciding:{network}"},
        ensemble={"members": 4, "resample": "bootstrap"},
        training={"epochs": 2, "batch_size": 128, "optimizer": {"name": "adamw", "lr": 0.002}},
        aggregate={"soup": soup},
    )
    found = run.metrics()["test"]["soup"]
    assert max(found["barriers"]) <= 0.05
    assert 1 < len(found["members"]) <= 4
    ids = run.manifest()["candidates"]
    states = [run.tensors(member, "weights.safetensors") for member in found["members"]]
    assert set(found["members"]) <= set(ids)
    kept = load(run.verified("soup.safetensors"))
    for name, value in kept.items():
        if value.is_floating_point():
            mean = torch.stack([state[name].double() for state in states]).mean(0)
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    gain = found["gain_over_ensemble"]["nll"]
    assert gain["estimate"] == pytest.approx(
        run.metrics()["test"]["ensemble"]["nll"] - found["metrics"]["nll"], abs=1e-6
    )


def test_the_best_member_alone_is_no_soup(tmp_path: Path) -> None:
    """Between independent starts no average is as good as the best of them, however high a barrier may be."""
    soup = {"name": "greedy", "barrier": 1000.0}
    run = train(tmp_path / "run", aggregate={"soup": soup}, training={"epochs": 8, "batch_size": 64})
    found = run.metrics()["test"]["soup"]
    assert found["note"].startswith("No soup: the loss of ")
    assert found["members"] == []
    assert "gain_over_ensemble" not in found
    assert not (run.path / "soup.safetensors").exists()


def test_the_equal_mixture_stays_the_equal_mixture(trained: Path) -> None:
    run = Run(trained)
    split = run.predictions("test")
    mixed = average(split["log_probs"])
    nll = -mixed.gather(1, split["target"][:, None]).double().mean().item()
    assert run.metrics()["test"]["ensemble"]["nll"] == pytest.approx(nll, rel=1e-6)
    assert json.loads((trained / "manifest.json").read_text())["ensemble"]["rows"] == "none"
    assert "rivals" not in run.metrics()["test"]


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"aggregate": {"select": "greedy"}, "data": BASE["data"] | {"validation": 0.0}},
            "needs held-out rows",
        ),
        ({"data": BASE["data"] | {"validation": "oob"}}, "'oob' needs members that leave rows out"),
        (
            {"data": BASE["data"] | {"validation": "oof"}, "ensemble": {"resample": "bootstrap"}},
            "needs folds",
        ),
        (
            {
                "data": BASE["data"] | {"validation": "oob"},
                "ensemble": {"resample": "bootstrap"},
                "training": {"early_stopping": {}},
            },
            "needs validation rows, and data.validation is oob",
        ),
        ({"aggregate": {"combine": "stacking", "select": "greedy"}}, "use one"),
        ({"aggregate": {"calibrate": "variance"}}, "for regression; use temperature"),
        (
            {"aggregate": {"select": {"name": "greedy", "score": "rmse"}}},
            "'rmse' is not a measure of classification",
        ),
        (
            {"aggregate": {"soup": "greedy"}, "data": BASE["data"] | {"validation": 0.0}},
            "needs held-out rows",
        ),
        (
            {
                "aggregate": {"soup": "uniform"},
                "ensemble": {"members": 2, "vary": {"model.hidden": [[16], [8]]}},
            },
            "averages the weights of one network, and members vary model.hidden",
        ),
        (
            {
                "aggregate": {"soup": "greedy"},
                "search": {"space": {"model.hidden": {"choice": [[16], [8]]}}, "trials": 2},
            },
            "averages the weights of one network, and members vary model.hidden",
        ),
    ],
)
def test_what_cannot_be_decided_is_refused_with_the_reason(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(EnsembleSvcError, match=words):
        parse_job(BASE | changes)


SHORT = {"epochs": 5, "batch_size": 32, "optimizer": {"name": "adamw", "lr": 0.002}}
WIDE = {"name": "mlp", "hidden": [64]}


def test_a_shared_start_and_a_small_rate_leave_a_far_lower_barrier(tmp_path: Path) -> None:
    """The same training from independent starts has a way between members that no soup survives."""
    found = {}
    for shared in (True, False):
        run = train(
            tmp_path / f"run-{shared}",
            model=WIDE,
            training=SHORT,
            ensemble={"members": 3, "resample": "bootstrap", "share_init": shared},
            aggregate={"soup": "uniform"},
        )
        found[shared] = run.metrics()["test"]["soup"]
    assert max(found[True]["barriers"]) < max(found[False]["barriers"]) / 10
    assert found[True]["metrics"]["accuracy"] > 0.8
    assert "independent starts" in found[False]["note"]


def test_members_that_share_a_start_differ_in_all_else_and_are_the_same_packed_and_alone(
    tmp_path: Path,
) -> None:
    ensemble = {"members": 3, "resample": "bootstrap", "share_init": True}
    packed, alone = (
        train(tmp_path / pack, ensemble=ensemble, compute=BASE["compute"] | {"pack": pack})
        for pack in ("auto", "off")
    )
    states = [
        [run.tensors(m["id"], "weights.safetensors") for m in run.manifest()["members"]]
        for run in (packed, alone)
    ]
    for ours, theirs in zip(*states, strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5)
    first, second, _ = states[0]
    assert all(not torch.equal(first[n], second[n]) for n in first if n.endswith("weight"))
    rows = [
        (packed.path / "members" / m["id"] / "resample.npy").read_bytes()
        for m in packed.manifest()["members"]
    ]
    assert rows[0] != rows[1]


def test_only_those_who_take_anothers_start_are_other_members(trained: Path, tmp_path: Path) -> None:
    job = parse_job(BASE | {"ensemble": {"members": 4, "share_init": True}})
    prepared = prepare(job, tmp_path)
    shared = members_of(job, prepared)
    plain = members_of(parse_job(BASE), prepared)
    assert shared[0].digest == plain[0].digest == Run(trained).manifest()["members"][0]["digest"]
    assert [m.start for m in shared] == [0, 0, 0, 0]
    for ours, theirs in zip(shared[1:], plain[1:], strict=True):
        assert ours.digest != theirs.digest
        begun = [assemble(member, prepared.schema).state_dict() for member in (ours, shared[0])]
        assert all(torch.equal(value, begun[1][name]) for name, value in begun[0].items())


def test_members_of_several_structures_make_no_soup_and_say_so(tmp_path: Path) -> None:
    """Found when all have trained, so it must not end the run."""
    run = train(
        tmp_path / "run",
        ensemble={"members": 2, "vary": {"training.batch_size": [64, 128], "model.dropout": [0.0, 0.1]}},
        aggregate={"soup": "greedy"},
    )
    soup = run.metrics()["test"]["soup"]
    assert soup["note"].startswith("No soup: the members in the ensemble have several structures")
    assert "metrics" not in soup
    assert run.manifest()["ensemble"]["members"]


def test_reselect_measures_the_way_anew_and_makes_the_soup_of_whom_it_chooses(tmp_path: Path) -> None:
    run = train(
        tmp_path / "run",
        model=WIDE,
        training=SHORT,
        ensemble={"members": 4, "share_init": True},
        aggregate={"soup": "uniform"},
    )
    before = run.metrics()["test"]["soup"]
    assert len(before["members"]) == 4
    reselect(run, with_aggregate(run, soup="uniform", select={"name": "top_k", "k": 2}), directory=tmp_path)
    after = run.metrics()["test"]["soup"]
    assert after["members"] == run.manifest()["ensemble"]["members"]
    assert len(after["members"]) == 2
    assert len(after["barriers"]) == 1
    states = [run.tensors(member, "weights.safetensors") for member in after["members"]]
    kept = load(run.verified("soup.safetensors"))
    for name, value in kept.items():
        if value.is_floating_point():
            mean = torch.stack([state[name].double() for state in states]).mean(0)
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    reselect(run, with_aggregate(run, select={"name": "top_k", "k": 1}, soup="uniform"), directory=tmp_path)
    assert "one training" in run.metrics()["test"]["soup"]["note"]
    assert "soup.safetensors" not in run.manifest()["files"]
    assert not (run.path / "soup.safetensors").exists()
    reselect(run, with_aggregate(run, soup="none"), directory=tmp_path)
    assert "soup" not in run.metrics()["test"]
    assert damage(run) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": {"name": "mlp", "init": "lsuv"}}, "lsuv"),
        ({"vary": {"model.hidden": [[8], [16]]}}, "members vary model.hidden"),
    ],
)
def test_a_start_that_cannot_be_shared_is_refused(changes: dict[str, Any], words: str) -> None:
    vary = changes.pop("vary", {})
    with pytest.raises(EnsembleSvcError, match=words):
        parse_job(BASE | {"ensemble": {"members": 2, "share_init": True, "vary": vary}} | changes)
