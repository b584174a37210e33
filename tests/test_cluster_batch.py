"""Batch evaluation and prediction by actors of a real embedded Ray: what this process finds, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from kept_ray import KeptRay
from table_runs import frame, read, same, source, train
from typer.testing import CliRunner

from ensemble_svc.batch import predict_file
from ensemble_svc.cli.main import app
from ensemble_svc.cluster.batch import TRIES, Actors
from ensemble_svc.cluster.session import Session
from ensemble_svc.errors import ClusterError, DataError, StoreError
from ensemble_svc.evaluating import Wish, evaluate
from ensemble_svc.spreading import Tell, in_turn
from ensemble_svc.store.run import Run

pytestmark = pytest.mark.ray
SHARDS = 5


@pytest.fixture(scope="module")
def session(kept_ray: KeptRay) -> Session:
    return kept_ray(num_cpus=3)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("tables")
    frame(300).to_csv(folder / "train.csv", index=False)
    return train(folder)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for number in range(SHARDS):
        frame(40 + 13 * number, seed=number).to_parquet(folder / f"part-{number}.parquet")
    return folder


def parquets(folder: Path) -> str:
    return source(folder / "part-*.parquet")


ROWS = sum(40 + 13 * number for number in range(SHARDS))


class TestEvaluate:
    """Law: the numbers are those of this process, whatever the number of actors and the order they end in."""

    @pytest.mark.parametrize(("actors", "held"), [(1, 60), (3, 20_000)])
    def test_it_is_what_this_process_finds(self, actors, held, session, tables, shards):
        elsewhere = (str(shards / "part-0.parquet"),)
        wish = Wish(data=parquets(shards), slices=("region",), ood=elsewhere, held=held)
        here = evaluate(tables, wish, shards)
        heard = [0]
        there = evaluate(tables, wish, shards, tell=heard.append, spread=Actors(most=actors))
        assert ROWS in heard
        assert same(there.metrics, here.metrics)
        assert ("sampled" in there.metrics["data"]) is (held < ROWS)
        assert there.metrics["data"]["rows"] == ROWS
        assert there.broken == here.broken == ()

    def test_a_broken_file_is_named_and_the_rest_goes_on(self, session, tables, shards, tmp_path):
        for number in range(SHARDS):
            body = (shards / f"part-{number}.parquet").read_bytes()
            cut = len(body) // 2 if number == 1 else len(body)
            (tmp_path / f"part-{number}.parquet").write_bytes(body[:cut])
        wish = Wish(data=parquets(tmp_path))
        here, there = evaluate(tables, wish, tmp_path), evaluate(tables, wish, tmp_path, spread=Actors())
        assert there.broken == here.broken
        assert "part-1.parquet" in there.broken[0]
        assert same(there.metrics, here.metrics)
        with pytest.raises(DataError, match=r"part-1\.parquet"):
            evaluate(tables, Wish(data=parquets(tmp_path), strict=True), tmp_path, spread=Actors())

    def test_one_file_is_read_here(self, tables, shards):
        wish = Wish(data=source(shards / "part-1.parquet"))
        nowhere = Actors("127.0.0.1:1")
        assert evaluate(tables, wish, shards, spread=nowhere).metrics["data"]["rows"] == 53

    def test_the_command(self, session, tables, shards):
        command = ["evaluate", str(tables.path), "--data", parquets(shards), "--json"]
        done = CliRunner().invoke(app, [*command, "--address", session.address])
        assert done.exit_code == 0, done.output
        assert same(json.loads(done.stdout), json.loads(CliRunner().invoke(app, command).stdout))


class TestPredict:
    def test_rows_in_are_rows_out_in_order_with_their_ids(self, session, tables, shards, tmp_path):
        for out, spread in (("here.parquet", in_turn), ("there.parquet", Actors())):
            done = predict_file(tables.path, shards, tmp_path / out, id_column="id", spread=spread)
            assert (done.rows, done.broken) == (ROWS, ())
        here, there = read(tmp_path / "here.parquet"), read(tmp_path / "there.parquet")
        assert list(here) == list(there)
        for name, values in here.items():
            np.testing.assert_array_equal(there[name], values)
        asked = pd.concat([pd.read_parquet(shards / f"part-{number}.parquet") for number in range(SHARDS)])
        assert list(there["row"]) == list(asked["id"])


def count_down(folder: Path, _state: str, number: int, unit: int, tell: Tell) -> Iterator[str]:
    """Work that says its unit and who did it; what its state asks for happens on the way."""
    for step in range(3):
        tell(step + 1)
        time.sleep(0.3 if unit == 4 else 0.05)
    mark = folder / f"tried-{number}-{len(list(folder.glob(f'tried-{number}-*')))}"
    mark.touch()
    tries = len(list(folder.glob(f"tried-{number}-*")))
    if (unit == 2 and tries == 1) or unit == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    yield f"{number}:{unit}"
    if unit == 5:
        raise DataError("file 5 ends early")


def ready() -> str:
    return "ready"


def not_there() -> str:
    raise StoreError("/elsewhere holds no run")


def often_dead(folder: Path, deaths: int) -> str:
    """A state whose first loads end their process."""
    (folder / f"load-{os.getpid()}").touch()
    if len(list(folder.glob("load-*"))) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return "ready"


class TestActors:
    def test_machines_where_readers_cannot_begin_end_no_work_that_others_can_do(self, session, tmp_path):
        found = Actors(most=2)(
            partial(often_dead, tmp_path, TRIES), partial(count_down, tmp_path), [0, 1, 6], tell=print
        )
        assert [one for _, one in found] == ["0:0", "1:1", "2:6"]
        assert len(list(tmp_path.glob("load-*"))) > TRIES

    def test_readers_that_all_die_while_they_load_are_told(self, session, tmp_path):
        work = partial(count_down, tmp_path)
        with pytest.raises(ClusterError, match="die while they load"):
            list(Actors(most=1)(partial(often_dead, tmp_path, 1000), work, [0, 1], tell=print))
        assert len(list(tmp_path.glob("load-*"))) >= TRIES

    def test_a_unit_whose_actor_dies_is_done_by_another_and_one_that_kills_them_all_is_named(
        self, session, tmp_path
    ):
        heard: list[int] = []
        work = partial(count_down, tmp_path)
        found = list(Actors(most=2)(ready, work, [4, 0, 2, 3, 5, 1], tell=heard.append))
        assert [(n, one) for n, one in found if isinstance(one, str)] == [
            (0, "0:4"), (1, "1:0"), (2, "2:2"), (4, "4:5"), (5, "5:1"),
        ]  # fmt: skip
        faults = {n: str(one) for n, one in found if isinstance(one, DataError)}
        assert faults == {3: f"3: {TRIES} readers died over it, one after another.", 4: "file 5 ends early"}
        assert [n for n, _ in found] == sorted(n for n, _ in found)
        assert len(list(tmp_path.glob("tried-2-*"))) == 2
        assert len(list(tmp_path.glob("tried-3-*"))) == TRIES
        assert heard[-1] == 15, "three rows of each unit that was done"

    def test_a_run_that_the_machines_do_not_see_is_told(self, session, tmp_path):
        with pytest.raises(ClusterError, match=r"elsewhere holds no run.*every machine"):
            list(Actors(most=2)(not_there, partial(count_down, tmp_path), [0, 1], tell=lambda rows: None))
