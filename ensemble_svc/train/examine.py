"""Looks at the members' layers at some ends of epochs, and changes no bit of their training.

Looked at are epochs 1, 2, 4, 8, … and each member's last: a number that grows with the logarithm of the epochs.
The rows are always the same few of each member's own; nothing is drawn, batch norms use their running
statistics and keep them, and gradients go into tensors of their own. The rows of all members together take no
more memory than a training step, unless they are small.

A step's size is that of the epoch's last one, seen on at most ``SEEN_WEIGHTS`` weights of each layer; where a
block of steps ends the epoch, it is the way from the block's beginning to its end over the number of steps.
Shapes: K members in the stack, B rows, L layers, Q quantities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ensemble_svc.data.dataset import Array
from ensemble_svc.nn import packed
from ensemble_svc.nn.tasks import answer_rows
from ensemble_svc.train.assemble import Stack, part
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.step import arithmetic
from ensemble_svc.train.stream import StreamBatch
from ensemble_svc.vitals.sample import Sample, alike, listening, spots_of

ROWS = 64
SMALL_BYTES = 2**22
"""Inputs of a member's rows up to this size are always looked at, however small its batches are."""
SEEN_WEIGHTS = 4096


class Examiner:
    """Examines the members of a slot.

    Args:
        rows: the training rows of each member of the pack, also of those that no longer train.
    """

    def __init__(self, module: SlotModule, ledger: Ledger, rows: Sequence[Array]) -> None:
        self.module, self.ledger = module, ledger
        self.spots = spots_of(module.net.body)
        number = min(ROWS, *map(len, rows), max(self._step_rows(rows), self._cheap_rows()))
        chosen = [own[:: max(1, len(own) // number)][:number] for own in rows]
        self.rows_KB = torch.from_numpy(np.stack(chosen))
        self._before: tuple[Stack, int] | None = None

    def before(self, epoch: int, block: Tensor | StreamBatch) -> None:
        """Note the weights as they are before the last block of an epoch (from 1)."""
        if not self.is_due(epoch):
            return
        steps = len(block) if isinstance(block, Tensor) and block.dim() == 3 else 1
        weights = self.module.weights
        seen = {spot.weight: _some(weights[f"body.{spot.weight}"]).clone() for spot in self.spots}
        self._before = seen, steps

    def after(self, epoch: int) -> None:
        """Examine the members that trained in the epoch that has just been closed, where it is due."""
        before, self._before = self._before, None
        if self.spots and (self.is_due(epoch) or not self.ledger.any_active):
            values_QLK = self._values(before)
            for a, k in enumerate(self.ledger.standing):
                entry = self.ledger.entries[k]
                if entry.epochs == epoch and entry.status != "diverged":
                    entry.vitals.append(Sample.of(epoch, values_QLK[:, :, a].tolist()).to_json())

    def is_due(self, epoch: int) -> bool:
        """Whether members are looked at when the epoch ends."""
        return epoch & (epoch - 1) == 0 or any(m.training.epochs == epoch for m in self.ledger.members)

    def _values(self, before: tuple[Stack, int] | None) -> Tensor:
        """Every quantity of ``Sample`` after the epoch, [Q, L, K]."""
        weights = part("body", self.module.weights)
        heard_LK4, gradients = self._passed(weights)
        own = [weights[spot.weight].detach() for spot in self.spots]
        norm_LK = torch.stack([w.flatten(1).norm(dim=1) for w in own])
        moved_LK = torch.full_like(norm_LK, torch.nan)
        if before is not None:
            moved_LK = torch.stack(
                [_moved(before[0][s.weight], _some(weights[s.weight])) for s in self.spots]
            )
            moved_LK /= before[1]
        alike_LK = torch.stack([alike(w) for w in own])
        return torch.stack([*heard_LK4.unbind(2), gradients, norm_LK, moved_LK, alike_LK]).cpu()

    def _passed(self, weights: Stack) -> tuple[Tensor, Tensor]:
        """What the activations put out [L, K, 4], and the norms of the gradients [L, K]."""
        module, body = self.module, self.module.net.body
        rows_KB = self.rows_KB[self.ledger.standing].to(module.recipe.device)
        x_KB, y_KB = self._inputs(rows_KB), self._targets(rows_KB)
        was_training = body.training
        body.eval()
        try:
            if self._at_once(body):
                return self._pass(body, weights, x_KB, y_KB, stacked=len(rows_KB))
            each = [
                self._pass(body, _own(weights, k), x_KB[k : k + 1], y_KB[k : k + 1], stacked=None)
                for k in range(len(rows_KB))
            ]
            return torch.cat([one[0] for one in each], 1), torch.cat([one[1] for one in each], 1)
        finally:
            body.train(was_training)

    def _pass(
        self, body: nn.Module, weights: Stack, x_KB: Tensor, y_KB: Tensor, *, stacked: int | None
    ) -> tuple[Tensor, Tensor]:
        state = {name: value.detach() for name, value in weights.items()}
        leaves = [state[spot.weight].requires_grad_() for spot in self.spots]
        with torch.enable_grad(), listening(self.spots, stacked) as heard, arithmetic(self.module.recipe):
            if stacked is None:
                outputs = functional_call(body, {n: w[0] for n, w in state.items()}, (x_KB[0],)).unsqueeze(0)
            else:
                outputs = packed.forward(body, state, x_KB)
            answer = self.module.recipe.loss
            rows = answer_rows(answer, outputs.float().flatten(0, 1), y_KB.flatten(0, 1))
            total = rows.unflatten(0, y_KB.shape[:2]).mean(1).sum()
            found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
        norms = [gradient.flatten(1).norm(dim=1) for gradient in found]
        nothing = norms[0].new_full((len(x_KB), 4), torch.nan).float()
        return torch.stack([heard.get(n, nothing) for n in range(len(leaves))]), torch.stack(norms).detach()

    def _at_once(self, body: nn.Module) -> bool:
        """Whether the pack is written out in a way that calls its activations."""
        if len(self.ledger.standing) < 2 or not packed.is_known(body):
            return False
        slopes = any(isinstance(m, nn.PReLU) for m in body.modules())
        return not slopes and not packed.goes_in_turn(body, self.module.recipe.device)

    @torch.no_grad()
    def _inputs(self, rows_KB: Tensor) -> Tensor:
        x_KB = self.module.data.take(rows_KB)
        if self.module.data.transformed:
            return x_KB
        weights, net = part("transform", self.module.weights), self.module.net.transform
        each = [functional_call(net, {n: w[k] for n, w in weights.items()}, (x,)) for k, x in enumerate(x_KB)]
        return torch.stack(each)

    def _targets(self, rows_KB: Tensor) -> Tensor:
        y_KB = self.module.data.targets(rows_KB)
        scale = self.module.own_scale_K
        if scale:
            y_KB = (y_KB - scale["target_mean"].unsqueeze(1)) / scale["target_scale"].unsqueeze(1)
        return y_KB

    def _step_rows(self, rows: Sequence[Array]) -> int:
        return self.module.recipe.shared.rows_per_step(len(rows[0]))

    def _cheap_rows(self) -> int:
        row = self.module.data.take(torch.zeros(1, dtype=torch.long, device=self.module.recipe.device))
        return max(1, SMALL_BYTES // max(1, 4 * row.numel()))


def _own(weights: Mapping[str, Tensor], k: int) -> Stack:
    """One member's weights, still stacked."""
    return {name: weight[k : k + 1] for name, weight in weights.items()}


def _some(weight_K: Tensor) -> Tensor:
    """Some units' weights of each member, evenly apart."""
    units = max(1, SEEN_WEIGHTS // max(1, weight_K[0, 0].numel()))
    return weight_K.detach()[:, :: -(-weight_K.shape[1] // units)]


def _moved(before_K: Tensor, after_K: Tensor) -> Tensor:
    """How far each member's weights went over their size, [K]; not finite where they were 0."""
    return (after_K - before_K).flatten(1).norm(dim=1) / before_K.flatten(1).norm(dim=1)
