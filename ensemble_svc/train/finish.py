"""The end of a start of a slot: final weights, predictions on every split, seals.

Shapes: K members, N rows.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_svc.data.dataset import Array
from ensemble_svc.nn.member import scales
from ensemble_svc.nn.tasks import Answer, Heads
from ensemble_svc.plan.plan import MemberSpec, Slot, draw_seed
from ensemble_svc.spec.losses import Mse
from ensemble_svc.spec.model import Network
from ensemble_svc.spec.norms import BatchNorm
from ensemble_svc.store.members import Result, seal, sealed
from ensemble_svc.store.tensors import unstack
from ensemble_svc.train.assemble import Stack
from ensemble_svc.train.attempt import Attempt
from ensemble_svc.train.batchnorm import refresh
from ensemble_svc.train.events import EventFiles
from ensemble_svc.train.fresh import training_batches
from ensemble_svc.train.ledger import Entry, Ledger
from ensemble_svc.train.memory import peak_bytes
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.record import Record
from ensemble_svc.train.watch import scores
from ensemble_svc.vitals.sick import Verdict


def seal_members(
    attempt: Attempt,
    module: SlotModule,
    ledger: Ledger,
    payload: Payload,
    rows: Sequence[Array],
    *,
    sick: Sequence[Verdict | None],
    later: Collection[int] = (),
    events: EventFiles | None = None,
    seconds: float,
) -> None:
    """Seal every member of a start that is not sealed yet.

    Args:
        sick: what makes each member sick, where something does.
        later: positions of the members that are left open, since they start anew.
        events: the members' event files, where they are asked for.
    """
    run = Path(payload.run)
    already = sealed(run, [member.digest for member in attempt.members])
    open_ = [
        (k, member, entry)
        for k, (member, entry) in enumerate(zip(attempt.members, ledger.entries, strict=True))
        if member.digest not in already and k not in later
    ]
    if not open_:
        return
    served = ledger.kept if ledger.kept_average is None else ledger.kept_average
    for weights in (ledger.kept, ledger.kept_average):
        if weights is not None and (weights is ledger.kept_average or _reestimates(module)):
            _refresh(module, weights, rows)
    if means := _means_alone(module.recipe.loss):
        _set_noise(module, ledger, served, rows, means)
    own = {name: _predict(module, served, positions) for name, positions in _splits(payload).items()}
    states, virtual = _stand_ins(module, ledger, served, payload, rows)
    predictions = virtual or own
    records = {k: Record(attempt, module, ledger, sick[k], rows[k], k) for k, *_ in open_}
    facts = {
        k: records[k].facts()
        | _facts(attempt.slot, module, entry, seconds=seconds)
        | {"metrics": _scores(module, payload, own, k, rows[k])}
        | _virtual_scores(module, payload, virtual, k, rows[k])
        for k, _, entry in open_
    }
    if events is not None:
        for (
            k,
            _,
            entry,
        ) in open_:  # before the seals: killed in between, a member trains its last epochs again
            events.end(k, entry, facts[k])
    seal(
        run,
        (
            Result(
                member,
                weights=unstack(ledger.kept, k),
                averaged=None if ledger.kept_average is None else unstack(ledger.kept_average, k),
                virtual=[unstack(state, k) for state in states],
                predictions={name: unstack(tensors, k) for name, tensors in predictions.items()},
                trained={name: unstack(tensors, k) for name, tensors in own.items()} if virtual else {},
                history=entry.history,
                rows=rows[k],
                health=records[k].health(),
                facts=facts[k],
            )
            for k, member, entry in open_
        ),
    )


def _refresh(module: SlotModule, weights: Stack, rows: Sequence[Array]) -> None:
    """Estimate the batch-norm statistics in ``weights`` [K, …] anew, in place."""
    net, own = module.reader(weights)
    refresh(net, own, training_batches(module, rows))


def _stand_ins(
    module: SlotModule, ledger: Ledger, served: Stack, payload: Payload, rows: Sequence[Array]
) -> tuple[list[Stack], dict[str, Stack]]:
    """What the members stand for: the weights [K, …] of each, and their predictions [K, S, N, …] by split.

    Nothing where each is in the ensemble itself; no weights where dropout alone tells them apart.
    """
    member, splits = ledger.members[0], _splits(payload)
    if member.mc_samples:
        return [], {
            name: _predict_dropped(module, ledger.members, served, positions)
            for name, positions in splits.items()
        }
    if ledger.iterates is None:
        return [], {}
    states, each = list[Stack](), list[dict[str, Stack]]()
    for number in range(member.num_virtual):
        state = {
            name: value.to(module.recipe.device)
            for name, value in ledger.iterates.states(number, served).items()
        }
        if member.num_draws or _reestimates(module):
            _refresh(module, state, rows)
        if means := _means_alone(module.recipe.loss):
            _set_own_noise(module, state, rows, means)
        each.append({name: _predict(module, state, positions) for name, positions in splits.items()})
        states.append({name: value.cpu() for name, value in state.items()})
    return states, {
        name: {key: torch.stack([one[name][key] for one in each], dim=1) for key in each[0][name]}
        for name in splits
    }


def _predict_dropped(
    module: SlotModule, members: Sequence[MemberSpec], served: Stack, positions: Array
) -> Stack:
    draws = [(k, draw_seed(m, s)) for k, m in enumerate(members) for s in range(m.mc_samples)]
    rows_N = torch.from_numpy(positions).to(module.recipe.device)
    found = module.predict_dropped(served, rows_N, draws)
    return {
        name: value.float().unflatten(0, (len(members), members[0].mc_samples))
        for name, value in found.items()
    }


def _reestimates(module: SlotModule) -> bool:
    """Whether the job asks for batch-norm statistics of the finished weights."""
    model = module.recipe.members[0].model
    norm = model.norm if isinstance(model, Network) else None
    return isinstance(norm, BatchNorm) and norm.statistics == "reestimated"


def _splits(payload: Payload) -> dict[str, Array]:
    split = payload.split
    named = {"validation": split.validation, "test": split.test}
    if split.unseen:
        named["train"] = split.train
    return {name: positions for name, positions in named.items() if len(positions)}


def _predict(module: SlotModule, weights_K: Stack, positions: Array) -> dict[str, Tensor]:
    rows_N = torch.from_numpy(positions).to(module.recipe.device)
    scale_K = scales(weights_K)
    return {n: value.float() for n, value in module.predict_rows(weights_K, rows_N, scale_K=scale_K).items()}


def _means_alone(answer: Answer) -> dict[str, slice]:
    """Which predictions are means without a variance, and the columns of their targets."""
    if isinstance(answer, Heads):
        means = [head for head in answer.each if isinstance(head.loss, Mse)]
        return {f"{head.name}/mean": slice(head.column, head.column + 1) for head in means}
    return {"mean": slice(None)} if isinstance(answer, Mse) else {}


def _set_noise(
    module: SlotModule, ledger: Ledger, served: Stack, rows: Sequence[Array], means: Mapping[str, slice]
) -> None:
    """Give all of the members' weights the noise of those that predict."""
    _set_own_noise(module, served, rows, means)
    for weights in (module.scale_K, ledger.kept, ledger.kept_average or {}):
        if weights:
            weights["noise_log_variance"].copy_(served["noise_log_variance"])


