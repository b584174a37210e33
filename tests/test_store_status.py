"""``status`` and ``status --watch`` say the same of every member, whenever one looks."""

from __future__ import annotations

from pathlib import Path

from replaying import replayed
from search_runs import job_of, train
from test_store_pace import RUNGS, Recorder

from ensemble_svc.cli.live import STYLES as LIVE
from ensemble_svc.cli.roster import status_table
from ensemble_svc.cli.watching import STYLES as WATCH
from ensemble_svc.dashboard.state import detail
from ensemble_svc.store.folder import Folder
from ensemble_svc.store.outlook import counts, group_of
from ensemble_svc.store.reached import Reached
from ensemble_svc.store.status import status_of


def alike(run: Folder, found: Reached) -> None:
    """The same members, epochs and words, and the same state of the run."""
    told, going = status_of(run), found.state == "running"
    assert told["state"] == found.state
    assert [entry["id"] for entry in told["members"]] == [member.spec.id for member in found.ordered()]
    for entry, member in zip(told["members"], found.ordered(), strict=True):
        assert entry["epochs"] == member.epoch
        word = "stopped" if entry["status"] == "done" and entry["stopped"] else entry["status"]
        assert word == group_of(member, going=going)


def test_trials_at_a_rung_have_the_epochs_that_they_trained(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    Recorder(tmp_path / "run", 1.0, 0.1, 1.0).search()
    seen = set[int]()
    for number, (_, found) in enumerate(replayed(tmp_path / "run", tmp_path / "grows")):
        at_rung = all(member.epoch == RUNGS[0] for member in found.ordered())
        if number % 10 == 0 or at_rung:
            alike(Folder(tmp_path / "grows"), found)
            seen |= {entry["epochs"] for entry in status_of(Folder(tmp_path / "grows"))["members"]}
    assert RUNGS[0] in seen


def test_a_search_that_has_ended_is_told_alike(tmp_path: Path) -> None:
    search = {"trials": 4, "scheduler": {"name": "halving", "factor": 2}}
    run = train(job_of(search, training={"epochs": 3}), tmp_path / "run")
    found = Reached(run.path)
    found.update()
    alike(run, found)
    tally = counts(found)
    title = f"{tally['done']} of 4 members done, {tally['stopped']} stopped"
    assert tally["stopped"]
    assert title in str(status_table(status_of(run)).title)


def test_every_place_has_the_same_word_for_the_same_state(tmp_path: Path) -> None:
    """The table of ``train``, ``status``, ``--watch`` and the dashboard, of a member in each state."""
    (tmp_path / "run").mkdir()
    Recorder(tmp_path / "run", 1.0, 0.1, 1.0).search()
    words = {"pending", "training", "stopped", "done"}
    seen = set[str]()
    for _, found in replayed(tmp_path / "run", tmp_path / "grows"):
        told = detail(found, 0.0)
        column = told["columns"].index("group")
        groups = {row[column] for row in told["members"]}
        states = {pack["state"] for pack in told["packs"]}
        table = {member.status for member in found.ordered()}
        assert groups | states | table <= words
        assert words >= {name for name, number in told["counts"].items() if number}
        seen |= groups
    assert seen == words
    assert words <= LIVE.keys() & WATCH.keys()
    assert not {"running", "waiting"} & (LIVE.keys() | WATCH.keys())
