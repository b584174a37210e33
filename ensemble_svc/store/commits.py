"""Commits of a pack's whole training state: what a resumed pack starts from.

Each commit is a new file beside the old one; the journal records its SHA-256 before any older
file is pruned. A commit whose bytes are damaged is passed over for the one before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.store.atomic import TEMPORARY, read_verified, write_atomic
from ensemble_svc.store.journal import Event, Journal
from ensemble_svc.store.tensors import Tensors, decode, encode
from ensemble_svc.store.turns import turns_in

KEPT = 2
"""Newest commits that stay on the disk."""


class Commits:
    """The commits of one pack in one run.

    Args:
        attempt: number of this start of the pack; it stands in the file names, so that a process
            that was given up for dead cannot overwrite its successor's commits.
        held: commits up to this epoch stay until the driver removes them, since other packs go on from them.
    """

    def __init__(
        self, run: Path, pack: str, digests: tuple[str, ...], attempt: str, *, held: int = 0
    ) -> None:
        self.folder = run / "packs" / pack
        self.run, self.pack, self.digests, self.attempt, self.held = run, pack, digests, attempt, held
        self.journal = Journal(run / "journal.jsonl")

    def write(self, epoch: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Commit the state at the end of ``epoch``; returns when nothing can undo it.

        Raises:
            StoreError: the disk is full; earlier commits are unharmed.
        """
        path = self.folder / f"state-{epoch:06d}-{self.attempt}.safetensors"
        sha = write_atomic(path, encode(tensors, {**meta, "epoch": epoch, "members": self.digests}))
        name = path.relative_to(self.run).as_posix()
        self.journal.append(
            "commit", pack=self.pack, epoch=epoch, file=name, sha256=sha, members=self.digests
        )
        self.prune()

    def newest(self, after: int = 0) -> tuple[Tensors, dict[str, Any]] | None:
        """The last commit that is whole, of these members and of a later epoch than ``after``, or None."""
        found = [event for event in self._events() if event["epoch"] > after]
        for event in sorted(found, key=lambda e: e["epoch"], reverse=True):
            try:
                return read_commit(self.run, event)
            except CorruptArtifact:
                continue
        return None

    def prune(self) -> None:
        """Remove recorded commits older than the newest ones, and files that were never finished."""
        there = {path.name for path in self.folder.iterdir()}
        own = [(e["epoch"], Path(e["file"]).name) for e in self._events() if e["epoch"] > self.held]
        recorded = sorted((one for one in own if one[1] in there), reverse=True)
        old = {name for _, name in recorded[KEPT:]} - {name for _, name in recorded[:KEPT]}
        for path in self.folder.iterdir():
            if path.name in old or path.name.startswith(TEMPORARY):
                path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove all commits of a pack whose members are sealed."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _events(self) -> list[dict[str, Any]]:
        commits = self.journal.of_kind("commit", holding=[f'"pack": "{self.pack}"'])
        return [e for e in commits if e["pack"] == self.pack and tuple(e["members"]) == self.digests]


def read_commit(run: Path, event: Event) -> tuple[Tensors, dict[str, Any]]:
    """The state that a journal's event tells of.

    Raises:
        CorruptArtifact: it is gone, or damaged, which the journal is told.
    """
    path = run / event["file"]
    try:
        return decode(read_verified(path, event["sha256"]), path)
    except CorruptArtifact as fault:
        if path.exists():
            Journal(run / "journal.jsonl").append(
                "damaged", pack=event["pack"], file=event["file"], reason=str(fault)
            )
        raise


def clear_spent(run: Path, known: Collection[str], done: Collection[str]) -> None:
    """Remove the commits of packs whose members are all done, or were committed at a later epoch since.

    Call it while nothing trains.

    Args:
        known: digests of the run's members; others, of members that started anew, need no commit any more.
        done: likewise those that are sealed.
    """
    newest, members = dict[str, int](), dict[str, list[str]]()
    epochs, journal, waited_for = dict[str, int](), Journal(run / "journal.jsonl"), set[str]()
    needed = _sources_of(journal, [digest for digest in known if digest not in done])
    for event in journal.of_kind("commit"):
        members[event["pack"]], epochs[event["pack"]] = event["members"], event["epoch"]
        newest |= dict.fromkeys(event["members"], event["epoch"])
        if any((digest, event["epoch"]) in needed for digest in event["members"]):
            waited_for.add(event["pack"])
    for pack, digests in members.items():
        open_ = [digest for digest in digests if digest in known and digest not in done]
        if pack not in waited_for and all(newest[digest] > epochs[pack] for digest in open_):
            Commits(run, pack, tuple(digests), "").clear()


def _sources_of(journal: Journal, open_: Collection[str]) -> set[tuple[str, int]]:
    """Whose state, after which epoch, members of a population that are left go on from, where it is another's."""
    last = (turns[max(turns)] for turns in turns_in(journal, open_).values() if turns)
    return {(turn.source, turn.epoch) for turn in last}


def clear_passed(run: Path, epoch: int, behind: Collection[str], reached: Mapping[str, int]) -> None:
    """Remove the commits of epochs before one that a population has passed; call it while nothing trains.

    Args:
        behind: digests of members that have not come there; they need the states from which they go on, and later ones.
        reached: the epoch after which a member goes on, by digest; 0 where it is not here.
    """
    journal = Journal(run / "journal.jsonl")
    turns = turns_in(journal, behind)
    needed = {(digest, reached.get(digest, 0)) for digest in behind}
    needed |= {(turns[d][e].source, e) for d, e in needed if e in turns[d]}
    last = {(digest, e["epoch"]): e["file"] for e in journal.of_kind("commit") for digest in e["members"]}
    kept = {last[one] for one in needed if one in last}
    kept |= {file for (d, e), file in last.items() if d in turns and e > reached.get(d, 0)}
    for event in journal.of_kind("commit"):
        if event["epoch"] < epoch and event["file"] not in kept:
            (run / event["file"]).unlink(missing_ok=True)
