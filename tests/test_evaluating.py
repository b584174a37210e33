"""Finished ensembles on labelled rows and on rows from elsewhere: in pieces as whole, broken files named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from table_runs import SPECIES, frame, read, same, source, train

from ensemble_svc import books, doubts, foreign, pipeline
from ensemble_svc.aggregate.doubt import energy
from ensemble_svc.batch import predict_file
from ensemble_svc.cli.measures import remarks
from ensemble_svc.data import inputs
from ensemble_svc.doubts import doubts_of
from ensemble_svc.errors import DataError, EnsembleSvcError
from ensemble_svc.evaluate import pieces
from ensemble_svc.evaluate.bootstrap import percentile_interval
from ensemble_svc.evaluate.metrics import METRICS, measure
from ensemble_svc.evaluate.ranks import RANKED, Ranks
from ensemble_svc.evaluate.tally import Tally
from ensemble_svc.evaluating import Wish, evaluate
from ensemble_svc.familiar import marks
from ensemble_svc.local import LocalExecutor
from ensemble_svc.predictor import Ensemble
from ensemble_svc.rereading import own_data
from ensemble_svc.reselecting import reselect
from ensemble_svc.spec.aggregate import TopK
from ensemble_svc.store.run import Run
from ensemble_svc.train.forward import outputs

ALL = tuple(name for name, metric in METRICS.items() if "classification" in metric.needs)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tables")
    frame(400).to_csv(folder / "train.csv", index=False)
    return train(folder)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("digits"), data={"source": "digits", "test": 0.5})


def asked(run: Run, folder: Path, metrics: tuple[str, ...]) -> Run:
    """A copy of a run that is measured by other metrics."""
    copy = Run(Path(shutil.copytree(run.path, folder / "asked")))
    job = copy.job()
    job = job.model_copy(update={"evaluate": job.evaluate.model_copy(update={"metrics": metrics})})
    return pipeline.train(job, out=copy.path, directory=run.directory, executor=LocalExecutor())


class TestPieces:
    """Law: the numbers and the rows do not depend on how large the pieces are."""

    @pytest.mark.parametrize("suffix", [".csv", ".parquet"])
    def test_evaluate(self, suffix, tables, tmp_path, monkeypatch):
        path = tmp_path / f"new{suffix}"
        new = frame(300, seed=1)
        new.to_csv(path, index=False) if suffix == ".csv" else new.to_parquet(path)
        wish = Wish(data=source(path), slices=("region", "colour"))
        whole = evaluate(tables, wish, tmp_path).metrics["data"]
        monkeypatch.setattr(inputs, "PIECE_ROWS", 7)
        cut = evaluate(tables, wish, tmp_path).metrics["data"]
        assert whole["ensemble"] == pytest.approx(cut["ensemble"], rel=1e-5)
        for name, gain in whole["gain"]["over_mean_member"].items():
            assert gain == pytest.approx(cut["gain"]["over_mean_member"][name], rel=1e-3, abs=1e-6)
        assert cut["rows"] == 300
        for column in ("region", "colour"):
            first, again = ({one["value"]: one for one in found["slices"][column]} for found in (whole, cut))
            assert {value: one["rows"] for value, one in first.items()} == new[
                column
            ].value_counts().to_dict()
            for value, one in first.items():
                assert one["ensemble"] == pytest.approx(again[value]["ensemble"], rel=1e-6)

    @pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
    def test_predict(self, suffix, tables, tmp_path, monkeypatch):
        new = frame(50, seed=2).drop(columns=["kind"])
        new.to_csv(tmp_path / "new.csv", index=False)
        whole, cut = (tmp_path / f"{name}{suffix}" for name in ("whole", "cut"))
        predict_file(tables.path, tmp_path / "new.csv", whole, id_column="id")
        monkeypatch.setattr(inputs, "PIECE_ROWS", 7)
        heard: list[int] = []
        done = predict_file(tables.path, tmp_path / "new.csv", cut, id_column="id", tell=heard.append)
        assert (done.rows, heard[-1], heard[0]) == (50, 50, 7)
        first, again = read(whole), read(cut)
        assert list(again["row"]) == list(new["id"])
        for name in first:
            if np.asarray(first[name]).dtype.kind == "f":
                np.testing.assert_allclose(
                    np.asarray(again[name]), np.asarray(first[name]), rtol=1e-5, atol=1e-6
                )
            else:
                assert list(first[name]) == list(again[name])

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_arrays_of_a_file(self, order, digits, tmp_path, monkeypatch):
        rng = np.random.default_rng(0)
        x = np.asarray(rng.uniform(0, 16, (40, 8, 8)), dtype=np.float32, order=order)
        np.savez_compressed(tmp_path / "new.npz", x=x, y=rng.integers(0, 4, 40))
        whole = evaluate(digits, Wish(data=f"{{name: npz, path: {tmp_path / 'new.npz'}}}"), tmp_path).metrics
        monkeypatch.setattr(inputs, "PIECE_ROWS", 9)
        cut = evaluate(digits, Wish(data=f"{{name: npz, path: {tmp_path / 'new.npz'}}}"), tmp_path).metrics
        assert whole["data"]["ensemble"] == pytest.approx(cut["data"]["ensemble"], rel=1e-6)

    def test_ids_that_look_like_numbers_stay_what_all_of_them_are(self, tables, tmp_path, monkeypatch):
        """The first piece's ids are whole numbers, a later one is not: all are text."""
        monkeypatch.setattr(inputs, "PIECE_ROWS", 5)
        new = frame(20)
        new["id"] = [*map(str, range(19)), "007"]
        new.to_csv(tmp_path / "new.csv", index=False)
        predict_file(tables.path, tmp_path / "new.csv", tmp_path / "out.parquet", id_column="id")
        assert list(read(tmp_path / "out.parquet")["row"]) == list(new["id"])
        new["id"] = [*map(str, range(20))]
        new.to_csv(tmp_path / "new.csv", index=False)
        predict_file(tables.path, tmp_path / "new.csv", tmp_path / "out.parquet", id_column="id")
        assert list(read(tmp_path / "out.parquet")["row"]) == list(range(20))

    def test_a_column_that_begins_whole_may_go_on_with_fractions(self, tables, tmp_path, monkeypatch):
        monkeypatch.setattr("ensemble_svc.data.batches.BUFFER_BYTES", 200)
        new = frame(60)
        new["weight"] = ["1"] * 40 + ["1.5"] * 20
        new.to_csv(tmp_path / "new.csv", index=False)
        assert predict_file(tables.path, tmp_path / "new.csv", tmp_path / "out.npz").rows == 60
        new["weight"] = ["1"] * 59 + ["heavy"]
        new.to_csv(tmp_path / "new.csv", index=False)
        with pytest.raises(DataError, match="heavy"):
            predict_file(tables.path, tmp_path / "new.csv", tmp_path / "late.npz")
        assert not (tmp_path / "late.npz").exists()
        assert not [p for p in tmp_path.iterdir() if p.name.startswith(".tmp")]

    def test_a_fault_in_a_later_piece_says_where_it_is(self, tables, tmp_path, monkeypatch):
        monkeypatch.setattr(inputs, "PIECE_ROWS", 10)
        new = frame(30)
        new.loc[25, "kind"] = "dog"
        new.to_parquet(tmp_path / "new.parquet")
        with pytest.raises(DataError, match=r"(?s)dog.*counted from row 21"):
            evaluate(tables, Wish(data=source(tmp_path / "new.parquet")), tmp_path)


