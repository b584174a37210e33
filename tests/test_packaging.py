"""What is shipped: pinned versions, the wheel's contents, the job files, and what each room loads."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import ensemble_svc
from ensemble_svc.spec.load import load_job

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
JOBS = sorted((ROOT / "jobs").rglob("*.yaml"))
DECLARED = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["dev"],
    *PROJECT["project"]["optional-dependencies"]["export"],
]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    split = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in split}


def test_constraints_are_exact_versions_and_nothing_else() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("# ") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line
    assert pins()["torch"] == "2.13.0"


@pytest.mark.parametrize("text", DECLARED)
def test_each_declared_dependency_is_pinned_within_its_range(text: str) -> None:
    wanted = Requirement(text)
    assert wanted.specifier.contains(pins()[canonicalize_name(wanted.name)])


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """Names of everything that is installed because of ``name`` on this machine."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    try:
        requires = distribution(name).requires or []
    except PackageNotFoundError:
        return
    yield name
    for wanted in map(Requirement, requires):
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": e}) for e in {"", *extras}):
            yield from needed(canonicalize_name(wanted.name), frozenset(wanted.extras), seen)


def test_everything_that_gets_installed_is_pinned() -> None:
    """But for what torch's CUDA builds bring along: it follows torch's version."""
    reached = set(needed("ensemble-svc", frozenset({"dev"}), set())) - {"ensemble-svc", "pip"}
    cuda = {name for name in reached if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert {"torch", "grpcio", "sympy"} < reached
    assert reached - cuda <= set(pins())


COMPANIONS = {
    "aiohttp": "ray",
    "annotated-types": "pydantic",
    "grpcio": "ray",
    "markupsafe": "jinja2",
    "pydantic-core": "pydantic",
    "requests": "ray",
    "sqlalchemy": "optuna",  # and of MLflow, whose errors it is known by
}
"""Packages that one of ours cannot do without, and that speak its language at the border."""


def imported(folder: Path) -> set[str]:
    """Names of the packages that any line under ``folder`` imports, at the top or inside a function."""
    owners = packages_distributions()
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found |= {canonicalize_name(one) for name in names for one in owners.get(name.split(".")[0], ())}
    return found - {"ensemble-svc"}


def test_what_the_package_imports_is_declared_and_the_other_way_round() -> None:
    declared = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    extra = PROJECT["project"]["optional-dependencies"]["export"]
    used = imported(ROOT / "ensemble_svc") - {canonicalize_name(Requirement(text).name) for text in extra}
    read_only = {"scikit-learn"}  # its data files are read; none of its code is loaded
    assert {COMPANIONS.get(name, name) for name in used} | read_only == declared


@pytest.mark.parametrize("compromised", ["2.6.2", "2.6.3"])
def test_the_compromised_releases_of_lightning_are_out_of_range(compromised: str) -> None:
    (lightning,) = [Requirement(text) for text in DECLARED if text.startswith("lightning")]
    assert not lightning.specifier.contains(compromised)


def test_the_installed_version_is_the_package_s() -> None:
    assert distribution("ensemble-svc").version == ensemble_svc.__version__


def test_the_wheel_holds_every_module_and_template(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ensemble_svc", tmp_path / "ensemble_svc", ignore=ignored)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-qq",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "out",
        ".",
    ]
    subprocess.run(build, cwd=tmp_path, check=True, timeout=120)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    held = zipfile.ZipFile(wheel).namelist()
    source = (path for path in (tmp_path / "ensemble_svc").rglob("*") if path.is_file())
    assert {path.relative_to(tmp_path).as_posix() for path in source} <= set(held)
    assert any(name.endswith("licenses/LICENSE") for name in held)
    assert {name.split("/")[0] for name in held if "dist-info" not in name} == {"ensemble_svc"}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_each_job_says_what_it_shows_its_command_and_its_result(path: Path) -> None:
    text = path.read_text()
    head = text[: text.index("\nname: ") + 1]
    assert all(line.startswith("#") for line in head.splitlines())
    assert path.relative_to(ROOT).as_posix() in head
    assert "# Measured: " in head
    assert load_job(path).name == path.stem


HEAVY = ("torch", "ray", "lightning", "kornia", "pandas", "sklearn")


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("ensemble_svc.cli.main", HEAVY),
        ("ensemble_svc.spec.load", (*HEAVY, "numpy", "typer", "rich")),
        ("ensemble_svc.plan.placement", ("torch", "ray", "lightning")),
        ("ensemble_svc.planning", ("torch", "ray", "lightning")),
        ("ensemble_svc.predictor", ("ray", "lightning", "kornia", "typer")),
        (
            "ensemble_svc.exporting",
            ("ray", "lightning", "kornia", "typer", "onnx", "onnxruntime", "onnxscript"),
        ),
        ("ensemble_svc.pipeline", ("ray", "typer")),
    ],
)
def test_a_room_loads_without_what_it_must_not_need(module: str, missing: tuple[str, ...]) -> None:
    """Run, not read: here the packages really are not there, whoever would import them."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({missing!r}))\nimport {module}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_continuous_integration_is_a_runnable_script() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