def _set_own_noise(
    module: SlotModule, served: Stack, rows: Sequence[Array], means: Mapping[str, slice]
) -> None:
    """Variance of a network that gives means alone: its mean squared training residual, on its scale."""
    scale_K1T = served["target_scale"].unsqueeze(1)
    for k, bag in enumerate(rows):
        rows_N = torch.from_numpy(bag).to(module.recipe.device)
        one = _slice(served, k)
        found = module.predict_rows(one, rows_N, scale_K=scales(one))
        target_NT = module.data.targets(rows_N)
        for name, columns in means.items():
            residual_NT = (found[name][0] - target_NT[:, columns]) / scale_K1T[k][:, columns]
            log_variance_T = residual_NT.double().square().mean(0).clamp_min(1e-12).log().float()
            served["noise_log_variance"][k, columns] = log_variance_T


def _slice(weights_K: Stack, k: int) -> Stack:
    """One member's weights, still stacked."""
    return {name: weight[k : k + 1] for name, weight in weights_K.items()}


def _facts(slot: Slot, module: SlotModule, entry: Entry, *, seconds: float) -> dict[str, Any]:
    device = module.recipe.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "pack": slot.pack.id,
        "epochs": entry.epochs,
        "best_epoch": entry.best_epoch,
        "stopped": entry.status == "stopped",
        "seconds": max(
            seconds, sum(row["seconds"] for row in entry.history)
        ),  # of earlier slots and starts too
        "peak_bytes": peak_bytes(device),
        "where": {"node": socket.gethostname(), "device": name, "pid": os.getpid(), "cpus": slot.cpus},
    }


def _scores(
    module: SlotModule, payload: Payload, predictions: dict[str, Any], k: int, rows: Array
) -> dict[str, dict[str, float]]:
    """Member ``k``'s measures by split; of training rows on those it has not seen, as ``oob``."""
    measured, answer = {}, module.recipe.loss
    for name, positions in _splits(payload).items():
        mask = np.isin(positions, rows, invert=True) if name == "train" else np.ones(len(positions), bool)
        if not mask.any():
            continue
        target = module.data.targets(torch.from_numpy(positions[mask]).to(module.recipe.device))
        index = torch.from_numpy(np.flatnonzero(mask)).to(module.recipe.device)
        one = {key: value[k : k + 1].index_select(1, index) for key, value in predictions[name].items()}
        found = {metric: float(value[0]) for metric, value in scores(one, target, answer).items()}
        measured["oob" if name == "train" else name] = found
    return measured


def _virtual_scores(
    module: SlotModule, payload: Payload, virtual: Mapping[str, Stack], k: int, rows: Array
) -> dict[str, Any]:
    """The measures of each that member ``k`` stands for, in order."""
    if not virtual:
        return {}
    number = next(iter(next(iter(virtual.values())).values())).shape[1]
    each = [
        {split: {key: value[:, s] for key, value in found.items()} for split, found in virtual.items()}
        for s in range(number)
    ]
    return {"virtual": [_scores(module, payload, one, k, rows) for one in each]}
