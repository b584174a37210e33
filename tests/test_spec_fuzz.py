"""Whatever bytes a job file holds: a job, or a ``SpecError`` that can be printed, and in good time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_jobs import jobs

from ensemble_svc.errors import SpecError
from ensemble_svc.spec.contradictions import contradictions
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.load import dump_job, load_job, parse_job
from ensemble_svc.spec.yaml import read

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
SEEDS = [path.read_bytes() for path in sorted(ROOT.glob("jobs/**/*.yaml"))]
TOKENS = [
    b"\n", b"  ", b"\t", b": ", b"- ", b"[", b"]", b"{", b"}", b",", b"#", b"'", b'"', b"&a ", b"*a", b"!", b"!!",
    b"|", b">", b"?", b"%", b"---\n", b"...\n", b"<<", b"~", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xc2\x85", b"\\",
    b"null", b"true", b"1e999", b"-", b".nan", b"9" * 40, b"name", b"data", b"training:", b"\xe2\x80\xa8", b"@", b"`",
]  # fmt: skip
LIMIT_S = 2.0


def mutated(raw: bytes, draw: random.Random) -> bytes:
    """A few bytes or tokens of ``raw`` removed, doubled, changed, put in or moved."""
    data = bytearray(raw)
    for _ in range(draw.randint(1, 6)):
        at, length = draw.randrange(len(data) + 1), draw.randint(0, 40)
        match draw.randrange(6):
            case 0:
                del data[at : at + length]
            case 1:
                data[at:at] = data[at : at + length]
            case 2 if at < len(data):
                data[at] = draw.randrange(256)
            case 3:
                data[at:at] = draw.choice(TOKENS)
            case 4:
                other = draw.choice(SEEDS)
                start = draw.randrange(len(other))
                data[at : at + length] = other[start : start + length]
            case _:
                data[at:at] = draw.choice(TOKENS) * draw.randint(1, 60)
    return bytes(data)


def check(raw: bytes, file: Path) -> bool:
    """Whether the bytes are a job; a refusal must be printable, placed and quick."""
    file.write_bytes(raw)
    start = process_time()
    job = outcome(load_job, file)
    assert process_time() - start < LIMIT_S
    if isinstance(job, SpecError):
        check_refusal(job)
        return False
    assert parse_job(read(dump_job(job))[0]) == job
    return True


def outcome(function: Callable[[Any], T], argument: Any) -> T | SpecError:
    """What a function gives, or how it refuses."""
    try:
        return function(argument)
    except SpecError as error:
        return error


def check_refusal(error: SpecError) -> None:
    assert error.faults
    for line in str(error).split("\n"):
        assert line.isprintable(), line
        assert len(line) < 1500, line


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    draw = random.Random(20)
    outcomes = [check(mutated(draw.choice(SEEDS), draw), tmp_path / "job.yaml") for _ in range(250)]
    assert {True, False} <= set(outcomes), "both kinds must have been seen"


@pytest.mark.slow
def test_many_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    draw = random.Random()
    for _ in range(10_000):
        raw = mutated(draw.choice(SEEDS), draw)
        try:
            check(raw, tmp_path / "job.yaml")
        except BaseException:
            print(f"the bytes were {raw!r}")
            raise


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    found = outcome(read, raw)
    if isinstance(found, SpecError):
        check_refusal(found)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["name", "adamw"]),
)
KEYS = st.sampled_from(["name", "lr", "data", "source"]) | st.text(max_size=4)
TREES = st.recursive(
    LEAVES,
    lambda tree: st.one_of(st.lists(tree, max_size=3), st.dictionaries(KEYS, tree, max_size=3)),
    max_leaves=8,
)


@settings(max_examples=100)
@given(jobs(), st.data())
def test_any_value_anywhere_is_taken_or_refused(data: dict[str, Any], draw: st.DataObject) -> None:
    """Structure-aware: a random tree in place of any value of a random job."""
    keys = list(JobSpec.model_fields)
    key = draw.draw(st.sampled_from(keys))
    value = draw.draw(TREES)
    if isinstance(inner := data.get(key), dict) and inner and draw.draw(st.booleans()):
        value = {**inner, draw.draw(st.sampled_from(sorted(inner))): value}
    wrong = {**data, key: value}
    job = outcome(parse_job, wrong)
    if isinstance(job, SpecError):
        check_refusal(job)
    else:
        assert not contradictions(job)