class TestSums:
    """What is measured when there are too many rows to hold."""

    def test_metrics_are_those_of_all_rows_held(self, tables, tmp_path, monkeypatch):
        frame(900, seed=3).to_parquet(tmp_path / "new.parquet")
        wish = Wish(data=source(tmp_path / "new.parquet"))
        held = evaluate(tables, wish, tmp_path).metrics["data"]
        monkeypatch.setattr(inputs, "PIECE_ROWS", 64)
        summed = evaluate(tables, replace(wish, held=100), tmp_path).metrics["data"]
        assert summed["ensemble"] == pytest.approx(held["ensemble"], rel=1e-6)
        for which, gains in summed["gain"].items():
            for name, gain in gains.items():
                assert gain["estimate"] == pytest.approx(held["gain"][which][name]["estimate"], abs=1e-7)
                width, true = (g["high"] - g["low"] for g in (gain, held["gain"][which][name]))
                assert width == pytest.approx(true, rel=0.4)
        for name in ("reliability", "classes"):
            assert same(summed[name], held[name])
        assert "sampled" not in held
        assert summed["sampled"]["rows"] == 100
        assert {"size_curve", "forecast", "diversity"} <= set(summed["sampled"]["what"])
        assert summed["size_curve"][-1]["nll"]["mean"] == pytest.approx(held["ensemble"]["nll"], rel=0.3)

    def test_every_metric_is_that_of_all_rows_held(self, tables, tmp_path, monkeypatch):
        run = asked(tables, tmp_path, ALL)
        frame(700, seed=4).to_parquet(tmp_path / "new.parquet")
        wish = Wish(data=source(tmp_path / "new.parquet"), slices=("colour",))
        held = evaluate(run, wish, tmp_path).metrics["data"]
        monkeypatch.setattr(inputs, "PIECE_ROWS", 64)
        summed = evaluate(run, replace(wish, held=100), tmp_path).metrics["data"]
        assert tuple(held["ensemble"]) == ALL
        for who in ("ensemble", "members"):
            assert same(summed[who], held[who], rel=1e-6)
        for name, gain in held["gain"]["over_mean_member"].items():
            told = summed["gain"]["over_mean_member"][name]
            assert told["estimate"] == pytest.approx(gain["estimate"], abs=1e-7)
            assert (told["low"] is None) == (gain["low"] is None)
        assert same(summed["slices"], held["slices"], rel=1e-6)
        assert set(held["slices"]["colour"][0]["ensemble"]) == set(ALL)
        assert "left_out" not in summed
        assert not any("left out" in line for line in remarks(summed))

    def test_what_would_be_too_much_is_left_out_and_named(self, tables, tmp_path, monkeypatch):
        run = asked(tables, tmp_path, ALL)
        frame(700, seed=4).to_parquet(tmp_path / "new.parquet")
        wish = Wish(data=source(tmp_path / "new.parquet"), slices=("colour",), held=100)
        whole = evaluate(run, wish, tmp_path).metrics["data"]
        monkeypatch.setattr(books, "SCALAR_BYTES", 700 * 5 * 4 + 100)
        some = evaluate(run, wish, tmp_path).metrics["data"]
        assert some["ensemble"] == whole["ensemble"]
        assert set(some["slices"]["colour"][0]["left_out"]) == set(RANKED)
        monkeypatch.setattr(books, "SCALAR_BYTES", 1000)
        few = evaluate(run, wish, tmp_path).metrics["data"]
        assert set(few["left_out"]) == set(RANKED) == set(ALL) - set(few["ensemble"])
        assert few["ensemble"] == {n: v for n, v in whole["ensemble"].items() if n not in RANKED}
        (told,) = [line for line in remarks(few) if "left out" in line]
        assert all(name in told for name in RANKED)

    def test_only_metrics_that_rank_the_rows(self, tables, tmp_path):
        run = asked(tables, tmp_path, ("aurc", "ece_classwise"))
        frame(300, seed=4).to_parquet(tmp_path / "new.parquet")
        wish = Wish(data=source(tmp_path / "new.parquet"))
        held = evaluate(run, wish, tmp_path).metrics["data"]
        summed = evaluate(run, replace(wish, held=100), tmp_path).metrics["data"]
        assert same(summed["ensemble"], held["ensemble"], rel=1e-6)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 50), st.integers(1, 20))
    def test_ranks_of_pieces_are_the_metrics_of_the_whole(self, seed, num_rows, piece, bins):
        generator = torch.Generator().manual_seed(seed)
        predictions = [
            {"log_probs": (torch.randn(num_rows, 4, generator=generator) * 2).round().log_softmax(-1)}
            for _ in range(2)
        ]
        target = torch.randint(4, (num_rows,), generator=generator)
        wholes = [name for name, metric in METRICS.items() if metric.whole is not None]
        parts = []
        for start in range(0, num_rows, piece):
            rows = slice(start, start + piece)
            parts.append(Ranks(wholes, bins=bins))
            parts[-1].add([{"log_probs": one["log_probs"][rows]} for one in predictions], target[rows])
        joined = parts.pop()
        for part in parts:
            joined.join(part)
        found = joined.values()
        assert not joined.left_out
        for name in wholes:
            for m, one in enumerate(predictions):
                expected = METRICS[name].value(one, target, bins)
                assert found[name][m].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.integers(1, 50))
    def test_sums_of_pieces_are_the_metrics_of_the_whole(self, seed, num_rows, piece):
        generator = torch.Generator().manual_seed(seed)
        predictions = [
            {"log_probs": torch.randn(num_rows, 4, generator=generator).log_softmax(-1)} for _ in range(3)
        ]
        target = torch.randint(4, (num_rows,), generator=generator)
        names = ("ece", "nll", "brier", "accuracy", *(("top5",) if seed % 2 else ()))
        tally = Tally(names, 3)
        for start in range(0, num_rows, piece):
            at = slice(start, start + piece)
            tally.add([{"log_probs": p["log_probs"][at]} for p in predictions], target[at])
        found = tally.measured(resamples=100, seed=0)
        for m, prediction in enumerate(predictions):
            whole = measure("classification", prediction, target, names=names)
            assert {n: found.point[n][m].item() for n in names} == pytest.approx(whole, rel=1e-9, abs=1e-12)
        for gain in found.gains(0, [0], 0.95).values():
            assert gain == {"estimate": 0, "low": 0, "high": 0}

    def test_intervals_from_groups_cover_the_truth(self):
        """90 % intervals of a difference of known mean, over 300 data sets of 3,000 rows in 1,000 groups."""
        covered = 0
        for seed in range(300):
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(3000, 1, generator=generator)
            target = torch.zeros(3000, 1)
            ours, theirs = 1.0 + noise, 1.1 + noise + 0.5 * torch.randn(3000, 1, generator=generator)
            tally = Tally(("rmse",), 2)
            tally.add([{"mean": ours}, {"mean": theirs}], target)
            found = tally.measured(resamples=200, seed=seed)
            low, high = percentile_interval(
                found.resampled["rmse"][:, 1] - found.resampled["rmse"][:, 0], 0.9
            )
            covered += low <= (1.1**2 + 1.25) ** 0.5 - 2**0.5 <= high
        assert 0.84 * 300 <= covered <= 0.96 * 300

    def test_metrics_that_are_no_means_are_left_out(self):
        assert Tally(("aurc", "nll"), 1).names == ("nll",)
        assert METRICS["aurc"].whole is not None


