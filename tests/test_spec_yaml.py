"""Reading YAML: the core schema of 1.2, its lines, what is refused, and that writing is reading's inverse."""

from __future__ import annotations

import os
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_jobs import texts, trees

from ensemble_svc.errors import SpecError
from ensemble_svc.spec.compose import MAX_DEPTH, MAX_VALUES
from ensemble_svc.spec.source import MAX_BYTES
from ensemble_svc.spec.yaml import frozen, read, write


@pytest.mark.parametrize(
    "text, value",
    [
        ("1e-3", 0.001), ("1e5", 1e5), ("1E5", 1e5), (".5", 0.5), ("1.", 1.0), ("+12", 12), ("-0", 0),
        ("010", 10), ("0o17", 15), ("0x1F", 31), ("no", "no"), ("yes", "yes"), ("on", "on"), ("1:30", "1:30"),
        ("1_000", "1_000"), ("0b11", "0b11"), ("2001-01-01", "2001-01-01"), ("=", "="), ("<<", "<<"),
        ("true", True), ("FALSE", False), ("~", None), ("null", None), ("", None), (".inf", float("inf")),
        ("-.INF", float("-inf")), ("'1'", "1"), ('"true"', "true"), ("1e", "1e"), ("e5", "e5"),
        (".", "."), ("-", (None,)),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    found, _ = read(f"a:\n  {text}")
    assert found["a"] == value
    assert type(found["a"]) is type(value)


def test_lists_are_tuples_and_every_value_has_its_line() -> None:
    data, lines = read("# c\na:\n  b: [1,\n    {c: 2}]\n\nd:\n- x\n- - y\ne: |\n  text\n  f: 3\n")
    assert data == {"a": {"b": (1, {"c": 2})}, "d": ("x", ("y",)), "e": "text\nf: 3\n"}
    assert lines == {
        (): 2, ("a",): 2, ("a", "b"): 3, ("a", "b", 0): 3, ("a", "b", 1): 4, ("a", "b", 1, "c"): 4,
        ("d",): 6, ("d", 0): 7, ("d", 1): 8, ("d", 1, 0): 8, ("e",): 9,
    }  # fmt: skip


@settings(max_examples=30)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), texts, min_size=1, max_size=8))
def test_a_key_stands_on_the_line_that_is_told(data: dict[str, str]) -> None:
    text = write(data)
    _, lines = read(text)
    written = text.split("\n")
    for key in data:
        line = lines[(key,)]
        assert isinstance(line, int)
        assert written[line - 1].startswith((f"{key}:", f"'{key}':", f'"{key}":', "? "))


@settings(max_examples=80)
@given(st.dictionaries(texts, trees, max_size=5))
def test_what_is_written_reads_back_equal(data: dict[str, object]) -> None:
    text = write(data)
    found, _ = read(text)
    assert found == frozen(data)
    assert read(text.encode())[0] == found
    assert repr(found) == repr(frozen(data)), "1 and 1.0 and True are not the same"


