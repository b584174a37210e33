"""From the members of a pack to the module that trains them, data on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ensemble_svc.data.dataset import Array
from ensemble_svc.data.indices import member_rows
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.train.assemble import assemble_fitted
from ensemble_svc.train.feed import DeviceData, steps_per_epoch
from ensemble_svc.train.member import MemberModule
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.pack import PackModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.recipe import Recipe


def training_rows(payload: Payload, members: Sequence[MemberSpec]) -> list[Array]:
    """Each member's training rows, sorted."""
    split, y = payload.split, payload.dataset.y
    return [
        member_rows(m.resample, split, y, task=m.task, job_seed=m.job_seed, member=m.index) for m in members
    ]


def build_module(
    payload: Payload,
    members: tuple[MemberSpec, ...],
    rows: Sequence[Array],
    device: torch.device,
    *,
    compiled: bool = False,
) -> SlotModule:
    """The members with their initial weights, ready for the first step."""
    nets = assemble_fitted(members, payload.dataset, payload.schema, rows)
    steps = steps_per_epoch(len(rows[0]), members[0].training.batch_size)
    recipe = Recipe(members, steps, device, lead=members[0])
    data = DeviceData(payload.dataset, nets, device, augmented=bool(members[0].augment))
    kind = MemberModule if len(nets) == 1 else PackModule
    return kind(recipe, nets, data, compiled=compiled)