class TestShards:
    def test_several_files_are_one_table(self, tables, tmp_path):
        new = frame(90, seed=4)
        new.to_parquet(tmp_path / "whole.parquet")
        (tmp_path / "parts").mkdir()
        for i in range(3):
            new[30 * i : 30 * (i + 1)].to_parquet(tmp_path / "parts" / f"{i}.parquet")
        wishes = [Wish(data=source(tmp_path / name)) for name in ("whole.parquet", "parts/*.parquet")]
        wishes.append(Wish(data=source(tmp_path / "whole.parquet").replace("whole.parquet", "parts")))
        found = [evaluate(tables, wish, tmp_path).metrics["data"]["ensemble"] for wish in wishes]
        assert found[1] == pytest.approx(found[0], rel=1e-6)
        assert found[2] == found[1]

    def test_a_broken_file_is_named_and_the_rest_goes_on(self, tables, tmp_path):
        for i in range(3):
            frame(20, seed=i).to_parquet(tmp_path / f"part-{i}.parquet")
        whole = (tmp_path / "part-1.parquet").read_bytes()
        (tmp_path / "part-1.parquet").write_bytes(whole[: len(whole) // 2])
        pattern = tmp_path / "part-*.parquet"
        found = evaluate(tables, Wish(data=source(pattern)), tmp_path)
        assert found.metrics["data"]["rows"] == 40
        assert len(found.broken) == 1
        assert "part-1.parquet" in found.broken[0]
        with pytest.raises(DataError, match=r"part-1\.parquet"):
            evaluate(tables, Wish(data=source(pattern), strict=True), tmp_path)
        done = predict_file(tables.path, pattern, tmp_path / "out.csv", id_column="id")
        assert done.rows == 40
        assert "part-1.parquet" in done.broken[0]
        table = read(tmp_path / "out.csv")
        assert [*dict.fromkeys(table["shard"])] == ["part-0.parquet", "part-2.parquet"]
        with pytest.raises(DataError, match=r"part-1\.parquet"):
            predict_file(tables.path, pattern, tmp_path / "strict.csv", strict=True)
        assert not (tmp_path / "strict.csv").exists()

    @pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
    def test_ids_are_of_one_kind_in_all_files(self, suffix, tables, tmp_path, monkeypatch):
        """Law: an id is what it is in its file; a number where all ids that are read are numbers."""
        monkeypatch.setattr(inputs, "PIECE_ROWS", 4)
        parts = [frame(10, seed=i).assign(id=[str(10 * i + k) for k in range(10)]) for i in range(3)]
        for i, part in enumerate(parts):
            part.to_csv(tmp_path / f"part-{i}.csv", index=False)
        parts[2].astype({"id": int}).to_parquet(tmp_path / "part-2.parquet")
        (tmp_path / "part-2.csv").unlink()
        (tmp_path / "part-3.csv").write_text("length,weight,colour\n1,2,red\n")
        (tmp_path / "part-4.parquet").write_bytes(b"PAR1")
        out = tmp_path / f"out{suffix}"
        done = predict_file(tables.path, tmp_path / "part-*", out, id_column="id")
        assert (done.rows, len(done.broken)) == (30, 2)
        found = read(out)["row"]
        assert [int(one) for one in found] == list(range(30))
        assert suffix == ".csv" or np.asarray(found).dtype.kind == "i"
        parts[1].assign(id=[*parts[1]["id"][:9], "x7"]).to_csv(tmp_path / "part-1.csv", index=False)
        out = tmp_path / f"text{suffix}"
        assert predict_file(tables.path, tmp_path / "part-*", out, id_column="id").rows == 30
        said = [str(one) for one in read(out)["row"]]
        assert said == [*parts[0]["id"], *parts[1]["id"][:9], "x7", *parts[2]["id"]]

    @given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 29))
    @settings(max_examples=5, deadline=None)
    def test_number_labels_are_judged_over_all_files(self, seed, cut, tables, tmp_path_factory):
        """Law: files say what one file of all their rows says; a file need not hold class 0."""
        folder = tmp_path_factory.mktemp("numbers")
        new = frame(30, seed=seed).sort_values("kind")
        numbers = new.assign(kind=[SPECIES.index(kind) for kind in new["kind"]])
        for i, part in enumerate((numbers[:cut], numbers[cut:])):
            part.to_parquet(folder / f"part-{i}.parquet")
        new.to_parquet(folder / "whole.parquet")
        found = evaluate(tables, Wish(data=source(folder / "part-*.parquet")), folder)
        whole = evaluate(tables, Wish(data=source(folder / "whole.parquet")), folder)
        assert found.broken == ()
        assert found.metrics["data"]["rows"] == 30
        assert found.metrics["data"]["ensemble"] == pytest.approx(whole.metrics["data"]["ensemble"], rel=1e-6)
        above = numbers[numbers["kind"] > 0]
        for i, part in enumerate((above[:5], above[5:])):
            part.to_parquet(folder / f"part-{i}.parquet")
        with pytest.raises(DataError, match="numbers above 0"):
            evaluate(tables, Wish(data=source(folder / "part-*.parquet")), folder)

    def test_a_file_without_the_column_to_slice_by_is_told_in_the_words_of_the_wish(self, tables, tmp_path):
        frame(20).to_parquet(tmp_path / "part-0.parquet")
        job_drops = json.loads(source(tmp_path / "part-*.parquet")) | {"drop": []}
        frame(20).assign(site="a").drop(columns="region").to_parquet(tmp_path / "part-1.parquet")
        wish = Wish(data=json.dumps(job_drops), slices=("site",))
        found = evaluate(tables, wish, tmp_path)
        assert len(found.broken) == 1
        assert "part-0.parquet: --slices names column 'site', which is not there" in found.broken[0]
        assert [one["rows"] for one in found.metrics["data"]["slices"]["site"]] == [20]

    @pytest.mark.parametrize("suffix", [".parquet", ".csv"])
    def test_a_file_without_rows_is_none_that_is_broken(self, suffix, tables, tmp_path):
        def write(name, rows):
            path = tmp_path / f"{name}{suffix}"
            rows.to_csv(path, index=False) if suffix == ".csv" else rows.to_parquet(path)

        write("part-0", frame(20).iloc[:0])
        write("part-1", frame(20))
        pattern = tmp_path / f"part-*{suffix}"
        found = evaluate(tables, Wish(data=source(pattern), ood=(str(pattern),), strict=True), tmp_path)
        assert (found.metrics["data"]["rows"], found.broken) == (20, ())
        done = predict_file(tables.path, pattern, tmp_path / "out.npz", strict=True)
        assert (done.rows, done.broken) == (20, ())
        write("part-1", frame(20).iloc[:0])
        for path in (pattern, tmp_path / f"part-0{suffix}"):
            for read_it in (
                lambda path: evaluate(tables, Wish(data=source(path)), tmp_path),
                lambda path: evaluate(tables, Wish(ood=(str(path),)), tmp_path),
                lambda path: predict_file(tables.path, path, tmp_path / "none.npz"),
            ):
                with pytest.raises(DataError, match=rf"part-.*{suffix}.*: there are no rows"):
                    read_it(path)
        assert not (tmp_path / "none.npz").exists()

    def test_nothing_to_read_is_an_error(self, tables, tmp_path):
        (tmp_path / "empty").mkdir()
        for path, told in (("empty", "no files of rows"), ("none-*.csv", "nothing there matches")):
            with pytest.raises(DataError, match=told):
                predict_file(tables.path, tmp_path / path, tmp_path / "out.csv")

    def test_the_command_ends_with_1_and_names_the_file(self, tables, tmp_path):
        frame(20).to_csv(tmp_path / "a.csv", index=False)
        (tmp_path / "b.csv").write_text("length,weight\n1,2,3\n")
        command = [sys.executable, "-m", "ensemble_svc", "predict", str(tables.path), "--input"]
        out = str(tmp_path / "out.parquet")
        done = subprocess.run(
            [*command, str(tmp_path / "*.csv"), "--output", out], capture_output=True, text=True
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("error: ")
        assert "b.csv" in done.stderr
        assert len(read(Path(out))["row"]) == 20


class TestElsewhere:
    def test_copies_of_the_rows_are_not_told_apart_and_noise_is(self, digits, tmp_path):
        noise = np.random.default_rng(0).uniform(0, 16, (200, 1, 8, 8)).astype(np.float32)
        np.savez(tmp_path / "noise.npz", x=noise)
        wish = Wish(data="digits", ood=("digits", str(tmp_path / "noise.npz")))
        same, other = evaluate(digits, wish, tmp_path).metrics["data"]["ood"].values()
        for scores in same["scores"].values():
            assert scores["ensemble"]["auroc"] == pytest.approx(0.5)
        assert other["rows"] == 200
        assert other["usual_rows"] == same["rows"] == 1797
        assert other["scores"]["mutual_information"]["ensemble"]["auroc"] > 0.7
        assert "mean_member" in other["scores"]["entropy"]
        assert "mean_member" not in other["scores"]["mutual_information"]
        assert {"ensemble", "mean_member"} <= other["scores"]["energy"].keys()

    def test_the_energy_is_that_of_the_networks_outputs(self, digits):
        ensemble = Ensemble.load(digits.path)
        x = np.random.default_rng(0).uniform(0, 16, (50, 1, 8, 8)).astype(np.float32)
        (group,) = ensemble.groups
        logits_KNC = outputs(group.net, group.weights, torch.from_numpy(x))[list(ensemble.order)]
        members = ensemble.members(x, energy=True)
        assert "energy" not in ensemble.members(x)
        torch.testing.assert_close(-members["energy"], logits_KNC.logsumexp(-1), rtol=1e-6, atol=0)
        doubt_N = doubts_of(ensemble.decision, members)["energy"]
        torch.testing.assert_close(doubt_N.double(), energy(logits_KNC), rtol=1e-6, atol=1e-6)

    def test_rows_that_are_gone_are_compared_by_what_is_kept_of_them(self, tmp_path):
        frame(200).to_csv(tmp_path / "train.csv", index=False)
        odd = frame(50, seed=9).assign(length=lambda rows: rows["length"] + 40)
        odd.to_parquet(tmp_path / "odd.parquet")
        run = train(tmp_path)
        wish = Wish(ood=(str(tmp_path / "odd.parquet"),))
        whole = next(iter(evaluate(run, wish, tmp_path).metrics["test"]["ood"].values()))["scores"]
        (tmp_path / "train.csv").unlink()
        kept = next(iter(evaluate(run, wish, tmp_path).metrics["test"]["ood"].values()))["scores"]
        assert whole.keys() - kept.keys() == {"energy"}
        assert all(same(kept[name], whole[name], rel=0.02) for name in kept)

    def test_a_job_measures_its_ood_sets_at_the_end_of_training(self, tmp_path):
        frame(200).to_csv(tmp_path / "train.csv", index=False)
        odd = frame(50, seed=9)
        odd["length"] += 40
        odd.drop(columns=["kind"]).to_parquet(tmp_path / "odd.parquet")
        run = train(tmp_path, evaluate={"ood": ("odd.parquet",)})
        found = run.metrics()["test"]["ood"]["odd.parquet"]
        assert (found["rows"], found["usual_rows"]) == (50, run.metrics()["test"]["rows"])
        again = evaluate(run, Wish(ood=(str(tmp_path / "odd.parquet"),)), tmp_path).metrics["test"]["ood"]
        assert next(iter(again.values())) == found
        page = (run.path / "report.html").read_text()
        assert "odd.parquet: 50 rows" in page
        assert f"{100 * found['scores']['entropy']['ensemble']['auroc']:.1f} %" in page

    def test_a_set_that_cannot_be_read_is_refused_before_anything_trains(self, tmp_path):
        frame(200).to_csv(tmp_path / "train.csv", index=False)
        with pytest.raises(DataError, match=r"evaluate\.ood 'odd\.parquet'"):
            train(tmp_path, evaluate={"ood": ("odd.parquet",)})
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("nowhere", "unknown"),
            ("breast_cancer", "images"),
            ("{name: csv}", "path"),
            ("gone.npz", "no such file"),
        ],
    )
    def test_a_bad_source_is_told(self, text, told, digits, tmp_path):
        with pytest.raises(EnsembleSvcError, match=told):
            evaluate(digits, Wish(ood=(text,)), tmp_path)


