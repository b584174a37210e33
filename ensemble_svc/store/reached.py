"""How far a run has come, kept up to date by reading on where its journal and its progress were left.

For pages and tables that look at a run from outside, also from another machine that sees its folder: nothing here
writes, locks or loads torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from ensemble_svc.errors import CorruptArtifact, StoreError
from ensemble_svc.plan.plan import SINGLE, MemberSpec, Slot, index_of
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.driven import driven
from ensemble_svc.store.driven import now as now
from ensemble_svc.store.driven import runs_in as runs_in
from ensemble_svc.store.journal import Event, Journal
from ensemble_svc.store.known import SICK as SICK
from ensemble_svc.store.known import Member as Member
from ensemble_svc.store.known import PackRow as PackRow
from ensemble_svc.store.known import Status
from ensemble_svc.store.progress import Tick, ticks_since

State = Literal["running", "finished", "stopped"]
T = TypeVar("T")

NOTES_KEPT = 50
_STATUS: Mapping[str, Status] = {
    "training": "training", "stopped": "stopped", "diverged": "diverged", "done": "done"
}  # fmt: skip
"""What a pack tells of its members that counts here."""


class Reached:
    """The state of the run at ``path`` as of the last ``update``; a folder without a run has none yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.job: JobSpec | None = None
        self.members: dict[int, Member] = {}
        """By index; the single model that they are measured against is none of them."""
        self.single: Member | None = None
        self.packs: dict[str, PackRow] = {}
        self.notes: list[str] = []
        self.chosen: tuple[str, ...] = ()
        self.starts = self.retries = 0
        self.began = self.ended = 0.0
        """Of the last start, seconds since 1970; ``ended`` is 0 until it is finished."""
        self.changed = 0.0
        """Time of the last thing that is known."""
        self.beside = 1
        """The most attempts that were under way at once since the last start."""
        self._journal_at = self._progress_at = 0

    def update(self) -> bool:
        """Read what is new; whether there was anything.

        Raises:
            CorruptArtifact: a line is damaged, or of another version; nothing after it is known.
        """
        events, self._journal_at = Journal(self.path / "journal.jsonl").since(self._journal_at)
        ticks, self._progress_at = ticks_since(self.path, self._progress_at)
        news: list[Event | Tick] = [*events, *ticks]
        for one in sorted(news, key=lambda one: one.time if isinstance(one, Tick) else one["time"]):
            if isinstance(one, Tick):
                self._tick(one)
            else:
                self._event(one)
        return bool(news)

    @property
    def begun(self) -> bool:
        """Whether there is a run."""
        return self.job is not None

    @property
    def state(self) -> State:
        """Finished, running, or stopped: nobody drives it."""
        if self.ended:
            return "finished"
        return "running" if driven(self.path) else "stopped"

    def spec(self) -> JobSpec:
        """The job.

        Raises:
            StoreError: there is no run.
        """
        if self.job is None:
            raise StoreError(f"{self.path} holds no run that was begun")
        return self.job

    def ordered(self) -> list[Member]:
        """All members by index, without the single model that the ensemble is measured against."""
        return [member for _, member in sorted(self.members.items()) if not member.spec.is_single]

    def find(self, index: int) -> Member | None:
        """The member of that index, or the single model under its own."""
        return self.single if index == SINGLE else self.members.get(index)

    def of(self, row: PackRow) -> list[Member]:
        """Those that train in a pack."""
        found = (self.find(member.index) for member in row.slot.pack.members)
        return [member for member in found if member is not None]

    def _event(self, event: Event) -> None:
        if event["event"] == "begin":
            self._close_all(
                self.changed
            )  # what was under way ended by then, whenever somebody goes on with it
        self.changed = event["time"]
        match event["event"]:
            case "begin":
                self._begin(event)
            case "plan":
                for text in event["slots"]:
                    self._place(self._read(Slot.from_json, text))
            case "start":
                self._start(event)
            case "paused":
                self._pause(event)
            case "sealed":
                self._seal(event)
            case "unsealed":
                self._unseal(event)
            case "retry" | "failed" | "halved":
                self._trouble(event)
            case "rung":
                self._rank(event)
            case "anew":
                for known in self.members.values():
                    if known.spec.digest in event["members"]:
                        known.forget()
            case "turn":
                for name, told in event["taken"].items():
                    if (member := self._member(name)) is not None:
                        member.turns[event["epoch"]] = told["values"]
            case "ensemble":
                self.chosen = tuple(event["decision"].get("members") or ())
            case "finished":
                self.ended = event["time"]
                self._close_all(event["time"])
            case _:
                pass

    def _begin(self, event: Event) -> None:
        self.job = self._read(JobSpec.from_json, event["job"])
        self.starts, self.began, self.ended, self.beside = self.starts + 1, event["time"], 0.0, 1
        for member in (*self.members.values(), *([self.single] if self.single else [])):
            if not (member.sealed or (member.ranked_out and member.status == "failed")):
                member.status = "pending"

    def _read(self, read: Callable[[str], T], text: str) -> T:
        """A value of the journal, which another version may have written."""
        try:
            return read(text)
        except ValidationError:
            raise CorruptArtifact(f"{self.path}: its job cannot be read by this version") from None

    def _place(self, slot: Slot) -> None:
        known = self.packs.get(slot.pack.id)
        self.packs[slot.pack.id] = PackRow(slot, held_s=known.held_s if known else 0.0)
        for member in slot.pack.members:
            own = self.find(member.index)
            if own is None or own.spec.digest != member.digest:
                self._put(Member(member, slot.pack.id))
            else:
                own.pack = slot.pack.id

    def _put(self, member: Member) -> None:
        """Count it; a single model takes the place of that of a smaller ensemble."""
        if not member.spec.is_single:
            self.members[member.spec.index] = member
            return
        if self.single is not None:
            self.packs.pop(self.single.pack, None)
        self.single = member

    def _start(self, event: Event) -> None:
        row = self.packs.get(event["pack"])
        if row is not None:
            row.close(event["time"])
            row.started, row.open, row.ticks, row.pace_s = event["time"], True, [], None
            row.where = {"node": event.get("node", ""), "pid": event.get("pid")}
            self.beside = max(self.beside, sum(other.open for other in self.packs.values()))
        for name in event["members"]:
            member = self._member(name)
            if member is not None and not (member.sealed or member.ranked_out):
                member.status, member.where = "training", row.where if row else {}

    def _pause(self, event: Event) -> None:
        """A pack has come to a rung, where its members wait to be ranked."""
        if (row := self.packs.get(event["pack"])) is None:
            return
        row.close(event["time"])
        for member in self.of(row):
            if member.spec.digest in event["metric"] and not member.sealed:
                member.status = "pending"

    def _seal(self, event: Event) -> None:
        member = self._member(event["member"])
        if member is None:
            return
        member.sealed, member.stopped = True, bool(event.get("stopped"))
        member.status = event["status"] if event["status"] in SICK else "done"
        member.reason, member.sick = event.get("reason") or "", event.get("sick") or ""
        member.epoch, member.metrics = int(event["epochs"]), event.get("metrics") or {}
        member.best_epoch = int(event.get("best_epoch") or member.epoch)
        member.where, member.seconds = event.get("where") or {}, event.get("seconds")
        row = self.packs.get(member.pack)
        if row is not None and row.all_sealed(self._is_sealed):
            row.close(event["time"])

    def _unseal(self, event: Event) -> None:
        member = self._member(event["member"])
        if member is None:
            return
        member.forget()
        for row in self.packs.values():
            row.sealed_up_to = 0

    def _rank(self, event: Event) -> None:
        """Trials of several packs have come to a rung, where each pack ends; some go on in other packs."""
        out: Mapping[str, Any] = event["out"]
        here = {*event["on"], *out}
        for member in self.members.values():
            if member.spec.digest in out and not member.sealed:
                member.ranked_out = True
                if member.status != "failed":
                    member.status, member.stopped = "stopped", True
            elif member.spec.digest in here and not member.sealed:
                member.status = "pending"
            if (told := event.get("taken", {}).get(member.spec.digest)) is not None:
                member.turns[event["epoch"]] = told["values"]
        for row in self.packs.values():
            if any(member.digest in here for member in row.slot.pack.members):
                row.close(event["time"])

    def over(self, row: PackRow) -> bool:
        """Whether no member is left in a pack: each is sealed, or trains on in another."""
        return all(member.sealed or member.pack != row.slot.pack.id for member in self.of(row))

    def _is_sealed(self, spec: MemberSpec) -> bool:
        found = self.find(spec.index)
        return found is not None and found.sealed

    def _trouble(self, event: Event) -> None:
        self._note(f"{event['pack']}: {event['reason']}")
        if event["event"] == "halved":
            return
        again = event["event"] == "retry"
        self.retries += again
        if (row := self.packs.get(event["pack"])) is not None:
            row.close(event["time"])
        for name in event["members"]:
            member = self._member(name)
            if member is not None and not member.sealed:
                member.status, member.reason = ("retrying" if again else "failed"), event["reason"]

    def _tick(self, tick: Tick) -> None:
        self.changed = max(self.changed, tick.time)
        if tick.note:
            self._note(tick.note)
        row = self.packs.get(tick.pack)
        if row is not None and tick.epochs:
            row.tick(tick)
        for point in tick.points:
            member = self.find(point.index)
            if member is None or (member.sealed and point.epoch > member.epoch):
                continue
            member.see(point.epoch, point.train_loss, point.metric, tick.metric)
            if member.sealed:  # the driver may hear of a last epoch after the slot has sealed it
                continue
            if row is not None and not row.open and point.status == "training":
                continue  # nor does one train that has come to a rung
            member.stopped = point.status == "stopped"
            member.status = _STATUS.get(point.status, member.status)

    def _member(self, name: str) -> Member | None:
        return self.find(index_of(name))

    def _close_all(self, now: float) -> None:
        for row in self.packs.values():
            row.close(now)

    def _note(self, words: str) -> None:
        self.notes = [*self.notes[1 - NOTES_KEPT :], words]