REFUSED = {
    "duplicate keys": ("a: 1\nb: 2\na: 3", 3, "a: given twice, on lines 1 and 3"),
    "duplicate in flow": ("x:\n  {a: 1, a: 2}", 2, "x.a: given twice, on lines 2 and 2"),
    "anchor": ("a: &x 1", 1, "anchor '&x'"),
    "alias": ("a: 1\nb: *x", 2, "alias '*x'"),
    "recursive alias": ("a: &x\n  b: *x", 1, "anchor '&x'"),
    "alias bomb": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", 2, "alias '*a'"),
    "merge": ("a: &x {b: 1}\nc:\n  <<: *x", 3, "alias"),
    "python tag": ("a: 1\nb: !!python/object/apply:os.system ['true']", 2, "python/object/apply"),
    "standard tag": ("a: !!str 1", 1, "tag"),
    "own tag": ("a: ! 1", 1, "tag '!'"),
    "tagged key": ("!!str a: 1", 1, "tag"),
    "second document": ("a: 1\n---\nb: 2", 2, "second document"),
    "other version": ("%YAML 1.1\n---\na: no", 2, "only YAML 1.2"),
    "number as key": ("a: 1\n2: 3", 2, "keys are text"),
    "null as key": ("a:\n  ~: 3", 2, "keys are text"),
    "list as key": ("a: 1\n? [b]\n: 3", 2, "keys are text"),
    "tab": ("a:\n\tb: 1", 2, "a tab where YAML wants spaces"),
    "NUL": ("a: 1\nb: \0", 2, "NUL"),
    "control character": ("a: 1\n\x1b[2J", 2, "U+001B"),
    "unclosed list": ("a: 1\nb: [1, 2", 2, "starts on line 2"),
    "unclosed quote": ('a: 1\n\nb: "x', 3, "starts on line 3"),
    "bare at sign": ("a: 1\nb: @x", 2, "Put quotes around"),
    "second colon": ("a: 1\nb: c: d", 2, "Put quotes around"),
    "endless digits": (f"a: {'9' * 5000}", 1, "a number of 5000 characters"),
    "half a character": ('a: "\\ud800"', 1, "surrogate"),
    "depth": (f"a: {'[' * 5_000}", 1, f"more than {MAX_DEPTH} levels"),
    "many values": ("a:\n" + "- 1\n" * (MAX_VALUES + 10), None, f"more than {MAX_VALUES:,} values"),
    "long line": (f"a: {'x' * 20_000}", 1, "a line of more than"),
    "long text": ("a: |\n" + "  x\n" * 4000, 1, "a text of"),
    "long key": (f"{'k' * 300}: 1", 1, "a key of 300 characters"),
    "size": ("#" * 99 + "\n" + ("#" * 99 + "\n") * (MAX_BYTES // 100), None, "larger than 1 MiB"),
}  # fmt: skip


@pytest.mark.parametrize("text, line, words", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_names_its_line(text: str, line: int | None, words: str) -> None:
    start = process_time()
    with pytest.raises(SpecError) as caught:
        read(text.encode())
    assert process_time() - start < 2
    assert any(words in str(fault) and line in (None, fault.line) for fault in caught.value.faults), (
        caught.value
    )
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


@pytest.mark.parametrize(
    "raw, words",
    [
        ("a: 1".encode("utf-16"), "UTF-16"),
        ("a: 1".encode("utf-16-le"), "NUL"),
        ("a: 1".encode("utf-8-sig"), "byte-order mark"),
        (b"a: 1\nb: \xff\xfe", "line 2: the byte 0xff"),
        (b"\x7fELF\x02\x01\x01\x00", "NUL"),
        (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
    ],
)
def test_bytes_that_are_no_text_are_refused(raw: bytes, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        read(raw)


def test_every_fault_of_the_yaml_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        read("a: &x 1\nb: *x\nc: !!int 3\na: 2\n4: 5\n")
    assert [fault.line for fault in caught.value.faults] == [1, 2, 3, 4, 5]


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    good = tmp_path / "a job é.yaml"
    good.write_text("a: 1")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(good)
    assert read(good)[0] == read(tmp_path / "link")[0] == {"a": 1}
    refused = {
        Path("/dev/zero"): "a pipe or a device", tmp_path: "is a folder", tmp_path / "pipe": "a pipe",
        tmp_path / "loop": "cannot be opened", Path("a\0b"): "null byte", Path("x" * 300): "too long",
        good / "x": "cannot be opened", tmp_path / "a jop é.yaml": "Did you mean 'a job é.yaml'",
    }  # fmt: skip
    for path, words in refused.items():
        start = process_time()
        with pytest.raises(SpecError, match=words):
            read(path)
        assert process_time() - start < 1


def test_a_huge_file_is_refused_without_reading_it(tmp_path: Path) -> None:
    huge = tmp_path / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    start = process_time()
    with pytest.raises(SpecError, match="larger than 1 MiB"):
        read(huge)
    assert process_time() - start < 1


@pytest.mark.parametrize("letter", ["\u2028", "\x07", "é", "\\", '"'])
@pytest.mark.parametrize("before", [1, 38, 60])
def test_a_long_text_with_escapes_reads_back(letter: str, before: int) -> None:
    for number in range(1, 80):
        data = {"data": {"test": f"a{' ' * before}b{letter * number} and more words that follow"}}
        assert read(write(data))[0] == data
