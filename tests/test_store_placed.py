"""Members as a journal's slots hold them: the same names as whole specifications give, sealed or not."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import Pack, Slot
from ensemble_svc.spec.load import parse_job
from ensemble_svc.store.placed import placed

JOB = {
    "name": "x",
    "data": {"source": "digits"},
    "search": {"space": {"training.optimizer.lr": {"loguniform": [1e-4, 0.1]}}, "trials": 12},
}
MEMBERS = make_members(parse_job(JOB), "d" * 64, "s" * 64)
OTHERS = make_members(parse_job({**JOB, "seed": 1}), "d" * 64, "s" * 64)


def seal(member: Any) -> dict[str, Any]:
    return {"digest": member.digest, "index": member.index, "spec": member.model_dump(mode="json")}


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)), st.integers(1, 11))
def test_names_are_those_of_the_specifications(sealed: set[int], other: set[int], cut: int) -> None:
    """Seals of the members themselves, of members of another job with their indices, or none."""
    slots = [
        Slot(pack=Pack(members=some), cpus=1, gpus=0.0, reason="x") for some in (MEMBERS[:cut], MEMBERS[cut:])
    ]
    seals = {OTHERS[k].digest: seal(OTHERS[k]) for k in other}
    seals |= {MEMBERS[k].digest: seal(MEMBERS[k]) for k in sealed}
    plans = [{"slots": [slot.model_dump_json() for slot in slots]}]
    found = [(m.id, m.index, m.digest, m.pack, m.epochs) for m in placed(plans, seals)]
    want = [(m.id, m.index, m.digest, s.pack.id, m.training.epochs) for s in slots for m in s.pack.members]
    assert found == want
