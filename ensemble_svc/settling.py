"""The numbers of an evaluation, from its books.

Up to ``terms.HELD_ROWS`` rows everything is measured as at the end of training. Beyond, what is made of sums over rows
(metrics, gains with intervals, reliability, classes) is of all rows, and so are the metrics that rank the rows while
what they need of each is no more than ``SCALAR_BYTES``; beyond, ``left_out`` names them. What takes the rows all at
once (size curve, forecast, diversity, coverage) is of a sample of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ensemble_svc.appraising import measure, of_some_rows
from ensemble_svc.books import Books, Tallies
from ensemble_svc.doubts import by_parts
from ensemble_svc.evaluate.summary import tabulate
from ensemble_svc.evaluate.tally import Tally
from ensemble_svc.spec.randomness import derive_seed
from ensemble_svc.splits import targets_of
from ensemble_svc.terms import Terms


def settle(terms: Terms, books: Books, *, best: int | None, selected: bool = False) -> dict[str, Any]:
    """The numbers of all rows that were taken in, as one split of ``metrics.json``.

    Args:
        best: position of the member that was best on validation.
        selected: whether the ensemble leaves out some of those that it was chosen from. Who was chosen is no draw of
            one training, so nothing is said of the variance over draws.
    """
    decision = terms.ensemble.decision
    assert books.sample is not None, "there is at least one row"
    members, target = books.sample.rows()
    if books.sample.is_all:
        found = measure(terms.job, decision, decision.members, members, target, best=best)
    else:
        found = _streamed(terms, books, members, target, best)
    if selected:
        found = _without_draws(found)
    if terms.own is not None:
        told = {"unknown": terms.own} if isinstance(terms.own, str) else {}
        found["own_rows"] = told or {"trained": books.trained, "chosen": books.chosen}
    if books.slices:
        found["slices"] = {
            column: [{"value": value, **_points(tallies)} for value, tallies in values.items()]
            for column, values in books.slices.items()
        }
    if books.shifted:
        found["shift"] = [
            {"corruption": name, "severity": severity, **_points(tallies)}
            for (name, severity), tallies in books.shifted.items()
        ]
    return found


def _without_draws(found: dict[str, Any]) -> dict[str, Any]:
    """The same without the variance over trainings, of several tasks of each."""
    kept = {name: value for name, value in found.items() if name != "decomposition"}
    if "sampled" in kept:
        what = [name for name in kept["sampled"]["what"] if name != "decomposition"]
        kept["sampled"] = kept["sampled"] | {"what": what}
    if "tasks" in kept:
        kept["tasks"] = {task: _without_draws(own) for task, own in kept["tasks"].items()}
    return kept


def _streamed(
    terms: Terms, books: Books, members: Mapping[str, Tensor], target: Tensor, best: int | None
) -> dict[str, Any]:
    """Sums of all rows, and the rest of the sample; ``sampled`` says what is of how many."""
    job = terms.job
    targets = targets_of(job, target) if job.task == "multitask" else [target]
    parts = by_parts(terms.ensemble, members)
    each = {
        task: _one(terms, books, task, parts[task], own, best)
        for task, own in zip(parts, targets, strict=True)
    }
    first = next(iter(each))
    return each[""] if "" in each else {**each[first], "task": first, "tasks": each}


def _one(
    terms: Terms,
    books: Books,
    task: str,
    members: Mapping[str, Tensor],
    target: Tensor,
    best: int | None,
) -> dict[str, Any]:
    job, decision = terms.job, terms.ensemble.decision.of(task)
    tally, kind = books.whole[task], job.tasks[task].kind if task else job.task
    assert kind != "multitask"
    seed = derive_seed(job.seed, -1, "bootstrap")
    measured = tally.measured(resamples=job.evaluate.resamples, seed=seed)
    found = tabulate(
        measured,
        len(decision.members),
        rows=tally.rows,
        confidence=job.evaluate.confidence,
        best=best,
    )
    found |= of_some_rows(job, kind, decision, decision.members, members, target)
    if tally.ranks.left_out:
        found["left_out"] = list(tally.ranks.left_out)
    if task in books.portraits:
        portrait = books.portraits[task]
        found |= {"reliability": portrait.reliability(), "classes": portrait.classes()}
    return found


def _points(tallies: Tallies) -> dict[str, Any]:
    """Rows, and metrics of the ensemble and of the mean member; of several tasks by task."""
    each = {task: _point(tally) for task, tally in tallies.items()}
    return each.get("", {"tasks": each})


def _point(tally: Tally) -> dict[str, Any]:
    point = tally.point()
    return {
        "rows": tally.rows,
        "ensemble": {name: values_M[-1].item() for name, values_M in point.items()},
        "mean_member": {name: values_M[:-1].mean().item() for name, values_M in point.items()},
        **({"left_out": list(tally.ranks.left_out)} if tally.ranks.left_out else {}),
    }
