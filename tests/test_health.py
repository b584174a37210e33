"""Babysitting before training: the statistics are those of their definitions, the findings those of the lecture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn
from typer.testing import CliRunner

from ensemble_svc.cli.main import app
from ensemble_svc.health.bend import edge
from ensemble_svc.health.checkup import Checkup, check
from ensemble_svc.health.findings import findings
from ensemble_svc.optim.single import build
from ensemble_svc.planning import members_of, prepare, rows_of
from ensemble_svc.spec.load import load_job
from ensemble_svc.spec.optimizers import Optimizer
from ensemble_svc.vitals.watching import activity, noted

ROOT = Path(__file__).parent.parent
LECTURE = ROOT / "jobs" / "lecture"


def checkup(path: Path, *overrides: str) -> Checkup:
    job = load_job(path, overrides)
    prepared = prepare(job, ROOT)
    member = members_of(job, prepared)[0]
    return check(member, prepared.dataset, prepared.schema, rows_of(member, prepared))


def test_an_activity_is_that_of_its_definition():
    z = torch.randn(50, 7, 3, 3)
    z[:, 2] = -z[:, 2].abs()
    relu = activity(nn.ReLU(), z.relu())
    assert (relu.kind, relu.saturated) == ("relu", None)
    assert relu.dead == pytest.approx(1 / 7)
    assert relu.mean == pytest.approx(z.relu().mean().item(), rel=1e-5)
    assert relu.std == pytest.approx(z.relu().std(correction=0).item(), rel=1e-5)
    assert sum(relu.histogram) == z.numel()
    assert relu.edges == (0.0, pytest.approx(z.max().item()))
    tanh = activity(nn.Tanh(), (3 * z).tanh())
    assert tanh.saturated == pytest.approx(((3 * z).tanh().abs() > 0.97).double().mean().item())
    assert tanh.dead is None
    sigmoid = activity(nn.Sigmoid(), (6 * z).sigmoid())
    same_z = 2 * math.atanh(0.97)
    assert sigmoid.saturated == pytest.approx(((6 * z).abs() > same_z).double().mean().item(), abs=0.01)


def test_layers_come_in_the_order_of_the_pass():
    net = nn.ModuleDict({"b": nn.Linear(4, 3), "a": nn.Linear(3, 2)})
    with noted(net) as layers:
        net["a"](net["b"](torch.ones(2, 4)))
    assert [layer.name for layer in layers] == ["b", "a"]
    assert not any(module._forward_hooks for module in net.modules())


class TestTheLecture:
    """Ten layers of 500 units, by their initial weights."""

    def test_small_weights_let_the_activations_collapse(self):
        found = checkup(LECTURE / "tanh_std_001.yaml")
        spread = [layer.activity.std for layer in found.layers if layer.activity]
        assert all(later < 0.4 * earlier for earlier, later in zip(spread, spread[1:], strict=False))
        assert findings(found)[0].startswith("The activations collapse towards 0")
        assert not found.learned

    def test_large_weights_saturate(self):
        found = checkup(LECTURE / "tanh_std_1.yaml")
        assert all(layer.activity.saturated > 0.7 for layer in found.layers if layer.activity)
        assert any("of the outputs are saturated" in sentence for sentence in findings(found))

    @pytest.mark.parametrize("job", ["tanh_xavier", "relu_he"])
    def test_fitting_weights_keep_the_signal(self, job):
        found = checkup(LECTURE / f"{job}.yaml")
        spread = [layer.activity.std for layer in found.layers if layer.activity]
        assert min(spread) > 0.5 * max(spread)
        assert found.learned
        assert findings(found) == []

    def test_xaviers_weights_shrink_behind_rectified_units(self):
        """Half of the power is lost in each layer, so the spread falls by the root of 2."""
        found = checkup(LECTURE / "relu_xavier.yaml")
        spread = [layer.activity.std for layer in found.layers if layer.activity]
        ratio = (spread[-1] / spread[0]) ** (1 / (len(spread) - 1))
        assert ratio == pytest.approx(2**-0.5, abs=0.05)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.init=zeros", "stay alike for ever"),
        ("training.optimizer.lr=1e-9", "changes no layer's weights"),
        ("training.optimizer.lr=50", "The first step changes the weights"),
        ("model.init={name: gaussian, std: 0.3}", "where guessing gives"),
    ],
)
def test_each_fault_is_named(override, words):
    found = checkup(LECTURE / "relu_he.yaml", "model.hidden=[50, 50]", override)
    assert any(words in sentence for sentence in findings(found)), findings(found)


def test_dead_units_are_named():
    """A step that throws the biases far below 0 leaves units that no row wakes."""
    found = checkup(LECTURE / "relu_he.yaml", "model.hidden=[50]")
    layer = found.layers[0]
    layer.activity = activity(nn.ReLU(), torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    assert any("Layer 1: 67% of the units are dead" in sentence for sentence in findings(found))


@pytest.mark.parametrize("job", ["digits", "breast_cancer", "diabetes"])
def test_shipped_jobs_look_well(job):
    """Those that need no file."""
    found = checkup(ROOT / "jobs" / f"{job}.yaml")
    assert found.learned
    assert found.loss < 2 * abs(found.guess) + 1


def test_smoothed_labels_can_be_learned_by_heart():
    """Their loss has a floor above 0."""
    found = checkup(
        LECTURE / "relu_he.yaml",
        "model.hidden=[50]",
        "training.loss={name: cross_entropy, label_smoothing: 0.1}",
    )
    assert found.few_after > 0.4
    assert found.learned


def test_the_curvature_is_told_in_words_and_json(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    small = ["--set", "model.hidden=[8]", "--set", "training.epochs=2", "--set", "ensemble.members=2"]
    job = ["inspect", str(LECTURE / "relu_he.yaml"), *small, "--curvature"]
    shown = CliRunner().invoke(app, job)
    assert shown.exit_code == 0, shown.output
    assert "The sharpest curvature is" in shown.output
    data = json.loads(CliRunner().invoke(app, [*job, "--json"]).output)["curvature"]
    assert data["smallest"] <= data["largest"]
    assert data["stable_up_to"] > 0
    run = tmp_path / "run"
    train = ["train", str(LECTURE / "relu_he.yaml"), *small, "--executor", "local", "--out", str(run)]
    assert CliRunner().invoke(app, train).exit_code == 0
    trained = json.loads(CliRunner().invoke(app, [*job, "--run", str(run), "--json"]).output)["curvature"]
    assert trained["loss"] < data["loss"]
    assert CliRunner().invoke(app, [*job[:-1], "--run", str(run)]).exit_code == 2
    other = CliRunner().invoke(app, [*job, "--set", "seed=5", "--run", str(run)])
    assert other.exit_code != 0


@pytest.mark.parametrize(
    ("rule", "limit"),
    [
        ({"name": "sgd", "lr": 0.1}, 20.0),
        ({"name": "sgd", "lr": 0.1, "momentum": 0.9}, 38.0),
        ({"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True}, 38 / 2.8),
        ({"name": "adamw", "lr": 0.1}, 20.0),
    ],
)
def test_the_edge_of_stability_is_where_descent_on_a_parabola_turns(rule, limit):
    """Just below it torch's own rule comes to rest on a parabola, just above it does not."""
    choice = TypeAdapter(Optimizer).validate_python(rule)
    assert edge(choice) == pytest.approx(limit)
    if rule["name"] != "sgd":
        return
    for factor, rests in ((0.97, True), (1.03, False)):
        x = torch.ones(1, dtype=torch.float64, requires_grad=True)
        optimizer = build(choice, {"x": x})
        for _ in range(2000):
            optimizer.zero_grad()
            (factor * limit * x.square() / 2).sum().backward()
            optimizer.step()
        assert (abs(x.item()) < 1e-3) == rests


def test_looking_changes_no_member_and_no_random_state():
    first, second = (checkup(LECTURE / "relu_he.yaml", "model.hidden=[20]") for _ in range(2))
    assert [layer.gradient for layer in first.layers] == [layer.gradient for layer in second.layers]


def test_the_verb_speaks_words_and_json(monkeypatch):
    monkeypatch.chdir(ROOT)
    job = ["inspect", str(LECTURE / "tanh_std_001.yaml"), "--set", "model.hidden=[60, 60, 60, 60]"]
    shown = CliRunner().invoke(app, job)
    assert shown.exit_code == 0, shown.output
    assert "collapse" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 130
    data = json.loads(CliRunner().invoke(app, [*job, "--json"]).output)
    assert len(data["layers"]) == 5
    assert any("collapse" in sentence for sentence in data["findings"])
    refused = CliRunner().invoke(app, [*job, "--member", "2"])
    assert refused.exit_code == 2
