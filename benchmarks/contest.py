"""Contenders that do one work in turn, round after round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.children import PEERS, ChildFailed, load_average, run_module
from benchmarks.contenders import CONTENDERS
from benchmarks.machine import describe
from benchmarks.work import WORKS

PER_ROUND = ("training_s", "whole_s", "accuracy", "member_accuracy", "nll")
"""What differs from round to round; the rest of a child's result stands once."""


def hold(
    work: str, contenders: Sequence[str], *, repeats: int, tiny: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """The contest's result as plain data.

    The order moves on by one contender per round, so that no one always runs behind the same one.
    """
    found: dict[str, dict[str, Any]] = {name: {"title": CONTENDERS[name].title} for name in contenders}
    rounds = []
    for r in range(repeats):
        shift = r % len(contenders)
        order = [*contenders[shift:], *contenders[:shift]]
        rounds.append({"load_average": load_average(), "order": order})
        for name in order:
            _turn(work, name, found[name], tiny=tiny)
            say(f"{work} {r + 1}/{repeats} {name}: {_brief(found[name])}")
    facts = (WORKS[work].tiny() if tiny else WORKS[work]).facts()
    return {
        "kind": "contest",
        "name": work,
        "title": WORKS[work].title,
        "tiny": tiny,
        "work": facts,
        "machine": describe(),
        "rounds": rounds,
        "contenders": found,
    }


def _turn(work: str, name: str, entry: dict[str, Any], *, tiny: bool) -> None:
    """Let a contender do the work once and add what came of it to its entry."""
    contender = CONTENDERS[name]
    if contender.peers and not PEERS.is_file():
        entry["skipped"] = "make bench-peers installs it"
    if "skipped" in entry or "failed" in entry:
        return
    python = PEERS if contender.peers else None
    try:
        result = run_module("benchmarks.child", [work, name, *(["--tiny"] if tiny else [])], python=python)
    except ChildFailed as fault:
        entry["failed"] = str(fault)
        return
    for key, value in result.items():
        if key in PER_ROUND:
            entry.setdefault(key, []).append(value)
        else:
            entry[key] = value


def _brief(entry: dict[str, Any]) -> str:
    if "training_s" not in entry or "failed" in entry:
        return str(entry.get("skipped") or entry.get("failed"))
    return f"{entry['training_s'][-1]:.2f} s, accuracy {entry['accuracy'][-1]:.4f}"
