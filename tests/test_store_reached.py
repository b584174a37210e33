"""What a run has reached, read from outside while it goes on: the same however often one looks."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from search_runs import HIDDEN, RATE, SPACE, Killed, killed_at
from search_runs import job_of as search_of
from search_runs import train as search
from typer.testing import CliRunner
from whole_runs import job_of, train

from ensemble_svc.cli.live import MembersView
from ensemble_svc.cli.main import app
from ensemble_svc.cli.watching import _until_ended, picture, watch
from ensemble_svc.dashboard.state import detail
from ensemble_svc.errors import CorruptArtifact, StoreError
from ensemble_svc.listening import Listener
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.outlook import GROUPS, best, counts, device_hours, left_s, rungs
from ensemble_svc.store.progress import FILE, note_progress, ticks_since
from ensemble_svc.store.reached import Reached, now, runs_in
from ensemble_svc.store.run import Run
from ensemble_svc.store.status import status_of

HALVED = {"trials": 8, "scheduler": {"name": "halving", "factor": 2, "min_epochs": 1}}


def reached(path: Path) -> Reached:
    found = Reached(path)
    found.update()
    return found


def told(found: Reached) -> list[tuple[object, ...]]:
    """Everything that is known of the members."""
    return [
        (m.spec.id, m.pack, m.status, m.reason, m.epoch, m.stopped, m.sealed, m.curve, m.metrics)
        for m in found.ordered()
    ]


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search that was killed and went on; no test may change it."""
    job = search_of(HALVED, training={"epochs": 4}, compute={"commit_every_s": 0.0})
    out = tmp_path_factory.mktemp("run") / "search"
    with pytest.raises(Killed):
        search(job, out, killed_at(3))
    return search(job, out)


def test_members_are_as_the_run_says(halved: Run) -> None:
    found = reached(halved.path)
    assert found.state == "finished"
    told_of = {entry["id"]: entry for entry in status_of(halved)["members"]}
    for member, entry in zip(found.ordered(), halved.manifest()["members"], strict=True):
        assert (member.spec.id, member.status, member.epoch) == (
            entry["id"],
            entry["status"],
            entry["epochs"],
        )
        assert member.metrics == entry["metrics"] == told_of[entry["id"]]["metrics"]
        history = halved.history(entry["id"])
        assert [epoch for epoch, *_ in member.curve] == history["epoch"].to_list()
        assert [m for *_, m in member.curve] == pytest.approx(history["val_nll"].to_list(), rel=1e-5)
        assert [loss for _, loss, _ in member.curve] == pytest.approx(
            history["train_loss"].to_list(), rel=1e-5
        )
    assert list(found.chosen) == halved.manifest()["ensemble"]["members"]


def test_the_rungs_are_those_of_the_trials(halved: Run) -> None:
    found = reached(halved.path)
    assert [(r.epoch, r.came, r.went_on) for r in rungs(found)] == [(1, 8, 4), (2, 4, 2)]
    tally = counts(found)
    assert tally == {**dict.fromkeys(GROUPS, 0), "stopped": 6, "done": 2}
    values = {m["index"]: m["metrics"]["validation"]["nll"] for m in halved.manifest()["members"]}
    top = best(found)
    assert top is not None
    assert top.number == min(values, key=lambda k: values[k])
    assert top.value == pytest.approx(values[top.number])
    assert device_hours(found, now()) > 0
    assert left_s(found, now()) is None


