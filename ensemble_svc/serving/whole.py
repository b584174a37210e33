"""The whole chosen ensemble as one module: raw rows in, the ensemble's answer out.

Members of one structure are one stack, written out layer by layer (``nn.packed``), so the graph is that of one
member with larger tensors. Members whose preprocessing was fitted on the same rows share it. Preprocessing that
was fitted on rows of each member's own, and networks of the user's own, stand in the graph one after another.

Shapes: K members of one structure, M of all, B rows, O outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ensemble_svc.errors import EnsembleError
from ensemble_svc.nn import packed
from ensemble_svc.nn.heads import to_prediction
from ensemble_svc.nn.member import in_target_units, scales
from ensemble_svc.nn.tasks import Heads, part_of
from ensemble_svc.predictor import Ensemble, Group
from ensemble_svc.serving.answers import Classes, Numbers


class Kept(nn.Module):
    """Tensors by names that may hold dots, as buffers of a module."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = {name: name.replace(".", "__") for name in tensors}
        for name, value in tensors.items():
            self.register_buffer(self.names[name], value.detach().clone())

    def forward(self) -> dict[str, Tensor]:
        """The tensors under their own names."""
        return {name: self.get_buffer(kept) for name, kept in self.names.items()}


class Stacked(nn.Module):
    """K members of one structure on the same rows."""

    def __init__(self, group: Group) -> None:
        super().__init__()
        self.num_members, self.answer = len(group.members), group.answer
        self._template = (group.net.eval(),)  # in a tuple, so that its own weights are not the graph's
        fitted = _under("transform.", group.weights)
        self.alike = all(bool((value == value[:1]).all()) for value in fitted.values())
        self.fitted = Kept({name: value[0] if self.alike else value for name, value in fitted.items()})
        self.weights = Kept(_under("body.", group.weights))
        self.scales = Kept(scales(group.weights))

    def forward(self, x_B: Tensor) -> dict[str, Tensor]:
        """Predictions as ``train.forward.predict`` gives them, [K, B, …]."""
        outputs_KBO = self._outputs(self._transformed(x_B)).float()
        if isinstance(self.answer, Heads):
            return self.answer.predict(outputs_KBO, self.scales())
        return in_target_units(to_prediction(self.answer, outputs_KBO), self.scales())

    def _transformed(self, x_B: Tensor) -> Tensor:
        """One after another where they differ: under ``vmap`` the number of rows would be fixed (torch 2.13)."""
        transform, fitted = self._template[0].transform, self.fitted()
        if self.alike:
            z_B: Tensor = functional_call(transform, fitted, (x_B,))
            return z_B.expand(self.num_members, *z_B.shape)
        each = [{n: value[k] for n, value in fitted.items()} for k in range(self.num_members)]
        return torch.stack([functional_call(transform, own, (x_B,)) for own in each])

    def _outputs(self, z_KB: Tensor) -> Tensor:
        body, weights_K = self._template[0].body, self.weights()
        if packed.is_known(body):
            return packed.forward(body, weights_K, z_KB)
        each = [{n: value[k] for n, value in weights_K.items()} for k in range(self.num_members)]
        return torch.stack([functional_call(body, own, (z_KB[k],)) for k, own in enumerate(each)])


class Whole(nn.Module):
    """Every chosen member, from raw rows to the ensemble's answer.

    Of several tasks each has its own outputs, its name and a slash before theirs.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        super().__init__()
        if any(group.draws for group in ensemble.groups):
            raise EnsembleError(
                "members of drawn dropout (ensemble.mc_samples) cannot be exported: their masks are draws"
            )
        self.groups = nn.ModuleList([Stacked(group) for group in ensemble.groups])
        decision, schema = ensemble.decision, ensemble.schema
        parts = [(schema.part(task), decision.of(task)) for task in ensemble.tasks] or [(schema, decision)]
        self.tasks = ensemble.tasks
        self.answers = nn.ModuleList(
            [
                (Classes if part.classes else Numbers)(own, _placed(own.weights, ensemble.order))
                for part, own in parts
            ]
        )
        self.eval()

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """Outputs by name, [B, …] float32 each.

        Args:
            rows: raw rows of the schema's shape and type.
        """
        each = [group(rows) for group in self.groups]
        joined = {name: torch.cat([one[name] for one in each]) for name in each[0]}
        if not self.tasks:
            return dict(self.answers[0](joined))
        found: dict[str, Tensor] = {}
        for task, answer in zip(self.tasks, self.answers, strict=True):
            found |= {f"{task}/{name}": value for name, value in answer(part_of(joined, task)).items()}
        return found


def _placed(weights: Sequence[float], order: Sequence[int]) -> list[float]:
    """The members' weights in the graph's order."""
    placed = dict(zip(order, weights, strict=True))
    return [placed[place] for place in range(len(placed))]


def _under(head: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(head): weight for n, weight in weights.items() if n.startswith(head)}
