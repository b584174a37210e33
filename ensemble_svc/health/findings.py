"""What is wrong with a network, each finding a sentence with the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ensemble_svc.health.checkup import Checkup
from ensemble_svc.vitals.watching import Layer

FADED = 0.1
"""The last hidden layer's spread over the first one's from which a signal counts as lost."""
GROWN = 10.0
FLAT = 0.5
"""Share of saturated outputs that hinders learning."""
DEAD = 0.3
"""Share of dead units; half of a relu's *outputs* are 0 by design, its units are not."""
LOST = 1e-3
"""The weakest layer's gradient over the strongest one's, each for its number of weights."""
WILD, IDLE = 0.1, 1e-6
"""A first step's size over the weights': about 0.001 is healthy (Karpathy 2015)."""
SURE = 1.5
"""The first loss over that of guessing."""


def findings(found: Checkup) -> list[str]:
    """Sentences; empty for a network that looks well."""
    return [*_signal(found.layers), *_layers(found.layers), *_gradients(found.layers), *_losses(found)]


def _signal(layers: Sequence[Layer]) -> Iterator[str]:
    hidden = [(n, layer.activity) for n, layer in enumerate(layers, 1) if layer.activity is not None]
    if len(hidden) < 2:
        return
    (first, start), (last, end) = hidden[0], hidden[-1]
    told = f"their standard deviation is {start.std:.2g} behind layer {first} and {end.std:.2g} behind layer {last}"
    if end.std <= FADED * start.std:
        yield (
            f"The activations collapse towards {'0' if abs(end.mean) < start.std else f'{end.mean:.2g}'}: {told}, so "
            "the layers behind have nothing to tell rows apart by. The initial weights are too small for this "
            "depth: use model.init: xavier with tanh, he with relu, or a norm."
        )
    elif end.std > GROWN * start.std:
        yield (
            f"The activations grow from layer to layer: {told}. The initial weights are too large for this "
            "depth: use model.init: xavier with tanh, he with relu, or a norm."
        )


def _layers(layers: Sequence[Layer]) -> Iterator[str]:
    flat = [
        (n, a.saturated)
        for n, layer in _numbered(layers)
        if (a := layer.activity) and (a.saturated or 0) > FLAT
    ]
    if flat:
        n, share = max(flat, key=lambda pair: pair[1] or 0)
        yield (
            f"Layer {n}: {share:.0%} of the outputs are saturated{_also(flat)}, where the activation is flat and "
            "passes no gradient back. Use smaller initial weights (model.init: xavier), scaled inputs "
            "(data.preprocess: standardize) or a norm."
        )
    dead = [(n, a.dead) for n, layer in _numbered(layers) if (a := layer.activity) and (a.dead or 0) > DEAD]
    if dead:
        n, share = max(dead, key=lambda pair: pair[1] or 0)
        yield (
            f"Layer {n}: {share:.0%} of the units are dead{_also(dead)}: no row brings them above 0, so they never "
            "learn. Lower the learning rate, or use model.init: he, model.activation: leaky_relu or a small "
            "positive bias ({name: relu, bias: 0.01})."
        )
    alike = [n for n, layer in _numbered(layers) if layer.alike]
    if alike:
        who = f"layer {alike[0]}" if len(alike) == 1 else f"layers {', '.join(map(str, alike))}"
        yield (
            f"All units of {who} begin with the same weights, get the same gradients and stay alike for ever. "
            "Draw the initial weights at random: model.init: he."
        )


def _gradients(layers: Sequence[Layer]) -> Iterator[str]:
    sizes = {n: layer.gradient / layer.module.weight.numel() ** 0.5 for n, layer in _numbered(layers)}
    strong, weak = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    if sizes[strong] > 0 and sizes[weak] < LOST * sizes[strong]:
        yield (
            f"The gradient of layer {weak} is {sizes[weak] / sizes[strong]:.1g} times that of layer {strong}, weight "
            "by weight: at one learning rate one of them stands still. A norm (model.norm), other initial weights or "
            "an adaptive optimizer (adamw) levels them."
        )
    wild = [(n, layer.update) for n, layer in _numbered(layers) if layer.update > WILD and not layer.alike]
    if wild:
        n, ratio = max(wild, key=lambda pair: pair[1])
        yield (
            f"The first step changes the weights of layer {n} by {ratio:.0%}{_also(wild)}; about 0.1 % is usual. Lower "
            "training.optimizer.lr, or begin with a warm-up (training.schedule)."
        )
    moving = [layer.update for layer in layers]
    if moving and max(moving) < IDLE:
        yield (
            f"The first step changes no layer's weights by more than {max(moving):.0e} of their size; about 0.001 is "
            "usual. Raise training.optimizer.lr, unless the gradients are lost on their way."
        )


def _losses(found: Checkup) -> Iterator[str]:
    if found.guess > 0 and found.loss > SURE * found.guess:
        yield (
            f"The loss begins at {found.loss:.3g}, where guessing gives {found.guess:.3g}: the untrained network is "
            "sure of wrong answers. Smaller initial weights of the last layer, or scaled inputs, mend it."
        )
    if not found.learned:
        yield (
            f"Twenty rows were not learned by heart: their loss went from {found.few_before:.3g} to "
            f"{found.few_after:.3g} in {found.few_steps} steps. Before longer training, find out why: the rate "
            "(training.optimizer.lr), the initial weights, the labels, or a network that is too small."
        )


def _numbered(layers: Sequence[Layer]) -> Iterator[tuple[int, Layer]]:
    return iter(enumerate(layers, 1))


def _also(found: Sequence[tuple[int, object]]) -> str:
    return f" (over the bound in {len(found)} layers)" if len(found) > 1 else ""
