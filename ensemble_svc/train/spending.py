"""What a slot does when its search's budget is used up: it stops at its next end of an epoch."""

from __future__ import annotations

from pathlib import Path

import torch

from ensemble_svc.store.spending import is_spent
from ensemble_svc.train.ledger import Ledger
from ensemble_svc.train.module import SlotModule


def stop_if_spent(run: Path, module: SlotModule, ledger: Ledger, epoch: int) -> None:
    """Stop every member that still trains, where the budget is used up; several processes do so together."""
    spent = torch.tensor(float(is_spent(run)), device=module.recipe.device)
    if not module.share.mean(spent).item() > 0:
        return
    for entry in ledger.entries:
        if entry.active:
            entry.status, entry.reason = "stopped", f"budget: used up at epoch {epoch}"
