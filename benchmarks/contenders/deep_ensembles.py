"""torch-uncertainty's deep_ensembles: all members in one module, on the same batches, by its own routine."""

from __future__ import annotations

import time

import torch
from torch import nn

from benchmarks.operators import declare_missing_operators

declare_missing_operators()

from torch_uncertainty import TUTrainer  # noqa: E402
from torch_uncertainty.methods import deep_ensembles  # noqa: E402
from torch_uncertainty.routines import ClassificationRoutine  # noqa: E402
from torch_uncertainty.transforms import RepeatTarget  # noqa: E402

from benchmarks.contenders.module import quiet  # noqa: E402
from benchmarks.data import Rows  # noqa: E402
from benchmarks.members import (  # noqa: E402
    Trained,
    adamw,
    loader,
    new_member,
    predict,
    take_faster_threads,
)
from benchmarks.work import Work  # noqa: E402


def train(work: Work, data: Rows) -> Trained:
    """Train the members by the library's routine; AdamW makes up for its loss being a mean over members."""
    quiet()
    threads = take_faster_threads(work, data)
    began = time.perf_counter()
    members = [new_member(work, data, k) for k in range(work.members)]
    routine = ClassificationRoutine(
        model=deep_ensembles(members),
        num_classes=data.num_classes,
        loss=nn.CrossEntropyLoss(),
        is_ensemble=True,
        format_batch_fn=RepeatTarget(work.members),
        optim_recipe=lambda model: adamw(model.parameters(), work),
    )
    trainer = TUTrainer(accelerator="cpu", devices=1, max_epochs=work.epochs, barebones=True)
    trainer.fit(routine, loader(work, data, None))
    seconds = time.perf_counter() - began
    return Trained(torch.stack([predict(net, data.x_test) for net in members]), seconds, threads)
