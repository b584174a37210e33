"""The whole way, in this process: same bits again, growing, damage, kills, and an ensemble of one."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_drivers import kill, start, wait_for
from whole_runs import artefacts, job_of, train

from ensemble_svc import pipeline
from ensemble_svc.errors import CorruptArtifact, OtherJob, QuorumError
from ensemble_svc.local import LocalExecutor
from ensemble_svc.predictor import Ensemble
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import dump_job
from ensemble_svc.store.run import Run
from ensemble_svc.store.status import damage, status_of
from ensemble_svc.train.strand import Strand


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One finished run that no test may change."""
    return train(job_of(), tmp_path_factory.mktemp("run") / "whole")


class TestTheWholeWay:
    def test_the_folder_holds_what_the_readme_promises(self, finished):
        names = {p.relative_to(finished.path).as_posix() for p in finished.path.rglob("*") if p.is_file()}
        assert {"job.yaml", "journal.jsonl", "manifest.json", "metrics.json", "report.html"} <= names
        assert {"predictions/test.safetensors", "predictions/validation.safetensors"} <= names
        member = finished.manifest()["members"][0]["id"]
        wanted = ("weights.safetensors", "history.parquet", "resample.npy", "health.json")
        assert {f"members/{member}/{name}" for name in wanted} <= names
        assert not [n for n in names if Path(n).name.startswith(".tmp")]
        assert not (finished.path / "packs").exists() or not list((finished.path / "packs").iterdir())

    def test_the_resolved_job_trains_the_same_members(self, finished, tmp_path):
        from ensemble_svc.spec.load import load_job

        again = load_job(finished.path / "job.yaml")
        assert again == finished.job() == job_of()

    def test_the_same_command_again_changes_nothing(self, finished):
        before = {p: p.read_bytes() for p in finished.path.rglob("*.safetensors")}
        run = train(job_of(), finished.path)
        assert {p: p.read_bytes() for p in run.path.rglob("*.safetensors")} == before

    def test_two_runs_end_with_the_same_bits(self, finished, tmp_path):
        assert artefacts(train(job_of(), tmp_path / "again")) == artefacts(finished)

    def test_metrics_are_those_of_the_stored_predictions(self, finished):
        stored = finished.predictions("test")
        mean = stored["log_probs"].double().exp().mean(0)
        accuracy = (mean.argmax(1) == stored["target"]).double().mean()
        nll = -mean.log().gather(1, stored["target"][:, None]).mean()
        metrics = finished.metrics()["test"]["ensemble"]
        assert metrics["accuracy"] == pytest.approx(float(accuracy))
        assert metrics["nll"] == pytest.approx(float(nll), rel=1e-5)

    def test_mixture_nll_is_below_the_mean_of_the_members(self, finished):
        """Law 7 (Jensen), on every split."""
        for split in finished.metrics().values():
            assert split["ensemble"]["nll"] <= split["members"]["mean"]["nll"]

    def test_the_loaded_ensemble_gives_the_stored_predictions(self, finished):
        from ensemble_svc.planning import prepare

        prepared = prepare(job_of(), Path.cwd())
        rows = prepared.split.test
        stored = finished.predictions("test")
        members = Ensemble.load(finished.path).members(prepared.dataset.x[rows])
        torch.testing.assert_close(members["log_probs"], stored["log_probs"], rtol=1e-4, atol=1e-5)
        assert stored["row"].tolist() == prepared.dataset.row[rows].tolist()

    def test_a_moved_run_is_whole(self, finished, tmp_path):
        import shutil

        moved = tmp_path / "ein anderer Ort ünd Name"
        shutil.copytree(finished.path, moved)
        assert damage(Run(moved)) == []
        assert Ensemble.load(moved).schema.classes

    def test_status_tells_every_member(self, finished):
        found = status_of(finished)
        assert found["state"] == "finished"
        assert [m["status"] for m in found["members"]] == ["done"] * 3


def test_an_ensemble_of_one_is_its_member(tmp_path):
    """Law 6, from the YAML to the metrics."""
    metrics = train(job_of(ensemble={"members": 1}), tmp_path / "one").metrics()
    for split in metrics.values():
        for name, value in split["members"]["mean"].items():
            assert split["ensemble"][name] == pytest.approx(value, rel=1e-12)


