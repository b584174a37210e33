"""What went wrong in the course of a member's training, each finding a sentence with the remedy.

The bounds are rules of thumb; each stands where it is explained. Pure: numbers in, words out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any

from ensemble_svc.vitals.sample import Sample
from ensemble_svc.vitals.sick import History, Verdict

DEAD, FLAT = 0.3, 0.5
"""Shares of dead units and of saturated outputs that hinder learning."""
LOST = 1e-3
"""The weakest layer's gradient over the strongest one's, each for its number of weights."""
BURST = 100.0
"""Growth of the whole gradient over the first sample's, with a loss that has not fallen."""
WILD, IDLE = 0.1, 1e-6
"""A step's size over the weights': about 0.001 is healthy (Karpathy 2015)."""
STILL, CALM = 1e-3, 0.1
"""Change of the loss, for its size, that counts as none; and of the gradient's norm over the first sample's that
counts as small."""
FEWEST = 6
"""Epochs below which neither a plateau nor overfitting is looked for."""
SLOW = 0.1
"""Of the largest rate: below it a flat loss is the schedule's doing."""
RISE = 0.1
"""Of the validation NLL over its lowest value: what counts as overfitting."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    """``divergence``, ``guessing``, ``dead``, ``saturated``, ``gradients``, ``steps``, ``plateau`` or
    ``overfitting``."""
    sentence: str
    """With numbers, layer and epoch, and with the remedy."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Course:
    """A member's whole training, as it was seen."""

    history: History
    samples: Sequence[Sample]
    """In the order of their epochs; empty where nobody looked."""
    sick: Verdict | None
    guess: float
    """Loss of the best constant answer."""
    weights: Sequence[int]
    """Number of weights of each layer."""
    stops_early: bool
    """Whether the best epoch's weights are kept anyway."""
    may_stop: bool = True
    """Whether the job could keep the best epoch's weights: not where its later iterates are members."""
    halves: bool = False
    """Whether a sick member starts anew at half the rate anyway."""


def findings_of(course: Course) -> list[Finding]:
    """What is wrong, the gravest first; empty for a training that looks well."""
    if course.sick and course.sick.kind == "divergence":
        return [_divergence(course)]
    if course.sick:
        return [_guessing(course), *_layers(course)]
    looks: tuple[Callable[[Course], Iterator[Finding]], ...] = (
        _layers,
        _gradients,
        _steps,
        _plateau,
        _overfitting,
    )
    return [finding for look in looks for finding in look(course)]


def _divergence(course: Course) -> Finding:
    assert course.sick is not None
    restart = "" if course.halves else ", or let training.on_sick: restart halve the rate"
    rate = course.history[-1]["learning_rate"] if course.history else 0.0
    return Finding(
        "divergence",
        f"The training diverged: {course.sick.reason}, at a learning rate of {rate:.2g}. Lower training.optimizer.lr, "
        f"begin with a warm-up (training.schedule), cut long gradients (training.clip_norm){restart}.",
    )


def _guessing(course: Course) -> Finding:
    assert course.sick is not None
    last = course.samples[-1].alike if course.samples else ()
    twins = [n for n, same in enumerate(last, 1) if same]
    reason = course.sick.reason[0].upper() + course.sick.reason[1:]
    if twins:
        remedy = (
            f"All units of layer {twins[0]} have the same weights, get the same gradients and stay alike for ever: "
            "draw the initial weights at random (model.init: he)."
        )
    else:
        remedy = (
            "Another learning rate (training.optimizer.lr), other initial weights (model.init), more epochs or a "
            "larger network may help; if none does, look at the inputs and the labels."
        )
    return Finding("guessing", f"{reason}. {remedy}")


def _layers(course: Course) -> Iterator[Finding]:
    if found := _worst(course.samples, "dead", DEAD):
        layer, share, since, also = found
        yield Finding(
            "dead",
            f"Layer {layer}: {share:.0%} of the units are dead since epoch {since}{also}: no row brings them above 0, "
            "so they never learn. Lower the learning rate, or use model.activation: leaky_relu, model.init: he or a "
            "positive bias ({name: relu, bias: 0.01}).",
        )
    if found := _worst(course.samples, "saturated", FLAT):
        layer, share, since, also = found
        yield Finding(
            "saturated",
            f"Layer {layer}: {share:.0%} of the outputs are saturated since epoch {since}{also}, where the activation "
            "is flat and passes no gradient back. Lower the learning rate, or use smaller initial weights "
            "(model.init: xavier), a norm or weight decay.",
        )


def _worst(samples: Sequence[Sample], name: str, bound: float) -> tuple[int, float, int, str] | None:
    """Layer from 1 with the largest share in the last sample, the share, since when, and a word on the others."""
    if not samples:
        return None
    shares = [share or 0.0 for share in getattr(samples[-1], name)]
    over = [n for n, share in enumerate(shares) if share > bound]
    if not over:
        return None
    worst = max(over, key=shares.__getitem__)
    above = takewhile(lambda sample: (getattr(sample, name)[worst] or 0.0) > bound, reversed(samples))
    since = [sample.epoch for sample in above][-1]
    also = f" (more than {bound:.0%} in {len(over)} layers)" if len(over) > 1 else ""
    return worst + 1, shares[worst], since, also


