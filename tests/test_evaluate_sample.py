"""The sample of rows: joined in any order it is that of all rows; with nothing offered it is empty."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from ensemble_svc.evaluate.sample import Sample


def offered(spans: list[tuple[int, int]], seed: int) -> Sample:
    """A sample of at most 20 rows that is offered rows [start, start + count) of one file, then closed."""
    found = Sample(20, 1 << 20, seed=seed)
    for start, count in spans:
        value_N = torch.arange(start, start + count).double()
        found.offer({"mean": value_N.view(1, -1, 1)}, value_N, shard=0, start=start)
    return found.close()


@given(st.integers(0, 1000), st.lists(st.integers(1, 30), max_size=5), st.booleans())
def test_joined_with_those_that_were_offered_nothing_it_stays_what_it_is(seed, counts, nothing_first) -> None:
    starts = [sum(counts[:i]) for i in range(len(counts))]
    spans = list(zip(starts, counts, strict=True))
    whole, nothing = offered(spans, seed), offered([], seed)
    assert (nothing.seen, nothing.is_all) == (0, True)
    parts = [nothing, whole] if nothing_first else [whole, nothing]
    parts[0].join(parts[1])
    assert parts[0].close().seen == sum(counts)
    if counts:
        members, target = parts[0].rows()
        assert len(target) == min(20, sum(counts))
        assert torch.equal(members["mean"][0, :, 0], target)
        assert torch.equal(target, target.sort().values)