def test_more_members_leave_the_old_ones_alone(tmp_path):
    """Law 9: the same folder, a larger number."""
    old = train(job_of(ensemble={"members": 2}), tmp_path / "run").manifest()["members"]
    new = train(job_of(ensemble={"members": 4}), tmp_path / "run").manifest()["members"]
    assert [m["files"] for m in new[:2]] == [m["files"] for m in old]
    assert len({m["digest"] for m in new}) == 4


def test_a_diverged_member_is_left_out_and_told(tmp_path):
    changes = {
        "training": {"optimizer": {"name": "sgd", "lr": 0.05}},
        "ensemble": {"vary": {"training.optimizer.lr": (0.05, 1e30, 0.05)}},
        "model": {"name": "mlp", "hidden": (16,)},
    }
    with pytest.raises(QuorumError, match="2 of 3 members finished"):
        train(job_of(**changes), tmp_path / "run")
    manifest = Run(tmp_path / "run").manifest()
    assert [m["status"] for m in manifest["members"]] == ["done", "diverged", "done"]
    assert len(manifest["ensemble"]["members"]) == 2
    changes["ensemble"]["quorum"] = 0.5
    whole = train(job_of(**changes), tmp_path / "run")
    assert len(whole.predictions("test")["log_probs"]) == 2


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"training": {"epochs": 3}}, "training.epochs: 2 → 3"),
            ({"seed": 1}, "seed: 0 → 1"),
            ({"data": {"source": "digits", "test": 0.4}}, "data.test: 0.5 → 0.4"),
        ],
    )
    def test_another_job_in_the_folder(self, finished, changes, told):
        before = sorted(p.read_bytes() for p in finished.path.rglob("*") if p.is_file())
        with pytest.raises(OtherJob, match=told.replace(".", r"\.")):
            train(job_of(**changes), finished.path)
        assert sorted(p.read_bytes() for p in finished.path.rglob("*") if p.is_file()) == before

    def test_a_folder_of_something_else(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("mine")
        with pytest.raises(OtherJob, match=r"thesis\.tex"):
            train(job_of(), tmp_path)
        assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["thesis.tex"]


class TestDamage:
    """Law 4: a flipped byte in any artefact is found, named, and mended by the same command."""

    def test_any_file_of_a_run(self, tmp_path):
        run = train(job_of(), tmp_path / "run")
        chance = random.Random(0)
        listed = [run.path / "manifest.json", *(run.path / name for name in artefacts(run))]
        for path in listed:
            body = path.read_bytes()
            position = chance.randrange(len(body))
            path.write_bytes(body[:position] + bytes([body[position] ^ 4]) + body[position + 1 :])
            assert damage(run), f"{path.name}: a flipped bit at {position} went unseen"
            path.write_bytes(body)
        assert damage(run) == []

    def test_a_damaged_member_trains_again_to_the_same_bits(self, tmp_path):
        run = train(job_of(), tmp_path / "run")
        before = artefacts(run)
        victim = run.manifest()["members"][1]["id"]
        path = run.path / "members" / victim / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-3])
        with pytest.raises(CorruptArtifact, match=victim):
            Ensemble.load(run.path)
        assert artefacts(train(job_of(), run.path)) == before

    def test_swapped_members_are_found(self, tmp_path):
        run = train(job_of(), tmp_path / "run")
        a, b = (run.path / "members" / m["id"] / "weights.safetensors" for m in run.manifest()["members"][:2])
        one, two = a.read_bytes(), b.read_bytes()
        a.write_bytes(two)
        b.write_bytes(one)
        assert len(damage(run)) == 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the job of the next test ends with when nobody is killed."""
    return artefacts(train(long_job(), tmp_path_factory.mktemp("undisturbed") / "run"))


def long_job() -> JobSpec:
    return job_of(training={"epochs": 6}, compute={"pack": "off"})


@pytest.mark.parametrize(("event", "count"), [("begin", 1), ("commit", 2), ("sealed", 1), ("sealed", 3)])
def test_killed_anywhere_the_same_command_ends_with_the_same_bits(event, count, undisturbed, tmp_path):
    """Law 3, SIGKILL of the driver: before training, inside a member, between members, before evaluation."""
    driver = start(train, long_job(), tmp_path / "run")
    wait_for(tmp_path / "run", event, count)
    kill(driver)
    assert artefacts(train(long_job(), tmp_path / "run")) == undisturbed


def test_sigterm_keeps_what_is_committed(tmp_path):
    job = job_of(training={"epochs": 400})
    job_file = tmp_path / "job.yaml"
    job_file.write_text(dump_job(job))
    command = [sys.executable, "-m", "ensemble_svc", "train", str(job_file), "--out", str(tmp_path / "run")]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for(tmp_path / "run", "commit", 2)
    driver.terminate()
    _, stderr = driver.communicate(timeout=60)
    assert driver.returncode == 130
    assert b"kept" in stderr
    assert b"Traceback" not in stderr


def test_regression_comes_back_in_its_own_units(tmp_path):
    job = job_of(
        task="regression",
        data={"source": "diabetes", "preprocess": ("standardize",)},
        training={"epochs": 20, "loss": "gaussian_nll", "batch_size": 32},
    )
    run = train(job, tmp_path / "run")
    stored = run.predictions("test")
    rmse = (stored["mean"].double().mean(0) - stored["target"]).square().mean().sqrt()
    assert run.metrics()["test"]["ensemble"]["rmse"] == pytest.approx(float(rmse), rel=1e-5)
    assert 40 < rmse < 75
    assert np.isfinite(json.dumps(run.metrics()["test"]["ensemble"], allow_nan=False) and 1)


def test_shrinking_and_growing_again_counts_nobody_twice(tmp_path):
    for members in (4, 2, 4):
        run = train(job_of(ensemble={"members": members}), tmp_path / "run")
        manifest = run.manifest()
        assert [m["index"] for m in manifest["members"]] == list(range(members))
        assert len(run.predictions("test")["log_probs"]) == members


def test_a_run_whose_members_all_diverged_says_so(tmp_path):
    job = job_of(training={"optimizer": {"name": "sgd", "lr": 1e30}}, model={"name": "mlp", "hidden": (16,)})
    with pytest.raises(QuorumError, match="0 of 3 members finished"):
        train(job, tmp_path / "run")
    assert Run(tmp_path / "run").manifest()["ensemble"]["members"] == []


def test_a_pack_that_failed_is_placed_as_the_job_says_today(tmp_path):
    """After an out-of-memory failure a smaller pack must be possible in the same folder."""

    class Broken(LocalExecutor):
        def run(self, slots, fit, payload, *, on_progress, on_failure):
            for slot in slots:
                on_failure(slot, "out of memory", False)

    job = job_of(training={"epochs": 2})
    with pytest.raises(QuorumError, match="out of memory"):
        pipeline.train(job, out=tmp_path / "run", directory=Path.cwd(), executor=Broken())
    smaller = job_of(training={"epochs": 2}, compute={"pack": 1})
    packs = train(smaller, tmp_path / "run").manifest()["packs"]
    assert [len(pack["members"]) for pack in packs] == [1, 1, 1]


def test_a_halved_pack_goes_on_when_the_ensemble_grows(tmp_path, monkeypatch):
    """What the halves of a pack committed and sealed is theirs, though the plan names the whole alone."""

    class Stopped(Exception):
        """Stands for a death of the driver."""

    class Small(LocalExecutor):
        """The driver dies when the second half has trained an epoch."""

        def run(self, slots, fit, payload, *, on_progress, on_failure):
            packs = set()

            def report(slot, progress):
                packs.add(progress.pack)
                if len(packs) == 3 and progress.epoch == 2:
                    raise Stopped
                on_progress(slot, progress)

            super().run(slots, fit, payload, on_progress=report, on_failure=on_failure)

    step = Strand.step

    def limited(self, batch):
        if len(self.recipe.members) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return step(self, batch)

    monkeypatch.setattr(Strand, "step", limited)
    four = job_of(ensemble={"members": 4}, training={"epochs": 3, "batch_size": 400})
    with pytest.raises(Stopped):
        pipeline.train(four, out=tmp_path / "run", directory=Path.cwd(), executor=Small())
    assert len(Run(tmp_path / "run").journal.of_kind("sealed")) == 2
    six = four.model_copy(update={"ensemble": four.ensemble.model_copy(update={"members": 6})})
    run = train(six, tmp_path / "run")
    assert len(run.predictions("test")["log_probs"]) == 6
    trained = [e["digest"] for e in run.journal.of_kind("sealed")]
    assert len(trained) == len(set(trained)) == 6
    starts = [len(e["members"]) for e in run.journal.of_kind("start")]
    assert starts[:3] == [4, 2, 2]
    assert sorted(starts[3:]) == [2, 2]


def test_the_users_own_job_file_is_never_overwritten(tmp_path):
    text = "# my notes\n" + dump_job(job_of())
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(OtherJob, match=r"job\.yaml"):
        train(job_of(), tmp_path)
    assert (tmp_path / "job.yaml").read_text() == text
