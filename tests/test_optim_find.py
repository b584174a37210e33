"""Finding a learning rate: what is read from the losses, that the candidates differ by the rate alone, and lr: auto."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from law_runs import job_of
from typer.testing import CliRunner

from ensemble_svc import pipeline
from ensemble_svc.cli.main import app
from ensemble_svc.errors import OtherJob, TrainError
from ensemble_svc.finding import LEARNED, NUM_RATES, TOP, find, judge, settled, with_rate
from ensemble_svc.local import LocalExecutor
from ensemble_svc.planning import members_of, prepare
from ensemble_svc.spec.contradictions import contradictions
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import load_job
from ensemble_svc.spec.optimizers import OPTIMIZERS
from ensemble_svc.train.find import losses_at
from ensemble_svc.train.payload import Payload

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {
    "training__optimizer": {"name": "sgd", "lr": "auto"},
    "training__epochs": 2,
    "ensemble__members": 2,
    "compute__executor": "local",
}
OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, outputs, picky):
        super().__init__()
        self.out = nn.Linear(64, outputs)
        self.picky = picky

    def forward(self, x):
        if self.picky and x.sum() > 1e9:  # decides by a value, which no stack of members can
            return self.out(-x.flatten(1))
        return self.out(x.flatten(1))

def build(input_shape, num_outputs, picky=False):
    return Net(num_outputs, picky)
"""