class TestOwnRows:
    """Law 5: rows that trained or decided are not taken for a test."""

    def test_they_are_counted_and_told(self, tables, tmp_path):
        found = evaluate(tables, Wish(data=source(tables.directory / "train.csv")), tmp_path).metrics["data"]
        rows = tables.manifest()["rows"]
        assert found["own_rows"] == {"trained": rows["train"], "chosen": rows["validation"]}
        command = [sys.executable, "-m", "ensemble_svc", "evaluate", str(tables.path), "--data"]
        path = source(tables.directory / "train.csv")
        done = subprocess.run([*command, path], capture_output=True, text=True, check=True)
        told = f"warning: {rows['train']} of these rows equal rows that members were trained on"
        assert told in " ".join(done.stdout.split())

    def test_others_are_not(self, tables, tmp_path):
        new = pd.concat([frame(50, seed=77), frame(400).iloc[:5]])
        new.to_parquet(tmp_path / "new.parquet")
        found = evaluate(tables, Wish(data=source(tmp_path / "new.parquet")), tmp_path).metrics["data"]
        assert sum(found["own_rows"].values()) <= 5
        new.iloc[:50].to_parquet(tmp_path / "new.parquet")
        found = evaluate(tables, Wish(data=source(tmp_path / "new.parquet")), tmp_path).metrics["data"]
        assert found["own_rows"] == {"trained": 0, "chosen": 0}

    def test_images_and_other_order_and_pieces(self, digits, tmp_path, monkeypatch):
        monkeypatch.setattr(inputs, "PIECE_ROWS", 100)
        found = evaluate(digits, Wish(data="digits"), tmp_path).metrics["data"]
        rows = digits.manifest()["rows"]
        assert found["own_rows"] == {"trained": rows["train"], "chosen": rows["validation"]}

    def test_what_cannot_be_read_again_is_not_taken_for_new(self, tmp_path):
        frame(200).to_csv(tmp_path / "train.csv", index=False)
        run = train(tmp_path)
        (tmp_path / "train.csv").rename(tmp_path / "moved.csv")
        found = evaluate(run, Wish(data=source(tmp_path / "moved.csv")), tmp_path).metrics["data"]
        assert "cannot be read" in found["own_rows"]["unknown"]

    def test_a_source_that_holds_other_rows_now_is_not_taken_for_the_test(self, tmp_path):
        rows = frame(200)
        rows.to_csv(tmp_path / "train.csv", index=False)
        own = {"name": "csv", "path": "train.csv", "target": "kind", "drop": ("region",), "id": "id"}
        run, wish = train(tmp_path, data={"source": own}), Wish(slices=("region",))
        (tmp_path / "elsewhere").mkdir()
        found = evaluate(run, wish, tmp_path / "elsewhere").metrics["test"]
        assert found["ensemble"] == pytest.approx(run.metrics()["test"]["ensemble"], rel=1e-6)
        rows.sample(frac=1, random_state=0).to_csv(tmp_path / "train.csv", index=False)
        with pytest.raises(DataError, match="other data now.*--data"):
            evaluate(run, wish, tmp_path)

    @given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from(["float32", "uint8"]))
    def test_marks_are_equal_where_rows_are(self, seed, width, dtype):
        rng = np.random.default_rng(seed)
        x = rng.integers(0, 3, (300, width)).astype(dtype)
        y = rng.integers(0, 2, 300)
        first = {}
        for mark, row in zip(marks(x, y).tolist(), map(tuple, np.column_stack([x, y]).tolist()), strict=True):
            assert first.setdefault(row, mark) == mark
        assert len(set(first.values())) == len(first)


