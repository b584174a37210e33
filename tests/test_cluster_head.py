"""A real head with a token, reached as a user reaches it: connecting, submitting, following, stopping."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cluster_processes import end, family
from kept_ray import KeptRay

from ensemble_svc.cluster.auth import find_token, make_token_file
from ensemble_svc.cluster.jobs import Jobs
from ensemble_svc.cluster.reach import check_head, check_jobs, check_port
from ensemble_svc.cluster.session import connect
from ensemble_svc.errors import ClusterError
from ensemble_svc.store.run import Run

pytestmark = pytest.mark.ray
HERE = Path(__file__).parent
DRIVER = '''"""A job as the cluster runs it: connects to where it is and trains one slot there."""
import sys
from pathlib import Path
from cluster_slots import Payload, fit_slot, make_slot
from ensemble_svc.cluster.executor import RayExecutor
from ensemble_svc.cluster.session import connect

name, out, *sets = sys.argv[1:]
Path(out).mkdir(parents=True, exist_ok=True)
with connect("auto", directory=Path.cwd()):
    try:
        RayExecutor(Path(out, "tune")).run(
            [make_slot(0)],
            fit_slot,
            Payload(out, epoch_s=1000.0 if "for ever" in sets else 0.1),
            on_progress=lambda slot, progress: print("epoch", progress.epoch, sets, flush=True),
            on_failure=print,
        )
    except KeyboardInterrupt as stopped:
        print("stopped by", stopped.args, flush=True)
        raise SystemExit(130)
print("trained", name, flush=True)
'''


@dataclass(frozen=True)
class Head:
    """A running head."""

    address: str
    jobs: str
    token: Path | None
    logs: Path
    agent: int
    """Port of the node's agent, the last of its parts to start."""


@contextmanager
def running_head(folder: Path, *, token: Path | None) -> Iterator[Head]:
    """Start a head with ports and folders of its own; end the processes it started, and no others."""
    gcs, dashboard, agent, grpc, client = free_ports(5)
    ports = f"--port {gcs} --dashboard-port {dashboard} --ray-client-server-port {client} --dashboard-agent-"
    ports += f"listen-port {agent} --dashboard-agent-grpc-port {grpc} --dashboard-host 127.0.0.1"
    rest = f"--num-cpus 2 --object-store-memory 100000000 --disable-usage-stats --temp-dir {folder} --block"
    settings = (
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        if token
        else {"RAY_AUTH_MODE": "disabled"}
    )
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", *ports.split(), *rest.split()]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | settings, start_new_session=True
        )
    try:
        yield Head(f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}", token, folder, agent)
    finally:
        end(family(process.pid))
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now and that lie outside the range of Ray's workers."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def when_up(head: Head, *, insecure: bool = False) -> Head:
    """Wait until all parts of the head answer."""
    until = time.monotonic() + 240
    while True:
        try:
            check_jobs(head.jobs, find_token(head.token) if head.token else None, insecure=insecure)
            check_port("127.0.0.1", head.agent, address="the agent")
        except ClusterError:
            assert time.monotonic() < until, (head.logs / "head.log").read_text()
            time.sleep(0.2)
        else:
            return head


@pytest.fixture(scope="module", autouse=True)
def unconnected(kept_ray: KeptRay) -> None:
    """What connects here finds no connection of another file's."""
    kept_ray.end()


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Head, Head]]:
    """One that asks for a token and one that asks for nothing."""
    folder, other = tmp_path_factory.mktemp("h"), tmp_path_factory.mktemp("o")
    token = make_token_file(folder / "token")
    with running_head(folder, token=token) as head, running_head(other, token=None) as open_head:
        yield when_up(head), when_up(open_head, insecure=True)


@pytest.fixture
def head(heads: tuple[Head, Head]) -> Head:
    return heads[0]


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    return make_token_file(tmp_path / "wrong")


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    folder = tmp_path / "my jobs"
    folder.mkdir()
    (folder / "run.py").write_text(DRIVER)
    (folder / "cluster_slots.py").write_text((HERE / "cluster_slots.py").read_text())
    (folder / ".env").write_text("SECRET=1")
    job = folder / "di gits.yaml"
    job.write_text("name: digits\n")
    return job


def script(name: str, out: str, overrides: Sequence[str]) -> Sequence[str]:
    return [sys.executable, "run.py", name, out, *overrides]


