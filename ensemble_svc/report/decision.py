"""How the ensemble came about, in words: who is in it, decided on which rows, and what that brought.

Pure and light: the terminal and the page print the same sentences. An equal mixture of all members needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ensemble_svc.report.bytask import tasks_of, titled
from ensemble_svc.report.looks import headline, look
from ensemble_svc.report.text import clean, decimals, duration, is_number, joined, number, value
from ensemble_svc.report.verdict import Metrics, gain_parts, report_split
from ensemble_svc.store.spending import NOT_STARTED

ROWS = {
    "validation": "validation rows",
    "oob": "training rows, each judged by the members that did not see it",
    "oof": "training rows, each judged by the members whose fold it is",
    "data": "rows given for it",
}
POOLED = {"geometric": "the normalised geometric mean", "vote": "votes"}


def decided(manifest: Mapping[str, Any], metrics: Metrics) -> list[str]:
    """Sentences; none for the equal mixture of all members."""
    ensemble, split = manifest.get("ensemble") or {}, report_split(metrics)
    summary = metrics[split] if split else {}
    return [
        *_who(ensemble, manifest),
        *_ended(manifest),
        *_how(ensemble),
        *_by_task(_against, summary),
        *_single(summary, manifest),
        *_by_task(_trainings, summary),
        *measured(metrics),
        *_by_task(_sampled, summary),
        *_soup(summary),
    ]


def measured(metrics: Metrics) -> list[str]:
    """Sentences on how the ensemble's loss is made up, and what its sets or intervals hold, on the rows that report."""
    split = report_split(metrics)
    summary = metrics[split] if split else {}
    return [*_variance(summary), *_by_task(_coverage, summary)]


def _by_task(told: Callable[[Mapping[str, Any]], Iterator[str]], summary: Mapping[str, Any]) -> Iterator[str]:
    """What is told of each of several tasks, with its name in front."""
    for task, own in tasks_of(summary).items():
        for sentence in told(own):
            yield titled(clean(task, limit=40), sentence)