def test_scores_of_elsewhere_that_would_be_too_many_are_left_out_and_named(digits, tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 17, (50, 8, 8))
    np.savez(tmp_path / "noise.npz", X=noise)
    noise, monkeys = str(tmp_path / "noise.npz"), monkeypatch
    whole = evaluate(digits, Wish(ood=(noise,)), tmp_path).metrics["test"]["ood"][noise]
    rows = whole["rows"] + whole["usual_rows"]
    monkeys.setattr(doubts, "SCALAR_BYTES", whole["usual_rows"] * 4 * 6)
    some = evaluate(digits, Wish(ood=(noise,)), tmp_path).metrics["test"]["ood"][noise]
    assert some["left_out"] == ["mean_member"]
    assert some["rows"] + some["usual_rows"] == rows
    for name, own in whole["scores"].items():
        assert some["scores"][name]["ensemble"] == own["ensemble"]
        assert "mean_member" not in some["scores"][name]
    monkeys.setattr(doubts, "SCALAR_BYTES", 100)
    none = evaluate(digits, Wish(ood=(noise,)), tmp_path).metrics["test"]
    assert none["ood"][noise]["left_out"] == ["mean_member", "scores"]
    assert none["ood"][noise]["scores"] == {}
    assert any("left out" in line and "scores" in line for line in remarks(none))


