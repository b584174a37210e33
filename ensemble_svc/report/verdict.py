"""Was the ensemble worth it? One sentence, from the metrics alone.

Pure and light: the terminal and the page print the same sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ensemble_svc.report.bytask import by_task
from ensemble_svc.report.looks import headline, look
from ensemble_svc.report.text import clean, count, is_number, joined, number

Tone = Literal["good", "fair", "bad", "none"]
Metrics = Mapping[str, Any]
Gains = Sequence[tuple[str, Mapping[str, float]]]
"""Metrics and what is gained of each."""

_PREFERRED = ("test",)
_LAST = ("validation", "train")


@dataclass(frozen=True)
class Verdict:
    """The answer, its colour, and where it was measured."""

    tone: Tone
    answer: str
    """``Yes``, ``Not clearly``, …"""
    detail: str
    """The rest of the sentence, with its intervals."""

    def __str__(self) -> str:
        return f"{self.answer}: {self.detail}"


def verdict(metrics: Metrics, manifest: Mapping[str, Any]) -> str:
    """Whether the ensemble beat its members, in one sentence with intervals."""
    return str(judge(metrics, manifest))


def report_split(metrics: Metrics) -> str | None:
    """The split that a reader should be told about: test, else one of the job's own, else validation."""
    if not metrics:
        return None

    def rank(split: str) -> int:
        return 0 if split in _PREFERRED else 2 + _LAST.index(split) if split in _LAST else 1

    return min(metrics, key=rank)


def judge(metrics: Metrics, manifest: Mapping[str, Any]) -> Verdict:
    """The verdict on the split that reports.

    The answer is *yes* when an interval of the gain over the mean member lies above 0 and none below,
    and the same holds against the best member chosen on validation, where there is one. Of a search it is the
    best trial alone, on rows that did not choose it: its mean trial is nobody's other choice.
    """
    split = report_split(metrics)
    if split is None:
        return Verdict("none", "No answer yet", "nothing has been measured in this run.")
    summary = metrics[split]
    if summary.get("tasks"):
        parts = by_task(metrics).items()
        return _of_tasks({task: judge(own, manifest) for task, own in parts})
    num_members = _num_members(summary, manifest)
    place = _place(split, summary)
    if num_members < 2:
        return _lone(summary, place, manifest)
    subject, gain, names = (
        f"{place} the ensemble of {num_members:,}",
        summary.get("gain", {}),
        headline(summary["ensemble"]),
    )
    best = _gains(gain, "over_best_member", names)
    if summary.get("searched") and (best or split in _LAST or "over_best_member" in gain):
        return _of_search(subject, split, best)
    return _compare(subject, _gains(gain, "over_mean_member", names), best)


def _of_search(subject: str, split: str, best: Gains) -> Verdict:
    """Against the best trial alone; on the rows that chose it there is no answer."""
    if best:
        return _over(subject, "the best trial chosen on validation", best)
    remedy = "; these rows chose it, and data.test keeps others for that" if split in _LAST else ""
    return Verdict("none", "No answer yet", f"{subject} was not compared with the best trial{remedy}.")


def _of_tasks(each: Mapping[str, Verdict]) -> Verdict:
    """One answer where all tasks have the same, and what is said of each."""
    answers = {(own.tone, own.answer) for own in each.values()}
    alike = len(answers) == 1
    told = {task: own.detail if alike else _uncapitalised(own) for task, own in each.items()}
    tone, answer = answers.pop() if alike else ("fair", "It depends on the task")
    return Verdict(
        tone, answer, " ".join(f"{clean(task, limit=40)}: {words}" for task, words in told.items())
    )


def _uncapitalised(own: Verdict) -> str:
    return f"{own.answer[:1].lower()}{own.answer[1:]}, {own.detail}"


def _compare(subject: str, mean: Gains, best: Gains) -> Verdict:
    """Against the mean member first, then against the best one."""
    if not mean:
        return Verdict("none", "No answer yet", f"{subject} was not compared with its members.")
    over_mean = _over(subject, "its mean member", mean)
    if over_mean.tone != "good" or not best:
        return over_mean
    beats = over_mean.detail.removesuffix(".")
    who = "the best member chosen on validation"
    if _direction(best) == "up":
        return Verdict("good", "Yes", f"{beats}, and {who} by {_clearly(best, short=True)}.")
    return Verdict("fair", "In part", f"{beats}, but not clearly {who} ({_listed(best)}).")


def _over(subject: str, rival: str, gains: Gains) -> Verdict:
    """The answer against one rival."""
    match _direction(gains):
        case "up":
            return Verdict("good", "Yes", f"{subject} beats {rival} by {_clearly(gains)}.")
        case "down":
            behind = [(name, _negated(gain)) for name, gain in gains]
            return Verdict("bad", "No", f"{subject} falls behind {rival} by {_listed(behind)}.")
        case "mixed":
            return Verdict("fair", "Mixed", f"{subject} gains on {rival} {_listed(gains)}; below 0 is worse.")
        case _:
            return Verdict(
                "fair", "Not clearly", f"{subject} gains on {rival} {_listed(gains)}, and 0 lies inside."
            )