def test_a_wrong_and_a_missing_token_are_named_at_once(
    head: Head, wrong: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    began = time.monotonic()
    with (
        pytest.raises(ClusterError, match=r"refused the token from .*wrong"),
        connect(head.address, token_file=wrong),
    ):
        pass
    with pytest.raises(ClusterError, match="asks for a token and none was found"), connect(head.address):
        pass
    for ask in (
        Jobs.recent,
        lambda jobs: jobs.find("x"),
        lambda jobs: jobs.stop("x"),
        lambda jobs: list(jobs.logs("x")),
    ):
        with pytest.raises(ClusterError, match="refused the token"):
            ask(Jobs(head.jobs, wrong))
        with pytest.raises(ClusterError, match="RAY_AUTH_TOKEN_PATH"):
            ask(Jobs(head.jobs))
    assert time.monotonic() - began < 10


def test_a_job_is_submitted_followed_and_listed(
    head: Head, job_file: Path, tmp_path: Path, wrong: Path
) -> None:
    """The job itself connects to the cluster it runs on and trains a slot there."""
    jobs, out = Jobs(head.jobs, head.token), tmp_path / "out"
    harmful = f"a=1; touch {tmp_path}/pwned $(touch {tmp_path}/pwned)"
    with pytest.raises(ClusterError, match="refused the token"):
        Jobs(head.jobs, wrong).submit(job_file, out=str(out), entrypoint=script)
    told = {"name": "digits", "members": "2"}
    job_id = jobs.submit(job_file, out=str(out), overrides=[harmful], entrypoint=script, about=told)
    log = "".join(jobs.logs(job_id, follow=True))
    job = jobs.find(job_id)
    assert (job.status, job.exit_code, job.finished) == ("SUCCEEDED", 0, True), log
    assert [f"epoch {epoch}" in log for epoch in (1, 2, 3)] == [True] * 3
    assert "trained di gits.yaml" in log
    assert "".join(jobs.logs(job_id)) == log
    assert job_id in [job.id for job in jobs.recent()]
    assert job.metadata == {"out": str(out), "job": job_file.name, **told}
    assert job_id.startswith("di-gits-")
    assert not (tmp_path / "pwned").exists()
    assert head.token is not None
    secret = head.token.read_text()
    assert secret not in log + job.command + str(job.metadata)
    files = [p for p in head.logs.rglob("*") if p.is_file() and not p.is_symlink() and p != head.token]
    assert [p.name for p in files if secret.encode() in p.read_bytes()] == []
    assert [p.name for p in files if p.name == ".env"] == []


def test_a_stopped_job_gets_its_signal_and_time_to_commit(head: Head, job_file: Path, tmp_path: Path) -> None:
    jobs, out = Jobs(head.jobs, head.token), tmp_path / "out"
    job_id = jobs.submit(job_file, out=str(out), overrides=["for ever"], entrypoint=script)
    until = time.monotonic() + 240
    while not list(out.glob("*.0")):  # its slot has begun
        assert time.monotonic() < until, "".join(jobs.logs(job_id))
        time.sleep(0.2)
    assert jobs.stop(job_id)
    log = "".join(jobs.logs(job_id, follow=True))
    assert f"stopped by ({int(signal.SIGINT)},)" in log
    assert jobs.find(job_id).status == "STOPPED"
    assert not jobs.stop(job_id)


def test_an_unknown_job_and_what_is_no_job_service_are_said_to_be_so(head: Head) -> None:
    with pytest.raises(ClusterError, match="knows no job 'nope'"):
        list(Jobs(head.jobs, head.token).logs("nope", follow=True))
    with pytest.raises(ClusterError, match="use submit"), connect(head.jobs):
        pass
    with pytest.raises(ClusterError, match="not as the head"):
        check_head(head.jobs.removeprefix("http://"), None)


def test_a_cluster_that_lets_everybody_in_is_refused(heads: tuple[Head, Head], job_file: Path) -> None:
    address = heads[1].jobs
    with pytest.raises(ClusterError, match="without authentication"):
        Jobs(address).submit(job_file, out="/tmp/never")
    assert Jobs(address, insecure=True).recent() == ()
    assert check_head(heads[1].address, None) is None


JOB = """\
name: travelled
data: {source: {name: python, factory: "my_data:load"}, test: 0.4}
model: {name: python, factory: "my_net:build"}
training: {epochs: 2, batch_size: 32}
ensemble: {members: 2}
evaluate: {resamples: 100}
"""
MY_DATA = """\
import numpy as np
def load():
    x = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    return {"x": x, "y": (x.sum(1) > 0).astype("int64")}
"""
MY_NET = """\
from torch import nn
def build(input_shape, num_outputs):
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.ReLU(), nn.Linear(8, num_outputs))
"""


def test_a_submitted_job_trains_with_the_users_own_modules(head: Head, tmp_path: Path) -> None:
    """The command line's own way: submit with a token, follow to the end, find the run."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name, text in (("job.yaml", JOB), ("my_data.py", MY_DATA), ("my_net.py", MY_NET)):
        (folder / name).write_text(text)
    out = tmp_path / "run"
    verb = [sys.executable, "-m", "ensemble_svc", "submit", str(folder / "job.yaml"), "--address", head.jobs]
    done = subprocess.run(
        [*verb, "--out", str(out), "--follow"],
        env=os.environ | {"RAY_AUTH_TOKEN_PATH": str(head.token)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "report:" in done.stdout
    assert [m["status"] for m in Run.open(out).manifest()["members"]] == ["done", "done"]
