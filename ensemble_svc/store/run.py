"""A run folder to read, tensors and tables too: everything comes back verified, or not at all."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ensemble_svc.errors import StoreError
from ensemble_svc.store.atomic import read_verified
from ensemble_svc.store.folder import DISTILLATION as DISTILLATION
from ensemble_svc.store.folder import EXHIBITS as EXHIBITS
from ensemble_svc.store.folder import Folder
from ensemble_svc.store.mapped import map_tensors
from ensemble_svc.store.members import read_tensors
from ensemble_svc.store.tensors import Tensors, decode

if TYPE_CHECKING:
    import pandas as pd


class Run(Folder):
    """The run at ``path`` with what its members have learnt and said."""

    def predictions(self, split: str) -> Tensors:
        """The members' outputs on a split, [K, N, …], with ``target`` and ``row``."""
        name = f"predictions/{split}.safetensors"
        return decode(self.verified(name), self.path / name)[0]

    def mapped(self, split: str) -> Tensors:
        """As ``predictions``, but looked at through the pages of their file; not to be written to."""
        name = f"predictions/{split}.safetensors"
        return map_tensors(self.path / name, self._recorded(name))

    def history(self, member: str) -> pd.DataFrame:
        """One row per epoch of a sealed member."""
        import pandas as pd  # here, for nobody but the caller needs it

        name = f"members/{member}/history.parquet"
        return pd.read_parquet(io.BytesIO(read_verified(self.path / name, self._files(member)[name])))

    def tensors(self, member: str, name: str) -> Tensors:
        """One of a sealed member's tensor files."""
        return read_tensors(self.path, self._files(member), member, name)

    def _files(self, member: str) -> dict[str, Any]:
        for entry in self.manifest()["members"]:
            if entry["id"] == member:
                files: dict[str, Any] = entry["files"]
                return files
        raise StoreError(f"{self.path} has no member {member}")
