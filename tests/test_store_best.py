"""The best that was reached so far: of all epochs of all trials, never getting worse, and in the end the manifest's."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replaying import replayed
from search_runs import RATE, job_of, train

from ensemble_svc.dashboard.state import summary
from ensemble_svc.plan.members import make_members
from ensemble_svc.plan.plan import Pack, Slot
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.outlook import best
from ensemble_svc.store.progress import note_progress
from ensemble_svc.store.reached import Reached, now

values = st.integers(-2000, 2000).map(lambda k: k / 1000) | st.just(math.nan)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["nll", "accuracy"]),
    st.integers(1, 2),
    st.lists(st.lists(values, min_size=6, max_size=6), min_size=1, max_size=8),
)
def test_it_is_the_best_of_all_epochs_and_never_gets_worse(
    tmp_path_factory: pytest.TempPathFactory, metric: str, seeds: int, epochs: list[list[float]]
) -> None:
    run, trials = tmp_path_factory.mktemp("run"), 6 // seeds
    job = job_of({"trials": trials, "seeds_per_trial": seeds, "metric": metric}, training={"epochs": 9})
    pack = Pack(members=tuple(make_members(job, "d", "s")))
    journal, sign = Journal(run / "journal.jsonl"), toward_less(metric)
    journal.append(
        "begin", job=job.model_dump_json(), directory="/", job_sha256="", data_hash="", split_hash=""
    )
    journal.append("plan", slots=[Slot(pack=pack, cpus=1, gpus=0, reason="").model_dump_json()])
    journal.append("start", pack=pack.id, members=[m.id for m in pack.members])
    found, before = Reached(run), math.inf
    tops = [math.inf] * 6
    for number, row in enumerate(epochs, 1):
        told = tuple(
            MemberProgress(m.id, "training", number, 1.0, metric, v)
            for m, v in zip(pack.members, row, strict=True)
        )
        note_progress(run, Progress(pack.id, number, 9, told, seconds=float(number)))
        found.update()
        tops = [top if math.isnan(v) else min(top, sign * v) for top, v in zip(tops, row, strict=True)]
        wanted = min(fmean(tops[k : k + seeds]) for k in range(0, 6, seeds))
        top = best(found)
        assert (top is None) == math.isinf(wanted)
        if top is not None:
            assert sign * top.value == pytest.approx(wanted, rel=1e-5, abs=1e-9)
            assert sign * top.value <= before
            before = sign * top.value
            assert seeds > 1 or sign * epochs[top.epoch - 1][top.number] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("patience", [None, 3])
def test_it_grows_with_the_files_of_a_search_and_ends_at_the_manifest(
    tmp_path: Path, patience: int | None
) -> None:
    """Rates from far too large: trials get worse again, and are stopped at rungs."""
    search = {"space": {RATE: {"loguniform": [0.01, 1.0]}}, "trials": 6, "scheduler": "halving"}
    stops = {"early_stopping": {"patience": patience}} if patience else {}
    run = train(job_of(search, training={"epochs": 12, **stops}), tmp_path / "run")
    before, worse = math.inf, False
    for _, growing in replayed(run.path, tmp_path / "grows"):
        if growing.ended or (found := best(growing)) is None:
            continue
        assert found.value <= before
        worse |= all(m.last("nll") != found.value for m in growing.ordered())
        before = found.value
    assert worse
    last = best(growing)
    scores = {m["index"]: m["metrics"]["validation"]["nll"] for m in run.manifest()["members"]}
    assert last is not None
    assert last.value == min(scores.values())
    assert summary(growing, now())["best"]["value"] == pytest.approx(last.value, rel=1e-5)
    assert last.number == min(scores, key=lambda k: scores[k])
