"""Laws of the packed forward pass: the same numbers whatever the memory it may take, and no more of it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ensemble_svc.train.assemble import stack
from ensemble_svc.train.forward import activation_bytes, outputs


def nets(num_members: int, width: int) -> list[nn.Module]:
    torch.manual_seed(num_members)
    return [
        nn.Sequential(nn.Linear(5, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3)).eval()
        for _ in range(num_members)
    ]


@settings(max_examples=40)
@given(
    num_members=st.integers(1, 4),
    num_rows=st.integers(0, 70),
    budget=st.integers(1, 20_000),
    alone=st.booleans(),
)
def test_any_budget_gives_what_each_member_gives_alone(num_members, num_rows, budget, alone) -> None:
    members = nets(num_members, 7)
    x = torch.randn(num_rows, 5)
    found = outputs(members[0], stack([m.state_dict() for m in members]), x, alone=alone, budget_bytes=budget)
    assert found.shape == (num_members, num_rows, 3)
    with torch.no_grad():
        for k, member in enumerate(members):
            torch.testing.assert_close(found[k], member(x))


@pytest.mark.parametrize("width", [4, 50, 300])
def test_a_row_takes_its_two_largest_neighbours(width) -> None:
    net = nets(1, width)[0]
    assert activation_bytes(net, net.state_dict(), torch.randn(9, 5)) == 4 * (
        2 * width if width > 5 else 5 + width
    )


@settings(max_examples=20)
@given(num_members=st.integers(1, 4), rows=st.integers(1, 64))
def test_no_chunk_is_larger_than_its_budget(num_members, rows) -> None:
    seen: list[int] = []

    class Wide(nn.Module):
        def forward(self, x_B: Tensor) -> Tensor:
            seen.append(len(x_B))
            return x_B.repeat(1, 10)

    state = {"unused": torch.zeros(num_members, 1)}
    row_bytes = 4 * (5 + 50) * num_members
    outputs(Wide(), state, torch.randn(64, 5), budget_bytes=row_bytes * rows)
    assert max(seen[1:]) <= rows
    assert sum(seen[1:]) >= 64
