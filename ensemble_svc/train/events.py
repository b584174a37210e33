"""TensorBoard event files of members: a run each, with its hyper-parameters (the HParams page) and its metrics.

A member's file is written from its history: whole at first, then the epochs that were added. A start that goes on
from a commit writes it anew, so that no epoch stands in it twice. Nothing is ever read back from it.
"""

from __future__ import annotations

import shutil
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tensorboardX.proto.api_pb2 import Status
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.record_writer import masked_crc32c

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.store.lineage import in_force, last_taken
from ensemble_svc.train.ledger import Entry

LIVE_UP_TO = 64
"""Members of a pack whose files grow while it trains; those of a larger one are written when it ends."""


class EventFiles:
    """The event files of a start's members.

    Args:
        folder: of all members' event files in the run, ``RUN/tensorboard``.
        members: as the plan has them, in the order of the ledger's entries.
        seeds: members of each trial, where a search's trials they are.
    """

    def __init__(self, folder: Path, members: Sequence[MemberSpec], *, seeds: int | None = None) -> None:
        self._folder, self._members, self._seeds = folder, members, seeds
        self._written: dict[int, tuple[Path, int]] = {}
        self._broken = False

    def grow(self, entries: Sequence[Entry]) -> None:
        """Add the epochs since the last call, for a page that is looked at meanwhile."""
        if len(entries) > LIVE_UP_TO or self._broken:
            return
        with self._harmless():
            for position, entry in enumerate(entries):
                self._add(position, entry)

    def end(self, position: int, entry: Entry, facts: Mapping[str, Any]) -> None:
        """Add what is left of a member's epochs, and how it ended.

        Args:
            facts: its status and its metrics by split, as its seal has them.
        """
        if self._broken:
            return
        with self._harmless():
            if (
                entry.turns
            ):  # a page takes the first hyper-parameters that it finds: written anew with the last ones
                self._written.pop(position, None)
            self._add(position, entry)
            path, _ = self._written[position]
            _append(path, _ending(facts, step=entry.epochs))

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """No member is lost to a page: after a first fault of the file system nothing more is written."""
        try:
            yield
        except OSError:
            self._broken = True

    def _add(self, position: int, entry: Entry) -> None:
        known, now = self._written.get(position), time.time()
        rows = entry.history[known[1] :] if known else entry.history
        if known is None:
            path = self._begin(position)
            own = hyperparameters(self._members[position], self._seeds, taken=last_taken(entry.turns))
            _append(path, _opening(own, now))
        else:
            path = known[0]
        if rows:
            _append(path, _curves(rows, now))
        self._written[position] = path, len(entry.history)

    def _begin(self, position: int) -> Path:
        folder = self._folder / self._members[position].id
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"


def hyperparameters(
    member: MemberSpec, seeds: int | None = None, *, taken: Mapping[str, Any] | None = None
) -> dict[str, float | str | bool]:
    """What tells the member from others: its number, and each key in which it departs from the job.

    Args:
        seeds: members of each trial of a search.
        taken: by what it went on after its last turn, in a population.
    """
    flat: dict[str, float | str | bool] = {"index": float(member.index)}
    if seeds is not None:
        flat["trial"] = float(member.index // seeds)
    for key, value in in_force(member.varied, taken or {}).items():
        flat[key] = value if isinstance(value, bool) else float(value) if _is_number(value) else str(value)
    return flat


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _opening(values: Mapping[str, float | str | bool], now: float) -> Iterator[Event]:
    """The version, that earlier files of this run no longer count, and the hyper-parameters.

    There is no summary of the experiment: without it TensorBoard makes its own from all members, with every key
    and metric that any of them has.
    """
    yield Event(wall_time=now, file_version="brain.Event:2")
    yield Event(wall_time=now, step=1, session_log=SessionLog(status=SessionLog.START))
    start = SessionStartInfo(start_time_secs=now)
    for key, value in values.items():
        own = start.hparams[key]
        if isinstance(value, bool):
            own.bool_value = value
        elif isinstance(value, float):
            own.number_value = value
        else:
            own.string_value = value
    yield _plugin("session_start_info", HParamsPluginData(session_start_info=start), now)


def _curves(rows: Sequence[Mapping[str, float | int]], now: float) -> Iterator[Event]:
    """The epochs, each at the time it ended if the last has ended just now."""
    after_s = sum(float(row.get("seconds", 0.0)) for row in rows)
    for row in rows:
        after_s -= float(row.get("seconds", 0.0))
        values = [Summary.Value(tag=_tag(name), simple_value=v) for name, v in row.items() if name != "epoch"]
        yield Event(wall_time=now - after_s, step=int(row["epoch"]), summary=Summary(value=values))


def _ending(facts: Mapping[str, Any], step: int) -> Iterator[Event]:
    now = time.time()
    final = {f"final/{split}/{n}": v for split, own in facts["metrics"].items() for n, v in own.items()}
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in final.items()]
    yield Event(wall_time=now, step=step, summary=Summary(value=values))
    status = "STATUS_SUCCESS" if facts["status"] == "done" else "STATUS_FAILURE"
    end = SessionEndInfo(status=Status.Value(status), end_time_secs=now)
    yield _plugin("session_end_info", HParamsPluginData(session_end_info=end), now)


def _plugin(name: str, data: Any, now: float) -> Event:
    """A record for the HParams page."""
    own = SummaryMetadata.PluginData(plugin_name="hparams", content=data.SerializeToString())
    value = Summary.Value(tag=f"_hparams_/{name}", metadata=SummaryMetadata(plugin_data=own))
    return Event(wall_time=now, summary=Summary(value=[value]))


def _append(path: Path, events: Iterator[Event]) -> None:
    """Write records here and now: ``SummaryWriter`` starts a thread and a queue for each member and keeps them."""
    with open(path, "ab") as file:
        file.write(b"".join(_record(event.SerializeToString()) for event in events))


def _record(body: bytes) -> bytes:
    """The record as TensorBoard's files frame it: length, its checksum, the bytes, their checksum."""
    length = struct.pack("<Q", len(body))
    checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, body))
    return length + next(checks) + body + next(checks)


def _tag(column: str) -> str:
    head, _, rest = column.partition("_")
    return f"{head}/{rest}" if head in {"train", "val"} else column