def _who(ensemble: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
    chosen, candidates = ensemble.get("members") or (), manifest.get("candidates") or ()
    weights = ensemble.get("weights") or ()
    rows = ROWS.get(ensemble.get("rows", ""))
    if rows is None or (len(chosen) == len(candidates) and len(set(weights)) < 2):
        return
    spread = f" with weights from {min(weights):.2g} to {max(weights):.2g}" if len(set(weights)) > 1 else ""
    yield (
        f"{len(chosen)} of {len(candidates)} members{spread}, chosen on {ensemble['num_rows']:,} {rows}; "
        "numbers of those rows flatter it."
    )


def _ended(manifest: Mapping[str, Any]) -> Iterator[str]:
    """What a search's budget has ended, where it was used up."""
    members = manifest.get("members") or ()
    reasons = [str(member.get("reason") or "") for member in members]
    never = sum(why == NOT_STARTED for why in reasons)
    stopped = sum(why.startswith("budget") for why in reasons)
    if never or stopped:
        _, used = budget_used(manifest)
        yield (
            f"The budget is used up ({used}): it stopped {stopped:,} of {len(members):,} members and kept "
            f"{never:,} from beginning. Give a larger one and the same command to go on."
        )


def budget_used(manifest: Mapping[str, Any]) -> tuple[float, str]:
    """The largest share that is used of any part of a search's budget, and each part in words; 0 and none without."""
    parts = {
        clean(name.replace("_", "-"), limit=20): (part["used"], part["limit"])
        for name, part in (manifest.get("budget") or {}).items()
        if isinstance(part, Mapping)
    }
    share = max((used / limit for used, limit in parts.values()), default=0.0)
    return share, ", ".join(f"{used:.3g} of {limit:g} {name}" for name, (used, limit) in parts.items())


def _how(ensemble: Mapping[str, Any]) -> Iterator[str]:
    tasks = ensemble.get("tasks") or {}
    if pooled := POOLED.get(ensemble.get("combine", "")):
        others = [clean(task, limit=40) for task, own in tasks.items() if own.get("combine") == "mean"]
        rest = f"; for {joined(others)} they are a mixture" if others else ""
        yield f"Its members are combined by {pooled}{rest}."
    for task, own in tasks.items():
        if weights := own.get("weights"):
            spread = f"weights from {min(weights):.2g} to {max(weights):.2g}"
            yield titled(clean(task, limit=40), f"Its own mixture of the members, with {spread}.")
    for task, own in (tasks or {"": ensemble}).items():
        if calibration := own.get("calibration"):
            rows = f"{ensemble['num_rows']:,} {ROWS.get(ensemble['rows'], 'rows')}"
            yield titled(clean(task, limit=40), f"{_calibration(calibration)}, fitted on {rows}.")


def _calibration(plain: Mapping[str, Any]) -> str:
    match plain["kind"]:
        case "temperature":
            sharper = "softer" if plain["value"] > 1 else "sharper"
            where = "each member's" if plain["before"] else "its"
            return f"Calibrated: {where} probabilities are made {sharper} by a temperature of {plain['value']:.3g}"
        case "variance_scale":
            return f"Calibrated: variances times {plain['value']:.3g}"
        case "isotonic":
            return "Calibrated by isotonic regression of each class"
        case kind:
            return f"Calibrated by {str(kind).replace('_', ' ')} scaling"


def _against(summary: Mapping[str, Any]) -> Iterator[str]:
    """What all of it gains over the equal mixture of all members."""
    if summary.get("searched"):  # bad trials are in it
        return
    gain = (summary.get("gain") or {}).get("over_equal_mixture") or {}
    parts = [
        f"{' '.join(gain_parts(name, gain[name]))} {look(name).gain_unit or look(name).label}".strip()
        for name in headline(summary.get("ensemble", ()))
        if is_number(gain.get(name, {}).get("estimate"))
    ]
    if parts:
        yield f"Over the equal mixture of all members it gains {joined(parts)}."


def _single(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> Iterator[str]:
    """What the ensemble gains over one single model that costs as much, task by task where there are several."""
    found = summary.get("single")
    if not found:
        return
    changes = [f"{name.rpartition('.')[2]} {value(one)}" for name, one in found["changed"].items()]
    how = joined(changes) if changes else "as it stands"
    what = f"One single model of the same recipe, allowed the same cost ({how})"
    if found["status"] != "done":
        why = f": {found['reason']}" if found.get("reason") else ""
        yield f"{what} {found['status']}{why}; the ensemble is not measured against it."
        return
    for task, own in tasks_of(summary).items():
        gain = (own.get("gain") or {}).get("over_single") or {}
        parts = joined(
            f"{' '.join(gain_parts(name, gain[name], signed=True))} {look(name).gain_unit or look(name).label}".strip()
            for name in headline(own.get("ensemble", ()))
            if is_number(gain.get(name, {}).get("estimate"))
        )
        reached = joined(
            f"{look(name).label} {look(name).show(one)}"
            for name, one in (own.get("rivals") or {}).get("single", {}).items()
            if name in headline(own.get("ensemble", ()))
        )
        yield titled(task, f"{what} has {reached}; over it the ensemble gains {parts} (above 0 is better).")
    if _is_calibrated(manifest.get("ensemble") or {}) and not found.get("calibrated", True):
        yield (
            "The ensemble is calibrated and the single model is not, for no rows were held out from it; part of what "
            "is gained over it may be the calibration."
        )
    yield _costs(found["cost"], found["id"], manifest)


def _is_calibrated(ensemble: Mapping[str, Any]) -> bool:
    return any(own.get("calibration") for own in (ensemble.get("tasks") or {"": ensemble}).values())


def _costs(cost: Mapping[str, Any], single: str, manifest: Mapping[str, Any]) -> str:
    """What the ensemble and the single model have cost, the seconds as the packs were timed."""
    ours, theirs = ((cost[who]["parameters"], cost[who]["epochs"]) for who in ("ensemble", "single"))
    packs = [(single in pack["members"], pack["seconds"]) for pack in manifest.get("packs") or ()]
    spent = [sum(seconds for own, seconds in packs if own is whose) for whose in (False, True)]
    return (
        f"Cost: all members {ours[0]:,} parameters, {ours[1]:,} epochs and {duration(spent[0])} of training; the "
        f"single model {theirs[0]:,} parameters, {theirs[1]:,} epochs and {duration(spent[1])}."
    )


def _trainings(summary: Mapping[str, Any]) -> Iterator[str]:
    """What the several members of a training bring over the trained network."""
    found = summary.get("trainings")
    if not found:
        return
    network, mixture = (found[part].get("nll") for part in ("network", "mixture"))
    if not (is_number(network) and is_number(mixture)):
        return
    worth = (found.get("equivalents") or {}).get("nll")
    more = ""
    if worth:
        equal = worth["members"]
        often = f"{equal:.1f}" if equal is not None else f"more than the {found['number']}"
        more = f", as that of {often} independent trainings"
    yield (
        f"The {found['members_of_each']} members of one training have an NLL of {number(mixture, 3)} together{more}; "
        f"the trained network alone has {number(network, 3)}."
    )


LOSSES = {"squared_error": "squared error", "nll": "NLL", "brier": "Brier score"}


def _variance(summary: Mapping[str, Any]) -> Iterator[str]:
    """How much of a member's loss is its own and how much all share, task by task."""
    for task, own in tasks_of(summary).items():
        found = own.get("decomposition") or {}
        parts = [
            f"{number(part['variance'], digits)} of {number(part['error'], digits)} {LOSSES[name]}"
            for name, part in found.items()
            if name in LOSSES
            for digits in [decimals(part["error"] / 30)]
        ]
        start = " from one start" if found.get("one_start") else ""
        if parts:
            yield titled(
                task,
                f"Variance over the {found['members']} trainings{start} makes {joined(parts)} of a single member; the "
                "rest is bias, shared by all, and noise of the labels.",
            )


def _coverage(summary: Mapping[str, Any]) -> Iterator[str]:
    found = summary.get("coverage")
    if found:
        what = "classes in a set" if "reliability" in summary else "wide"
        yield (
            f"Meant to hold the truth in {found['wanted']:.0%} of the rows, its "
            f"{'sets' if 'reliability' in summary else 'intervals'} do in {found['covered']:.1%}, "
            f"{number(found['size'], 2)} {what} on average."
        )


def _sampled(summary: Mapping[str, Any]) -> Iterator[str]:
    """What is of some rows alone, where there are many."""
    if found := summary.get("sampled"):
        what = joined(name.replace("_", " ") for name in found["what"])
        yield f"From a sample of {found['rows']:,} of the {summary['rows']:,} rows: {what}."
    if left_out := summary.get("left_out"):
        yield f"Not of single members, for the rows are too many to be ranked: {joined(left_out)}."


def _soup(summary: Mapping[str, Any]) -> Iterator[str]:
    """The one network of averaged weights, or why there is none."""
    found = summary.get("soup")
    if not found:
        return
    yield found["note"]
    for task, own in tasks_of(found).items():
        for sentence in _soup_alone(own):
            yield titled(clean(task, limit=40), sentence)


def _soup_alone(found: Mapping[str, Any]) -> Iterator[str]:
    if gain := found.get("gain_over_ensemble"):
        parts = [
            f"{' '.join(gain_parts(name, gain[name], signed=True))} {look(name).gain_unit or look(name).label}".strip()
            for name in headline(found["metrics"])
            if is_number(gain.get(name, {}).get("estimate"))
        ]
        reached = joined(
            f"{look(name).label} {look(name).show(found['metrics'][name])}"
            for name in headline(found["metrics"])
        )
        yield f"The soup alone has {reached}; against the ensemble {joined(parts)} (above 0 is better)."
