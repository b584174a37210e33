"""The lecture's page: every claim is measured by its jobs, a tenth as long here, and finds its place on the page."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.lecture.bench import JOBS
from benchmarks.lecture.claims import CLAIMS
from benchmarks.lecture.claims.decay import clearly_lower
from benchmarks.lecture.claims.mc_dropout import neuron_gap
from benchmarks.lecture.plots import Plot

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lecture")
    command = [sys.executable, "-m", "benchmarks.lecture", "--quick", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "lecture.md"


def test_the_page_has_every_claim_with_its_commands_and_plots(page: Path) -> None:
    text = page.read_text()
    for claim in CLAIMS:
        assert f"## {claim.title}" in text
        for job in claim.jobs:
            assert f"ensemble-svc {claim.verb} jobs/lecture/{job}.yaml" in text
    for name in re.findall(r"\]\((lecture/\w+\.svg)\)", text):
        assert ET.parse(page.parent / name).getroot().tag.endswith("svg")
    assert text.count("](lecture/") == len(list((page.parent / "lecture").glob("*.svg"))) >= 5


def test_the_page_in_the_docs_is_of_these_claims() -> None:
    text = (ROOT / "docs" / "lecture.md").read_text()
    assert re.findall(r"^## (.+)$", text, re.M) == [claim.title for claim in CLAIMS]
    assert "a tenth of the epochs" not in text


def test_every_job_of_the_lecture_shows_a_claim() -> None:
    assert {path.stem for path in JOBS.glob("*.yaml")} == {job for claim in CLAIMS for job in claim.jobs}


def test_what_happens_to_symmetric_weights_and_to_the_neuron_does_not_depend_on_size(page: Path) -> None:
    text = page.read_text()
    assert "has 1 distinct unit" in text
    assert neuron_gap() < 1e-15


def test_what_chance_can_do_makes_no_schedule_lower() -> None:
    assert clearly_lower([0.020, 0.024], [0.036, 0.044])
    assert not clearly_lower([0.037, 0.035], [0.036, 0.044])
    assert not clearly_lower([0.020, 0.024], [math.inf, math.inf])


def test_a_plot_leaves_gaps_and_escapes_its_words() -> None:
    plot = Plot("p", "a & b", {"<x>": [1.0, float("inf"), 3.0]}, "epoch", "loss", log_y=True, guide=2.0)
    root = ET.fromstring(plot.svg())
    assert root.get("aria-label") == "a & b"
    assert any(element.text == "<x>" for element in root.iter() if element.text)