@pytest.fixture
def own_net(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_linear.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def payload_of(job: JobSpec) -> tuple[Payload, Any]:
    prepared = prepare(job, Path.cwd())
    return Payload(prepared.dataset, prepared.split, prepared.schema, "", 1.0), prepared


losses = st.lists(st.floats(-5, 5), min_size=12, max_size=12)


class TestJudgement:
    """What the two rules read from the losses."""

    @given(rows=st.lists(losses, min_size=1, max_size=8), broken=st.sets(st.integers(0, 6)))
    def test_the_largest_that_does_not_diverge_and_the_lowest_among_such(self, rows, broken):
        for k in broken & set(range(len(rows) - 1)):
            rows[k] = [*rows[k][:-1], math.nan]
        rates = [2.0**-k for k in range(len(rows))]
        found = judge(rates, rows)
        fine = [t for t in found.trials if not t.diverged]
        assert not found.trials[-1].diverged
        best = min(t.loss for t in fine)
        able = [t.rate for t in fine if t.loss <= best + (1 - LEARNED) * (found.start - best)]
        assert found.largest == max(able) >= found.lowest
        assert found.lowest in [t.rate for t in fine if t.loss == min(f.loss for f in fine)]
        assert all(found.trials[k].diverged for k in broken & set(range(len(rows) - 1)))
        json.dumps(found.as_data(), allow_nan=False)

    def test_a_peak_is_a_divergence_though_it_is_overcome(self):
        still, falls = [1.0] * 30, [1.0 - t / 40 for t in range(30)]
        peak = [1.0, 3.0, 3.0, 3.0, *[0.1] * 26]
        found = judge([4.0, 2.0, 1.0], [peak, falls, still])
        assert [trial.diverged for trial in found.trials] == [True, False, False]
        assert found.lowest == found.largest == 2.0

    @given(rows=st.lists(losses, min_size=12, max_size=12))
    def test_what_parts_the_smallest_rates_too_is_noise(self, rows):
        rows[0] = rows[-2]
        found = judge([2.0**-k for k in range(12)], rows)
        assert not found.trials[0].diverged
        assert not found.trials[-2].diverged

    def test_a_rate_that_hardly_learns_is_not_taken_though_it_does_not_diverge(self):
        still, hardly, well, best = ([loss] * 20 for loss in (1.0, 0.9, 0.15, 0.1))
        assert judge([8.0, 4.0, 2.0, 1.0], [hardly, well, best, still]).largest == 4.0

    def test_a_network_that_breaks_at_every_rate_is_told(self):
        with pytest.raises(TrainError, match="not finite even at 1.0e-06.*inspect JOB"):
            judge([1.0, 1e-6], [[math.nan] * 3, [1.0, math.inf, 1.0]])


class TestCandidates:
    """They differ by the rate alone."""

    def test_each_is_what_it_is_alone_and_begins_like_the_others(self):
        payload, prepared = payload_of(job_of(**SMALL))
        member = members_of(with_rate(job_of(**SMALL), 1.0), prepared)[0]
        rates = [0.5, 0.1, 1e-6]
        together = losses_at(payload, member, rates, num_steps=30, device=CPU)
        assert together.shape == (3, 30)
        torch.testing.assert_close(together[:, 0], together[:1, 0].expand(3))
        for k, rate in enumerate(rates):
            alone = losses_at(payload, member, [rate], num_steps=30, device=CPU)
            torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-3, atol=1e-4)
        assert together[1, -1] < together[2, -1]

    def test_nothing_is_changed(self):
        torch.manual_seed(3)
        before = torch.random.get_rng_state()
        job = job_of(**SMALL, training__schedule={"name": "cosine", "warmup": 9})
        assert find(job, payload_of(job)[1]) == find(job, payload_of(job)[1])
        assert torch.equal(torch.random.get_rng_state(), before)

    @pytest.mark.parametrize("optimizer", list(OPTIMIZERS), ids=lambda c: c.model_fields["name"].default)
    def test_every_optimizer_has_a_rate(self, optimizer):
        name = optimizer.model_fields["name"].default
        job = job_of(**SMALL | {"training__optimizer": {"name": name, "lr": "auto"}})
        found = find(job, payload_of(job)[1], num_steps=20)
        assert len(found.trials) == NUM_RATES
        assert 1e-5 < found.lowest <= found.largest <= TOP

    @pytest.mark.parametrize(
        "changes",
        [
            {"task": "regression", "data": {"source": "diabetes", "preprocess": ("standardize",)}},
            {"task": "regression", "data": {"source": "diabetes"}, "training__loss": "mse"},
            {"model": {"name": "convnet", "channels": (4,), "dense": ()}, "training__batch_size": "full"},
            {"data": {"source": "digits", "stream": "on"}, "ensemble__resample": "bootstrap"},
            {"model": {"name": "python", "factory": "own_linear:build"}},
            {"model": {"name": "python", "factory": "own_linear:build", "options": {"picky": True}}},
        ],
        ids=["gaussian", "mse", "convolutions", "stream", "own", "own, unstackable"],
    )
    @pytest.mark.usefixtures("own_net")
    def test_every_kind_of_job(self, changes):
        job = job_of(**SMALL | changes)
        found = find(job, payload_of(job)[1], num_steps=12)
        assert found.lowest <= found.largest
        assert sum(trial.diverged for trial in found.trials) < NUM_RATES


