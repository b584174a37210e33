"""Train one slot from wherever it was left, and seal its members."""

from __future__ import annotations

import gc
import logging
import math
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from ensemble_svc.data.dataset import Array
from ensemble_svc.errors import OutOfMemory, TrainError
from ensemble_svc.plan.executor import Report
from ensemble_svc.plan.plan import Pack, Slot
from ensemble_svc.plan.progress import Progress
from ensemble_svc.spec.schedulers import Pbt
from ensemble_svc.store.commits import Commits
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed
from ensemble_svc.train.attempt import MOST_RESTARTS, Attempt, attempts_of
from ensemble_svc.train.build import build_feed, build_module, training_rows
from ensemble_svc.train.events import EventFiles
from ensemble_svc.train.examine import Examiner
from ensemble_svc.train.finish import seal_members
from ensemble_svc.train.fresh import Judged
from ensemble_svc.train.halve import is_out_of_memory, num_deaths, was_halved
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.memory import reset_peak
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.plugins import bare_trainer
from ensemble_svc.train.population import Population
from ensemble_svc.train.racing import Entrant
from ensemble_svc.train.record import verdicts
from ensemble_svc.train.rungs import Rungs, pause, recall
from ensemble_svc.train.share import ALONE, Share
from ensemble_svc.train.sharednorm import synchronised
from ensemble_svc.train.strategy import strategy_of
from ensemble_svc.train.watch import Watch, resume
from ensemble_svc.vitals.sick import Verdict


def fit(payload: Payload, slot: Slot, report: Report, share: Share = ALONE) -> None:
    """Train the slot's members and seal them; does nothing for a slot that is sealed already.

    Started again after a death at any moment, it goes on from the last commit and ends with the
    same bits (on one kind of CPU, with the slot's number of threads). A pack that memory does not
    hold is halved and goes on from its last commit.

    Args:
        share: this process's, where several train the slot's one member; only the first of them writes.

    Raises:
        TrainError: training that another attempt may save.
        EnsembleSvcError: a model or data that no attempt will save.
    """
    if share.processes > 1:
        _train(payload, slot, report, (), share)
    else:
        _fit(payload, slot, report, (), num_deaths(Path(payload.run), slot))


def _fit(payload: Payload, slot: Slot, report: Report, parents: tuple[Pack, ...], halvings: int) -> None:
    """Train a slot, or a half of one whose larger packs, the smallest first, were ``parents``.

    Args:
        halvings: how often the pack is halved before anything is tried.
    """
    run = Path(payload.run)
    if len(slot.pack) > 1 and (halvings > 0 or was_halved(run, slot)):
        for half in slot.halves():
            _fit(payload, half, report, (slot.pack, *parents), halvings - 1)
        if not _is_spread(payload, slot):
            commits_of(run, slot.pack).clear()
        return
    try:
        _train(payload, slot, report, parents, ALONE)
        return
    except OutOfMemory as fault:
        if len(slot.pack) == 1:
            raise
        reason = str(fault)
    _free_memory()
    Journal(run / "journal.jsonl").append("halved", pack=slot.pack.id, reason=reason)
    sizes = " and ".join(str(len(half.pack)) for half in slot.halves())
    note = f"{slot.pack.id}: {reason}; going on with packs of {sizes}"
    report(Progress(pack=slot.pack.id, epoch=0, epochs=0, members=(), seconds=0.0, note=note))
    _fit(payload, slot, report, parents, 0)


def _train(payload: Payload, slot: Slot, report: Report, parents: tuple[Pack, ...], share: Share) -> None:
    """Train the slot's members, those that turn out sick again where they should, and seal them all."""
    run = Path(payload.run)
    if not _is_sealed(run, slot):
        began = time.monotonic()
        with _process_of(slot), _memory_bound(slot):
            attempt: Attempt | None = Attempt(slot, slot.pack.members)
            while attempt is not None:
                attempt = _attempt(payload, attempt, report, parents, share, began=began)
                if attempt is not None:
                    _free_memory()
    if share.leads and _is_sealed(run, slot) and not _is_spread(payload, slot):
        for ended in attempts_of(run, slot):
            commits_of(run, ended.pack).clear()


