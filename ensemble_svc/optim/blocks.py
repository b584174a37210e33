"""Stacks laid out so that a member's numbers are rounded alike wherever the member stands.

The fused kernel on a CPU goes through a tensor in full vectors and takes the numbers left over at
the end by another code, which rounds otherwise. A stack whose slices fill whole vectors has no
rest; the small ones that do not are laid side by side in one padded block (about 15 µs per step
however many members, where one kernel piece per slice took 200 µs for 64 members 8-50-2).

Shapes: K members, Q numbers per member in the block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

VECTOR_BYTES = 64
"""The widest vector of a CPU, and the cache line at which the kernel cuts its work among threads."""


def memory_order(stack: Tensor) -> list[int]:
    """The dimensions of a dense tensor from the farthest apart in memory to the nearest."""
    strides = stack.stride()
    return sorted(range(stack.dim()), key=lambda d: (-strides[d], d))


def as_gradients_come(stack_KOI: Tensor) -> Tensor:
    """Stacked matrices [K, O, I] in the layout in which autograd makes their gradients.

    The gradient of a matrix that multiplies a batch comes transposed. Autograd copies it into the
    parameter's own layout unless that is transposed too: an eighth of a step of 16 members
    64-128-128-10 went into these copies.
    """
    return stack_KOI.transpose(1, 2).contiguous().transpose(1, 2)


def gathered(stack: Tensor, index: Tensor) -> Tensor:
    """Some members' slices, in the layout of ``stack``."""
    order = memory_order(stack)
    back = sorted(range(len(order)), key=order.__getitem__)
    return stack.permute(order).index_select(0, index).permute(back)


def fills_vectors(stack: Tensor) -> bool:
    """Whether each slice of ``stack`` [K, …] ends where a vector ends; on a GPU it does not matter."""
    return stack.is_cuda or stack[0].numel() * stack.element_size() % VECTOR_BYTES == 0


class SideBySide:
    """A block [K, Q] that holds several stacks next to each other, padded with 0 to full vectors.

    Args:
        stacks: at least one, contiguous [K, …], all of one type.
    """

    def __init__(self, stacks: Sequence[Tensor]) -> None:
        self.stacks = list(stacks)
        self.widths = [stack[0].numel() for stack in stacks]
        self.block = self.gathered(stacks)
        self._columns = self.views(self.block)

    def gathered(self, stacks: Sequence[Tensor]) -> Tensor:
        """A new block with the values of ``stacks``."""
        first = self.stacks[0]
        lanes = VECTOR_BYTES // first.element_size()
        block = first.new_zeros(len(first), -(-sum(self.widths) // lanes) * lanes)
        self.gather(stacks, block)
        return block

    def gather(self, stacks: Sequence[Tensor], block_KQ: Tensor) -> None:
        """Write the values of ``stacks`` into a block."""
        flat = [stack.reshape(len(stack), -1) for stack in stacks]
        torch.cat(flat, 1, out=block_KQ[:, : sum(self.widths)])

    def views(self, block_KQ: Tensor) -> list[Tensor]:
        """The parts of a block, each in the shape of its stack."""
        used = block_KQ[:, : sum(self.widths)].split(self.widths, 1)
        return [part.view(stack.shape) for part, stack in zip(used, self.stacks, strict=True)]

    def pull(self) -> None:
        """Bring the block up to date with the stacks."""
        self.gather(self.stacks, self.block)

    def push(self) -> None:
        """Bring the stacks up to date with the block."""
        torch._foreach_copy_(self.stacks, self._columns)