@pytest.mark.parametrize("at_once", [20, 1 << 20])
def test_scores_of_the_kept_predictions_are_those_of_the_rows_run_forward(
    at_once, digits, tmp_path, monkeypatch
):
    run = Run(digits.path)
    ensemble = Ensemble.load(run.path)
    monkeypatch.setattr(pieces, "NUMBERS", at_once * 3 * 10)
    stored, forward = (foreign.usual_doubts(run, ensemble, own) for own in ("gone", own_data(run)))
    assert stored.rows == forward.rows
    for name in stored.names[""]:
        torch.testing.assert_close(stored.of("", name), forward.of("", name), rtol=1e-4, atol=1e-5)
    assert set(forward.names[""]) - set(stored.names[""]) == {"energy"}


@pytest.mark.parametrize("held", [20_000, 50])
def test_members_that_were_selected_are_no_draws_of_one_training(held, tables, tmp_path):
    """As many as there are tell how trainings vary; who was chosen of them does not."""
    frame(200, seed=5).to_parquet(tmp_path / "new.parquet")
    run = Run(Path(shutil.copytree(tables.path, tmp_path / "run")))
    job, wish = run.job(), Wish(data=source(tmp_path / "new.parquet"), held=held)
    for k in (3, 2):
        select = TopK(name="top_k", k=k)
        aggregate = job.aggregate.model_copy(update={"select": select})
        reselect(run, job.model_copy(update={"aggregate": aggregate}), directory=tmp_path)
        found = evaluate(run, wish, tmp_path).metrics["data"]
        assert ("decomposition" in found) is (k == 3)
        assert ("decomposition" in found.get("sampled", {"what": found})["what"]) is (k == 3)
        assert ("sampled" in found) is (held < 200)


