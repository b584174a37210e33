"""The documentation tells the truth: its commands parse, its jobs are valid, its links and names lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, takewhile
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from ensemble_svc.cli.main import app
from ensemble_svc.planning import prepare
from ensemble_svc.registry import Choice
from ensemble_svc.spec.anatomy import JOB, Shape, field_shape
from ensemble_svc.spec.catalogue import choices
from ensemble_svc.spec.load import load_job, parse_job, parse_source
from ensemble_svc.spec.yaml import frozen, read

ROOT = Path(__file__).parents[1]
BOOKS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    ROOT.glob("docs/*.md")
)
JOBS = sorted((ROOT / "jobs").rglob("*.yaml"))
JOBS_PAGE = (ROOT / "docs" / "jobs.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
VERBS: Mapping[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
SHELL_ENDS = {">", "|", "&", "&&", ";"}
BASES = {
    "classification": {"name": "part", "data": {"source": "digits"}},
    "regression": {"name": "part", "data": {"source": "diabetes"}},
}
"""What a part of a job is completed with."""


@dataclass(frozen=True)
class Piece:
    """Something that a page shows, and where."""

    page: str
    line: int
    text: str
    language: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text.splitlines()[0] if self.text else ''}"


def blocks(page: Path) -> Iterator[Piece]:
    """Fenced blocks, and runs of lines indented by four or more."""
    for number, lines, language in _blocks(page.read_text().splitlines()):
        yield Piece(page.relative_to(ROOT).as_posix(), number, "\n".join(lines), language)


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str], str]]:
    rest = iter(enumerate(lines, start=1))
    for number, line in rest:
        if line.startswith("```"):
            inside = [text for _, text in takewhile(lambda pair: not pair[1].startswith("```"), rest)]
            yield number + 1, inside, line[3:].strip()
        elif line.startswith("    "):
            yield number, [line.strip()], "sh"


def prose(page: Path) -> str:
    """The page without its fenced blocks, line by line as it was."""
    return re.sub(r"```.*?```", lambda found: "\n" * found[0].count("\n"), page.read_text(), flags=re.DOTALL)


def spans(page: Path) -> Iterator[Piece]:
    """Inline code."""
    text = prose(page)
    for found in re.finditer(r"`([^`\n]+)`", text):
        line = text.count("\n", 0, found.start()) + 1
        yield Piece(page.relative_to(ROOT).as_posix(), line, found[1], language="span")


def comments(path: Path) -> Iterator[Piece]:
    """Indented lines of a YAML file's comments: the commands a job or the cluster's file shows."""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if found := re.match(r"#\s{3,}(\S.*)", line):
            yield Piece(path.relative_to(ROOT).as_posix(), number, found[1])


def commands() -> Iterator[Piece]:
    """Every ``ensemble-svc`` and ``make`` command that is shown, on one line."""
    shown = chain.from_iterable(chain(blocks(page), spans(page)) for page in BOOKS)
    noted = chain.from_iterable(comments(path) for path in (*JOBS, ROOT / "cluster.yaml"))
    for piece in chain(shown, noted):
        if piece.language not in ("", "sh", "span"):
            continue
        for offset, line in enumerate(piece.text.replace("\\\n", " ").splitlines()):
            if re.match(r"(ensemble-svc|make)( |$)", line.strip()):
                yield Piece(piece.page, piece.line + offset, line.strip(), piece.language)


def words(command: str) -> list[str]:
    """The words of a command up to a comment, a pipe or a redirection."""
    return list(takewhile(lambda word: word not in SHELL_ENDS, shlex.split(command, comments=True)))


def check_verb(arguments: list[str]) -> None:
    """The verb exists, its parser takes the rest, and what is named in it is valid."""
    if not arguments or arguments == ["--help"]:
        return
    assert arguments[0] in VERBS, f"no verb '{arguments[0]}'; there are {', '.join(VERBS)}"
    given = VERBS[arguments[0]].make_context(arguments[0], [a for a in arguments[1:] if a != "--help"]).params
    if given.get("job") and Path(given["job"]).parts[0] == "jobs":
        overrides = list(given.get("overrides") or ())
        if each := given.get("each"):
            overrides.append(each.split(":")[0])
        load_job(ROOT / given["job"], overrides)
    if given.get("data"):
        parse_source(given["data"])
    if arguments[0] == "choices" and given["kind"]:
        assert given["kind"] in choices()


def check_make(arguments: list[str]) -> None:
    """The targets and variables exist, and what they stand for is valid."""
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    variables = set(re.findall(r"^([A-Z]+)\s*\?=", MAKEFILE, flags=re.MULTILINE))
    named = dict(word.split("=", 1) for word in arguments if "=" in word)
    goals = [word for word in arguments if "=" not in word]
    assert set(goals) <= targets
    assert set(named) <= variables
    for variable in ("JOB", "TESTS"):
        assert variable not in named or (ROOT / named[variable]).exists() or "..." in named[variable]
    if "train" in goals:
        check_verb(["train", named.get("JOB", "jobs/digits.yaml"), *shlex.split(named.get("ARGS", ""))])


@pytest.mark.parametrize("piece", sorted(set(commands()), key=str), ids=str)
def test_every_command_that_is_shown_can_be_given(piece: Piece, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, *arguments = words(piece.text)
    if program == "make":
        check_make(arguments)
    elif piece.language == "span" and len(arguments) == 1:
        assert arguments[0] in VERBS  # a verb that a sentence speaks of
    else:
        check_verb(arguments)


@pytest.mark.parametrize(
    ("check", "command"),
    [
        (check_verb, "grow runs/digits"),
        (check_verb, "train jobs/digits.yaml --epochs 5"),
        (check_verb, "train jobs/digits.yaml --set training.epohcs=5"),
        (check_verb, "train jobs/digits.yaml --executor slurm"),
        (check_verb, "train jobs/absent.yaml"),
        (check_verb, "evaluate runs/digits --data digitz"),
        (check_verb, "predict runs/digits --input new.csv"),
        (check_make, "trian"),
        (check_make, "train JOBS=jobs/digits.yaml"),
        (check_make, "train JOB=jobs/absent.yaml"),
        (check_make, "train ARGS='--sed 1'"),
    ],
)
def test_a_wrong_command_would_be_seen(check: Callable[[list[str]], None], command: str) -> None:
    with pytest.raises(Exception, match=r"."):
        check(words(command))


def test_every_verb_is_shown_somewhere_and_the_absent_ones_are_absent() -> None:
    shown = {words(piece.text)[1] for piece in commands() if piece.text.startswith("ensemble-svc ")}
    assert set(VERBS) <= shown
    readme = (ROOT / "README.md").read_text()
    (planned,) = re.findall(r"^- Verbs: (.*?) are planned", readme, flags=re.MULTILINE | re.DOTALL)
    names = re.findall(r"`([a-z-]+)`", planned)
    assert "serve" in names
    assert not set(names) & set(VERBS)


def merged(base: Mapping[str, Any], part: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the part's values over it, mapping by mapping."""
    shared = [key for key in base.keys() & part.keys() if isinstance(base[key], dict)]
    return {**base, **part, **{key: merged(base[key], part[key]) for key in shared}}


