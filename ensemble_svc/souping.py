"""One network of all members' weights, where the way between them is flat.

Shapes: N rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.aggregate.averaging import average_states
from ensemble_svc.aggregate.bytask import counting
from ensemble_svc.aggregate.decision import Decision, Prediction
from ensemble_svc.aggregate.soup import barrier, greedy_soup
from ensemble_svc.data.dataset import Array
from ensemble_svc.data.pixels import as_pixels
from ensemble_svc.evaluate.metrics import measure
from ensemble_svc.nn.member import MemberNet, scales
from ensemble_svc.nn.tasks import part_of
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.structure import structure
from ensemble_svc.planning import Prepared
from ensemble_svc.spec.aggregate import GreedySoup, NoSoup, Soup
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.tasks import Task
from ensemble_svc.splits import split_targets
from ensemble_svc.store.atomic import write_atomic
from ensemble_svc.store.members import Sealed, parted, read_tensors
from ensemble_svc.store.run import Run
from ensemble_svc.store.tensors import encode
from ensemble_svc.train.assemble import Stack, answer_of, assemble
from ensemble_svc.train.batchnorm import refresh
from ensemble_svc.train.forward import predict

POINTS = 5
"""Where the loss is measured on the way between two members, both ends with them."""
PAIRS_UP_TO = 4
"""Pairs of members between which it is measured."""
FILE = "soup.safetensors"
"""Where a run's folder has it."""
State = dict[str, Tensor]


@dataclass(frozen=True)
class Souped:
    """The soup, or why there is none."""

    state: State | None
    chosen: tuple[str, ...]
    """Ids of the members in it."""
    barriers: tuple[float, ...]
    """Height of the loss between pairs of members, in nats above the straight line."""
    note: str

    @property
    def facts(self) -> dict[str, Any]:
        """As the run's metrics hold them."""
        return {"members": list(self.chosen), "barriers": list(self.barriers), "note": self.note}


@dataclass(frozen=True)
class Kitchen:
    """One structure's network, and the rows on which states are measured."""

    net: MemberNet
    member: MemberSpec
    prepared: Prepared

    def loss(self, state: Mapping[str, Tensor]) -> float:
        """Negative log likelihood of the validation rows, batch-norm statistics estimated anew.

        Of several tasks the mean of those that count, as the job weights them.
        """
        rows = self.prepared.split.validation
        target = torch.from_numpy(np.ascontiguousarray(self.prepared.dataset.y[rows]))
        said, member = self.predict(self.settled(state), rows), self.member
        if member.task != "multitask":
            return _nll(member.task, said, target)
        targets = dict(zip(member.tasks, split_targets(member.tasks, target), strict=True))
        shares = counting({name: task.weight for name, task in member.tasks.items()})
        each = [
            share * _nll(member.tasks[name].kind, part_of(said, name), targets[name])
            for name, share in shares.items()
        ]
        return sum(each)

    def settled(self, state: Mapping[str, Tensor]) -> State:
        """The state with its batch norms' statistics of the training rows."""
        stacked: Stack = {name: value.unsqueeze(0).clone() for name, value in state.items()}
        refresh(self.net, stacked, self._batches())
        return {name: value[0] for name, value in stacked.items()}

    def predict(self, state: Mapping[str, Tensor], rows: Array) -> Prediction:
        """What a state says of rows, as a member would."""
        stacked = {name: value.unsqueeze(0) for name, value in state.items()}
        x_N = as_pixels(torch.from_numpy(self.prepared.dataset.x[rows]))
        answer = answer_of(self.member, self.prepared.schema)
        found = predict(self.net, stacked, answer, x_N, scale_K=scales(stacked), alone=True)
        return {name: value[0] for name, value in found.items()}

    def _batches(self) -> Iterator[Tensor]:
        train = self.prepared.split.train
        size = self.member.training.rows_per_step(len(train))
        for start in range(0, len(train), size):
            if len(train) - start > 1:
                yield as_pixels(
                    torch.from_numpy(self.prepared.dataset.x[train[start : start + size]])
                ).unsqueeze(0)


def _nll(task: Task, said: Prediction, target: Tensor) -> float:
    return measure(task, said, target, names=("nll",))["nll"]


