"""A finished ensemble that predicts; needs torch, neither Lightning nor Ray.

Shapes: K members, N rows, C classes, T targets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.calibration.conformal import PredictionSets
from ensemble_svc.aggregate.calibration.temperature import Temperature
from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.decision import Decision, apply, equal
from ensemble_svc.aggregate.uncertainty import entropy, mutual_information, variance
from ensemble_svc.data.dataset import Array, InputSchema
from ensemble_svc.errors import StoreError
from ensemble_svc.nn.member import MemberNet, scales
from ensemble_svc.nn.tasks import Answer, part_of
from ensemble_svc.plan.plan import MemberSpec, draw_seed
from ensemble_svc.plan.structure import structure
from ensemble_svc.store.manifest import decision_of
from ensemble_svc.store.members import parted, snapshot_file
from ensemble_svc.store.run import Run
from ensemble_svc.train.assemble import Stack, answer_of, assemble, stack
from ensemble_svc.train.forward import predict, predict_dropped

ROWS = 8192
"""Rows predicted at a time."""


@dataclass(frozen=True)
class Prediction:
    """What the ensemble says of N rows."""

    mean: Array
    """[N, C] class probabilities, or [N, T] means in the target's units."""
    uncertainty: Mapping[str, Array]
    """[N] each: ``entropy`` (total) and ``mutual_information`` (epistemic) in nats for classes;
    [N, T] ``total``, ``aleatoric`` and ``epistemic`` variances for regression."""
    region: Mapping[str, Array] = field(default_factory=dict)
    """Where the ensemble is conformal: ``inside`` [N, C], the classes of each row's set; or ``low`` and ``high``
    [N, T], the ends of its intervals."""
    tasks: Mapping[str, Prediction] = field(default_factory=dict)
    """Of several tasks that of each by its name; ``mean`` and ``uncertainty`` are the first's."""


@dataclass(frozen=True)
class _Candidate:
    """A trained member, or one that it stands for."""

    id: str
    member: MemberSpec
    number: int
    """Of the snapshot, draw or dropped network, from 1; 0 for the member itself."""
    files: Mapping[str, str]
    structure: str

    @classmethod
    def of(cls, own: str, entries: Mapping[str, Any]) -> _Candidate:
        member, number = parted(own)
        spec = MemberSpec.from_json(_json(entries[member]["spec"]))
        return cls(own, spec, number, entries[member]["files"], structure(spec, 0))

    def place(self) -> tuple[str, int, int]:
        """What orders candidates so that those of one structure stand together."""
        return self.structure, self.member.index, self.number

    @property
    def weights(self) -> str:
        """The file of its weights."""
        if self.number and not self.member.mc_samples:
            return snapshot_file(self.number)
        averaged = f"members/{self.member.id}/averaged.safetensors" in self.files
        return "averaged.safetensors" if averaged else "weights.safetensors"


@dataclass(frozen=True)
class Group:
    """Members of one structure, as one stack."""

    net: MemberNet
    members: tuple[MemberSpec, ...]
    weights: Stack
    answer: Answer
    draws: tuple[tuple[int, int], ...] = ()
    """Of networks with dropout drawn: a place in the stack and the seed of the draw for each; ``weights`` then
    holds each trained member once."""


