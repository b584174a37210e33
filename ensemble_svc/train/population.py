"""Population based training: the worst members go on from the state of the best ones.

A member that gives up takes over the other's slices of all that is committed, and trains on by values of its own near
the other's. Its name and its rows remain, and its page of the ledger says where it came from. A pack that holds its
population sees to it between two epochs; of several packs each ends there, the driver decides (``search.populations``),
and each goes on from the slices that the journal gives its members.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ensemble_svc.data.dataset import InputSchema
from ensemble_svc.errors import TrainError
from ensemble_svc.nn.noise import Draw
from ensemble_svc.plan.plan import MemberSpec, Pack, Slot
from ensemble_svc.plan.turning import Turn, turned
from ensemble_svc.plan.varying import with_values
from ensemble_svc.registry import frozen
from ensemble_svc.spec.job import NoResample
from ensemble_svc.spec.population import Generations
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.turns import Taken, last_values, turns_in
from ensemble_svc.train.assemble import assemble
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.pack import PackModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.recipe import Recipe
from ensemble_svc.train.regather import State, gathered


@dataclass(frozen=True)
class Population:
    """The members of a pack as a population, or as some of one."""

    search: SearchSpec
    generations: Generations
    pack: Pack
    run: Path
    schema: InputSchema
    since: int = 0
    """Epoch at which its members were paused in other packs."""
    is_whole: bool = True
    """Whether the pack holds its population, which then never leaves it."""

    @classmethod
    def of(cls, payload: Payload, slot: Slot) -> Population | None:
        """What the search asks for; None where members do not change."""
        epochs = max(member.training.epochs for member in slot.pack.members)
        generations = Generations.of(payload.search, epochs)
        if payload.search is None or generations is None:
            return None
        run, whole = Path(payload.run), slot.until is None
        return cls(payload.search, generations, slot.pack, run, payload.schema, slot.since, whole)

    @cached_property
    def _before(self) -> dict[str, dict[int, Taken]]:
        """What became of its members at rungs of several packs, as the journal has it when the pack begins."""
        return turns_in(Journal(self.run / "journal.jsonl"), [m.digest for m in self.pack.members])

    @property
    def now(self) -> tuple[MemberSpec, ...]:
        """The members by the values with which they go on in this pack."""
        values = (last_values(self._before[member.digest], self.since) for member in self.pack.members)
        pairs = zip(self.pack.members, values, strict=True)
        return tuple(with_values(member, own) if own else member for member, own in pairs)

    @property
    def apart(self) -> bool:
        """Whether a member may bring a fitted transform of its own from another pack."""
        return self.since > 0 and not isinstance(self.pack.members[0].resample, NoResample)

    def gathered(self, epoch: int) -> State:
        """What its members go on from, as they paused in other packs.

        Raises:
            TrainError: it is gone; no member could go on alone, since its state is another's.
        """
        taken = {d: turns[epoch] for d, turns in self._before.items() if epoch in turns}
        found = gathered(self.run, self.pack.members, epoch, taken)
        if found is None:
            raise TrainError(
                f"the states that the population had after epoch {epoch} are gone or damaged; "
                "the same command again trains it from its start"
            )
        tensors = dict(found[0])
        for row, member in enumerate(self.now):
            if self.pack.members[row].digest in taken:
                for name, strength in _draws(member, self.schema).items():
                    tensors[f"weights/{name}"] = _with_row(tensors[f"weights/{name}"], row, strength)
        return tensors, found[1]

    def note(self, ledger: Ledger, epoch: int) -> None:
        """Write the values by which each member has trained into its row of an epoch, numbers alone."""
        for k in ledger.standing:
            values = {key: value for key, value in self._values(ledger, k).items() if _is_number(value)}
            if ledger.entries[k].epochs == epoch:
                ledger.entries[k].history[-1] |= values

    def turn(self, module: PackModule, ledger: Ledger, epoch: int) -> None:
        """Let the worst members that still train go on from the best, where it is time and they are all here.

        Args:
            epoch: that has been closed, before the last.
        """
        if not self.is_whole or epoch not in self.generations.rungs:
            return
        place = {self.pack.members[k].index: k for k in ledger.standing if not self.pack.members[k].is_single}
        found = self._turned(ledger, place, epoch)
        turns = {place[lost]: place[turn.source] for lost, turn in found.items()}
        fresh = {place[lost]: turn.values for lost, turn in found.items()}
        self._tell(epoch, turns, fresh)
        sources = [ledger.standing.index(turns.get(k, k)) for k in ledger.standing]
        for lost, best in turns.items():
            ledger.take_over(lost, best)
            facts = {"epoch": epoch, "from": self.pack.members[best].id, "values": fresh[lost]}
            ledger.entries[lost].turns.append(facts)
        recipe = self._recipe(ledger)
        module.take_over(sources, recipe, self._strengths(ledger, recipe, turns))
        _follow(module, ledger, sources)

    def _turned(self, ledger: Ledger, place: Mapping[int, int], epoch: int) -> dict[int, Turn]:
        """What the epoch comes to, by index."""
        key = f"val_{self.search.metric}"
        losses = {i: self.generations.loss([ledger.entries[k].history[-1][key]]) for i, k in place.items()}
        members = {index: self.pack.members[k] for index, k in place.items()}
        values = {index: self._values(ledger, k) for index, k in place.items()}
        return turned(self.search, self.generations.pbt, members, values, losses, epoch=epoch)

    def restore(self, module: SlotModule, ledger: Ledger) -> None:
        """Let a module and a ledger that has just been loaded go on by the values of now."""
        if not isinstance(module, PackModule):
            for name, scale_K in module.scale_K.items():
                scale_K.copy_(module.weights[name])
            return
        recipe = self._recipe(ledger)
        sources = list(range(len(ledger.standing)))
        module.take_over(sources, recipe, {})
        _follow(module, ledger, sources)

    def _recipe(self, ledger: Ledger) -> Recipe:
        members = (
            with_values(self.pack.members[k], turns[-1]["values"])
            if (turns := _frozen(ledger.entries[k].turns))
            else self.pack.members[k]
            for k in ledger.standing
        )
        return replace(ledger.recipe, members=tuple(members))

    def _values(self, ledger: Ledger, k: int) -> Mapping[str, Any]:
        """By which a member trains now."""
        turns = _frozen(ledger.entries[k].turns)
        return turns[-1]["values"] if turns else self.pack.members[k].varied

    def _strengths(
        self, ledger: Ledger, recipe: Recipe, turns: Mapping[int, int]
    ) -> dict[int, dict[str, Tensor]]:
        """What of the new values lies in the stack: strengths of dropout and noise, by position there."""
        places = {k: place for place, k in enumerate(ledger.standing)}
        return {places[k]: _draws(recipe.members[places[k]], self.schema) for k in turns}

    def _tell(self, epoch: int, turns: Mapping[int, int], fresh: Mapping[int, Any]) -> None:
        """Write the decision down, once."""
        journal, ids = Journal(self.run / "journal.jsonl"), [member.id for member in self.pack.members]
        known = [e for e in journal.of_kind("turn") if (e["pack"], e["epoch"]) == (self.pack.id, epoch)]
        if not known:
            taken = {ids[k]: {"from": ids[best], "values": fresh[k]} for k, best in turns.items()}
            journal.append("turn", pack=self.pack.id, epoch=epoch, taken=taken)


def _follow(module: PackModule, ledger: Ledger, sources: list[int]) -> None:
    """Bring the ledger, and the targets' scales of the whole pack, up to date with the stack."""
    ledger.follow(sources, module.recipe)
    for name, scale_K in module.scale_K.items():
        scale_K[ledger.standing] = module.own_scale_K[name]


def _with_row(value: Tensor, row: int, own: Tensor) -> Tensor:
    changed = value.clone()
    changed[row].copy_(own)
    return changed


def _draws(member: MemberSpec, schema: InputSchema) -> dict[str, Tensor]:
    """The strengths in the member's network, by name."""
    modules = assemble(member, schema).named_modules()
    found = ((name, module) for name, module in modules if isinstance(module, Draw))
    return {f"{name}.{m.strength_name}": m.get_buffer(m.strength_name) for name, m in found}


def _frozen(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As they were before a commit made lists of tuples."""
    return [frozen(turn) for turn in turns[-1:]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
