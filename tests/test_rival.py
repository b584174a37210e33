"""The single model that costs what the ensemble does: its cost, its place beside it, and that nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_nn_build import MODELS_OF
from torch import nn

from ensemble_svc import pipeline
from ensemble_svc.cli.roster import status_table
from ensemble_svc.cli.tables import plan_table
from ensemble_svc.errors import SpecError
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.local import LocalExecutor
from ensemble_svc.plan.cost import DataShape
from ensemble_svc.plan.plan import SINGLE, MemberSpec, Pack, Slot
from ensemble_svc.plan.single import cost, parameters, single_of
from ensemble_svc.planning import make_plan, members_of, prepare
from ensemble_svc.predictor import Ensemble
from ensemble_svc.report.decision import decided
from ensemble_svc.reselecting import reselect
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.model import MODELS, Network
from ensemble_svc.spec.single import widths
from ensemble_svc.store.members import sealed
from ensemble_svc.store.reached import Reached
from ensemble_svc.store.run import Run
from ensemble_svc.store.status import status_of
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.start import fit

ZOO = [choice for choice in MODELS if issubclass(choice, Network)]
BASE: dict[str, Any] = {
    "name": "beside",
    "data": {"source": "digits", "preprocess": ["standardize"], "validation": 0.2, "test": 0.3},
    "model": {"name": "mlp", "hidden": [16], "norm": "batch"},
    "training": {"epochs": 3, "batch_size": 128},
    "ensemble": {"members": 4, "resample": "bootstrap"},
    "evaluate": {"resamples": 100, "single": "auto"},
    "compute": {"executor": "local", "measure": "off", "commit_every_s": 0.0},
}


def job_of(**changes: Any) -> Any:
    own = {
        key: {**BASE[key], **value} if isinstance(BASE.get(key), dict) else value
        for key, value in changes.items()
    }
    return parse_job(BASE | own)


def train(out: Path, **changes: Any) -> Run:
    executor = LocalExecutor(retries=0)
    return pipeline.train(job_of(**changes), out=out, directory=Path.cwd(), executor=executor)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("rival") / "run")


PREPARED = prepare(job_of(), Path.cwd())


def members_like(model: Network, number: int) -> Any:
    job = job_of(ensemble={"members": number}).model_copy(update={"model": model})
    return job, members_of(job_of(ensemble={"members": number}), PREPARED)


def changed(member: MemberSpec, **own: Any) -> MemberSpec:
    return MemberSpec(**{name: getattr(member, name) for name in MemberSpec.model_fields} | own)


@given(st.sampled_from(ZOO).flatmap(lambda choice: MODELS_OF[choice]), st.integers(2, 40))
@settings(max_examples=40)
def test_a_wider_network_has_the_parameters_of_all_members(model: Network, number: int) -> None:
    """As nearly as whole units allow: one unit more or less in each layer lies on the two sides of it."""
    job, members = members_like(model, number)
    members = tuple(changed(m, model=model) for m in members)
    shape = DataShape((3, 16, 16), 10, 1000, 100)
    single = single_of(job, members, dict.fromkeys(range(number), 500), shape, num_rows=500)
    assert single.index == SINGLE
    if not widths(model):
        assert single.training.epochs == number * job.training.epochs
        return
    wanted = sum(parameters(m, 500, shape) or 0 for m in members)
    found = parameters(single, 500, shape)
    assert found is not None
    assert single.training == job.training
    around = [parameters(_shifted(single, step), 500, shape) or 0 for step in (-1, 1)]
    assert around[0] <= wanted <= around[1] or abs(found - wanted) <= 0.02 * wanted


def _shifted(single: Any, step: int) -> Any:
    own = {n: getattr(single.model, n) for n in widths(single.model)}
    moved = {
        n: max(1, v + step) if isinstance(v, int) else tuple(max(1, w + step) for w in v)
        for n, v in own.items()
    }
    return changed(single, model=single.model.model_copy(update=moved))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(2, 900)), min_size=2, max_size=20))
@settings(max_examples=40)
def test_more_epochs_cost_what_the_members_do(own: list[tuple[int, int]]) -> None:
    """Members of other lengths and bags count by what they read."""
    job, members = members_like(job_of().model, len(own))
    job = job.model_copy(update={"evaluate": job.evaluate.model_copy(update={"single": "epochs"})})
    members = tuple(
        changed(m, training=m.training.model_copy(update={"epochs": epochs}))
        for m, (epochs, _) in zip(members, own, strict=True)
    )
    shape, sizes = DataShape((64,), 10, 1000, 100), {k: rows for k, (_, rows) in enumerate(own)}
    single = single_of(job, members, sizes, shape, num_rows=500)
    wanted = sum(cost(m, sizes[m.index], shape) for m in members)
    one_epoch = cost(single, 500, shape) / single.training.epochs
    assert abs(cost(single, 500, shape) - wanted) <= one_epoch / 2 or single.training.epochs == 1
    assert single.model == job.model


def test_members_are_the_same_with_it_and_without(beside: Run, tmp_path: Path) -> None:
    alone = train(tmp_path / "alone", evaluate={"single": "none"})
    files = [{name: m["files"] for name, m in _by_id(run).items()} for run in (beside, alone)]
    tensors = [
        {n: sha for own in each.values() for n, sha in own.items() if n.endswith((".safetensors", ".npy"))}
        for each in files
    ]
    assert tensors[0] == tensors[1]
    assert "single" in beside.manifest()
    assert "single" not in alone.manifest()
    assert beside.manifest()["candidates"] == alone.manifest()["candidates"]
    assert beside.manifest()["ensemble"] == alone.manifest()["ensemble"]
    plain = {n: v for n, v in beside.metrics()["test"].items() if n not in ("single", "rivals", "gain")}
    assert plain == {n: v for n, v in alone.metrics()["test"].items() if n != "gain"}
    for over, gain in alone.metrics()["test"]["gain"].items():
        assert beside.metrics()["test"]["gain"][over] == gain


def _by_id(run: Run) -> dict[str, Any]:
    return {member["id"]: member for member in run.manifest()["members"]}


def test_it_is_in_no_ensemble_and_stands_apart(beside: Run) -> None:
    manifest = beside.manifest()
    own = manifest["single"]
    assert own["id"].startswith("single-")
    assert own["status"] == "done"
    assert own["id"] not in {*manifest["candidates"], *manifest["ensemble"]["members"], *_by_id(beside)}
    assert sum(len(group.members) for group in Ensemble.load(beside.path).groups) == 4
    status = status_of(beside)
    assert status["single"]["id"] == own["id"]
    assert [m["index"] for m in status["members"]] == [0, 1, 2, 3]
    assert "4 of 4 members done" in str(status_table(status).title)
    reached = Reached(beside.path)
    reached.update()
    assert sorted(reached.members) == [0, 1, 2, 3]
    assert reached.single is not None
    assert reached.single.status == "done"
    assert [epoch for epoch, *_ in reached.single.curve] == [1, 2, 3]
    assert beside.predictions("test")["log_probs"].shape[0] == 4


def test_the_gain_over_it_is_the_difference_on_the_same_rows(beside: Run) -> None:
    summary, own = beside.metrics()["test"], beside.manifest()["single"]
    said = beside_tensors(beside, own)
    target = beside.predictions("test")["target"]
    expected = measure("classification", said, target)
    assert summary["rivals"]["single"] == pytest.approx(expected)
    assert expected["nll"] == pytest.approx(own["metrics"]["test"]["nll"], abs=1e-6)
    gain = summary["gain"]["over_single"]["nll"]
    assert gain["estimate"] == pytest.approx(expected["nll"] - summary["ensemble"]["nll"])
    assert gain["low"] < gain["estimate"] < gain["high"]
    assert any("One single model" in sentence for sentence in decided(beside.manifest(), beside.metrics()))


def beside_tensors(run: Run, own: Any) -> dict[str, torch.Tensor]:
    from ensemble_svc.store.members import read_tensors

    return read_tensors(run.path, own["files"], own["id"], "predictions-test.safetensors")


def test_it_trains_alone_as_any_member_does(beside: Run, tmp_path: Path) -> None:
    """Its digest is its identity: a slot of it by itself, elsewhere, seals the same bits."""
    job = job_of()
    prepared = prepare(job, Path.cwd())
    plan = make_plan(job, prepared, LocalExecutor().resources())
    (slot,) = (slot for slot in plan.slots if slot.pack.members[0].is_single)
    assert len(slot.pack) == 1
    assert "single model" in [str(cell) for cell in plan_table(plan).columns[1]._cells]
    run = Run(tmp_path / "elsewhere")
    run.path.mkdir()
    payload = Payload(prepared.dataset, prepared.split, prepared.schema, str(run.path), 0.0)
    fit(payload, Slot(pack=Pack(members=slot.pack.members), cpus=1, gpus=0, reason=""), lambda _: None)
    (seal,) = sealed(run.path).values()
    here = beside.manifest()["single"]["files"]
    tensors = {name for name in here if name.endswith(".safetensors")}
    assert {name: seal["files"][name] for name in tensors} == {name: here[name] for name in tensors}


def test_asked_for_later_it_alone_is_trained_and_a_larger_ensemble_has_a_larger_one(tmp_path: Path) -> None:
    run = train(tmp_path / "run", evaluate={"single": "none"})
    before = {d: e["time"] for d, e in sealed(run.path).items()}
    train(tmp_path / "run")
    after = {d: e["time"] for d, e in sealed(run.path).items()}
    assert {d: after[d] for d in before} == before
    assert len(after) == len(before) + 1
    first = run.manifest()["single"]
    train(tmp_path / "run", ensemble={"members": 5})
    second = run.manifest()["single"]
    assert first["id"] != second["id"]
    assert second["spec"]["model"]["hidden"][0] > first["spec"]["model"]["hidden"][0]
    assert len(run.manifest()["members"]) == 5
    assert len(status_of(run)["members"]) == 5
    assert status_of(run)["single"]["id"] == second["id"]


def test_it_is_calibrated_as_the_ensemble_is_and_reselect_keeps_it(beside: Run, tmp_path: Path) -> None:
    import shutil

    run = Run(Path(shutil.copytree(beside.path, tmp_path / "run")))
    job = parse_job(run.job().model_dump(mode="json") | {"aggregate": {"calibrate": "temperature"}})
    reselect(run, job, directory=tmp_path)
    summary = run.metrics()["test"]
    assert summary["single"]["calibrated"]
    assert summary["rivals"]["single"]["accuracy"] == beside.metrics()["test"]["rivals"]["single"]["accuracy"]
    assert summary["rivals"]["single"]["nll"] != beside.metrics()["test"]["rivals"]["single"]["nll"]
    straight = train(tmp_path / "straight", aggregate={"calibrate": "temperature"})
    assert straight.metrics()["test"] == summary


def test_where_it_alone_is_not_calibrated_the_report_says_so(beside: Run, tmp_path: Path) -> None:
    run = train(tmp_path / "run", data={"validation": "oob"}, aggregate={"calibrate": "temperature"})
    assert run.manifest()["ensemble"]["calibration"]
    assert run.metrics()["test"]["single"]["calibrated"] is False
    words = "The ensemble is calibrated and the single model is not"
    assert any(s.startswith(words) for s in decided(run.manifest(), run.metrics()))
    assert not any(s.startswith(words) for s in decided(beside.manifest(), beside.metrics()))


@pytest.mark.parametrize("calibrate", ["temperature", "none"])
def test_rows_that_promise_a_coverage_do_not_calibrate_it_either(calibrate: str) -> None:
    """One training beside itself: the same predictions give the same temperature."""
    from ensemble_svc.aggregate.decision import HeldOut
    from ensemble_svc.deciding import decided as decision_of
    from ensemble_svc.rival import _calibrated

    job = job_of(aggregate={"calibrate": calibrate, "conformal": 0.1})
    draw = torch.Generator().manual_seed(0)
    target = torch.randint(3, (60,), generator=draw)
    logits = torch.randn(60, 3, generator=draw) + nn.functional.one_hot(target, 3)
    said = {"log_probs": logits.log_softmax(-1)}
    single = _calibrated(job, {"validation": said}, {"validation": target})
    rows = HeldOut("validation", {"log_probs": said["log_probs"][None]}, target)
    ensemble = decision_of(job, job.aggregate, ["single"], rows)
    assert single.calibration == ensemble.calibration
    assert (single.calibration is None) == (calibrate == "none")
    assert single.conformal is None


def test_of_several_tasks_it_is_calibrated_too(tmp_path: Path) -> None:
    tasks = {"progression": {"kind": "regression"}, "sex": {"kind": "classification"}}
    own = {"task": "multitask", "data": {"source": "diabetes"}, "tasks": tasks}
    run = train(tmp_path / "run", **own, aggregate={"calibrate": "temperature", "conformal": 0.2})
    assert run.metrics()["test"]["single"]["calibrated"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "regression", "data": {"source": "diabetes"}},
        {
            "task": "multitask",
            "data": {"source": "diabetes"},
            "tasks": {"progression": {"kind": "regression"}, "sex": {"kind": "classification"}},
        },
        {"training": {"average": {"name": "swag", "samples": 3, "rank": 2, "start": 0.2}}},
        {"ensemble": {"members": 1, "resample": "none", "mc_samples": 3}, "model": {"dropout": 0.2}},
        {"data": {"validation": "oob"}},
    ],
    ids=["numbers", "tasks", "swag", "dropout", "oob"],
)
def test_it_stands_beside_every_kind_of_ensemble(changes: dict[str, Any], tmp_path: Path) -> None:
    run = train(tmp_path / "run", **changes)
    summary = run.metrics()["test"]
    for own in summary.get("tasks", {"": summary}).values():
        assert own["gain"]["over_single"]["nll"]["low"] <= own["gain"]["over_single"]["nll"]["high"]
        assert own["rivals"]["single"].keys() == own["ensemble"].keys()
    assert summary["single"]["cost"]["ensemble"]["epochs"] == 3 * run.job().ensemble.members
    assert any("One single model" in sentence for sentence in decided(run.manifest(), run.metrics()))


class Fused(nn.Linear):
    """Says NaN after so many training steps."""

    def __init__(self, num_in: int, num_out: int, steps: int) -> None:
        super().__init__(num_in, num_out)
        self.steps = steps
        self.register_buffer("done", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.done += 1
        return super().forward(x.flatten(1)) + torch.where(self.done > self.steps, torch.nan, 0.0)


def build_fused(input_shape: tuple[int, ...], num_outputs: int, steps: int) -> Fused:
    return Fused(64, num_outputs, steps)


def test_one_that_diverges_is_told_and_the_run_still_succeeds(tmp_path: Path) -> None:
    """A network of the user's own has no width that is known, so it trains as many times longer, until it fails."""
    model = {"name": "python", "factory": "test_rival:build_fused", "options": {"steps": 40}}
    job = parse_job(BASE | {"model": model, "ensemble": {"members": 3}})
    run = pipeline.train(job, out=tmp_path / "run", directory=Path.cwd(), executor=LocalExecutor(retries=0))
    single = run.manifest()["single"]
    assert single["hyperparameters"] == {"training.epochs": 9}
    assert single["status"] == "diverged"
    assert [m["status"] for m in run.manifest()["members"]] == ["done"] * 3
    assert "over_single" not in run.metrics()["test"]["gain"]
    (said,) = (s for s in decided(run.manifest(), run.metrics()) if "single model" in s)
    assert said.startswith("One single model of the same recipe, allowed the same cost (epochs 9) diverged: ")
    assert said.endswith("; the ensemble is not measured against it.")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ensemble": {"members": 1}}, "its own single model"),
        ({"model": {"hidden": []}, "evaluate": {"single": "width"}}, "use epochs"),
        (
            {
                "search": {
                    "space": {"training.optimizer.lr": {"loguniform": [1e-4, 1e-2]}},
                    "trials": 4,
                }
            },
            "members of a search",
        ),
    ],
)
def test_what_it_cannot_be_compared_with_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        job_of(**changes)
