"""The single model that costs what the ensemble does, beside the ensemble: what it says, and what both have cost.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ensemble_svc.aggregate.decision import Decision, HeldOut
from ensemble_svc.appraising import Alone
from ensemble_svc.data.dataset import InputSchema
from ensemble_svc.deciding import decided, those_that_calibrate
from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.structure import structure
from ensemble_svc.spec.aggregate import AggregateSpec
from ensemble_svc.spec.data import UNSEEN
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.splits import Splits
from ensemble_svc.store.journal import Event
from ensemble_svc.store.members import Sealed, read_tensors
from ensemble_svc.store.run import Run
from ensemble_svc.train.assemble import assemble


@dataclass(frozen=True)
class Rival:
    """The single model of a run."""

    facts: Mapping[str, Any]
    """Its id and state, in what it departs from the job, and the cost of both."""
    predictions: Splits = field(default_factory=dict)
    """What it says of the rows of each split, [N, …]; nothing where it did not finish."""
    decision: Decision | None = None
    """Its calibration, on the rows and in the way of the ensemble's."""

    def on(self, split: str) -> Alone | None:
        """Its calibration and its predictions of a split's rows."""
        if split not in self.predictions or self.decision is None:
            return None
        return Alone(self.decision, _as_one(self.predictions[split]))


def rival_of(
    run: Run,
    job: JobSpec,
    schema: InputSchema,
    single: MemberSpec,
    done: Sequence[MemberSpec],
    seals: Sealed,
    targets: Mapping[str, Tensor],
) -> Rival:
    """The single model as it was sealed; where it was not, what is known of it.

    Args:
        done: the members that finished.
        targets: by split.
    """
    seal = seals.get(single.digest)
    status = "failed" if seal is None else str(seal["status"])
    facts: dict[str, Any] = {"id": single.id, "status": status, "changed": dict(single.varied)}
    if seal is None or status != "done":
        return Rival({**facts, "reason": "" if seal is None else str(seal["reason"])})
    facts["cost"] = {
        "ensemble": _cost(done, [seals[member.digest] for member in done], schema),
        "single": _cost([single], [seal], schema),
    }
    said = {split: _own(run, single, seal, split) for split in targets}
    decision = _calibrated(job, said, targets)
    facts["calibrated"] = any(decision.of(task).calibration is not None for task in job.tasks or [""])
    return Rival(facts, said, decision)


def _own(run: Run, single: MemberSpec, seal: Event, split: str) -> dict[str, Tensor]:
    """What the one network says, also where draws of it would be the members of an ensemble."""
    kind = "trained" if single.num_virtual else "predictions"
    return dict(read_tensors(run.path, seal["files"], single.id, f"{kind}-{split}.safetensors"))


def _calibrated(job: JobSpec, said: Splits, targets: Mapping[str, Tensor]) -> Decision:
    """Calibrated as the ensemble is, on the same rows; not at all where there are none that it has not seen."""
    rows = None
    if "validation" in said and job.data.validation not in UNSEEN:
        rows = HeldOut("validation", _as_one(said["validation"]), targets["validation"])
        rows = those_that_calibrate(job, rows)
    spec = AggregateSpec(calibrate=job.aggregate.calibrate) if rows else AggregateSpec()
    return decided(job, spec, ["single"], rows)


def _as_one(said: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.unsqueeze(0) for name, value in said.items()}


def _cost(members: Sequence[MemberSpec], seals: Sequence[Event], schema: InputSchema) -> dict[str, int]:
    """Learned numbers of all networks, and the epochs that they trained; the seconds stand in the manifest."""
    known = dict[str, int]()
    for member in members:
        if (key := structure(member, 0)) not in known:
            known[key] = sum(p.numel() for p in assemble(member, schema).parameters())
    return {
        "parameters": sum(known[structure(member, 0)] for member in members),
        "epochs": sum(seal["epochs"] for seal in seals),
    }