def _is_spread(payload: Payload, slot: Slot) -> bool:
    """Whether it holds members of a population whose other packs may go on from what it commits."""
    search = payload.search
    return search is not None and isinstance(search.scheduler, Pbt) and bool(slot.since or slot.until)


def _is_sealed(run: Path, slot: Slot) -> bool:
    done = sealed(run, [member.digest for member in slot.pack.members])
    return all(member.digest in done for member in slot.pack.members)


def _attempt(
    payload: Payload,
    attempt: Attempt,
    report: Report,
    parents: tuple[Pack, ...],
    share: Share,
    *,
    began: float,
) -> Attempt | None:
    """Train a start's members and seal those that are done with; returns the start of the others.

    Where several processes train a member, each start has processes of its own, and None is returned.
    """
    run = Path(payload.run)
    commits = commits_of(
        run, attempt.pack, held=attempt.slot.since if _is_spread(payload, attempt.slot) else 0
    )
    if share.leads:
        _note_start(run, attempt, commits.attempt)
    rows = training_rows(payload, attempt.pack.members)
    population = None if attempt.number else Population.of(payload, attempt.slot)
    module = _begin(payload, attempt, rows, share, population)
    ledger, search = module.ledger, payload.search
    events = _events(payload, attempt) if share.leads else None
    before = ((), 0) if attempt.number else (parents, attempt.slot.since)
    module.first_epoch = resume(commits, module, ledger, *before, population=population)
    watch = Watch(
        attempt.pack,
        ledger,
        commits,
        attempt.told(report),
        validation_N=torch.from_numpy(payload.split.validation).to(module.recipe.device),
        commit_every_s=payload.commit_every_s if share.leads else math.inf,
        feed=build_feed(payload, module, [rows[k] for k in ledger.standing], first_epoch=module.first_epoch),
        judged=Judged.of(module, rows),
        examiner=Examiner(module, ledger, rows) if payload.health else None,
        rungs=None if attempt.number else Rungs.of(search, attempt.slot, run),
        until=None if attempt.number else attempt.slot.until,
        population=population,
        entrant=None if attempt.number or parents else Entrant.of(search, attempt.pack.id, run),
        events=events,
        metric=search.metric if search else None,
    )
    trains = ledger.any_active and not watch.is_over
    if trains:
        _run(module, watch, share)
    open_ = _paused(payload, attempt, ledger, watch.epoch)
    sick = verdicts(attempt, module, ledger, rows)
    again = [k for k, found in enumerate(sick) if found and k not in open_ and _starts_anew(attempt, k)]
    if share.leads:
        if again and trains and not open_:
            watch.commit(module)
        spent = time.monotonic() - began
        later = {*again, *open_}
        seal_members(
            attempt, module, ledger, payload, rows, sick=sick, later=later, events=events, seconds=spent
        )
    if not again or (trains and share.processes > 1):
        return None
    following = attempt.again(again)
    report(_told_anew(following, [found for k in again if (found := sick[k])]))
    return following


def _paused(payload: Payload, attempt: Attempt, ledger: Ledger, epoch: int) -> list[int]:
    """Positions of the members that wait at a rung until they are ranked; those that were stop, or go on elsewhere."""
    if attempt.number or epoch != attempt.slot.until or payload.search is None:
        return []
    recall(Path(payload.run), ledger, epoch)
    pause(Path(payload.run), attempt.pack, ledger, epoch, payload.search.metric)
    return [k for k, entry in enumerate(ledger.entries) if entry.active]


