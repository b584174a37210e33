"""Networks whose dropout stays as it was drawn once: Monte-Carlo dropout (Gal & Ghahramani 2016, arXiv:1506.02142).

All rows share a draw, so each is a network of its own, with the units that are left. Its prediction of a row does
not depend on what other rows there are, and over many draws each row's mixture is that of a draw per row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from ensemble_svc.nn.noise import ChannelDropout, Draw, Dropout


@contextmanager
def dropping(net: nn.Module, seed: int) -> Iterator[Callable[[], object]]:
    """Let the dropouts of a network in evaluation draw from ``seed``, which yields what begins the draw anew.

    It is called before each pass, so that all passes draw the same. Noise on activations is left out.
    """
    generator = torch.Generator()
    drops: list[Draw] = [m for m in net.modules() if isinstance(m, Dropout | ChannelDropout)]
    before = [(module.training, module.draws, module.generator) for module in drops]
    for module in drops:
        module.training = module.draws = module.shared = True
        module.generator = generator
    try:
        yield partial(generator.manual_seed, seed)
    finally:
        for module, (training, draws, own) in zip(drops, before, strict=True):
            module.training, module.draws, module.generator, module.shared = training, draws, own, False
