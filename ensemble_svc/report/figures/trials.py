"""How a search went: what mattered, when the best was found, and how many trials were left at each epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ensemble_svc.exhibits.trials import Trial
from ensemble_svc.report.drawing import Drawing
from ensemble_svc.report.figure import Figure, Numbers
from ensemble_svc.report.panel import Panel, Range
from ensemble_svc.report.picked import spread
from ensemble_svc.report.search import Searched
from ensemble_svc.report.text import clean, count, number

BARS_UP_TO = 14
ROW, LEFT, ROOM = 28.0, 150.0, 52.0
DOTS_UP_TO = 1500
"""Trials drawn at most in the history: those in the ensemble, and others evenly spread."""


def importance(searched: Searched, width: float) -> Figure | None:
    """A bar for each key; None where it is not known what mattered."""
    shares = list(searched.shares.items())
    if not shares:
        return None
    shown = shares[:BARS_UP_TO]
    drawing = Drawing(width, ROW * len(shown) + 12, "Importance of each hyper-parameter")
    largest = max(share for _, share in shown) or 1.0
    for row, (key, share) in enumerate(shown):
        top = 6 + row * ROW
        length = (width - LEFT - ROOM) * share / largest
        head = clean(searched.heads.get(key, key), limit=22)
        drawing.text((LEFT - 10, top + 16), head, "tick strong", "end")
        tip = f"{key}: {number(100 * share, 1)} % of the variance"
        drawing.box((LEFT, top + 4), max(2.0, length), ROW - 11, "pack-bar", tip, round_=3)
        drawing.text((LEFT + length + 7, top + 16), f"{number(100 * share, 1)} %", "tick strong")
    return Figure(
        "What matters",
        drawing.markup(),
        _learnt(searched, len(shares) - len(shown)),
        numbers=Numbers.of(("key", "share %"), [(key, number(100 * share, 1)) for key, share in shares]),
    )


def _learnt(searched: Searched, cut: int) -> str:
    absent = len(searched.importance.get("absent") or ())
    left = f" Without {count(absent, 'key')} that only some trials have." if absent else ""
    less = f" {cut} lesser ones are not drawn." if cut else ""
    trials = count(searched.importance["trials"], "trial")
    return (
        f"Share of the variance of the {searched.face.label} that each key explains (fANOVA over {trials}, those "
        f"stopped early as they were then).{left}{less}"
    )


def history(searched: Searched, width: float) -> Figure | None:
    """Each trial's metric in order, and the best up to then; None for fewer than two."""
    known = [trial for trial in searched.trials if trial.value is not None]
    if len(known) < 2:
        return None
    face, better = searched.face, max if searched.face.higher_is_better else min
    best, line = list[float](), [float(trial.value or 0.0) for trial in known]
    for value in line:
        best.append(better(value, best[-1]) if best else value)
    low, high = min(line), max(line)
    log = face.factor == 1 and low > 0 and high / low > 10
    across = Range(known[0].number - 0.5, known[-1].number + 0.5, whole=True)
    down = (
        Range(low / 1.1, high * 1.1, log=True)
        if log
        else Range.over(line, factor=face.factor, within=face.span)
    )
    panel = Panel(
        across,
        down,
        label=f"{face.label} of each trial in order, and the best so far",
        x_label="trial, in order",
        y_label=f"validation {face.label} {face.unit}".strip(),
        width=width,
    )
    own = [place for place, trial in enumerate(known) if searched.is_chosen(trial)]
    for place in spread(len(known), DOTS_UP_TO, own[:DOTS_UP_TO]):
        _dot(panel, searched, known[place])
    xs, ys = _steps(known, best)
    panel.line(xs, ys, "ensemble-line")
    first = known[next(i for i, value in enumerate(best) if value == best[-1])]
    caption = (
        f"The best, {face.show(best[-1])}, came with trial {first.number} of {len(known):,} (the first is 0)."
    )
    legend = [("ensemble-line", "best so far"), ("member-dot", "a trial")]
    legend += [("stop-dot", "stopped early")] if any(t.ended == "stopped" for t in known) else []
    legend += [("pick-dot", "in the ensemble")] if any(map(searched.is_chosen, known)) else []
    rows = [(str(t.number), face.bare(t.value), face.bare(b)) for t, b in zip(known, best, strict=True)]
    head = ("trial", face.label, "best so far")
    return Figure(
        "When the best was found",
        panel.drawing.markup(),
        caption,
        tuple(legend),
        numbers=Numbers.of(head, rows, spread=True),
    )