def _events(payload: Payload, attempt: Attempt) -> EventFiles | None:
    if not payload.tensorboard:
        return None
    seeds = payload.search.seeds_per_trial if payload.search else None
    return EventFiles(Path(payload.run) / "tensorboard", attempt.members, seeds=seeds)


def _begin(
    payload: Payload, attempt: Attempt, rows: Sequence[Array], share: Share, population: Population | None
) -> SlotModule:
    """The members with their initial weights and new books; those of a population by their values of now."""
    slot, members = attempt.slot, attempt.pack.members
    now, apart = (members, False) if population is None else (population.now, population.apart)
    device = torch.device("cuda" if slot.gpus else "cpu")
    reset_peak(device)
    module = build_module(payload, now, rows, device, compiled=slot.compile, apart=apart)
    module.share = share
    module.keep_books(Ledger(module.recipe, module.weights))
    module.ledger.members = members
    return module


def _starts_anew(attempt: Attempt, position: int) -> bool:
    asked = attempt.members[position].training.on_sick == "restart"
    return asked and attempt.number < MOST_RESTARTS


def _note_start(run: Path, attempt: Attempt, number: str) -> None:
    devices = attempt.slot.gpus or attempt.slot.cpus
    place = {"node": socket.gethostname(), "pid": os.getpid(), "devices": devices}
    if attempt.number:
        place |= {"restarts": attempt.number, "rate_factor": attempt.rate_factor}
    ids = [member.id for member in attempt.members]
    Journal(run / "journal.jsonl").append(
        "start", pack=attempt.slot.pack.id, attempt=number, members=ids, **place
    )


def _told_anew(attempt: Attempt, sick: Sequence[Verdict]) -> Progress:
    shown = ", ".join(member.id for member in attempt.members[:3])
    more = f" and {len(attempt.members) - 3} more" if len(attempt.members) > 3 else ""
    note = f"{shown}{more}: {sick[0].reason}; starting again at {attempt.rate_factor:g} of the learning rate"
    return Progress(pack=attempt.slot.pack.id, epoch=0, epochs=0, members=(), seconds=0.0, note=note)


def commits_of(run: Path, pack: Pack, *, held: int = 0) -> Commits:
    """The pack's commits, for an attempt that begins now."""
    return Commits(run, pack.id, tuple(m.digest for m in pack.members), uuid.uuid4().hex[:8], held=held)


def _run(module: SlotModule, watch: Watch, share: Share) -> None:
    """Fit; Lightning leaves the process on Ctrl-C, which is its caller's to decide."""
    with synchronised(module.net, share):
        trainer = bare_trainer(
            module.recipe.device,
            watch.until - watch.epoch,
            watch,
            devices=share.processes,
            strategy=strategy_of(module),
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(module, train_dataloaders=watch.feed)
        except SystemExit as left:
            raise KeyboardInterrupt from left


@contextmanager
def _memory_bound(slot: Slot) -> Iterator[None]:
    """What torch raises inside, as ours.

    Raises:
        OutOfMemory: the device's memory does not hold the pack.
        TrainError: anything else that torch raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as fault:
        first = next(iter(str(fault).splitlines()), "") or "no memory"
        if is_out_of_memory(fault):
            count = "one member" if len(slot.pack) == 1 else f"{len(slot.pack)} members at once"
            remedy = "; lower training.batch_size" if len(slot.pack) == 1 else ""
            raise OutOfMemory(f"memory does not hold {count} ({first[:200]}){remedy}") from None
        raise TrainError(f"{type(fault).__name__} in training: {first}") from fault


def _free_memory() -> None:
    """Let go of what the failed attempt held; Lightning's objects refer to one another."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def _process_of(slot: Slot) -> Iterator[None]:
    """The process's settings for this slot: threads, silence, and how exact products are."""
    torch.set_num_threads(max(1, slot.cpus // slot.processes))
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    before = torch.get_float32_matmul_precision()
    if slot.pack.members[0].training.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
