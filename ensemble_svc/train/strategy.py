"""How Lightning spreads a step over processes."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.plugins.environments import TorchElasticEnvironment  # type: ignore[attr-defined]
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import nn

from ensemble_svc.spec.model import PythonModel
from ensemble_svc.train.module import SlotModule
from ensemble_svc.train.sharednorm import SharedBatchNorm


def strategy_of(module: SlotModule) -> Strategy | Literal["auto"]:
    """Lightning's own for one process, else DDP among processes that have met; batch norms are shared already.

    Buffers that are not a batch norm's (of the user's own layers) are sent round before each step, so
    that all processes have those of the first.

    On CPUs DDP walks through the graph in each step instead of learning the gradients' order in the first
    one: so they are summed in the same order before and after a resume. The user's own networks need it
    everywhere, since they may leave weights unused.
    """
    if module.share.processes == 1:
        return "auto"
    own = isinstance(module.recipe.members[0].model, PythonModel)
    return DDPStrategy(
        cluster_environment=TorchElasticEnvironment(),
        broadcast_buffers=any(_own_buffers(part) for part in module.net.body.modules()),
        find_unused_parameters=own or module.recipe.device.type == "cpu",
    )


def _own_buffers(module: nn.Module) -> bool:
    return bool(module._buffers) and not isinstance(module, SharedBatchNorm)
