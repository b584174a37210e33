"""TensorBoard event files of a member, with its hyper-parameters (the HParams page)."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter
from tensorboardX.summary import hparams

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.train.ledger import Entry


def write_events(folder: Path, member: MemberSpec, entry: Entry) -> None:
    """One TensorBoard run for the member: a curve per history column, and its hyper-parameters.

    The records are written here and now: ``SummaryWriter`` starts a thread, a queue and a disk sync for
    each member, and keeps them until the process ends.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    file = RecordWriter(str(folder / f"events.out.tfevents.{now:.0f}.{socket.gethostname()}"))
    for event in _events(member, entry, now):
        file.write(event.SerializeToString())
    file.close()


def _events(member: MemberSpec, entry: Entry, now: float) -> Iterator[Event]:
    yield Event(wall_time=now, file_version="brain.Event:2")
    last = _scalars(entry.history[-1]) if entry.history else {}
    for summary in hparams(hyperparameters(member), last):
        yield Event(wall_time=now, summary=summary)
    for row in entry.history:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _scalars(row).items()]
        yield Event(wall_time=now, step=int(row["epoch"]), summary=Summary(value=values))


def _scalars(row: Mapping[str, float | int]) -> dict[str, float]:
    return {_tag(name): value for name, value in row.items() if name != "epoch"}


def hyperparameters(member: MemberSpec) -> dict[str, Any]:
    """The member's options as flat numbers and words."""
    flat: dict[str, Any] = {"index": member.index, "seed": member.job_seed, "resample": member.resample.name}
    for section in ("model", "training"):
        flat |= _flat(section, getattr(member, section).model_dump(mode="json"))
    return flat


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        items = [_flat(f"{prefix}.{key}", item) for key, item in value.items()]
        return {name: leaf for item in items for name, leaf in item.items()}
    plain = isinstance(value, int | float | str | bool)
    return {prefix: value if plain else str(value)}


def _tag(column: str) -> str:
    head, _, rest = column.partition("_")
    return f"{head}/{rest}" if head in {"train", "val"} else column