class TestShift:
    def test_every_corruption_at_every_severity(self, digits, tmp_path):
        found = evaluate(digits, Wish(shift=True), tmp_path).metrics["test"]
        assert found["ensemble"] == pytest.approx(digits.metrics()["test"]["ensemble"], rel=1e-4)
        rows = found["shift"]
        assert len(rows) == 30
        assert {row["rows"] for row in rows} == {found["rows"]}
        nll = {(row["corruption"], row["severity"]): row["ensemble"]["nll"] for row in rows}
        assert nll["noise", 5] > nll["noise", 1]
        assert evaluate(digits, Wish(shift=True), tmp_path).metrics["test"]["shift"] == rows

    def test_it_does_not_depend_on_how_the_rows_are_cut(self, digits, tmp_path, monkeypatch):
        whole = evaluate(digits, Wish(shift=True), tmp_path).metrics["test"]["shift"]
        monkeypatch.setattr(inputs, "PIECE_ROWS", 77)
        assert same(evaluate(digits, Wish(shift=True), tmp_path).metrics["test"]["shift"], whole, rel=1e-5)

    def test_it_is_for_images(self, tables, tmp_path):
        with pytest.raises(DataError, match="worsens images"):
            evaluate(tables, Wish(shift=True), tables.directory)


class TestSlices:
    def test_its_own_test_rows_by_a_column_that_is_no_feature(self, tables, tmp_path):
        found = evaluate(tables, Wish(slices=("region",)), tmp_path).metrics["test"]
        parts = found["slices"]["region"]
        assert {part["value"] for part in parts} == {"north", "south"}
        assert sum(part["rows"] for part in parts) == found["rows"]
        mean = sum(part["rows"] * part["ensemble"]["nll"] for part in parts) / found["rows"]
        assert mean == pytest.approx(found["ensemble"]["nll"])

    @pytest.mark.parametrize(("column", "told"), [("regoin", "region"), ("length", "more than 100")])
    def test_a_column_that_cannot_be(self, column, told, tables, tmp_path):
        with pytest.raises(DataError, match=told):
            evaluate(tables, Wish(slices=(column,)), tmp_path)