def _gains(gain: Mapping[str, Any], over: str, names: Sequence[str]) -> list[tuple[str, Mapping[str, float]]]:
    found = gain.get(over) or {}
    return [(name, found[name]) for name in names if is_number(found.get(name, {}).get("estimate"))]


def _direction(gains: Gains) -> str:
    up = any(is_number(g.get("low")) and g["low"] > 0 for _, g in gains)
    down = any(is_number(g.get("high")) and g["high"] < 0 for _, g in gains)
    return "mixed" if up and down else "up" if up else "down" if down else "flat"


def _negated(gain: Mapping[str, Any]) -> Mapping[str, Any]:
    turned = {"estimate": gain["estimate"], "low": gain["high"], "high": gain["low"]}
    return {name: None if value is None else -value for name, value in turned.items()}


def _listed(gains: Gains, *, short: bool = False) -> str:
    return joined(_phrase(name, gain, short) for name, gain in gains)


def _clearly(gains: Gains, *, short: bool = False) -> str:
    """The gains whose interval lies above 0, then the others as what they are."""
    sure = [(name, gain) for name, gain in gains if is_number(gain.get("low")) and gain["low"] > 0]
    if not sure:
        return _listed(gains, short=short)
    unsure = [one for one in gains if one not in sure]
    return _listed(sure, short=short and not unsure) + (f" (not clear: {_listed(unsure)})" if unsure else "")


def _phrase(name: str, gain: Mapping[str, float], short: bool) -> str:
    amount, bounds = gain_parts(name, gain)
    unit = look(name).gained(amount)
    of = "" if short and unit else f" of {_inside(name)}" if unit else f" {_inside(name)}"
    return f"{amount}{f' {unit}' if unit else ''}{of}{f' {bounds}' if bounds else ''}"


def _inside(name: str) -> str:
    label = look(name).label
    return label if label.isupper() else label.lower()


def gain_parts(name: str, gain: Mapping[str, Any], *, signed: bool = False) -> tuple[str, str]:
    """A gain and its interval with matching digits, ``("1.3", "[0.7, 2.0]")``; no unit."""
    face = look(name)
    low, high = gain.get("low"), gain.get("high")
    if not (is_number(low) and is_number(high)):
        return face.bare(gain.get("estimate"), signed=signed), ""
    places = face.places((high - low) / 2)
    bounds = (number(bound * face.factor, places) for bound in (low, high))
    return face.bare(gain.get("estimate"), places, signed=signed), f"[{', '.join(bounds)}]"


def _lone(summary: Mapping[str, Any], place: str, manifest: Mapping[str, Any]) -> Verdict:
    ensemble = summary["ensemble"]
    reached = joined(
        f"{_inside(name)} {look(name).show(ensemble[name], look(name).places())}"
        for name in headline(ensemble)
    )
    detail = f"{place} it has {reached}; averaging needs two members or more"
    return Verdict("none", "One member is no ensemble", f"{detail}{_more_of_search(summary, manifest)}.")


def _more_of_search(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """How a search whose ensemble is one member gets more of them, or nothing."""
    if not summary.get("searched"):
        return ""
    offered = len(manifest.get("candidates") or ())
    if offered > 1:
        return f", and aggregate.select chose one of {offered:,}; reselect with another, such as top_k"
    if sum(member.get("status") == "done" for member in manifest.get("members", ())) < 2:
        return "; search.refit trains the best again"
    among = "reselect with search.candidates=all chooses among the stopped trials too"
    return f"; {among}, and search.refit trains the best again"


def _num_members(summary: Mapping[str, Any], manifest: Mapping[str, Any]) -> int:
    chosen = (manifest.get("ensemble") or {}).get("members")
    return len(chosen if chosen is not None else summary.get("members", {}).get("each", ()))


def _place(split: str, summary: Mapping[str, Any]) -> str:
    rows = summary.get("rows")
    where = (
        f"{rows:,} {clean(split, limit=40)} rows" if is_number(rows) else f"the {clean(split, limit=40)} rows"
    )
    caveat = ", which also guided training," if split in _LAST else ""
    return f"on {where}{caveat}"


def unfinished(manifest: Mapping[str, Any]) -> str:
    """``2 of 16 members did not finish …``, or nothing."""
    members = manifest.get("members", ())
    excluded = sum(member.get("status") == "excluded" for member in members)
    lost = sum(member.get("status") in {"failed", "diverged"} for member in members) + excluded
    if not lost:
        return ""
    how = "failed, diverged or were excluded as sick" if excluded else "failed or diverged"
    return f"{lost:,} of {count(len(members), 'member')} {how} and are not in the ensemble."