def kitchen_of(done: Sequence[MemberSpec], prepared: Prepared) -> Kitchen:
    """For members of one structure."""
    return Kitchen(assemble(done[0], prepared.schema), done[0], prepared)


def soup_members(decision: Decision, done: Sequence[MemberSpec]) -> list[MemberSpec]:
    """The trained members behind those that are in the ensemble, in order."""
    chosen = {parted(own)[0] for own in decision.members}
    return [member for member in done if member.id in chosen]


def make(
    run: Run, job: JobSpec, prepared: Prepared | str, members: Sequence[MemberSpec], seals: Sealed
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """What is told of the soup of these members, with its ``predictions`` by split, and its file.

    Args:
        prepared: the run's own data, or why they cannot be read.

    Returns:
        None where no soup is asked for; no file where none is made.
    """
    choice = job.aggregate.soup
    if isinstance(choice, NoSoup):
        return None, {}
    if why := _impossible(prepared, members):
        return {**Souped(None, (), (), f"No soup: {why}.").facts, "predictions": {}}, {}
    assert not isinstance(prepared, str)
    kitchen = kitchen_of(members, prepared)
    found = make_soup(run, choice, kitchen, members, seals)
    if found.state is None:
        return {**found.facts, "predictions": {}}, {}
    rows = {"validation": prepared.split.validation, "test": prepared.split.test}
    said = {name: kitchen.predict(found.state, own) for name, own in rows.items() if len(own)}
    body = encode(found.state, {"members": " ".join(found.chosen)})
    return {**found.facts, "predictions": said}, {FILE: write_atomic(run.path / FILE, body)}


def _impossible(prepared: Prepared | str, members: Sequence[MemberSpec]) -> str:
    """Why there is nothing to average, or nothing to average it on."""
    if isinstance(prepared, str):
        return prepared
    if len(members) < 2:
        return "one training is in the ensemble, and there is nothing to average it with"
    if len({structure(member, 0) for member in members}) > 1:
        return "the members in the ensemble have several structures, and only weights of one can be averaged"
    return ""


def make_soup(run: Run, choice: Soup, kitchen: Kitchen, done: Sequence[MemberSpec], seals: Sealed) -> Souped:
    """The members' mean weights, if no pair that is tried has a barrier between them (arXiv:1912.05671).

    Args:
        done: members of one structure that finished, at least two.
    """
    assert not isinstance(choice, NoSoup)
    states = [_served(run, member, seals) for member in done]
    pairs = itertools.islice(itertools.combinations(states, 2), PAIRS_UP_TO)
    heights = tuple(barrier(a, b, kitchen.loss, points=POINTS).height for a, b in pairs)
    highest = max(heights)
    if not highest <= choice.barrier:
        note = (
            f"No soup: between two members the loss rises by up to {highest:.3g} nats on the straight way (allowed: "
            f"{choice.barrier:g}), as it does between {_starts(done)}. Their predictions are averaged instead."
        )
        return Souped(None, (), heights, note)
    if isinstance(choice, GreedySoup):
        found = greedy_soup(states, kitchen.loss, higher_is_better=False)
        state, chosen = found.state, tuple(done[k].id for k in found.chosen)
        if len(chosen) == 1:
            note = f"No soup: the loss of {chosen[0]}, the best, rises with any other member's weights averaged in."
            return Souped(None, (), heights, note)
    else:
        state, chosen = average_states(states), tuple(member.id for member in done)
    note = f"One network of {len(chosen)} members' weights; the highest barrier between two is {highest:.3g} nats."
    return Souped(kitchen.settled(state), chosen, heights, note)


def _starts(members: Sequence[MemberSpec]) -> str:
    if len({member.start for member in members}) > 1:
        return "independent starts"
    return "members that have left their common start far behind"


def _served(run: Run, member: MemberSpec, seals: Sealed) -> State:
    """The weights that the member predicts with."""
    files = seals[member.digest]["files"]
    averaged = f"members/{member.id}/averaged.safetensors" in files
    name = "averaged.safetensors" if averaged else "weights.safetensors"
    return dict(read_tensors(run.path, files, member.id, name))
