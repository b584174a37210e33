"""What went wrong in training, and what was done about it, in few lines however many members there are.

Pure and light: the terminal and the page print the same words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ensemble_svc.report.text import clean, count

Member = Mapping[str, Any]

KINDS = ("divergence", "guessing", "dead", "saturated", "gradients", "steps", "plateau", "overfitting")
"""The gravest first."""
GRAVE = KINDS[:2]
"""Those that make a member sick."""
NAMED_UP_TO = 3
"""Members of one group that are called by name."""


@dataclass(frozen=True)
class Told:
    """Members that share a finding."""

    who: str
    what: str
    """The finding of the first of them, whose numbers they are, and what was done."""

    def __str__(self) -> str:
        return f"{self.who}: {self.what}"


def told(members: Sequence[Member]) -> list[Told]:
    """What is wrong with the members of a manifest, the gravest first; then those whom a start anew has mended."""
    return [*_findings(members), *_mended(members)]


def _findings(members: Sequence[Member]) -> Iterator[Told]:
    groups: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for member in members:
        cut = bool(
            member.get("stopped") and member.get("reason")
        )  # by a scheduler: no wonder that it learnt little
        for finding in member.get("findings") or ():
            kind = str(finding.get("kind"))
            if cut and kind != KINDS[0]:
                continue
            key = (kind, _done(member) if kind in GRAVE else "")
            groups.setdefault(key, []).append((str(member.get("id")), str(finding.get("sentence"))))
    order = {kind: number for number, kind in enumerate(KINDS)}
    for (_, done), found in sorted(groups.items(), key=lambda item: order.get(item[0][0], len(KINDS))):
        ids = list(dict.fromkeys(name for name, _ in found))
        many = "" if len(ids) == 1 else f"{clean(ids[0])}: "
        yield Told(_who(ids, len(members)), many + clean(found[0][1], limit=600) + (done and f" {done}"))


def _done(member: Member) -> str:
    """What was done about a sick member, a sentence; empty for a well one."""
    if not member.get("sick"):
        return ""
    anew = int(member.get("restarts") or 0)
    tried = (
        f"Started again {_times(anew)}, down to {member.get('rate_factor', 1.0):g} of the rate, in vain; "
        if anew
        else ""
    )
    stays = member.get("status") == "done"
    ending = "kept among those to choose from." if stays else "left out of the ensemble."
    return tried + ending if tried else ending.capitalize()


def _mended(members: Sequence[Member]) -> Iterator[Told]:
    groups: dict[int, list[Member]] = {}
    for member in members:
        if member.get("restarts") and not member.get("sick"):
            groups.setdefault(int(member["restarts"]), []).append(member)
    for anew, some in sorted(groups.items()):
        factor = some[0].get("rate_factor", 1.0)
        what = (
            f"sick at the given learning rate, no longer at {factor:g} of it (started again {_times(anew)})."
        )
        yield Told(_who([str(member.get("id")) for member in some], len(members)), what)


def _who(ids: Sequence[str], total: int) -> str:
    if len(ids) == 1:
        return clean(ids[0])
    names = ", ".join(map(clean, ids[:NAMED_UP_TO]))
    more = f" and {len(ids) - NAMED_UP_TO:,} more" if len(ids) > NAMED_UP_TO else ""
    return f"{len(ids):,} of {count(total, 'member')} ({names}{more})"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