@pytest.mark.parametrize(
    "piece", [b for page in BOOKS for b in blocks(page) if b.language in ("yaml", "yml")], ids=str
)
def test_every_job_that_is_shown_is_valid(piece: Piece) -> None:
    """Whole jobs as they are; parts of a job within a small one."""
    part, _ = read(piece.text)
    whole = "name" in part and "data" in part
    parse_job(part if whole else merged(BASES[part.get("task", "classification")], part), source=str(piece))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_shipped_job_is_valid_and_named_after_its_file(path: Path) -> None:
    assert load_job(path).name == path.stem


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", BOOKS, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", prose(page).replace("\n", " "))
    assert [link for link in links if not re.match(r"[a-z]+:", link) and not leads(page, link)] == []


def leads(page: Path, link: str) -> bool:
    """Whether the file is there, with the heading where one is named."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


ROOMS = {path.name for path in (ROOT / "ensemble_svc").iterdir() if path.is_dir()}
NAMED = re.compile(r"((?:[\w.-]+/)+[\w.-]+\.(?:py|yaml|md|toml))((?:::\w+)*)")


@pytest.mark.parametrize("page", BOOKS, ids=lambda page: page.name)
def test_every_file_and_test_that_is_named_exists(page: Path) -> None:
    for span in spans(page):
        found = NAMED.fullmatch(span.text)
        top = span.text.split("/")[0]
        if not found or top not in {"tests", "ensemble_svc", "jobs", "docs"} | ROOMS:
            continue
        path = (ROOT / "ensemble_svc" if top in ROOMS and not (ROOT / top).exists() else ROOT) / found[1]
        assert path.is_file(), str(span)
        for name in filter(None, found[2].split("::")):
            assert re.search(rf"^\s*(?:def|class) {name}\b", path.read_text(), flags=re.MULTILINE), str(span)


def test_python_that_is_shown_parses_and_imports_what_there_is() -> None:
    for piece in chain.from_iterable(blocks(page) for page in BOOKS):
        if piece.language != "python":
            continue
        for node in ast.walk(ast.parse(piece.text)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ensemble_svc"):
                spec = find_spec(str(node.module))
                assert spec is not None, str(piece)
                assert spec.origin is not None, str(piece)
                source = ast.parse(Path(spec.origin).read_text())
                defined = {d.name for d in source.body if isinstance(d, ast.ClassDef | ast.FunctionDef)}
                assert {alias.name for alias in node.names} <= defined, str(piece)


def test_the_users_own_data_are_read_as_shown(tmp_path: Path) -> None:
    """The functions and the job that the page puts together; the network is built by the tests of ``nn/``."""
    for piece in blocks(ROOT / "docs" / "jobs.md"):
        if found := re.match(r"# (my_\w+\.py)\n", piece.text):
            (tmp_path / found[1]).write_text(piece.text)
    (job,) = [b.text for b in blocks(ROOT / "docs" / "jobs.md") if "my_data:load" in b.text]
    prepared = prepare(parse_job(read(job)[0]), tmp_path)
    assert prepared.schema.classes == ("low", "high")
    assert (tmp_path / "my_nets.py").exists()


def keys(path: tuple[str, ...] = (), shape: Shape = JOB) -> Iterator[tuple[str, Any]]:
    """Every key of the job file that does not hang on a choice, with its default as a file would give it."""
    section = None if shape.choices else shape.section(None)
    for key, field in (section.model_fields if section else {}).items():
        child = field_shape(section, key) if section else None
        inner = list(keys((*path, key), child)) if child else []
        yield from inner
        if not inner or (not field.is_required() and field.default is None):
            yield ".".join((*path, key)), "required" if field.is_required() else plain(field.default)


def plain(default: Any) -> Any:
    return default.name if isinstance(default, Choice) else frozen(default)


def rows(text: str, width: int) -> Iterator[list[str]]:
    """The cells of the tables' rows that have so many."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().split("|")[1:-1]]
        if len(cells) == width:
            yield cells


