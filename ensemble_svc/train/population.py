"""Population based training inside a pack: the worst members go on from the state of the best ones.

A member that gives up takes over the other's slices of all that is committed, and trains on by values of its own near
the other's. Its name and its rows remain, and its page of the ledger says where it came from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ensemble_svc.data.dataset import InputSchema
from ensemble_svc.nn.noise import Draw
from ensemble_svc.plan.plan import MemberSpec, Pack
from ensemble_svc.plan.varying import with_values
from ensemble_svc.registry import frozen
from ensemble_svc.spec.direction import toward_less
from ensemble_svc.spec.population import exploited, explored
from ensemble_svc.spec.schedulers import Pbt
from ensemble_svc.spec.search import SearchSpec
from ensemble_svc.store.journal import Journal
from ensemble_svc.train.assemble import assemble
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.pack import PackModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.recipe import Recipe


@dataclass(frozen=True)
class Population:
    """The members of a pack as a population."""

    search: SearchSpec
    pbt: Pbt
    pack: Pack
    run: Path
    schema: InputSchema

    @classmethod
    def of(cls, payload: Payload, pack: Pack) -> Population | None:
        """What the search asks for; None where members do not change."""
        search = payload.search
        if search is None or not isinstance(search.scheduler, Pbt):
            return None
        return cls(search, search.scheduler, pack, Path(payload.run), payload.schema)

    def note(self, ledger: Ledger, epoch: int) -> None:
        """Write the values by which each member has trained into its row of an epoch, numbers alone."""
        for k in ledger.standing:
            values = {key: value for key, value in self._values(ledger, k).items() if _is_number(value)}
            if ledger.entries[k].epochs == epoch:
                ledger.entries[k].history[-1] |= values

    def turn(self, module: PackModule, ledger: Ledger, epoch: int) -> None:
        """Let the worst members that still train go on from the best, where it is time.

        Args:
            epoch: that has been closed, before the last.
        """
        if epoch % self.pbt.interval:
            return
        sign = toward_less(self.search.metric)
        trials = [k for k in ledger.standing if not self.pack.members[k].is_single]
        rows = {k: ledger.entries[k].history[-1] for k in trials}
        losses = {k: sign * row[f"val_{self.search.metric}"] for k, row in rows.items()}
        seed = self.pack.members[0].job_seed
        by_index = {self.pack.members[k].index: k for k in losses}
        found = exploited(
            {index: losses[k] for index, k in by_index.items()}, self.pbt.quantile, seed=seed, epoch=epoch
        )
        turns = {by_index[lost]: by_index[best] for lost, best in found.items()}
        fresh = {lost: self._fresh(ledger, lost, best, epoch) for lost, best in turns.items()}
        self._tell(epoch, turns, fresh)
        sources = [ledger.standing.index(turns.get(k, k)) for k in ledger.standing]
        for lost, best in turns.items():
            ledger.take_over(lost, best)
            facts = {"epoch": epoch, "from": self.pack.members[best].id, "values": fresh[lost]}
            ledger.entries[lost].turns.append(facts)
        recipe = self._recipe(ledger)
        module.take_over(sources, recipe, self._strengths(ledger, recipe, turns))
        _follow(module, ledger, sources)

    def restore(self, module: PackModule, ledger: Ledger) -> None:
        """Let a module and a ledger that has just been loaded go on by the values of now."""
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

    def _fresh(self, ledger: Ledger, lost: int, best: int, epoch: int) -> dict[str, Any]:
        member, values = self.pack.members[lost], self._values(ledger, best)
        return explored(
            self.search.flat, values, self.pbt, seed=member.job_seed, member=member.index, epoch=epoch
        )

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
