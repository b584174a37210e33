"""A population that has lost a state from which some member goes on trains again from its start, all of it.

No member of it could go on or be trained again alone, since its state was another's. Its seals and commits count no
more from then on, and every turn is decided again, with the same outcome.
"""

from __future__ import annotations

from collections.abc import Sequence

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.search.populations import Populations
from ensemble_svc.search.ranking import decided
from ensemble_svc.store.commits import Commits
from ensemble_svc.store.journal import Event, Journal
from ensemble_svc.store.members import sealed
from ensemble_svc.store.run import Run
from ensemble_svc.store.turns import ANEW, turns_in


def begin_anew(run: Run, populations: Populations, members: Sequence[MemberSpec]) -> None:
    """Let the populations of members begin again that cannot go on; call it while nothing trains.

    Args:
        members: of all trials.
    """
    done = sealed(run.path)
    stuck = set(_stuck(run, [member for member in members if member.digest not in done]))
    for some in populations.of(members):
        cohort = _compared_with(run.journal, [member.digest for member in some], stuck)
        if cohort:
            _forget(run, cohort)


def _stuck(run: Run, members: Sequence[MemberSpec]) -> list[str]:
    """The members that have passed a rung and whose state there, or later, is nowhere."""
    (reached, _), whole = decided(run.journal), _whole_commits(run)
    turns = turns_in(run.journal, [member.digest for member in members])
    found = []
    for digest in (member.digest for member in members):
        since = reached.get(digest, 0)
        source = turns[digest][since].source if since in turns[digest] else digest
        later = any(one == digest and epoch > since for one, epoch in whole)
        if since and not later and not {(digest, since), (source, since)} <= whole:
            found.append(digest)
    return found


def _whole_commits(run: Run) -> set[tuple[str, int]]:
    """Members and epochs of the commits that are on the disk and were not found damaged."""
    events = run.journal.of_kind("commit", "damaged")
    damaged = {event["file"] for event in events if event["event"] == "damaged"}
    kept = [e for e in events if e["file"] not in damaged and (run.path / e["file"]).exists()]
    return {(digest, event["epoch"]) for event in kept for digest in event["members"]}


def _compared_with(journal: Journal, population: Sequence[str], stuck: set[str]) -> list[str]:
    """Of a population those that were compared with some that are stuck, and these."""
    first: dict[str, Event] = {}
    for event in journal.of_kind("rung"):
        for digest in event["on"]:
            first.setdefault(digest, event)
    met = {digest for one in stuck.intersection(population) for digest in first[one]["on"]}
    return [digest for digest in population if digest in met]


def _forget(run: Run, cohort: Sequence[str]) -> None:
    """Killed in between, the next start finds them stuck again."""
    for event in run.journal.of_kind("commit"):
        if not set(cohort).isdisjoint(event["members"]):
            Commits(run.path, event["pack"], tuple(event["members"]), "").clear()
    done = sealed(run.path)
    for digest in (digest for digest in cohort if digest in done):
        run.journal.append("unsealed", digest=digest, member=done[digest]["member"], file="its population's")
    run.journal.append(ANEW, members=list(cohort))