def _gradients(course: Course) -> Iterator[Finding]:
    if not course.samples:
        return
    first, last = course.samples[0], course.samples[-1]
    sizes = {
        n: size / number**0.5
        for n, (size, number) in enumerate(zip(last.gradient, course.weights, strict=True), 1)
        if size is not None
    }
    if sizes and 0 < max(sizes.values()) * LOST > min(sizes.values()):
        weak, strong = min(sizes, key=sizes.__getitem__), max(sizes, key=sizes.__getitem__)
        yield Finding(
            "gradients",
            f"Layer {weak}: in epoch {last.epoch} its gradient is {sizes[weak] / sizes[strong]:.1g} times that of "
            f"layer {strong}, weight by weight: it vanishes on its way. A norm (model.norm), other initial weights, "
            "relu or an adaptive optimizer (adamw) mends it.",
        )
    before, after = _whole(first), _whole(last)
    grew = before > 0 and after > BURST * before
    if grew and course.history[-1]["train_loss"] >= course.history[0]["train_loss"]:
        yield Finding(
            "gradients",
            f"The gradient explodes: its norm was {before:.2g} after epoch {first.epoch} and is {after:.2g} after "
            f"epoch {last.epoch}, and the loss has not fallen. Lower training.optimizer.lr, or set training.clip_norm.",
        )


def _whole(sample: Sample) -> float:
    return float(sum((size or 0.0) ** 2 for size in sample.gradient)) ** 0.5


def _steps(course: Course) -> Iterator[Finding]:
    known = [
        (size, n, s.epoch)
        for s in course.samples
        for n, size in enumerate(s.update, 1)
        if size is not None and not s.alike[n - 1]
    ]
    seen = {epoch for _, _, epoch in known}
    wild = {epoch for size, _, epoch in known if size > WILD}
    if len(wild) > len(seen) / 2:
        size, n, epoch = max(known)
        yield Finding(
            "steps",
            f"Layer {n}: the last step of epoch {epoch} changed its weights by {size:.0%}; about 0.1 % is usual. Lower "
            "training.optimizer.lr.",
        )
    if seen and max(known)[0] < IDLE:
        yield Finding(
            "steps",
            f"No layer's weights moved by more than {max(known)[0]:.0e} of their size in a step; about 0.001 is usual. "
            "Raise training.optimizer.lr, unless the gradients are lost on their way.",
        )


def _plateau(course: Course) -> Iterator[Finding]:
    """The loss flat over the last third of the epochs at a full rate, above what could be reached, gradient small."""
    history, samples = course.history, course.samples
    top = max((row["learning_rate"] for row in history), default=0.0)
    rows = [row for row in history if row["learning_rate"] >= SLOW * top]
    if len(rows) < FEWEST or len(rows) < len(history) * 2 / 3 or len(samples) < 2:
        return
    tail = [row["train_loss"] for row in rows[-len(rows) // 3 :]]
    begun, now = rows[-len(rows) // 3]["epoch"], tail[-1]
    still = max(tail) - min(tail) <= STILL * max(abs(now), abs(course.guess) * SLOW)
    small = _whole(samples[-1]) <= CALM * max(map(_whole, samples))
    if still and small and now > SLOW * abs(course.guess):
        yield Finding(
            "plateau",
            f"The loss has not moved since epoch {begun} ({tail[0]:.4g} then, {now:.4g} now), and the gradient is "
            f"small ({_whole(samples[-1]):.2g}): a plateau, a saddle or a minimum. If it is good enough, fewer "
            "epochs do; else raise training.optimizer.lr, add momentum, other initial weights or a larger network.",
        )


def _overfitting(course: Course) -> Iterator[Finding]:
    history = course.history
    scores = [row["val_nll"] for row in history if "val_nll" in row]
    if course.stops_early or len(scores) < FEWEST or len(scores) < len(history):
        return
    best = min(range(len(scores)), key=scores.__getitem__)
    lowest, last = scores[best], scores[-1]
    losses = history[best]["train_loss"], history[-1]["train_loss"]
    if last - lowest > RISE * max(abs(lowest), RISE) and losses[1] < losses[0]:
        remedy = "training.early_stopping" if course.may_stop else "fewer training.epochs"
        yield Finding(
            "overfitting",
            f"Overfitting from epoch {best + 1} on: the validation NLL rose from {lowest:.3g} to {last:.3g} while the "
            f"training loss fell from {losses[0]:.3g} to {losses[1]:.3g}. Use {remedy}, more "
            "regularisation (weight_decay, model.dropout, data.augment) or more data.",
        )
