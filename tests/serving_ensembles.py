"""Ensembles that were never trained: members of any network with drawn weights, ready to be written to a file."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import nn

from ensemble_svc.aggregate.decision import Decision
from ensemble_svc.data.dataset import InputSchema
from ensemble_svc.data.transform import Transform
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.structure import structure
from ensemble_svc.predictor import Ensemble, Group
from ensemble_svc.spec.job import NoResample
from ensemble_svc.spec.model import Model
from ensemble_svc.spec.preprocess import Preprocess
from ensemble_svc.spec.training import TrainingSpec
from ensemble_svc.train.assemble import answer_of, assemble, own_state, stack

CLASSES = ("a", "b", "c")


def image_schema(*shape: int, dtype: Any = "uint8") -> InputSchema:
    return InputSchema(kind="image", shape=shape, dtype=dtype, classes=CLASSES, targets=("y",))


def table_schema(num_columns: int, **facts: Any) -> InputSchema:
    names = tuple(f"x{j}" for j in range(num_columns))
    known = {"classes": CLASSES, "targets": ("y",)} | facts
    return InputSchema(kind="table", shape=(num_columns,), dtype="float32", features=names, **known)


def ensemble_of(
    models: Sequence[Model],
    schema: InputSchema,
    *,
    preprocess: Sequence[Sequence[Preprocess]] = ((),),
    decision: dict[str, Any] | None = None,
    training: TrainingSpec | None = None,
    bags: bool = False,
) -> Ensemble:
    """A member per model, its weights and running statistics drawn, its transform fitted on random rows.

    Args:
        preprocess: the steps of each member, or of all.
        bags: each member's transform is fitted on rows of its own.
    """
    draw = torch.Generator().manual_seed(0)
    members = [
        _member(k, model, schema, tuple(preprocess[k % len(preprocess)]), training or TrainingSpec())
        for k, model in enumerate(models)
    ]
    ordered = sorted(members, key=lambda m: (structure(m, 0), m.index))
    groups = []
    for _, some in groupby(ordered, key=lambda m: structure(m, 0)):
        own = tuple(some)
        nets = [_drawn(assemble(m, schema), schema, draw, m.index if bags else 0) for m in own]
        states = [own_state(net) for net in nets]
        groups.append(Group(nets[0], own, stack(states), answer_of(own[0], schema)))
    place = {member.id: i for i, member in enumerate(ordered)}
    weights = np.arange(1, len(members) + 1) / sum(range(1, len(members) + 1))
    ids = tuple(member.id for member in members)
    decided = Decision(members=ids, weights=tuple(weights.tolist()), **(decision or {}))
    return Ensemble(schema, groups, [place[m] for m in ids], decided)


def rows_for(schema: InputSchema, num_rows: int, seed: int = 1) -> Any:
    draw = np.random.default_rng(seed)
    if schema.dtype == "uint8":
        return draw.integers(0, 256, (num_rows, *schema.shape)).astype(np.uint8)
    x = draw.normal(size=(num_rows, *schema.shape)).astype(np.float32)
    for j, (_, values) in enumerate(schema.categories):
        x[:, schema.num_numeric + j] = draw.integers(-1, len(values), num_rows)
    for j in schema.indicators:
        x[draw.random(num_rows) < 0.3, j] = np.nan
    return x


def _member(
    index: int, model: Model, schema: InputSchema, steps: tuple[Preprocess, ...], training: TrainingSpec
) -> MemberSpec:
    return MemberSpec(
        index=index,
        job_seed=0,
        task="classification" if schema.classes else "regression",
        data_hash="d",
        split_hash="s",
        preprocess=steps,
        augment=(),
        standardize_target=True,
        resample=NoResample(),
        model=model,
        training=training,
    )


def _drawn(net: Any, schema: InputSchema, draw: torch.Generator, seed: int) -> Any:
    assert isinstance(net.transform, Transform)
    net.transform.fit(rows_for(schema, 200, seed))
    for module in net.modules():
        for value in module.parameters(recurse=False):
            shift = torch.randn(value.shape, generator=draw) * 0.1
            value.data.add_(shift if value.dim() > 1 or not isinstance(module, nn.PReLU) else shift.abs())
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=draw) * 0.1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=draw) + 0.5)
    if not schema.classes:
        net.target_mean.fill_(150.0)
        net.target_scale.fill_(70.0)
        net.noise_log_variance.fill_(-1.0)
    return net
