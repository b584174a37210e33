"""One single model that costs what the ensemble does: wider, or trained longer.

The cost of a training is counted as its network's parameters times the rows it reads. The single model has
the job's own recipe, without what its members vary, reads all training rows, and draws its own random numbers, so
that it is one of the trainings a user could have paid for with the same money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from ensemble_svc.errors import SpecError
from ensemble_svc.plan.cost import DataShape, work_of
from ensemble_svc.plan.plan import SINGLE, MemberSpec
from ensemble_svc.spec.job import JobSpec, NoResample
from ensemble_svc.spec.model import Model, Network
from ensemble_svc.spec.norms import GroupNorm
from ensemble_svc.spec.rules import clashes
from ensemble_svc.spec.single import widths

STEPS = 60
"""Halvings that find the width; more than the digits of any width."""


def single_of(
    job: JobSpec,
    members: Sequence[MemberSpec],
    sizes: Mapping[int, int],
    shape: DataShape,
    *,
    num_rows: int,
) -> MemberSpec:
    """The single model that ``job.evaluate.single`` asks for.

    Args:
        sizes: training rows that each member reads in an epoch, by index.
        num_rows: training rows in all.

    Raises:
        SpecError: it would break a rule of the job, as a member would not.
    """
    plain = _plain(job, members[0])
    of_one = cost(plain, num_rows, shape)
    share = Fraction(sum(cost(member, sizes[member.index], shape) for member in members), of_one)
    wide = job.evaluate.single == "width" or (job.evaluate.single == "auto" and bool(widths(job.model)))
    if wide and parameters(plain, num_rows, shape) is not None:
        changed = _widened(plain, share, num_rows, shape)
    else:
        changed = {"training": {"epochs": max(1, round(plain.training.epochs * share))}}
    return _checked(job, _changed(plain, changed))


def cost(member: MemberSpec, num_rows: int, shape: DataShape) -> int:
    """Parameters times rows read in the whole training; rows alone for a network of unknown size.

    Args:
        num_rows: rows it reads in an epoch.
    """
    return (parameters(member, num_rows, shape) or 1) * num_rows * member.training.epochs


def parameters(member: MemberSpec, num_rows: int, shape: DataShape) -> int | None:
    """Learned numbers of the member's network; None where they are not known before it is built."""
    size = work_of(member, num_rows, shape).size
    return None if size is None else size.parameters


def _plain(job: JobSpec, first: MemberSpec) -> MemberSpec:
    """A member of the job's own recipe that is one network and reads every row."""
    own: dict[str, Any] = {
        "index": SINGLE,
        "model": job.model,
        "training": job.training,
        "augment": job.data.augment,
        "resample": NoResample(),
        "snapshots": 0,
        "mc_samples": 0,
        "init_of": None,
        "varied": {},
    }
    return MemberSpec(**{name: getattr(first, name) for name in MemberSpec.model_fields} | own)


def _widened(plain: MemberSpec, share: Fraction, num_rows: int, shape: DataShape) -> dict[str, Any]:
    """The widths with which the parameters come closest to ``share`` times as many."""

    def amount(factor: float) -> int:
        found = parameters(_changed(plain, {"model": _scaled(plain.model, factor)}), num_rows, shape)
        assert found is not None
        return found

    own = parameters(plain, num_rows, shape)
    assert own is not None
    wanted, low, high = own * share, 0.0, max(2.0, 2 * float(share))
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if amount(middle) <= wanted else (low, middle)
    factor = min((low, high), key=lambda factor: abs(amount(factor) - wanted))
    return {"model": _scaled(plain.model, factor)}


def _scaled(model: Model, factor: float) -> dict[str, Any]:
    """The model's widths times a factor, whole and at least 1; channels in groups stay whole groups."""
    norm = model.norm if isinstance(model, Network) else None
    grain = norm.groups if isinstance(norm, GroupNorm) else 1

    def scaled(width: int) -> int:
        step = grain if width % grain == 0 else 1
        return max(1, round(width * factor / step)) * step

    values = {name: getattr(model, name) for name in widths(model)}
    return {n: scaled(v) if isinstance(v, int) else tuple(map(scaled, v)) for n, v in values.items()}


def _changed(plain: MemberSpec, changed: Mapping[str, Mapping[str, Any]]) -> MemberSpec:
    """The member with some options of its model or training changed, and these named as what it departs in."""
    parts = {key: getattr(plain, key).model_copy(update=dict(own)) for key, own in changed.items()}
    varied = {
        f"{key}.{name}": value
        for key, own in changed.items()
        for name, value in own.items()
        if value != getattr(getattr(plain, key), name)
    }
    own = {name: getattr(plain, name) for name in MemberSpec.model_fields}
    return MemberSpec(**own | parts | {"varied": varied})


def _checked(job: JobSpec, single: MemberSpec) -> MemberSpec:
    """Make sure that its recipe keeps the rules that the job's own keeps."""
    known = {clash.message for clash in clashes(job)}
    recipe = job.model_copy(update={"model": single.model, "training": single.training})
    if broken := next((clash for clash in clashes(recipe) if clash.message not in known), None):
        where = ".".join(map(str, broken.paths[0]))
        raise SpecError(f"evaluate.single: the single model would break a rule: {where}: {broken.message}")
    return single


def parts(members: Sequence[MemberSpec]) -> tuple[list[MemberSpec], MemberSpec | None]:
    """The members of the ensemble by index, and the single model, where there is one."""
    own = sorted((m for m in members if not m.is_single), key=lambda member: member.index)
    return own, next((member for member in members if member.is_single), None)
