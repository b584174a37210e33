"""Train one slot from wherever it was left, and seal its members."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
import uuid
import warnings
from pathlib import Path

import lightning as L
import torch

from ensemble_svc.errors import TrainError
from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.plan import Slot
from ensemble_svc.store.commits import Commits
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed
from ensemble_svc.train.build import build_module, training_rows
from ensemble_svc.train.feed import EpochFeed
from ensemble_svc.train.finish import seal_slot
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.member import MemberModule
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.share import ALONE, Share
from ensemble_svc.train.sharednorm import synchronised
from ensemble_svc.train.strategy import strategy_of
from ensemble_svc.train.watch import Watch, resume


def fit(payload: Payload, slot: Slot, report: Report, share: Share = ALONE) -> None:
    """Train the slot's members and seal them; does nothing for a slot that is sealed already.

    Started again after a death at any moment, it goes on from the last commit and ends with the
    same bits (on one kind of CPU, with the slot's number of threads).

    Args:
        share: this process's, where several train the slot's one member; only the first of them writes.

    Raises:
        TrainError: training that another attempt may save.
        EnsembleSvcError: a model or data that no attempt will save.
    """
    run, members = Path(payload.run), slot.pack.members
    attempt = uuid.uuid4().hex[:8]
    commits = Commits(run, slot.pack.id, tuple(m.digest for m in members), attempt)
    if all(member.digest in sealed(run) for member in members):
        commits.clear()
        return
    began = time.monotonic()
    place = {"node": socket.gethostname(), "pid": os.getpid()}
    ids = [m.id for m in members]
    if share.leads:
        Journal(run / "journal.jsonl").append(
            "start", pack=slot.pack.id, attempt=attempt, members=ids, **place
        )
    _prepare_process(slot)
    rows = training_rows(payload, members)
    device = torch.device("cuda" if slot.gpus else "cpu")
    module = build_module(payload, members, rows, device)
    module.share = share
    training = members[0].training
    ledger = Ledger(module.recipe, module.weights)
    module.keep_books(ledger)
    module.first_epoch = resume(commits, module, ledger)
    watch = Watch(
        slot.pack,
        ledger,
        commits,
        report,
        validation_N=torch.from_numpy(payload.split.validation).to(device),
        commit_every_s=payload.commit_every_s if share.leads else math.inf,
        first_epoch=module.first_epoch,
    )
    if ledger.any_active and module.first_epoch < training.epochs:
        alone = isinstance(module, MemberModule)
        feed = EpochFeed(members, rows, device, first_epoch=module.first_epoch, single_steps=alone)
        epochs = training.epochs - module.first_epoch
        with synchronised(module.net, share):
            _run(_trainer(slot, epochs, training.clip_norm if alone else None, watch, module), module, feed)
    if share.leads:
        seal_slot(slot, module, ledger, payload, rows, seconds=time.monotonic() - began)
        commits.clear()


def _trainer(slot: Slot, epochs: int, clip_norm: float | None, watch: Watch, module: SlotModule) -> L.Trainer:
    """Lightning with everything off that this project does itself (checkpoints, logs, bars)."""
    return L.Trainer(
        accelerator="gpu" if slot.gpus else "cpu",
        devices=module.share.processes,
        strategy=strategy_of(module),
        max_epochs=epochs,
        callbacks=[watch],
        gradient_clip_val=clip_norm,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _run(trainer: L.Trainer, module: SlotModule, feed: EpochFeed) -> None:
    """Fit; Lightning leaves the process on Ctrl-C, which is its caller's to decide.

    Raises:
        TrainError: what torch raised in a step, out of memory included.
    """
    try:
        trainer.fit(module, train_dataloaders=feed)
    except SystemExit as left:
        raise KeyboardInterrupt from left
    except RuntimeError as fault:
        first = next(iter(str(fault).splitlines()), "")
        raise TrainError(f"{type(fault).__name__} in a training step: {first}") from fault


def _prepare_process(slot: Slot) -> None:
    torch.set_num_threads(max(1, slot.cpus // slot.processes))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
