"""What went wrong, in few lines: grouped, the gravest first, every sick member with what was done."""

from __future__ import annotations

from typing import Any

from report_views import make_view

from ensemble_svc.report.findings import told
from ensemble_svc.report.html import render

DEAD = {"kind": "dead", "sentence": "Layer 3: 41% of the units are dead since epoch 2."}
WILD = {"kind": "divergence", "sentence": "The training diverged."}
IDLE = {"kind": "guessing", "sentence": "Never better than guessing."}


def member(index: int, *findings: dict[str, str], **facts: Any) -> dict[str, Any]:
    well = {"status": "done", "sick": None, "restarts": 0, "rate_factor": 1.0}
    return {"id": f"{index:04d}-abc", "findings": list(findings), **well, **facts}


def test_a_hundred_members_with_one_finding_are_one_line():
    lines = told([member(k, DEAD) for k in range(100)] + [member(100)])
    assert [str(line) for line in lines] == [
        "100 of 101 members (0000-abc, 0001-abc, 0002-abc and 97 more): 0000-abc: " + DEAD["sentence"]
    ]


def test_the_gravest_come_first_and_say_what_was_done():
    lines = told(
        [
            member(0, DEAD),
            member(1, IDLE, sick="never better", restarts=2, rate_factor=0.25),
            member(2, IDLE, sick="never better", status="excluded"),
            member(3, WILD, sick="not finite", status="diverged"),
            member(4, restarts=1, rate_factor=0.5),
        ]
    )
    assert [str(line) for line in lines] == [
        "0003-abc: The training diverged. Left out of the ensemble.",
        (
            "0001-abc: Never better than guessing. Started again twice, down to 0.25 of the rate, in vain; "
            "kept among those to choose from."
        ),
        "0002-abc: Never better than guessing. Left out of the ensemble.",
        "0000-abc: " + DEAD["sentence"],
        "0004-abc: sick at the given learning rate, no longer at 0.5 of it (started again once).",
    ]


def test_what_a_scheduler_stopped_is_not_told_that_it_learnt_little():
    cut = {"stopped": True, "reason": "halving: rank 9 of 16 at epoch 1"}
    assert told([member(0, DEAD, IDLE, **cut), member(1, **cut)]) == []
    (line,) = told([member(0, DEAD, WILD, status="diverged", sick="not finite", **cut)])
    assert "diverged" in str(line)


def test_members_of_older_runs_have_nothing_to_tell():
    assert told([{"id": "0000-abc", "status": "done"}]) == []


def test_the_page_shows_them_and_trusts_no_word():
    view = make_view(members=3)
    assert 'id="health"' not in render(view)
    view.manifest["members"][1]["findings"] = [{"kind": "dead", "sentence": "<script>alert(1)</script>"}]
    page = render(view)
    assert 'id="health"' in page
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