class TestAuto:
    """training.optimizer.lr: auto."""

    def train(self, run: Path, **changes: Any) -> Any:
        return pipeline.train(
            job_of(**SMALL | changes), out=run, directory=Path.cwd(), executor=LocalExecutor()
        )

    def test_it_is_found_once_recorded_and_what_every_member_trains_at(self, tmp_path):
        heard: list[float] = []
        job = job_of(**SMALL)
        run = pipeline.train(
            job,
            out=tmp_path / "run",
            directory=Path.cwd(),
            executor=LocalExecutor(),
            listener=pipeline.Listener(found=heard.append),
        )
        (event,) = run.journal.of_kind("lr_found")
        assert event["lr"] == find(job, payload_of(job)[1]).largest == heard[0]
        assert event["lr"] == event["suggested"]["halving"]
        assert load_job(run.path / "job.yaml", ()).training.optimizer.lr == "auto"
        plain = job_of(**SMALL | {"training__optimizer": {"name": "sgd", "lr": event["lr"]}})
        wanted = {m.digest for m in members_of(plain, payload_of(plain)[1])}
        assert {e["digest"] for e in run.journal.of_kind("sealed")} == wanted

    def test_a_later_start_takes_it_from_the_journal(self, tmp_path):
        first = self.train(tmp_path / "run")
        digests = {e["digest"] for e in first.journal.of_kind("sealed")}
        grown = self.train(tmp_path / "run", ensemble__members=3)
        assert len(grown.journal.of_kind("lr_found")) == 1
        assert digests < {e["digest"] for e in grown.journal.of_kind("sealed")}
        job = job_of(**SMALL)
        grown.journal.append("lr_found", lr=0.125)
        again = settled(job, payload_of(job)[1], tmp_path / "run")
        assert (again.rate, again.found, again.job) == (0.125, None, with_rate(job, 0.125))

    def test_a_number_in_its_place_is_another_job(self, tmp_path):
        self.train(tmp_path / "run")
        with pytest.raises(OtherJob, match="lr: auto → 0.5"):
            self.train(tmp_path / "run", training__optimizer={"name": "sgd", "lr": 0.5})

    def test_members_are_never_made_with_it(self):
        job = job_of(**SMALL)
        with pytest.raises(ValueError, match="lr is auto; it is to be found before"):
            members_of(job, payload_of(job)[1])

    @pytest.mark.parametrize(
        ("lr", "vary", "path"),
        [
            ("auto", {"training.optimizer.lr": (0.1, 0.2)}, "training.optimizer.lr"),
            ("auto", {"training.optimizer": ("sgd", "adamw")}, "training.optimizer.lr"),
            (0.1, {"training.optimizer.lr": (0.1, "auto")}, "ensemble.vary.training.optimizer.lr"),
            (
                0.1,
                {"training.optimizer": ({"name": "sgd", "lr": "auto"},)},
                "ensemble.vary.training.optimizer",
            ),
        ],
    )
    def test_it_cannot_vary(self, lr, vary, path):
        job = job_of(training__optimizer={"name": "sgd", "lr": lr}, ensemble__vary=vary)
        (fault,) = contradictions(job)
        assert fault.path == path
        assert "'auto' finds one rate for all members" in fault.message

    def test_other_keys_may_vary(self):
        vary = {"training.optimizer.momentum": (0.0, 0.9), "model.hidden": ((8,), (4,))}
        assert not contradictions(
            job_of(training__optimizer={"name": "sgd", "lr": "auto"}, ensemble__vary=vary)
        )


class TestCommandLine:
    JOB = """\
name: little
data: {source: digits, preprocess: [standardize]}
model: {name: mlp, hidden: [8]}
training: {epochs: 1, optimizer: {name: sgd, lr: auto}}
ensemble: {members: 2}
compute: {executor: local}
"""

    @pytest.fixture
    def job(self, tmp_path, monkeypatch) -> Path:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "little.yaml").write_text(self.JOB)
        return tmp_path / "little.yaml"

    def test_find_lr_plots_and_suggests(self, job):
        done = CliRunner().invoke(app, ["find-lr", str(job)])
        assert done.exit_code == 0
        told = CliRunner().invoke(app, ["find-lr", str(job), "--json"])
        found = json.loads(told.stdout)
        assert len(found["trials"]) == NUM_RATES
        for name, rate in found["suggested"].items():
            assert f"{rate:.3g}" in done.stdout, name
        assert "█" in done.stdout
        assert "← halving" in done.stdout

    @pytest.mark.parametrize("verb", ["plan", "inspect"])
    def test_verbs_that_make_members_say_what_auto_is(self, verb, job):
        found = json.loads(CliRunner().invoke(app, ["find-lr", str(job), "--json"]).stdout)
        done = CliRunner().invoke(app, [verb, str(job)])
        assert done.exit_code == 0
        assert f"training.optimizer.lr: auto is {found['suggested']['halving']:.4g}" in done.stderr

    def test_it_is_a_number_or_auto(self, job):
        done = CliRunner().invoke(app, ["validate", str(job), "--set", "training.optimizer.lr=auton"])
        assert done.exit_code != 0
        assert "'auton' is not allowed; must be a number above 0, or auto" in str(done.exception)