MEASURE = """\
import resource, sys
from pathlib import Path
from ensemble_svc.batch import predict_file
from ensemble_svc.evaluating import Wish, evaluate
from ensemble_svc.store.run import Run
run, small, large, out, source = sys.argv[1:]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def both(path):
    predict_file(Path(run), Path(path), Path(out), id_column="id")
    evaluate(Run.open(run), Wish(data=source.replace("ROWS", path)), Path())
both(small)
before = peak()
both(large)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_memory_is_bounded_by_the_piece_whatever_the_number_of_rows(suffix, tables, tmp_path):
    """300,000 rows take no more than 60 MB beyond what 30,000 take; their predictions alone are more than that."""
    paths = {num_rows: tmp_path / f"{num_rows}{suffix}" for num_rows in (30_000, 300_000)}
    for num_rows, path in paths.items():
        table = frame(num_rows)
        table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path, row_group_size=50_000)
    text = source(Path(f"ROWS{suffix}")).replace(f"ROWS{suffix}", "ROWS")
    files = (str(path) for path in paths.values())
    command = [sys.executable, "-c", MEASURE, str(tables.path), *files, str(tmp_path / "out.parquet"), text]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60e6, f"{int(done.stdout) / 1e6:.0f} MB more"
    assert len(pd.read_parquet(tmp_path / "out.parquet")) == 300_000


@pytest.mark.parametrize("resample", ["none", "bootstrap"])
def test_members_together_say_what_each_says_alone(resample, tmp_path):
    """Law 1: where all standardise alike the rows are prepared once, where each has its own bag K times."""
    frame(300).to_csv(tmp_path / "train.csv", index=False)
    run = train(tmp_path, ensemble={"resample": resample})
    ensemble = Ensemble.load(run.path)
    scale_KD = ensemble.groups[0].weights["transform.steps.0.scale"]
    assert torch.equal(scale_KD[0], scale_KD[1]) is (resample == "none")
    x = np.random.default_rng(0).normal(0, 2, (500, 3)).astype(np.float32)
    x[:, 2] = np.arange(500) % 4 - 1
    together = ensemble.members(x)["log_probs"]
    for k, own in enumerate(ensemble.decision.members):
        alone = Ensemble.load(run.path, members=[own]).members(x)["log_probs"]
        torch.testing.assert_close(together[k], alone[0], rtol=1e-5, atol=1e-6)