def test_the_page_of_the_job_file_has_every_key_with_its_default() -> None:
    table = {cells[0].strip("`"): cells[1] for cells in rows(JOBS_PAGE, 3) if "." in cells[0]}
    (head,) = re.findall(r"^## The job itself$(.*?)^## ", JOBS_PAGE, flags=re.MULTILINE | re.DOTALL)
    table |= {cells[0].strip("`"): cells[1] for cells in rows(head, 3) if cells[0].startswith("`")}
    expected = dict(keys())
    assert set(table) == set(expected)
    for key, default in expected.items():
        told = table[key] if default == "required" else read(table[key].strip("`"))[0]
        assert told == default, key


@pytest.mark.parametrize("kind", choices())
def test_the_page_of_the_job_file_has_every_choice_with_its_options(kind: str) -> None:
    (part,) = re.findall(rf"^#+ {kind}$(.*?)(?=^#|\Z)", JOBS_PAGE, flags=re.MULTILINE | re.DOTALL)
    told = {cells[0].strip("`"): cells[1] for cells in rows(part, 3) if cells[0].startswith("`")}
    expected = {choice["name"]: choice["options"] for choice in choices()[kind]}
    assert list(told) == list(expected)
    for name, options in expected.items():
        listed = re.findall(r"`([^`]+)`", told[name])
        assert [read(text)[0] for text in listed if ":" in text] == [
            {option["name"]: frozen(option["default"])} for option in options if not option["required"]
        ], name
        assert [text for text in listed if ":" not in text] == [
            o["name"] for o in options if o["required"]
        ], name
