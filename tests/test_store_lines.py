"""A journal that is read again and again says what one says that is read for the first time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble_svc.errors import CorruptArtifact
from ensemble_svc.store import lines
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import sealed

KINDS = st.sampled_from(["commit", "sealed", "plan"])
TEXTS = st.sampled_from(["a", "p-1", '"event": "sealed"', "x\ny", "\\", "é", "\r", "\x85"])
EVENTS = st.lists(
    st.tuples(KINDS, st.fixed_dictionaries({"pack": TEXTS, "facts": st.lists(TEXTS, max_size=2)}))
)


def plainly(path: Path) -> list[dict[str, Any]]:
    """Every event, read as any other file of JSON lines."""
    return [json.loads(line.split(b" ", 1)[1]) for line in path.read_bytes().split(b"\n")[:-1]]


@given(EVENTS, EVENTS, st.lists(KINDS, min_size=1, unique=True), TEXTS)
def test_what_is_asked_for_is_found_in_order(
    tmp_path_factory: pytest.TempPathFactory, before: Any, after: Any, kinds: list[str], text: str
) -> None:
    journal = Journal(tmp_path_factory.mktemp("lines") / "journal.jsonl")
    for some in (before, after):
        for kind, facts in some:
            journal.append(kind, **facts)
        every = plainly(journal.path) if journal.path.exists() else []
        assert list(journal.events()) == every
        assert journal.of_kind(*kinds) == [event for event in every if event["event"] in kinds]
        needle = f'"pack": {json.dumps(text)}'
        assert journal.of_kind(*kinds, holding=[needle]) == [
            event for event in every if event["event"] in kinds and event["pack"] == text
        ]


def test_damage_to_what_was_read_before_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(3):
        journal.append("x", number=number)
    sound = journal.path.read_bytes()
    ends = [position for position, byte in enumerate(sound) if byte == 10]
    for position in range(0, len(sound) - 1, 7):
        journal.path.write_bytes(sound)
        assert len(list(journal.events())) == 3
        journal.path.write_bytes(sound[:position] + bytes([sound[position] ^ 1]) + sound[position + 1 :])
        line = 1 + sum(end < position for end in ends)
        with pytest.raises(CorruptArtifact, match=f"line {line}: damaged"):
            journal.of_kind("x")


def test_a_line_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, seen = Journal(tmp_path / "journal.jsonl"), list[bytes]()
    sound = lines.is_sound
    monkeypatch.setattr(lines, "is_sound", lambda line: seen.append(line) or sound(line))
    for number in range(5):
        journal.append("x", number=number)
        journal.of_kind("x")
        list(journal.events())
    assert len(seen) == 5


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=60), st.sets(st.integers(0, 50)))
def test_some_seals_are_those_among_all(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[bool, int]], only: set[int]
) -> None:
    run = tmp_path_factory.mktemp("seals")
    for is_seal, number in events:
        Journal(run / "journal.jsonl").append("sealed" if is_seal else "unsealed", digest=f"d{number:03d}")
    wanted = [f"d{number:03d}" for number in only]
    every = sealed(run)
    assert sealed(run, wanted) == {digest: every[digest] for digest in every if digest in wanted}
