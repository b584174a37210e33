"""The bare packed torch loop that ``benchmarks.batch_eval`` races: ``python -m benchmarks.batch_loop RUN FILE``.

It reads the same rows from the same file, a batch at a time, standardises them, and runs all members at once with one
``baddbmm`` for each layer; then log softmax, the mean of the probabilities, and the accuracy and the NLL of the mixture
and of every member. It makes no intervals, no calibration error, no checks and no report.

Shapes: K members, B rows of a batch, C classes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from safetensors.torch import load_file
from torch import Tensor

ROWS = 8192


def main(run: Path, file: Path) -> None:
    """Print rows, accuracy and NLL of the mixture as JSON."""
    layers, mean_D, scale_D = read_weights(run)
    sums_M2, rows = torch.zeros(len(layers[0][0]) + 1, 2, dtype=torch.float64), 0
    with torch.no_grad():
        for x_BD, y_B in batches(file):
            log_probs_MBC = together(forward(layers, (x_BD - mean_D) * scale_D))
            right_M = (log_probs_MBC.argmax(-1) == y_B).sum(1)
            truth_MB = log_probs_MBC.gather(2, y_B.expand(len(sums_M2), -1)[..., None])[..., 0]
            sums_M2 += torch.stack([right_M.double(), -truth_MB.sum(1).double()], dim=1)
            rows += len(y_B)
    accuracy, nll = (sums_M2[-1] / rows).tolist()
    print(json.dumps({"rows": rows, "accuracy": accuracy, "nll": nll}))


def read_weights(run: Path) -> tuple[list[tuple[Tensor, Tensor]], Tensor, Tensor]:
    """Stacked weights [K, in, out] and biases [K, 1, out] of each layer, and the scaling of the inputs."""
    manifest = json.loads((run / "manifest.json").read_text())
    each = [
        load_file(run / "members" / own / "weights.safetensors") for own in manifest["ensemble"]["members"]
    ]
    names = ["body.hidden.0.linear", "body.hidden.1.linear", "body.output"]
    layers = [
        (
            torch.stack([one[f"{name}.weight"].T for one in each]).contiguous(),
            torch.stack([one[f"{name}.bias"][None] for one in each]),
        )
        for name in names
    ]
    return layers, each[0]["transform.steps.0.mean"], each[0]["transform.steps.0.scale"]


def batches(file: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows [B, D] and their classes [B]."""
    with pyarrow.parquet.ParquetFile(file) as source:
        for batch in source.iter_batches(batch_size=ROWS):
            columns = [batch.column(i).to_numpy() for i in range(batch.num_columns)]
            yield torch.from_numpy(np.column_stack(columns[:-1])), torch.from_numpy(columns[-1])


def forward(layers: list[tuple[Tensor, Tensor]], x_BD: Tensor) -> Tensor:
    """Log probabilities [K, B, C]."""
    x_KBD = x_BD.expand(len(layers[0][0]), *x_BD.shape)
    for number, (weight_K, bias_K) in enumerate(layers):
        x_KBD = torch.baddbmm(bias_K, x_KBD, weight_K)
        if number < len(layers) - 1:
            x_KBD.relu_()
    return x_KBD.log_softmax(-1)


def together(log_probs_KBC: Tensor) -> Tensor:
    """The members', and the mixture's last."""
    return torch.cat([log_probs_KBC, log_probs_KBC.exp().mean(0, keepdim=True).log()])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
