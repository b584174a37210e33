"""The callback that closes each epoch: validate, keep the books, tell, commit.

Shapes: K members.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import lightning as L
import torch
from torch import Tensor

from ensemble_svc.nn.tasks import Answer, Heads
from ensemble_svc.plan.plan import MemberSpec, Pack
from ensemble_svc.plan.progress import MemberProgress, Progress
from ensemble_svc.store.commits import Commits
from ensemble_svc.store.tensors import prefixed, under
from ensemble_svc.train.events import EventFiles
from ensemble_svc.train.examine import Examiner
from ensemble_svc.train.feed import EpochFeed
from ensemble_svc.train.fresh import Judged
from ensemble_svc.train.halve import take_part
from ensemble_svc.train.ledger import Entry, Ledger
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.pack import PackModule
from ensemble_svc.train.population import Population
from ensemble_svc.train.racing import Entrant
from ensemble_svc.train.regather import gathered
from ensemble_svc.train.rungs import Rungs
from ensemble_svc.train.spending import stop_if_spent
from ensemble_svc.train.stream import StreamBatch, StreamFeed

Feed = EpochFeed | StreamFeed


class Watch(L.Callback):
    """Runs after every epoch of a slot.

    Args:
        validation_N: row numbers of the validation split; empty where there is none.
        commit_every_s: shortest time between two commits; the last epoch is not committed, since
            sealing follows it.
        examiner: looks at the members' layers; None where nobody asked.
        rungs: stop the worst of a search's trials; None where none are stopped.
        population: copies the best members over the worst; None where each remains itself.
        until: epoch at which the pack pauses, its state committed; None: it trains to its end.
        events: the members' event files, which grow with each commit; None where nobody asked.
        metric: what is told of the members, in place of what stops them early.
        entrant: the pack as a trial that is stopped from elsewhere; None where it is not.
    """

    def __init__(
        self,
        pack: Pack,
        ledger: Ledger,
        commits: Commits,
        report: Callable[[Progress], None],
        *,
        validation_N: Tensor,
        commit_every_s: float,
        feed: Feed,
        judged: Judged,
        examiner: Examiner | None = None,
        rungs: Rungs | None = None,
        until: int | None = None,
        population: Population | None = None,
        events: EventFiles | None = None,
        metric: str | None = None,
        entrant: Entrant | None = None,
    ) -> None:
        self.pack, self.ledger, self.commits, self.report = pack, ledger, commits, report
        self.validation_N, self.commit_every_s = validation_N, commit_every_s
        self.feed, self.epoch = feed, feed.first_epoch
        self.judged, self.examiner, self.rungs, self.entrant = judged, examiner, rungs, entrant
        self.events, self.metric, self.population = events, metric, population
        self.epochs = max(member.training.epochs for member in pack.members)
        self.until = self.epochs if until is None else min(until, self.epochs)
        self.began = self.epoch_began = self.committed = time.monotonic()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Tensor | StreamBatch, batch_idx: int
    ) -> None:
        if self.examiner is not None and batch_idx == trainer.num_training_batches - 1:
            self.examiner.before(self.epoch + 1, batch)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SlotModule)
        self.epoch += 1
        now = time.monotonic()
        self.ledger.end_epoch(self.epoch, pl_module.weights)
        self.ledger.close_epoch(
            self.epoch,
            pl_module.weights,
            losses_SA=pl_module.take_losses(),
            rates=pl_module.last_rates,
            seconds=now - self.epoch_began,
            validation=self._validate(pl_module),
        )
        stop_if_spent(self.commits.run, pl_module, self.ledger, self.epoch)
        self.epoch_began = now
        if self.population is not None:
            self.population.note(self.ledger, self.epoch)
        if self.rungs is not None:
            self.rungs.close(self.ledger, self.epoch)
        if self.examiner is not None:
            self.examiner.after(self.epoch)
        self._tell()
        trainer.should_stop = not self.ledger.any_active or self.is_over
        if not self.ledger.any_active:
            return
        drop_stopped(pl_module, self.ledger, self.feed)
        if self.population is not None and isinstance(pl_module, PackModule):
            self.population.turn(pl_module, self.ledger, self.epoch)
        if self.is_over or time.monotonic() - self.committed >= self.commit_every_s:
            self.commit(pl_module)

    @property
    def is_over(self) -> bool:
        """Whether the last epoch of this start has been trained."""
        return self.epoch >= self.until

    def _tell(self) -> None:
        """Report the epoch, and again where the verdict on it is that the trial stops."""
        now = self._progress()
        if self.entrant is None or self.epoch == self.epochs:
            self.report(now)
            return
        self.report(replace(now, objective=self.entrant.shows(self.ledger)))
        if self.entrant.hear(self.ledger, self.epoch):
            self.report(self._progress())

    def _validate(self, module: SlotModule) -> dict[str, Tensor]:
        """Validation metrics [A] of the members in the stack."""
        if not len(self.validation_N):
            return {}
        weights, scales = self.judged.weights(module, self.ledger), module.own_scale_K
        predict = partial(module.predict_rows, weights, scale_K=scales)
        prediction = module.share.predict(predict, self.validation_N)
        return scores(prediction, module.data.targets(self.validation_N), module.recipe.loss)

    def commit(self, module: SlotModule) -> None:
        """Commit the state as it stands at the end of an epoch."""
        tensors, facts = self.ledger.state()
        tensors |= prefixed("weights", module.weights) | prefixed("optimizer", module.optimizer_state())
        self.commits.write(self.epoch, tensors, facts)
        if self.events is not None:
            self.events.grow(self.ledger.entries)
        self.committed = time.monotonic()

    def _progress(self) -> Progress:
        members = zip(self.pack.members, self.ledger.entries, strict=True)
        return Progress(
            pack=self.pack.id,
            epoch=self.epoch,
            epochs=self.epochs,
            members=tuple(_member_progress(member, entry, self.metric) for member, entry in members),
            seconds=time.monotonic() - self.began,
        )


def drop_stopped(module: SlotModule, ledger: Ledger, feed: Feed) -> None:
    """Leave the members that no longer train out of every step to come.

    Gathering the others' slices costs about two steps, which one epoch repays.
    """
    keep = ledger.active
    if len(keep) < len(ledger.standing):
        module.drop(keep)
        ledger.drop(keep)
        feed.drop(keep)


def resume(
    commits: Commits,
    module: SlotModule,
    ledger: Ledger,
    parents: Sequence[Pack] = (),
    since: int = 0,
    *,
    population: Population | None = None,
) -> int:
    """Load the newest whole commit into module and ledger; returns the epochs it holds, or 0.

    Args:
        parents: larger packs of which this one was a part, the smallest first; where it has no commit
            of its own, it goes on from theirs.
        population: which may have changed the members' values.
        since: epoch whose slices of other packs it goes on from, where it has no commit at all.
    """
    found = commits.newest(since)
    for pack in parents:
        if found is None:
            digests = tuple(member.digest for member in pack.members)
            whole = Commits(commits.run, pack.id, digests, commits.attempt).newest(since)
            found = whole and take_part(*whole, digests, [member.digest for member in ledger.members])
    if found is None and since:
        found = (
            gathered(commits.run, ledger.members, since) if population is None else population.gathered(since)
        )
    if found is None:
        return 0
    tensors, facts = found
    standing = facts["standing"]
    if len(standing) < len(ledger.members):
        module.drop(standing)
    ledger.load(tensors, facts)
    if population is not None:
        population.restore(module, ledger)
    module.load(under("weights", tensors), under("optimizer", tensors), ledger.num_steps)
    if population is not None:
        population.restore(
            module, ledger
        )  # once more: what draws, and the targets' scales, lie in the weights
    return int(facts["epoch"])


def scores(
    prediction: Mapping[str, Tensor], target_N: Tensor, answer: Answer | None = None
) -> dict[str, Tensor]:
    """nll and accuracy, or nll and rmse, of each member [K].

    Of several tasks both are given for each, as ``<task>/nll``, and ``nll`` is the sum of theirs by the tasks'
    weights.
    """
    if isinstance(answer, Heads):
        each = {head: scores(head.of(prediction), head.target(target_N)) for head in answer.each}
        total = torch.stack([head.weight * found["nll"] for head, found in each.items() if head.weight]).sum(
            0
        )
        named = {f"{head.name}/{key}": value for head, found in each.items() for key, value in found.items()}
        return {"nll": total, **named}
    if "log_probs" in prediction:
        log_probs_KNC = prediction["log_probs"]
        true = target_N.view(1, -1, 1).expand(len(log_probs_KNC), -1, 1)
        nll_K = -log_probs_KNC.gather(2, true).double().mean((1, 2))
        return {"nll": nll_K, "accuracy": (log_probs_KNC.argmax(2) == target_N).double().mean(1)}
    error = (prediction["mean"] - target_N).double()
    log_variance = prediction["log_variance"].double()
    rows = 0.5 * (error.square() / log_variance.exp() + log_variance + torch.log(torch.tensor(2 * torch.pi)))
    return {"nll": rows.sum(2).mean(1), "rmse": error.square().mean((1, 2)).sqrt()}


def _member_progress(member: MemberSpec, entry: Entry, metric: str | None = None) -> MemberProgress:
    watched = member.training.early_stopping
    metric = metric or (watched.metric if watched else "nll")
    last = entry.history[-1] if entry.history else {}
    return MemberProgress(
        id=member.id,
        status=entry.status,
        epoch=entry.epochs,
        train_loss=last.get("train_loss"),
        metric_name=metric if f"val_{metric}" in last else "",
        metric=last.get(f"val_{metric}"),
    )