def _steps(known: Sequence[Trial], best: Sequence[float]) -> tuple[list[float], list[float]]:
    """The line of the best so far, with a corner where it changes and none between."""
    changes = [k for k, value in enumerate(best) if not k or value != best[k - 1]]
    ends = [*(known[k].number - 0.5 for k in changes[1:]), known[-1].number + 0.5]
    xs = [x for k, end in zip(changes, ends, strict=True) for x in (known[k].number - 0.5, end)]
    return xs, [best[k] for k in changes for _ in range(2)]


def _dot(panel: Panel, searched: Searched, trial: Trial) -> None:
    assert trial.value is not None
    kind = "stop-dot" if trial.ended == "stopped" else "member-dot"
    kind = "pick-dot" if searched.is_chosen(trial) else kind
    at = panel.at(trial.number, trial.value)
    if trial.error:
        ends = [panel.at(trial.number, trial.value + side * trial.error) for side in (-1, 1)]
        panel.pen.line(ends[0], ends[1], "spread-line")
    panel.pen.dot(at, 4.2 if kind == "pick-dot" else 3, kind, searched.words(trial))


def survival(searched: Searched, width: float) -> Figure | None:
    """How many trials trained each epoch; None where all trained equally long."""
    trained = [trial for trial in searched.trials if trial.epochs > 0]
    last = max((trial.epochs for trial in trained), default=0)
    if not trained or all(trial.epochs == last for trial in trained):
        return None
    left = [sum(trial.epochs >= epoch for trial in trained) for epoch in range(1, last + 1)]
    ends = Counter(trial.epochs for trial in trained if trial.epochs < last)
    panel = Panel(
        Range(0, last * 1.02, whole=True),
        Range(0, len(trained) * 1.06, whole=True),
        label="Trials that were still training at each epoch",
        x_label="epoch",
        y_label="Trials training",
        width=width,
    )
    corners = [(x, n) for epoch, n in enumerate(left, start=1) for x in (epoch - 1, epoch)]
    xs, ys = [float(x) for x, _ in corners], [float(n) for _, n in corners]
    panel.band(xs, [0.0] * len(xs), ys, "ensemble-band")
    panel.line(xs, ys, "ensemble-line")
    rungs = _rungs(ends, len(trained))
    for epoch in rungs:
        before, after = left[epoch - 1], left[epoch - 1] - ends[epoch]
        panel.pen.dot(
            panel.at(epoch, before), 3.5, "ensemble-dot", f"after epoch {epoch}: {before} to {after}"
        )
        at = panel.at(epoch, before)
        panel.pen.text((at[0] + 7, at[1] + 4), f"{before} → {after}", "tick strong")
    hours = sum(trial.epochs for trial in trained) / (len(trained) * last)
    caption = (
        f"{_reasons(trained, last)} Of the epochs of all trials {number(100 * hours, 0)} % were trained."
    )
    rows = [(str(epoch), str(left[epoch - 1]), str(left[epoch - 1] - ends[epoch])) for epoch in sorted(ends)]
    head = ("after epoch", "trained it", "went on")
    return Figure("Who is left", panel.drawing.markup(), caption, numbers=Numbers.of(head, rows, spread=True))


def _rungs(ends: Counter[int], trials: int) -> list[int]:
    """Epochs after which so many trials ended together that it was no chance: a tenth of all, or two of twenty."""
    many = [epoch for epoch, number in ends.items() if number >= max(2, trials / 10)]
    return sorted(sorted(many, key=lambda epoch: -ends[epoch])[:8])


def _reasons(trained: Sequence[Trial], last: int) -> str:
    """Who stopped them, as the reasons begin: ``halving``, ``median``, …, or early stopping where none is given."""
    ended = [trial for trial in trained if trial.epochs < last]
    kinds = Counter(_kind(trial) for trial in ended)
    words = ", ".join(f"{number} by {kind}" for kind, number in kinds.most_common(4))
    return f"{count(len(ended), 'trial')} of {len(trained):,} ended early: {words}."


def _kind(trial: Trial) -> str:
    if trial.ended not in ("stopped", "done"):
        return clean(trial.ended, limit=20)
    head = trial.reason.partition(":")[0].strip()
    return clean(head, limit=24) if head and len(head.split()) < 3 else "early stopping"
