"""From raw rows to a network's input: fitted on one member's rows, kept with that member.

Shapes: B rows, D columns (the numeric ones first), J categorical columns, images [B, C, H, W].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from ensemble_svc.data.dataset import Array, InputSchema
from ensemble_svc.data.fitting import Rows64, Step
from ensemble_svc.data.steps import build_steps
from ensemble_svc.spec.preprocess import Impute, Preprocess

Steps: TypeAlias = Sequence[Preprocess]


class Transform(nn.Module):
    """Raw rows in, float32 out; all that was fitted lies in buffers.

    Tables: numbers go through the steps; then come 0/1 indicators of missing numbers and, for each
    categorical column, one input per known value. A last input per categorical column stands
    for values that no fitted row had. Images: uint8 pixels count from 0 to 1, then the steps.

    It does nothing that depends on values by control flow, so K members' buffers can be stacked
    and run under ``torch.func.vmap`` with the same bits as alone.
    """

    known: Tensor

    def __init__(self, schema: InputSchema, steps: Steps) -> None:
        """Buffers of the right shapes, all zero; ``fit`` or ``load_state_dict`` fills them."""
        super().__init__()
        self.is_table = schema.kind == "table"
        self.sizes = tuple(len(values) for _, values in schema.categories)
        self.num_numeric = schema.num_numeric if self.is_table else 0
        shape = (self.num_numeric,) if self.is_table else schema.shape
        built = build_steps(steps, shape)
        self.steps = nn.ModuleList(built)
        wanted = any(isinstance(step, Impute) and step.indicator for step in steps)
        self.indicators = list(schema.indicators) if wanted else []
        if self.sizes:
            self.register_buffer("known", torch.zeros(sum(self.sizes)))
        shape = built[-1].out_shape if built else shape
        more = len(self.indicators) + sum(self.sizes) + len(self.sizes)
        self.out_shape: tuple[int, ...] = (shape[0] + more,) if self.is_table else shape

    def fit(self, x_rows: Array) -> Self:
        """Fits every step on the rows as they are, repeats included, in float64.

        Args:
            x_rows: raw rows, [n, D] or [n, C, H, W], of one member's training set.
        """
        numeric = x_rows[:, : self.num_numeric] if self.is_table else x_rows
        for i, step in enumerate(self._steps()):
            step.fit(Rows64(numeric, self._steps()[:i]))
        if self.sizes:
            seen = [self._seen(x_rows[:, self.num_numeric + j], n) for j, n in enumerate(self.sizes)]
            self.known.copy_(torch.from_numpy(np.concatenate(seen)))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """[B, D] or [B, C, H, W] to [B, *out_shape], float32."""
        if not self.is_table:
            x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
            return self._through(x)
        numeric = x[:, : self.num_numeric].float()
        parts = [self._through(numeric)]
        if self.indicators:
            parts.append(torch.isnan(numeric[:, self.indicators]).float())
        if self.sizes:
            parts += self._one_hot(x[:, self.num_numeric :])
        return torch.cat(parts, dim=1)

    def _through(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x

    def _one_hot(self, codes_BJ: Tensor) -> list[Tensor]:
        """Known values of every column, then one column each for what is not known (NaN, -1, new)."""
        known = torch.split(self.known, list(self.sizes))
        seen = [
            (codes_BJ[:, j, None] == torch.arange(n, device=codes_BJ.device)) * known[j]
            for j, n in enumerate(self.sizes)
        ]
        return [*seen, *(1 - part.sum(dim=1, keepdim=True) for part in seen)]

    def _steps(self) -> list[Step]:
        return [step for step in self.steps if isinstance(step, Step)]

    @staticmethod
    def _seen(codes: Array, size: int) -> Array:
        return np.isin(np.arange(size), codes).astype(np.float32)
