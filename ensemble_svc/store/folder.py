"""A run folder to look at: its journal, its job and its documents, verified; nothing here loads torch."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from ensemble_svc.errors import StoreError
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.store.atomic import read_verified
from ensemble_svc.store.document import Document, read_document
from ensemble_svc.store.journal import Journal

DISTILLATION = "distillation.json"
"""How a student does against its teacher."""
EXHIBITS = "exhibits.json"
"""What the report shows besides the metrics."""


class Folder:
    """The run at ``path``; only relative names are stored in it, so it may be moved or copied."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """A run that exists.

        Raises:
            StoreError: the folder holds no run.
        """
        run = cls(path)
        if not run.exists():
            raise StoreError(f"{path} holds no run (no job.yaml and journal.jsonl in it)")
        return run

    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        return (self.path / "job.yaml").is_file() and self.journal.path.is_file()

    @property
    def journal(self) -> Journal:
        """The record of everything that happened to the run."""
        return Journal(self.path / "journal.jsonl")

    @property
    def directory(self) -> Path:
        """Where the job's relative paths start, as of its last start."""
        return Path(self.journal.of_kind("begin")[-1]["directory"])

    def job(self) -> JobSpec:
        """The resolved job, checked against the hash in the journal."""
        begun = self.journal.of_kind("begin")
        if not begun:
            raise StoreError(f"{self.path} holds no run that was begun")
        read_verified(self.path / "job.yaml", begun[-1]["job_sha256"])
        return JobSpec.from_json(begun[-1]["job"])

    def rows_hash(self) -> str:
        """Hash of the rows and their targets; a student's data hash is of its teacher's words too."""
        found: str = self.manifest()["data_hash"]
        if DISTILLATION in self.manifest()["files"]:
            self.verified(DISTILLATION)
            found = read_document(self.path / DISTILLATION)["rows_hash"]
        return found

    def manifest(self) -> Document:
        """The run's state as of its last step."""
        return read_document(self.path / "manifest.json")

    def metrics(self) -> Document:
        """Every number of the evaluation, by split."""
        self.verified("metrics.json")
        body = read_document(self.path / "metrics.json")
        return {name: value for name, value in body.items() if name != "schema_version"}

    def exhibits(self) -> Document:
        """What the report shows besides the metrics; empty where the run was measured without it."""
        if EXHIBITS not in self.manifest().get("files", {}):
            return {}
        self.verified(EXHIBITS)
        return read_document(self.path / EXHIBITS)

    def verified(self, name: str) -> bytes:
        """Bytes of a file that the manifest lists.

        Raises:
            StoreError: the run has no such file yet.
            CorruptArtifact: its bytes are not those recorded.
        """
        return read_verified(self.path / name, self._recorded(name))

    def _recorded(self, name: str) -> str:
        """The SHA-256 of a file that the manifest lists."""
        files: dict[str, str] = self.manifest().get("files", {})
        if name not in files:
            raise StoreError(f"{self.path} has no {name} yet; finish the training command first")
        return files[name]
