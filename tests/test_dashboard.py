"""The page of live runs: bounded, read-only, for those who ask it by its name, and shown by a real browser."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from dashboard_runs import write_run

from ensemble_svc.dashboard.server import Handler, Server, is_loopback
from ensemble_svc.dashboard.shelf import Shelf
from ensemble_svc.dashboard.state import CURVES_UP_TO, MEMBERS_UP_TO, POINTS_UP_TO, detail, sampled
from ensemble_svc.errors import StoreError
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.outlook import best, group_of
from ensemble_svc.store.reached import Reached

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-extensions")  # fmt: skip
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@contextmanager
def serving(path: Path, host: str = "127.0.0.1") -> Iterator[Server]:
    with Server(Shelf(path), host, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: Server, path: str, *, host: str | None = None, method: str = "GET") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.request(method, path, headers={"Host": host} if host is not None else {})
    answer = connection.getresponse()
    return answer.status, answer.read()


def state(path: Path) -> tuple[Reached, dict[str, Any]]:
    run = Reached(path)
    run.update()
    return run, detail(run, run.changed)


class TestTheState:
    def test_a_run_under_way_is_told_of(self, tmp_path):
        write_run(tmp_path / "search", members=16, pack=4)
        run, told = state(tmp_path / "search")
        assert told["state"] == "running"
        assert told["counts"] == {
            "pending": 4,
            "training": 1,
            "stopped": 9,
            "done": 2,
            "sick": 0,
            "failed": 0,
        }
        assert [rung["epoch"] for rung in told["rungs"]] == [3, 6]
        assert [pack["state"] for pack in told["packs"]] == ["training", "done", "done", "pending"]
        top = best(run)
        assert top is not None
        assert told["best"]["number"] == top.number
        assert told["left_s"] > 0
        assert [key["name"] for key in told["keys"] if key["log"]] == ["training.optimizer.lr"]
        assert "its machine was lost" in told["warnings"][0]

    @pytest.mark.parametrize("members", [1, 59, 61, 1500])
    def test_it_is_bounded_and_has_the_best(self, tmp_path, members):
        write_run(tmp_path / "search", members=members, pack=64, epochs=300, upto=9)
        run, told = state(tmp_path / "search")
        assert len(told["members"]) == min(members, MEMBERS_UP_TO) == members - told["hidden"]
        assert len(told["curves"]) <= CURVES_UP_TO
        assert all(len(curve["epoch"]) <= POINTS_UP_TO for curve in told["curves"])
        assert len(json.dumps(told, allow_nan=False)) < 400_000
        top = best(run)
        if top is not None:
            assert top.number in {m.spec.index for m in sampled(run, CURVES_UP_TO)}

    def test_sick_members_are_warned_of_and_never_the_best(self, tmp_path):
        write_run(tmp_path / "search", members=64)
        run, told = state(tmp_path / "search")
        assert told["counts"]["sick"] == 1
        assert told["warnings"][0].startswith("1 of 64 members: the loss was not finite")
        assert group_of(run.members[told["best"]["number"]]) != "sick"


class TestTheServer:
    def test_a_storage_folder_is_listed_and_new_runs_appear(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ensemble_svc.dashboard.shelf.SCAN_EVERY_S", 0.0)
        write_run(tmp_path / "one")
        write_run(tmp_path / "deep" / "two", running=False)
        with serving(tmp_path) as server:
            found = json.loads(ask(server, "/api/runs")[1])
            assert {row["run"]: row["state"] for row in found["runs"]} == {
                "one": "running",
                "deep/two": "stopped",
            }
            write_run(tmp_path / "three")
            assert len(json.loads(ask(server, "/api/runs")[1])["runs"]) == 3
            assert json.loads(ask(server, "/api/run?name=deep%2Ftwo")[1])["name"] == "two"

    def test_what_is_new_is_shown_at_the_next_look(self, tmp_path):
        write_run(tmp_path / "run")
        with serving(tmp_path / "run") as server:
            assert json.loads(ask(server, "/api/run?name=run")[1])["state"] == "running"
            Journal(tmp_path / "run" / "journal.jsonl").append("finished", files={})
            assert json.loads(ask(server, "/api/run?name=run")[1])["state"] == "finished"

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "", "[::1", "10.0.0.1:{port}"])
    def test_who_asks_by_another_name_is_refused(self, tmp_path, host):
        """A page from elsewhere whose name was made to point here sends that name."""
        write_run(tmp_path / "run")
        with serving(tmp_path / "run") as server:
            for path in ("/", "/api/runs", "/api/run?name=run"):
                assert ask(server, path, host=host.format(port=server.server_address[1]))[0] == 403

    @pytest.mark.parametrize(
        "host", ["localhost:{port}", "127.0.0.1:{port}", "LOCALHOST:{port}", "localhost:9000", "localhost"]
    )
    def test_who_asks_by_its_name_is_answered(self, tmp_path, host):
        write_run(tmp_path / "run")
        with serving(tmp_path / "run") as server:
            assert ask(server, "/", host=host.format(port=server.server_address[1]))[0] == 200

    @pytest.mark.parametrize("asked", ["GPU-Box-7", "gpu-box-7:9000", "Gpu-Box-7.Lab.Example"])
    def test_a_machine_whose_name_has_capitals_answers_to_it(self, tmp_path, monkeypatch, asked):
        monkeypatch.setattr(socket, "gethostname", lambda: "GPU-Box-7")
        monkeypatch.setattr(socket, "getfqdn", lambda name="": "GPU-Box-7.Lab.example")
        write_run(tmp_path / "run")
        with serving(tmp_path / "run", host="0.0.0.0") as server:
            assert ask(server, "/", host=asked)[0] == 200
            assert ask(server, "/", host="evil.example")[0] == 403

    def test_who_hangs_up_or_says_nothing_costs_no_word_and_no_thread(self, tmp_path, monkeypatch, capfd):
        monkeypatch.setattr(Handler, "timeout", 0.1)
        write_run(tmp_path / "run", members=1500)
        with serving(tmp_path / "run") as server:
            before = threading.active_count()
            silent = socket.create_connection(server.server_address[:2])
            for _ in range(3):
                gone = socket.create_connection(server.server_address[:2])
                gone.sendall(b"GET /api/run?name=run HTTP/1.0\r\nHost: localhost\r\n\r\n")
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                gone.close()
            until = time.monotonic() + 10
            while threading.active_count() > before and time.monotonic() < until:
                time.sleep(0.05)
            assert threading.active_count() == before
            assert silent.recv(1) == b""
            silent.close()
            assert ask(server, "/")[0] == 200
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize(
        "path", ["/api/run?name=../run", "/api/run", "/etc/passwd", "/api/run?name=%2Fetc", "//[x"]
    )
    def test_nothing_else_is_there(self, tmp_path, path):
        write_run(tmp_path / "run")
        with serving(tmp_path / "run") as server:
            assert ask(server, path)[0] == 404
            assert ask(server, "/api/runs", method="POST")[0] == 501

    def test_a_damaged_journal_is_told_of_and_ends_no_page(self, tmp_path):
        write_run(tmp_path / "run")
        with serving(tmp_path / "run") as server:
            with open(tmp_path / "run" / "journal.jsonl", "ab") as file:
                file.write(b"0000 {}\n")
            for _ in range(2):
                assert "damaged" in json.loads(ask(server, "/api/run?name=run")[1])["warnings"][0]

    def test_a_run_of_another_version_is_told_of_and_ends_no_list(self, tmp_path):
        write_run(tmp_path / "good")
        (tmp_path / "bad").mkdir()
        Journal(tmp_path / "bad" / "journal.jsonl").append("begin", job='{"no_longer": 1}')
        with serving(tmp_path) as server:
            for _ in range(2):
                found = json.loads(ask(server, "/api/runs")[1])
                assert [row["run"] for row in found["runs"]] == ["good"]
                assert found["unread"] == [f"{tmp_path / 'bad'}: its job cannot be read by this version"]

    def test_a_folder_without_runs_and_a_taken_port_are_refused(self, tmp_path):
        with pytest.raises(StoreError, match="holds no run"):
            Shelf(tmp_path)
        write_run(tmp_path / "run")
        with serving(tmp_path) as server, pytest.raises(StoreError, match="give another --port"):
            Server(Shelf(tmp_path), port=server.server_address[1])

    def test_what_is_of_this_machine_alone(self):
        assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost")))
        assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "head", "localhost.evil.example")))


class TestTheCommand:
    @pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
    def test_it_says_where_it_is_warns_who_can_read_and_ends_on_a_signal(self, tmp_path, host):
        write_run(tmp_path / "run")
        command = [
            sys.executable,
            "-m",
            "ensemble_svc",
            "dashboard",
            str(tmp_path),
            "--host",
            host,
            "--port",
            "0",
        ]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # a job in the background ignores it
        ) as process:
            try:
                assert process.stdout is not None
                url = urlsplit(process.stdout.readline().strip())
                assert url.port is not None
                connection = http.client.HTTPConnection("127.0.0.1", url.port, timeout=10)
                connection.request("GET", "/api/runs")
                assert json.loads(connection.getresponse().read())["runs"][0]["state"] == "running"
                process.send_signal(signal.SIGINT)
                _, told = process.communicate(timeout=20)
            finally:
                process.kill()
        assert process.returncode == 130
        assert ("everyone who reaches 0.0.0.0 can read" in told) == (host == "0.0.0.0")
        assert "Traceback" not in told


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed, so no browser can open the page")
class TestTheBrowser:
    def load(self, url: str, profile: Path) -> tuple[str, list[str]]:
        """The page's DOM after a look or two, and what its console said."""
        log = ("--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", f"--user-data-dir={profile}")
        command = [str(CHROMIUM), "--headless", "--no-sandbox", *QUIET, *log, "--dump-dom", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def test_hostile_words_are_words_and_the_console_is_silent(self, tmp_path):
        write_run(tmp_path / "store" / "one", members=64, word=HOSTILE)
        write_run(tmp_path / "store" / "two", members=3, pack=3)
        with serving(tmp_path / "store") as server:
            dom, console = self.load(server.url + "#one", tmp_path / "profile")
        assert not console
        assert "<title>one: running</title>" in dom
        assert "its machine was lost (<img" in unescape(dom)
        assert "<img" not in dom
        assert dom.count("<path") >= 60
        assert dom.count("<circle") > 100
        assert 'href="#two"' in dom

    def test_two_thousand_members_are_drawn(self, tmp_path):
        write_run(tmp_path / "many", members=2000, pack=100, epochs=30)
        with serving(tmp_path / "many") as server:
            dom, console = self.load(server.url, tmp_path / "profile")
        assert not console
        assert "The best 200 of 2000." in dom
        assert len(dom) < 2_000_000