@pytest.mark.parametrize("seed", range(5))
def test_looking_often_is_looking_once(halved: Run, tmp_path: Path, seed: int) -> None:
    """The files are copied byte by byte, in steps that end anywhere, also inside a line."""
    rng, growing = random.Random(seed), Reached(tmp_path)
    whole = {name: (halved.path / name).read_bytes() for name in ("journal.jsonl", FILE)}
    at = dict.fromkeys(whole, 0)
    while any(at[name] < len(body) for name, body in whole.items()):
        for name, body in whole.items():
            more = rng.randrange(1, len(body) // 3)
            with open(tmp_path / name, "ab") as file:
                file.write(body[at[name] : at[name] + more])
            at[name] += more
        growing.update()
    final = reached(halved.path)
    assert [m[:7] + m[8:] for m in told(growing)] == [m[:7] + m[8:] for m in told(final)]
    assert counts(growing) == counts(final)
    assert not growing.update()


def test_a_run_that_was_killed_is_stopped_and_says_how_far_it_came(tmp_path: Path) -> None:
    job = search_of(HALVED, training={"epochs": 4}, compute={"commit_every_s": 0.0})
    with pytest.raises(Killed):
        search(job, tmp_path / "run", killed_at(2))
    found = reached(tmp_path / "run")
    assert found.state == "stopped"
    assert {m.epoch for m in found.ordered()} == {1, 2}
    assert sum(counts(found).values()) == 8
    assert rungs(found)[0].went_on == 4
    owner = {"pid": os.getpid(), "host": socket.gethostname()}
    (tmp_path / "run" / ".driver.json").write_text(json.dumps(owner))
    assert found.state == "running"
    assert left_s(found, now()) is not None
    (tmp_path / "run" / ".driver.json").write_text(json.dumps(owner | {"pid": 2**22 + 1}))
    assert found.state == "stopped"
    (tmp_path / "run" / ".driver.json").write_text(json.dumps(owner | {"host": "elsewhere"}))
    assert found.state == "running"


def test_nothing_is_held_between_a_death_and_the_next_start(tmp_path: Path) -> None:
    job = search_of(HALVED, training={"epochs": 4}, compute={"commit_every_s": 0.0})
    with pytest.raises(Killed):
        search(job, tmp_path / "run", killed_at(2))
    before = device_hours(found := reached(tmp_path / "run"), now())
    journal = Journal(tmp_path / "run" / "journal.jsonl")
    (begun,) = journal.of_kind("begin")
    monday = {name: value for name, value in begun.items() if name not in ("event", "time")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ensemble_svc.store.journal.time", SimpleNamespace(time=lambda: now() + 3 * 86400))
        journal.append("begin", **monday)
    found.update()
    assert before > 0
    assert device_hours(found, now()) == pytest.approx(before)
    assert device_hours(reached(tmp_path / "run"), now()) == pytest.approx(before)


def test_trials_that_are_yet_to_be_asked_for_are_pending(tmp_path: Path) -> None:
    job = search_of({"trials": 6, "algorithm": {"name": "optuna", "startup": 2, "batch": 2}})
    with pytest.raises(Killed):
        search(job, tmp_path / "run", killed_at(1))
    assert sum(counts(reached(tmp_path / "run")).values()) == 6


def test_the_single_model_is_no_member(tmp_path: Path) -> None:
    run = train(job_of(evaluate={"single": "epochs"}, training={"epochs": 1}), tmp_path / "run")
    found = reached(run.path)
    assert counts(found) == {**dict.fromkeys(GROUPS, 0), "done": 3}
    assert [m.spec.id for m in found.ordered()] == [m["id"] for m in run.manifest()["members"]]
    assert len(found.packs) == 2
    top = best(found)
    assert top is not None
    assert top.number < 3


def test_the_single_model_is_looked_at_whenever_the_run_goes_on(tmp_path: Path) -> None:
    """After each event: the time that is left and the page are there, and the single model has its pack."""
    run = train(job_of(evaluate={"single": "epochs"}, training={"epochs": 1}), tmp_path / "run")
    (tmp_path / "grows").mkdir()
    owner = {"pid": os.getpid(), "host": socket.gethostname()}
    (tmp_path / "grows" / ".driver.json").write_text(json.dumps(owner))
    growing, seen = Reached(tmp_path / "grows"), set[tuple[str, ...]]()
    for line in run.journal.path.read_bytes().splitlines(keepends=True):
        with open(tmp_path / "grows" / "journal.jsonl", "ab") as file:
            file.write(line)
        growing.update()
        left_s(growing, now())
        seen.add(tuple(sorted(pack["state"] for pack in detail(growing, now())["packs"])))
    assert seen >= {("pending", "training"), ("done", "training"), ("done", "done")}


@pytest.mark.parametrize("number", [1, 4, 7])
def test_trials_of_several_packs_that_are_ranked_together(tmp_path: Path, number: int) -> None:
    """Killed anywhere, each member is counted once; at the end they are as the run says."""
    space = {RATE: SPACE[RATE], HIDDEN: {"choice": [[8], [4, 4]]}}
    job = search_of({**HALVED, "space": space}, training={"epochs": 4}, compute={"commit_every_s": 0.0})
    with pytest.raises(Killed):
        search(job, tmp_path / "run", killed_at(number))
    found = reached(tmp_path / "run")
    assert sum(counts(found).values()) == 8
    assert counts(found)["training"] == 0
    search(job, tmp_path / "run")
    found.update()
    assert told(found) == told(reached(tmp_path / "run"))
    entries = Run(tmp_path / "run").manifest()["members"]
    assert [(m.epoch, m.stopped) for m in found.ordered()] == [(e["epochs"], e["stopped"]) for e in entries]
    assert [(r.epoch, r.came, r.went_on) for r in rungs(found)] == [(1, 8, 4), (2, 4, 2)]
    assert all(map(found.over, found.packs.values()))


def test_a_population_is_shown_by_the_values_it_trains_with(tmp_path: Path) -> None:
    job = search_of({"trials": 6, "scheduler": {"name": "pbt", "interval": 1}}, training={"epochs": 4})
    run = search(job, tmp_path / "run")
    found = reached(run.path)
    (last, *_) = reversed(run.journal.of_kind("turn"))
    for name, taken in last["taken"].items():
        (member,) = [m for m in found.ordered() if m.spec.id == name]
        assert member.values == {**member.spec.varied, **taken["values"]}
        assert member.values != member.spec.varied


numbers = st.none() | st.floats()
members = st.builds(
    MemberProgress,
    id=st.integers(0, 9999).map(lambda k: f"{k:04d}-0123456789ab"),
    status=st.sampled_from(("training", "stopped", "diverged", "done")),
    epoch=st.integers(0, 5),
    train_loss=numbers,
    metric_name=st.sampled_from(("", "nll")),
    metric=numbers,
)


@given(st.lists(st.lists(members, max_size=4), max_size=4), st.binary(max_size=20))
def test_what_was_noted_comes_back_but_for_what_is_torn(tmp_path_factory, packs, torn) -> None:
    run = tmp_path_factory.mktemp("run")
    for some in packs:
        note_progress(run, Progress(pack="p", epoch=5, epochs=9, members=tuple(some), seconds=1.0))
    with open(run / FILE, "ab") as file:
        file.write(torn.replace(b"\n", b""))
    found, _ = ticks_since(run, 0)
    assert [[p.index for p in tick.points] for tick in found] == [
        [int(m.id[:4]) for m in some if m.status == "training" or m.epoch == 5] for some in packs
    ]


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("other")
    journal.path.write_bytes(journal.path.read_bytes().replace(b"other", b"owner"))
    with pytest.raises(CorruptArtifact, match="line 1: damaged"):
        Reached(tmp_path).update()


def of_another_version(path: Path, like: Run) -> None:
    """A run whose job has a key that this version does not know."""
    path.mkdir(parents=True)
    job = like.job().model_dump(mode="json") | {"no_longer": 1}
    Journal(path / "journal.jsonl").append("begin", job=json.dumps(job))


@pytest.mark.parametrize("kind", ["begin", "plan"])
def test_a_run_of_another_version_is_named(halved: Run, tmp_path: Path, kind: str) -> None:
    of_another_version(tmp_path / "old", halved)
    if kind == "plan":
        Journal(tmp_path / "old" / "journal.jsonl").path.unlink()
        Journal(tmp_path / "old" / "journal.jsonl").append("plan", slots=['{"no_longer": 1}'])
    with pytest.raises(CorruptArtifact, match="old: its job cannot be read by this version"):
        Reached(tmp_path / "old").update()


class TestTheCommand:
    def test_a_run_that_has_ended_is_shown_once(self, halved):
        done = CliRunner().invoke(app, ["status", str(halved.path), "--watch"])
        assert done.exit_code == 0, done.output
        assert "8 → 4 at 1, 4 → 2 at 2" in done.output
        assert "best so far: trial" in done.output
        assert "6 stopped, 2 done" in done.output

    def test_lines_for_scripts_hold_the_whole_state(self, halved):
        done = CliRunner().invoke(app, ["status", str(halved.path), "--watch", "--json"])
        (line,) = map(json.loads, done.stdout.splitlines())
        assert line["state"] == "finished"
        assert line["members"]["done"] == 2
        assert (
            line["best"]["values"] == halved.manifest()["members"][line["best"]["trial"]]["hyperparameters"]
        )
        assert line["rungs"] == [{"epoch": 1, "came": 8, "went_on": 4}, {"epoch": 2, "came": 4, "went_on": 2}]

    def test_a_storage_folder_is_a_row_for_each_run(self, halved, tmp_path):
        train(job_of(), tmp_path / "store" / "one")
        train(job_of(seed=1), tmp_path / "store" / "two")
        assert [path.name for path in runs_in(tmp_path / "store")] == ["one", "two"]
        done = CliRunner().invoke(app, ["status", str(tmp_path / "store"), "--watch"])
        assert done.exit_code == 0, done.output
        assert done.output.count("finished") == 2

    @pytest.mark.parametrize("as_json", [True, False])
    def test_a_run_of_another_version_is_passed_over_with_a_word(self, halved, tmp_path, as_json):
        shutil.copytree(halved.path, tmp_path / "good")
        of_another_version(tmp_path / "bad", halved)
        options = ["--watch", *(["--json"] if as_json else [])]
        done = CliRunner().invoke(app, ["status", str(tmp_path), *options])
        assert done.exit_code == 0, done.output
        assert done.stderr.count("cannot be read by this version") == 1
        assert done.stdout.count('"state"' if as_json else "best so far") >= 1
        alone = CliRunner().invoke(app, ["status", str(tmp_path / "bad"), *options])
        assert isinstance(alone.exception, CorruptArtifact)

    def test_a_run_that_is_damaged_meanwhile_is_passed_over_from_then_on(self, halved, tmp_path, capsys):
        for name in ("good", "bad"):
            shutil.copytree(halved.path, tmp_path / name)
        runs = [Reached(path) for path in runs_in(tmp_path)]
        for run in runs:
            run.update()
        with open(tmp_path / "bad" / "journal.jsonl", "ab") as file:
            file.write(b"0000 {}\n")
        _until_ended(runs, 0.0, lambda: None)
        assert [run.path.name for run in runs] == ["good"]
        assert "damaged" in capsys.readouterr().err

    def test_a_folder_where_nothing_begins_is_refused(self, tmp_path):
        with pytest.raises(StoreError, match="holds no run, and none began there"):
            watch(tmp_path, as_json=False, wait_s=0.1, every_s=0.01)

    def test_a_thousand_members_are_twenty_rows(self, halved):
        found = reached(halved.path)
        spec = found.ordered()[0]
        for index in range(8, 1000):
            found.members[index] = type(spec)(spec.spec.model_copy(update={"index": index}), spec.pack)
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(picture([found]))
        text = console.export_text()
        assert "and 980 more" in text
        assert len(text.splitlines()) < 40

    def test_the_table_of_train_tells_of_the_whole_search_too(self, tmp_path):
        """On a terminal below the members; elsewhere in each line."""
        console = Console(width=200, file=io.StringIO(), force_terminal=True, record=True)
        job = search_of(HALVED, training={"epochs": 4})
        with MembersView("search", console, run=tmp_path / "run") as view:
            search(job, tmp_path / "run", Listener(planned=view.planned, progress=view.progress))
        text = console.export_text()
        assert "rungs: 8 → 4 at 1, 4 → 2 at 2" in text
        assert "best so far: trial" in text
        assert "device-hours" in text
