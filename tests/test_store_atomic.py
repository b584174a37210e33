"""Laws of the store's files: old or new, never torn; a flipped byte or a torn end is found and named."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_svc.errors import CorruptArtifact, RunInUse, StoreError
from ensemble_svc.store import atomic
from ensemble_svc.store.atomic import read_verified, write_atomic
from ensemble_svc.store.commits import Commits
from ensemble_svc.store.document import read_document, write_document
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.lock import sole_driver
from ensemble_svc.store.tensors import decode, encode


def flipped(body: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(body)
    changed[position % len(body)] ^= 1 << bit
    return bytes(changed)


def state() -> dict[str, torch.Tensor]:
    return {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor([7, 8])}


class TestAtomic:
    @settings(max_examples=60)
    @given(st.binary(min_size=1, max_size=200), st.integers(0, 10**6), st.integers(0, 7))
    def test_a_flipped_bit_is_found_wherever_it_is(self, tmp_path_factory, body, position, bit):
        path = tmp_path_factory.mktemp("flip") / "file"
        sha = write_atomic(path, body)
        assert read_verified(path, sha) == body
        path.write_bytes(flipped(body, position, bit))
        with pytest.raises(CorruptArtifact, match="file"):
            read_verified(path, sha)

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
    def test_a_failing_system_call_leaves_the_old_file(self, tmp_path, monkeypatch, call, code):
        path = tmp_path / "file"
        write_atomic(path, b"old")

        def fail(*args: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(atomic.os, call, fail)
        with pytest.raises(StoreError, match="unharmed"):
            write_atomic(path, b"new")
        monkeypatch.undo()
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["file"]

    def test_a_full_disk_is_named(self, tmp_path):
        """A real file-size limit in a process of its own, as a full disk behaves."""
        code = (
            "import resource, signal, sys; from pathlib import Path\n"
            "from ensemble_svc.errors import StoreError\n"
            "from ensemble_svc.store.atomic import write_atomic\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "path = Path(sys.argv[1]); write_atomic(path, b'old')\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "try: write_atomic(path, b'x' * 5000)\n"
            "except StoreError as fault: print(fault)\n"
        )
        path = tmp_path / "file"
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        assert str(path) in done.stdout
        assert path.read_bytes() == b"old"


class TestTensors:
    def test_load_of_save_is_the_identity(self):
        tensors, meta = decode(encode(state(), {"epoch": 3}), Path("x"))
        assert meta == {"epoch": 3}
        assert all(torch.equal(tensors[name], value) for name, value in state().items())

    @settings(max_examples=60)
    @given(st.integers(0, 10**6))
    def test_truncation_is_named_at_any_length(self, length):
        body = encode(state())
        with pytest.raises(CorruptArtifact, match=r"x\.safetensors"):
            decode(body[: length % len(body)], Path("x.safetensors"))


class TestDocument:
    def test_every_flipped_bit_is_found(self, tmp_path):
        path = tmp_path / "manifest.json"
        write_document(path, {"name": "a", "members": [1, 2.5, None]})
        body = path.read_bytes()
        assert read_document(path)["members"] == [1, 2.5, None]
        for position in range(len(body)):
            path.write_bytes(flipped(body, position, 1))
            with pytest.raises(CorruptArtifact, match="manifest"):
                read_document(path)


class TestJournal:
    def test_a_torn_last_line_is_ignored_and_then_cut_off(self, tmp_path):
        journal = Journal(tmp_path / "journal.jsonl")
        journal.append("one", x=1)
        whole = journal.path.read_bytes()
        journal.append("two")
        last = journal.path.read_bytes()[len(whole) :]
        for length in range(len(last)):
            journal.path.write_bytes(whole + last[:length])
            assert [e["event"] for e in journal.events()] == ["one"]
            journal.append("three")
            assert [e["event"] for e in journal.events()] == ["one", "three"]

    def test_damage_before_the_last_line_is_named(self, tmp_path):
        journal = Journal(tmp_path / "journal.jsonl")
        journal.append("one", text="abc")
        journal.append("two")
        body = journal.path.read_bytes()
        end = body.index(b"\n")
        for position in range(end):
            journal.path.write_bytes(flipped(body, position, 0))
            with pytest.raises(CorruptArtifact, match="line 1"):
                list(journal.events())

    def test_many_processes_append_whole_lines(self, tmp_path):
        path = tmp_path / "journal.jsonl"
        code = (
            "import sys; from pathlib import Path\n"
            "from ensemble_svc.store.journal import Journal\n"
            "for i in range(50): Journal(Path(sys.argv[1])).append('x', who=sys.argv[2], i=i, pad='y' * 5000)\n"
        )
        crowd = [subprocess.Popen([sys.executable, "-c", code, str(path), str(w)]) for w in range(3)]
        assert all(process.wait() == 0 for process in crowd)
        events = list(Journal(path).events())
        assert len(events) == 150
        for who in "012":
            assert [e["i"] for e in events if e["who"] == who] == list(range(50))


class TestCommits:
    def commits(self, run: Path) -> Commits:
        return Commits(run, "p", ("d1", "d2"), "attempt")

    def test_the_newest_whole_commit_comes_back(self, tmp_path):
        commits = self.commits(tmp_path)
        for epoch in (1, 2, 3):
            commits.write(epoch, {"w": torch.full((2,), float(epoch))}, {"fact": epoch})
        tensors, meta = commits.newest()
        assert (tensors["w"][0], meta["fact"], meta["epoch"]) == (3, 3, 3)
        assert len(list(commits.folder.iterdir())) == 2

    @pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
    def test_a_damaged_commit_is_passed_over(self, tmp_path, damage):
        commits = self.commits(tmp_path)
        for epoch in (1, 2):
            commits.write(epoch, {"w": torch.full((2,), float(epoch))}, {})
        path = max(commits.folder.iterdir())
        body = path.read_bytes()
        if damage == "delete":
            path.unlink()
        else:
            path.write_bytes(flipped(body, len(body) - 2, 3) if damage == "flip" else body[:-1])
        assert commits.newest()[1]["epoch"] == 1

    def test_a_file_that_no_journal_line_names_is_never_loaded(self, tmp_path):
        commits = self.commits(tmp_path)
        commits.write(1, {"w": torch.zeros(2)}, {})
        (commits.folder / "state-000009-other.safetensors").write_bytes(
            encode({"w": torch.ones(2)}, {"epoch": 9})
        )
        assert commits.newest()[1]["epoch"] == 1

    def test_commits_of_other_members_do_not_count(self, tmp_path):
        self.commits(tmp_path).write(1, {"w": torch.zeros(2)}, {})
        assert Commits(tmp_path, "p", ("d1", "d3"), "attempt").newest() is None


class TestLock:
    def test_a_second_driver_is_told_who_holds_the_run(self, tmp_path):
        with sole_driver(tmp_path):
            code = (
                "import sys; from pathlib import Path\n"
                "from ensemble_svc.store.lock import sole_driver\n"
                "with sole_driver(Path(sys.argv[1])): print('in')\n"
            )
            done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
            assert f"process {os.getpid()}" in done.stderr
            assert done.returncode != 0
        with sole_driver(tmp_path):
            pass

    def test_a_killed_holder_frees_the_run_at_once(self, tmp_path):
        code = (
            "import os, sys; from pathlib import Path\n"
            "from ensemble_svc.store.lock import sole_driver\n"
            "with sole_driver(Path(sys.argv[1])): os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
        assert done.returncode == -9
        with sole_driver(tmp_path):
            pass

    def test_within_one_process_too(self, tmp_path):
        with sole_driver(tmp_path), pytest.raises(RunInUse), sole_driver(tmp_path):
            pass
