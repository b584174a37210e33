"""From the members of a pack to the module that trains them, data on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from ensemble_svc.data.dataset import Array
from ensemble_svc.data.indices import member_rows
from ensemble_svc.data.schema import num_answers
from ensemble_svc.data.transform import Transform
from ensemble_svc.nn.tasks import Heads
from ensemble_svc.plan.cost import DataShape, work_of
from ensemble_svc.plan.formula import member_seconds
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.spec.job import NoResample
from ensemble_svc.spec.tasks import kinds
from ensemble_svc.train.assemble import answer_of, assemble_fitted
from ensemble_svc.train.feed import DeviceData, EpochFeed, steps_per_epoch
from ensemble_svc.train.member import MemberModule
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.pack import PackModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.recipe import Recipe
from ensemble_svc.train.sparsity import is_sparse
from ensemble_svc.train.stream import BagWeights, StreamFeed


def training_rows(payload: Payload, members: Sequence[MemberSpec]) -> list[Array]:
    """Each member's training rows, sorted."""
    split, y = payload.split, payload.dataset.y
    return [
        member_rows(
            m.resample,
            split,
            y,
            task=m.task,
            kinds=tuple(kinds(m.tasks).values()),
            job_seed=m.job_seed,
            member=m.index,
            streamed=m.streamed,
        )
        for m in members
    ]


def build_module(
    payload: Payload,
    members: tuple[MemberSpec, ...],
    rows: Sequence[Array],
    device: torch.device,
    *,
    compiled: bool = False,
    apart: bool = False,
) -> SlotModule:
    """The members with their initial weights, ready for the first step.

    Args:
        apart: whether members may come to have other transforms than those that are fitted on their own rows.
    """
    start = assemble_fitted(members, payload.dataset, payload.schema, rows)
    first, train = members[0], payload.split.train
    num_rows = len(train) if first.streamed else len(rows[0])
    steps = steps_per_epoch(num_rows, first.training.rows_per_step(num_rows))
    answers = num_answers(payload.schema, first.tasks)
    shape = DataShape(
        cast(Transform, start.net.transform).out_shape,
        answers,
        len(payload.dataset),
        len(payload.split.validation),
    )
    work = work_of(first, num_rows, shape)
    answer = answer_of(first, payload.schema)
    heads = answer if isinstance(answer, Heads) else None
    recipe = Recipe(members, steps, device, lead=first, member_s=member_seconds(work), heads=heads)
    augmented = bool(first.augment)
    whole = augmented or first.streamed or apart or not start.alike
    common = None if whole else start.net.transform
    data = DeviceData(payload.dataset, device, common=common, streamed=first.streamed)
    bags = None
    if first.streamed and not isinstance(first.resample, NoResample):
        bags = BagWeights.from_bags(rows, len(payload.dataset), len(train), device)
    kind = MemberModule if len(members) == 1 else PackModule
    return kind(recipe, start, data, bags, compiled=compiled and not is_sparse(members))


def build_feed(
    payload: Payload, module: SlotModule, rows: Sequence[Array], *, first_epoch: int = 0
) -> EpochFeed | StreamFeed:
    """The batches of the module's members from ``first_epoch`` on."""
    members, device = module.recipe.members, module.recipe.device
    if members[0].streamed:
        return StreamFeed(
            payload.split.train,
            payload.dataset.x,
            device,
            job_seed=members[0].job_seed,
            batch_size=members[0].training.rows_per_step(len(payload.split.train)),
            first_epoch=first_epoch,
        )
    single = isinstance(module, MemberModule) and not module.alone
    return EpochFeed(members, rows, device, first_epoch=first_epoch, single_steps=single)
