"""The slots of a run as one block of bytes, in which a worker finds its own without unpacking the others.

A dictionary of ten thousand texts would be unpickled anew for each trial; arrays lie in Ray's shared memory and are
looked at where they lie, so that a trial pays for its own slot alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Cargo:
    """Texts by name; N of them."""

    names_N: npt.NDArray[np.bytes_]
    """Sorted."""
    ends_N: npt.NDArray[np.int64]
    """Where each text ends in ``body``; it begins where the one before it ends."""
    body: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Self:
        """Packed, at least one of them."""
        names = sorted(texts, key=str.encode)
        parts = [texts[name].encode() for name in names]
        ends_N = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.array([name.encode() for name in names]), ends_N, _bytes(b"".join(parts)))

    def __getitem__(self, name: str) -> str:
        """The text of that name.

        Raises:
            KeyError: there is none.
        """
        place = int(np.searchsorted(self.names_N, np.bytes_(name.encode())))
        if place == len(self.names_N) or self.names_N[place] != name.encode():
            raise KeyError(name)
        start = int(self.ends_N[place - 1]) if place else 0
        return self.body[start : int(self.ends_N[place])].tobytes().decode()


def _bytes(body: bytes) -> npt.NDArray[Any]:
    return np.frombuffer(body, dtype=np.uint8)