class Ensemble:
    """The chosen members of a finished run, loaded once."""

    def __init__(
        self, schema: InputSchema, groups: Sequence[Group], order: Sequence[int], decision: Decision
    ) -> None:
        self.schema, self.decision = schema, decision
        self.groups, self.order = tuple(groups), tuple(order)

    @classmethod
    def load(cls, path: Path | str, *, members: Sequence[str] | None = None) -> Ensemble:
        """The ensemble of a run folder.

        Args:
            members: ids of finished members to load as an equal mixture, in place of the chosen ones.

        Raises:
            StoreError: no run there, or none that is finished.
            CorruptArtifact: a file's bytes are not those that were written.
        """
        run = Run.open(path)
        manifest = run.manifest()
        if not manifest["ensemble"]["members"]:
            raise StoreError(f"{path} has no finished member to predict with")
        known = Decision.from_json(_json(decision_of(manifest)))
        decision = known if members is None else equal(members)
        chosen = decision.members
        schema = InputSchema.from_json(_json(manifest["input_schema"]))
        entries = {entry["id"]: entry for entry in manifest["members"]}
        ordered = sorted((_Candidate.of(own, entries) for own in chosen), key=_Candidate.place)
        groups = [_load(run, tuple(g), schema) for _, g in groupby(ordered, key=lambda c: c.structure)]
        position = {candidate.id: i for i, candidate in enumerate(ordered)}
        return cls(schema, groups, [position[m] for m in chosen], decision)

    def members(self, x: Array, *, energy: bool = False) -> dict[str, Tensor]:
        """Each member's own prediction of the rows, [K, N, …], in the manifest's order.

        Args:
            x: raw rows [N, …] as ``InputSchema`` describes them.
            energy: whether to add that of classes, ``energy`` [K, N].
        """
        blocks = [self._block(x[start : start + ROWS], energy) for start in range(0, max(1, len(x)), ROWS)]
        return {name: torch.cat([block[name] for block in blocks], dim=1) for name in blocks[0]}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of several tasks; none where there is one answer."""
        return tuple(name for name, _ in self.schema.tasks)

    def combined(self, members: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The ensemble's prediction from its members'; of several tasks of each, its name before the key."""
        if not self.tasks:
            return apply(self.decision, members)
        each = {task: apply(self.decision.of(task), part_of(members, task)) for task in self.tasks}
        return {f"{task}/{key}": value for task, found in each.items() for key, value in found.items()}

    def predict(self, x: Array) -> Prediction:
        """The ensemble's prediction and uncertainty for raw rows [N, …]."""
        members = self.members(x)
        if not self.tasks:
            return self._prediction(self.decision, members)
        each = {task: self._prediction(self.decision.of(task), part_of(members, task)) for task in self.tasks}
        return replace(each[self.tasks[0]], tasks=each)

    def _prediction(self, decision: Decision, members: Mapping[str, Tensor]) -> Prediction:
        together = apply(decision, members)
        mean = together["log_probs"].exp() if "log_probs" in together else together["mean"]
        doubt, region = _uncertainty(decision, members, together), _region(decision, together)
        return Prediction(mean.numpy(), _arrays(doubt), _arrays(region))

    def _block(self, x: Array, energy: bool) -> dict[str, Tensor]:
        x_N = torch.from_numpy(np.ascontiguousarray(x))
        each = [_predict(group, x_N, energy) for group in self.groups]
        joined = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        return {name: value[list(self.order)] for name, value in joined.items()}


def _uncertainty(
    decision: Decision, members: Mapping[str, Tensor], together: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The whole doubt is that of what the ensemble says; the members' disagreement is their own."""
    calibrator, weights_K = decision.calibrator, torch.tensor(decision.weights, dtype=torch.float64)
    if "log_probs" in members:
        log_probs_KNC = members["log_probs"]
        if isinstance(calibrator, Temperature) and calibrator.before:
            log_probs_KNC = calibrator.apply(log_probs_KNC)
        return {
            "entropy": entropy(together["log_probs"].unsqueeze(0)),
            "mutual_information": mutual_information(log_probs_KNC, weights_K),
        }
    log_variance_KNT = members["log_variance"]
    if isinstance(calibrator, VarianceScale):
        log_variance_KNT = calibrator.apply(log_variance_KNT)
    return variance(members["mean"], log_variance_KNT, weights_K)._asdict()


def _region(decision: Decision, together: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sets or intervals, where the ensemble has them."""
    match decision.coverage:
        case None:
            return {}
        case PredictionSets() as sets:
            return {"inside": sets.apply(together["log_probs"])}
        case intervals:
            low, high = intervals.apply(together["mean"], together.get("log_variance"))
            return {"low": low, "high": high}


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    return {name: value.numpy() for name, value in tensors.items()}


def _load(run: Run, group: tuple[_Candidate, ...], schema: InputSchema) -> Group:
    first = group[0].member
    files = list(dict.fromkeys((one.member.id, one.weights) for one in group))
    weights = stack([run.tensors(*file) for file in files])
    draws = tuple(
        (files.index((one.member.id, one.weights)), draw_seed(one.member, one.number - 1))
        for one in group
        if one.member.mc_samples and one.number
    )
    members = tuple(one.member for one in group)
    return Group(assemble(first, schema), members, weights, answer_of(first, schema), draws)


def _predict(group: Group, x_N: Tensor, energy: bool) -> dict[str, Tensor]:
    alone = not group.members[0].model.packs_unasked
    scale_K = scales(group.weights)
    own = group.net, group.weights, group.answer, x_N
    if group.draws:
        return predict_dropped(*own, scale_K=scale_K, draws=group.draws, energy=energy)
    return predict(*own, scale_K=scale_K, alone=alone, energy=energy)


def _json(value: Any) -> str:

    return json.dumps(value)
