"""Reaching a cluster, refusing what cannot be reached or sent, and leaving nothing behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from cluster_processes import family, still_running
from hypothesis import given
from hypothesis import strategies as st
from kept_ray import KeptRay
from ray.autoscaler._private.util import prepare_config, validate_config

from ensemble_svc.cluster import jobs, session
from ensemble_svc.cluster.auth import authenticated, find_token, make_token_file
from ensemble_svc.cluster.jobs import Jobs, train_command
from ensemble_svc.cluster.session import PREFIX, connect
from ensemble_svc.errors import ClusterError

HERE = Path(__file__).parent
ROOT = HERE.parent


@pytest.fixture(scope="module", autouse=True)
def unconnected(kept_ray: KeptRay) -> None:
    """What connects here finds no connection of another file's."""
    kept_ray.end()


@pytest.fixture
def nobody() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_an_unreachable_cluster_is_said_to_be_so_within_ten_seconds(nobody: int) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match="connection refused"), connect(f"127.0.0.1:{nobody}"):
        pass
    with pytest.raises(ClusterError, match="not known"), connect("no-such-host.invalid:6379"):
        pass
    with pytest.raises(ClusterError, match="connection refused"):
        Jobs(f"http://127.0.0.1:{nobody}").recent()
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("address", ["head", "http://head:8265", "ray://head:10001", "head:port", ""])
def test_what_is_no_address_is_refused_with_how_it_is_written(address: str) -> None:
    with pytest.raises(ClusterError, match="host:port"), connect(address):
        pass


@pytest.mark.parametrize("address", ["head:8265", "ftp://head", "http://", ""])
def test_what_is_no_job_service_is_refused_with_how_it_is_written(address: str) -> None:
    with pytest.raises(ClusterError, match="http://host:8265"):
        Jobs(address).recent()


def test_a_token_is_looked_for_where_it_is_named_and_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_token() is None
    own = tmp_path / ".config/ensemble_svc"
    own.mkdir(parents=True)
    make_token_file(own / "token")
    found = find_token()
    assert found is not None
    assert found.secret == (own / "token").read_text()
    assert found.secret not in f"{found} {found!r}"
    named = make_token_file(tmp_path / "named")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(named))
    assert (find_token() or found).secret == named.read_text()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "value")
    assert (find_token() or found).secret == "value"
    assert (find_token(own / "token") or found).secret == found.secret
    with pytest.raises(ClusterError, match=r"chmod 600"):
        find_token(tmp_path / "missing")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ClusterError, match="is empty"):
        find_token(tmp_path / "empty")


def test_a_token_file_is_private_and_never_replaced(tmp_path: Path) -> None:
    path = make_token_file(tmp_path / "token")
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_text()) == 64
    with pytest.raises(FileExistsError):
        make_token_file(path)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        make_token_file(tmp_path / "link")


def test_the_environment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    before = dict(os.environ)
    with authenticated(make_token_file(tmp_path / "token")):
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert dict(os.environ) == before


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.text(), st.lists(st.text())
)
def test_no_argument_of_a_job_reaches_a_shell_as_more_than_one_word(
    name: str, out: str, overrides: list[str]
) -> None:
    command = train_command("/usr/bin/python3")(name, out, overrides)
    assert shlex.split(shlex.join(command)) == list(command)
    assert list(command[:5]) == ["/usr/bin/python3", "-m", "ensemble_svc", "train", f"./{name}"]
    assert command.count("--set") >= len(overrides)


def test_a_job_is_checked_before_anything_is_sent(
    tmp_path: Path, nobody: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Jobs(f"http://127.0.0.1:{nobody}")
    job = tmp_path / "job.yaml"
    with pytest.raises(ClusterError, match="no such file"):
        there.submit(job, out="/runs/a")
    job.write_text("name: a\n")
    with pytest.raises(ClusterError, match="absolute path"):
        there.submit(job, out="runs/a")
    with pytest.raises(ClusterError, match="must lie in the folder"):
        there.submit(job, out="/runs/a", working_dir=ROOT / "docs")
    monkeypatch.setattr(jobs, "LARGEST_FOLDER_BYTES", 100)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "pack").write_bytes(b"x" * 200)
    with pytest.raises(ClusterError, match="connection refused"):  # what stays behind does not count
        there.submit(job, out="/runs/a")
    (tmp_path / "data.bin").write_bytes(b"x" * 200)
    with pytest.raises(ClusterError, match="MiB"):
        there.submit(job, out="/runs/a")


def test_rays_own_validator_accepts_cluster_yaml_and_it_asks_for_a_token() -> None:
    config = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(config)
    assert config["provider"]["type"] == "local"
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        (command,) = config[key]
        exports, _, start = command.partition(";")
        assert exports.startswith("export ")
        assert "RAY_AUTH_MODE=token" in exports
        assert "RAY_AUTH_TOKEN_PATH=" in exports
        assert "RAY_USAGE_STATS_ENABLED=0" in exports
        assert "--disable-usage-stats" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][0]


DRIVER = """
import sys
from pathlib import Path
from cluster_slots import Payload, fit_slot, make_slot
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import connect
out = sys.argv[1]
with connect(num_cpus=1, directory=Path(sys.argv[2])):
    executor, payload = RayExecutor(Path(out, "tune")), Payload(out, epoch_s=1000.0)
    executor.run([make_slot(0)], fit_slot, payload, on_progress=print, on_failure=print)
"""


@pytest.mark.ray
def test_when_the_driver_is_killed_nothing_of_it_goes_on_and_nothing_is_left(tmp_path: Path) -> None:
    """Law 3 rests on this: who resumes a run is alone in it."""
    home = tmp_path / "home"
    home.mkdir()
    settings = {"HOME": str(home), "PYTHONPATH": f"{HERE}:{ROOT}", "RAY_AUTH_TOKEN_PATH": "/nonexistent"}
    command = [sys.executable, "-c", DRIVER, str(tmp_path), str(HERE)]
    driver = subprocess.Popen(
        command, env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until = time.monotonic() + 90
        while not (seen := list(tmp_path.glob("*.0"))) or not seen[0].read_text():
            assert driver.poll() is None, driver.stdout and driver.stdout.read().decode()
            assert time.monotonic() < until
            time.sleep(0.1)
        worker = json.loads(seen[0].read_text())["pid"]
        folders = list(Path(tempfile.gettempdir()).glob(f"{PREFIX}{driver.pid}-*"))
        started = family(driver.pid)
    finally:
        driver.send_signal(signal.SIGKILL)
        output = driver.communicate()[0]
    assert worker in started
    assert still_running(started, after_s=5) == []
    assert [folder.exists() for folder in folders] == [False]
    assert output == b""
    assert not (home / ".ray").exists()


@pytest.mark.ray
def test_who_sees_to_sigterm_does_so_once_connected(tmp_path: Path) -> None:
    """Ray's own handler would end the process with status 15, and without a word, while data are read."""
    code = (
        "import signal; from ensemble_svc.cluster.session import connect\n"
        "def mine(*_): print('mine', flush=True)\n"
        "signal.signal(signal.SIGTERM, mine)\n"
        "with connect(num_cpus=1): signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "mine\n")


def test_who_sees_to_sigterm_hears_of_it_while_ray_starts() -> None:
    """Ray's handler, which is there by then, leaves the process with the signal's number."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    try:
        with pytest.raises(SystemExit), session._own_sigterm():
            sys.exit(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
