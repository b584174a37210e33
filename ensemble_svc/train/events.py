"""TensorBoard event files of a member, with its hyper-parameters (the HParams page)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.train.ledger import Entry


def write_events(folder: Path, member: MemberSpec, entry: Entry) -> None:
    """One TensorBoard run for the member: a curve per history column, and its hyper-parameters."""
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(logdir=str(folder), write_to_disk=True) as writer:
        last = {
            name: value
            for name, value in (entry.history[-1] if entry.history else {}).items()
            if name != "epoch"
        }
        for summary in hparams(hyperparameters(member), {_tag(name): value for name, value in last.items()}):
            writer.file_writer.add_summary(summary)
        for row in entry.history:
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(_tag(name), value, int(row["epoch"]))


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
