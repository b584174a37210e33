"""A search is killed ten times, wherever it happens to be: the same members are chosen, with the same weights."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from search_runs import weights

from ensemble_svc.store.run import Run

JOB = Path(__file__).parents[1] / "jobs" / "search_digits.yaml"
KILLS = 10
SMALLER = ("search.trials=16", "training.epochs=20", "compute.commit_every_s=0", "compute.measure=off")


def start(out: Path, pack: str) -> subprocess.Popen[bytes]:
    settings = [word for key in (*SMALLER, f"compute.pack={pack}") for word in ("--set", key)]
    command = [
        sys.executable,
        "-m",
        "ensemble_svc",
        "train",
        str(JOB),
        "--out",
        str(out),
        "--executor",
        "local",
    ]
    return subprocess.Popen(
        [*command, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def num_lines(run: Path) -> int:
    """Events of the journal, but for the seals, many of which are written at once."""
    journal = Run(run).journal
    return sum(event["event"] != "sealed" for event in journal.events()) if journal.path.exists() else 0


def finish(driver: subprocess.Popen[bytes]) -> None:
    _, words = driver.communicate(timeout=900)
    assert driver.returncode == 0, words.decode()


def kill_after(driver: subprocess.Popen[bytes], run: Path, lines: int, wait_s: float) -> None:
    """SIGKILL, some time after the journal has grown by so many lines."""
    until, deadline = num_lines(run) + lines, time.monotonic() + 300
    while num_lines(run) < until and time.monotonic() < deadline and driver.poll() is None:
        time.sleep(0.005)
    time.sleep(wait_s)
    assert driver.poll() is None, driver.communicate()[1].decode()
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("pack", ["auto", "5"])
def test_killed_ten_times_at_random_the_same_members_are_chosen(pack: str, tmp_path: Path) -> None:
    """Law 3 for a halving: ranked inside one pack, and across packs that are gathered anew at each rung."""
    finish(start(tmp_path / "whole", pack))
    whole, draw = Run(tmp_path / "whole"), random.Random(int.from_bytes(os.urandom(4), "little"))
    most = num_lines(whole.path) // (KILLS + 2)
    for _ in range(KILLS):
        driver = start(tmp_path / "run", pack)
        kill_after(driver, tmp_path / "run", draw.randint(1, max(1, most)), draw.uniform(0, 0.1))
    finish(start(tmp_path / "run", pack))
    run = Run(tmp_path / "run")
    assert len(run.journal.of_kind("begin")) == KILLS + 1
    assert run.manifest()["ensemble"]["members"] == whole.manifest()["ensemble"]["members"]
    assert weights(run) == weights(whole)
    ends = [[(m["epochs"], m["reason"]) for m in one.manifest()["members"]] for one in (run, whole)]
    assert ends[0] == ends[1]
