"""A sample of rows of fixed size, from files that are read in any order and by anybody.

Each row has a key that looks random (``places.row_keys``), and those with the smallest keys are kept: a uniform sample
without replacement, whatever way the rows are cut into pieces. Laws: joining is associative and takes the parts in any
order; as many rows as there is room for are all kept.

Shapes: N rows, K members.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ensemble_svc.evaluate.places import row_keys

SHARD_BITS = 40
"""A row's place in all files: its file's number above this bit, its place in it below."""


class Sample:
    """The rows kept so far, and what the members say of them.

    Args:
        rows: most that are kept.
        numbers: most numbers of the members that are kept; fewer rows where they say much of each.
        seed: of the keys.
    """

    def __init__(self, rows: int, numbers: int, *, seed: int) -> None:
        self._most, self._numbers, self._seed = rows, numbers, seed
        self.seen = 0
        """Rows that were offered."""
        self._parts: list[dict[str, Tensor]] = []
        self._limit = torch.iinfo(torch.int64).max

    def offer(self, members: Mapping[str, Tensor], target: Tensor, *, shard: int, start: int) -> None:
        """Take in the next rows of a file.

        Args:
            members: predictions [K, N, …]; none of the names is ``target``, ``key`` or ``place``.
        """
        count = len(target)
        if not self.seen and count:
            each = sum(value[:, :1].numel() for value in members.values())
            self._most = max(1, min(self._most, self._numbers // max(1, each)))
        self.seen += count
        key_N = row_keys(shard, start, count, use="sample", seed=self._seed)
        at = (key_N <= self._limit).nonzero()[:, 0]
        place_N = torch.arange(start, start + count) + (shard << SHARD_BITS)
        part = {name: value[:, at] for name, value in members.items()}
        self._keep({**part, "target": target[at], "key": key_N[at], "place": place_N[at]})

    def join(self, other: Sample) -> None:
        """Take in what another has kept."""
        self.seen += other.seen
        self._most = min(self._most, other._most)
        for part in other._parts:
            self._keep(part)

    def rows(self) -> tuple[dict[str, Tensor], Tensor]:
        """Predictions [K, N, …] and targets of the rows kept, in the order of the files and of the rows in them."""
        self._thin()
        (part,) = self._parts
        order = part["place"].argsort()
        members = {
            name: value[:, order] for name, value in part.items() if name not in ("target", "key", "place")
        }
        return members, part["target"][order]

    @property
    def is_all(self) -> bool:
        """Whether every row is kept."""
        return self.seen <= self._most

    def close(self) -> Sample:
        """The same without what more rows would have pushed out: the least to send."""
        self._thin()
        return self

    def _keep(self, part: dict[str, Tensor]) -> None:
        self._parts.append(part)
        if sum(len(one["key"]) for one in self._parts) > 2 * self._most:
            self._thin()

    def _thin(self) -> None:
        if not self._parts:
            return
        whole = {
            name: torch.cat([part[name] for part in self._parts], dim=_rows_of(name))
            for name in self._parts[0]
        }
        if len(whole["key"]) > self._most:
            kept = whole["key"].argsort()[: self._most]
            whole = {name: value.index_select(_rows_of(name), kept) for name, value in whole.items()}
            self._limit = int(whole["key"].max())
        self._parts = [whole]


def _rows_of(name: str) -> int:
    return 0 if name in ("target", "key", "place") else 1
