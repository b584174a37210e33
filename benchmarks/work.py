"""What is trained: K members of one network on one data set, with one recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Work:
    """One task that every contender does; AdamW at a constant rate, cross-entropy, no validation rows."""

    name: str
    title: str
    data: Literal["digits", "digits_images", "fashion_mnist"]
    model: Literal["mlp", "lenet", "convnet"]
    members: int
    epochs: int
    batch: int
    lr: float = 1e-3
    weight_decay: float = 0.01
    rows: int | None = None
    """Training rows that are used; all when absent."""
    seed: int = 0

    def tiny(self) -> Work:
        """The same kind of work in a second, for tests."""
        return replace(self, members=min(3, self.members), epochs=2, rows=256)

    def facts(self) -> dict[str, Any]:
        """The work as plain data."""
        return asdict(self)


WORKS = {
    work.name: work
    for work in (
        Work("digits16", "16 MLP 64-128-128-10 on the digits", "digits", "mlp", 16, epochs=20, batch=64),
        Work("digits64", "64 MLP 64-128-128-10 on the digits", "digits", "mlp", 64, epochs=20, batch=64),
        Work(
            "lenet10",
            "10 LeNet-5 on 10,000 rows of Fashion-MNIST",
            "fashion_mnist",
            "lenet",
            10,
            epochs=2,
            batch=256,
            rows=10_000,
        ),
        Work(
            "convnet8",
            "8 small convnets on the digits at 16x16",
            "digits_images",
            "convnet",
            8,
            epochs=5,
            batch=64,
        ),
    )
}
