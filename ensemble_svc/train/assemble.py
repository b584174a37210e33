"""From a member's specification to its network; shared by training and prediction (no Lightning here)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from ensemble_svc.data.dataset import Array, Dataset, InputSchema
from ensemble_svc.data.transform import Transform
from ensemble_svc.errors import Fault, SpecError
from ensemble_svc.nn.build import build
from ensemble_svc.nn.heads import num_outputs, resolve_loss
from ensemble_svc.nn.lsuv import to_unit_variance
from ensemble_svc.nn.member import MemberNet
from ensemble_svc.nn.tasks import Answer, Heads, heads_of
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.structure import shape
from ensemble_svc.spec.inits import Lsuv
from ensemble_svc.spec.job import NoResample
from ensemble_svc.spec.model import Network
from ensemble_svc.spec.randomness import derive_seed

Stack = dict[str, Tensor]
"""Tensors by name, stacked over K members: each is [K, …]."""


def assemble(member: MemberSpec, schema: InputSchema) -> MemberNet:
    """The member's network with the initial weights of its seed and an unfitted transform."""
    _seed(derive_seed(member.job_seed, member.start, "init"))
    transform = Transform(schema, member.preprocess)
    answer = answer_of(member, schema)
    if isinstance(answer, Heads):
        body = build(member.model, transform.out_shape, answer.num_outputs)
        return MemberNet(transform, body, len(answer.each), scaled=answer.is_scaled)
    assert member.task != "multitask"
    outputs = num_outputs(member.task, answer, len(schema.classes) or len(schema.targets))
    body = build(member.model, transform.out_shape, outputs)
    return MemberNet(transform, body, 0 if schema.classes else len(schema.targets))


def _seed(seed: int) -> None:
    """As ``torch.manual_seed``, which where there is no GPU notes for each kind of them, with the calls that led to
    it, that one would be seeded: it takes as long as building the network."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def answer_of(member: MemberSpec, schema: InputSchema) -> Answer:
    """What the outputs of the member's network mean."""
    if member.task != "multitask":
        return resolve_loss(member.task, member.training.loss)
    learned = member.training.task_weights == "uncertainty"
    return heads_of(member.tasks, dict(schema.tasks), learned=learned)


class Assembled(NamedTuple):
    """Members as they begin."""

    net: MemberNet
    """The first member's network."""
    stack: Stack
    """Parameters and buffers of all."""
    alike: bool
    """Whether all transforms are the same."""


def assemble_fitted(
    members: Sequence[MemberSpec], dataset: Dataset, schema: InputSchema, rows: Sequence[Array]
) -> Assembled:
    """Several members, each transform fitted on that member's own training rows.

    One network at a time is built and copied into the stack, so that they never lie in memory twice.
    """
    first, whole = None, Stack()
    for k, net in enumerate(_fitted(members, dataset, schema, rows)):
        state = own_state(net)
        if first is None:
            first, whole = (
                net,
                {name: value.new_empty(len(members), *value.shape) for name, value in state.items()},
            )
        for name, value in state.items():
            whole[name][k].copy_(value)
    assert first is not None
    fitted = [value for name, value in whole.items() if name.startswith("transform.")]
    return Assembled(first, whole, all(bool((value == value[:1]).all()) for value in fitted))


def _fitted(
    members: Sequence[MemberSpec], dataset: Dataset, schema: InputSchema, rows: Sequence[Array]
) -> Iterator[MemberNet]:
    fitted: dict[bytes, dict[str, Tensor]] = {}
    for member, rows_n in zip(members, rows, strict=True):
        net = assemble(member, schema)
        key = rows_n.tobytes()
        if key not in fitted:
            fitted[key] = _fit(net, member, dataset, rows_n)
        net.load_state_dict(fitted[key], strict=False)
        if isinstance(member.model, Network) and isinstance(member.model.init, Lsuv):
            _scale(net, member, dataset, rows_n)
        yield net


def _scale(net: MemberNet, member: MemberSpec, dataset: Dataset, rows_n: Array) -> None:
    """The part of the initial weights that looks at the member's own rows."""
    assert isinstance(member.model, Network)
    assert isinstance(member.model.init, Lsuv)
    draw = np.random.default_rng(derive_seed(member.job_seed, member.index, "init", 1))
    some = np.sort(draw.permutation(rows_n)[: member.model.init.rows])
    with torch.no_grad():
        x_B = net.transform(torch.from_numpy(dataset.x[some]))
    to_unit_variance(net.body, x_B, member.model.init)


def check_networks(members: Iterable[MemberSpec], schema: InputSchema) -> None:
    """Build one network of each kind and let it go, before anything is written or started.

    Members in a row whose models differ in elementwise options alone have networks of one kind.

    Raises:
        SpecError: a network that does not fit the data's shape, or that would see rows left out of a bag.
    """
    for _, some in groupby(members, key=_kind):
        member = next(some)
        net = assemble(member, schema)
        bagged = member.streamed and not isinstance(member.resample, NoResample)
        if bagged and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules()):
            found = (
                "the data are streamed (data.stream), and batch norm would see the rows that a member's "
                f"'{member.resample.name}' leaves out. Use norm: layer or group, or resample: none."
            )
            raise SpecError([Fault("model.norm", found)])


def _kind(member: MemberSpec) -> tuple[Any, ...]:
    """Equal for members of whose networks one tells all that can speak against any."""
    return shape(member.model), member.preprocess, member.streamed, member.resample


def own_state(net: nn.Module) -> Stack:
    """The state of ``net``; a weight that layers share stands under the first of its names alone.

    ``named_parameters`` names it so, and ``functional_call`` gives it to all of the layers.
    """
    names = dict[int, str]()
    state = net.state_dict(keep_vars=True)
    return {
        name: value.detach() for name, value in state.items() if names.setdefault(id(value), name) == name
    }


def stack(states: Sequence[Mapping[str, Tensor]]) -> Stack:
    """K members' tensors by name, stacked in order."""
    return {name: torch.stack([state[name].detach() for state in states]) for name in states[0]}


def part(name: str, weights: Mapping[str, Tensor]) -> Stack:
    """The weights of the submodule ``name``, called as it calls them."""
    head = f"{name}."
    return {n.removeprefix(head): weight for n, weight in weights.items() if n.startswith(head)}


def _fit(net: MemberNet, member: MemberSpec, dataset: Dataset, rows: Array) -> dict[str, Tensor]:
    """Fit the transform and the target's scale; returns the buffers that hold them."""
    cast(Transform, net.transform).fit(dataset.x[rows])
    if member.task != "classification" and member.standardize_target:
        target = dataset.y[rows].astype(np.float64)
        is_number = torch.from_numpy(dataset.are_numbers)
        net.target_mean.copy_(torch.where(is_number, torch.from_numpy(target.mean(axis=0)), 0.0))
        net.target_scale.copy_(torch.where(is_number, torch.from_numpy(target.std(axis=0)), 1.0))
    kept = {name: value for name, value in net.state_dict().items() if not name.startswith("body.")}
    return {name: value.clone() for name, value in kept.items()}
