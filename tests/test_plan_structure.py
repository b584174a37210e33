"""What acts on each number apart may differ within a pack; what shapes the computation may not."""

from __future__ import annotations

from typing import Any

import pytest

from ensemble_svc.plan.plan import MemberSpec
from ensemble_svc.plan.structure import structure
from ensemble_svc.spec.augment import AUGMENT, Augment, Crop, Flip
from ensemble_svc.spec.inits import Gaussian
from ensemble_svc.spec.job import JobSpec
from ensemble_svc.spec.losses import CrossEntropy
from ensemble_svc.spec.model import Mlp
from ensemble_svc.spec.training import TrainingSpec

CHAIN: tuple[Augment, ...] = (Flip(), Crop())


def key(**changes: Any) -> str:
    """The structure of a member that has a bit of everything, but for the changes."""
    job = JobSpec.model_validate({"name": "any", "data": {"source": "digits"}})
    parts: dict[str, Any] = {
        "augment": CHAIN, "model": Mlp(), "training": TrainingSpec(loss=CrossEntropy())
    }  # fmt: skip
    member = MemberSpec(
        index=0, job_seed=0, task="classification", data_hash="", split_hash="", preprocess=(),
        standardize_target=True, resample=job.ensemble.resample, **{**parts, **changes},
    )  # fmt: skip
    return structure(member, 100)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": Mlp(dropout=0.5)},
        {"model": Mlp(activation_noise=0.1)},
        {"model": Mlp(init="lsuv")},
        {"model": Mlp(init=Gaussian(std=1.0))},
        {"training": TrainingSpec(loss=CrossEntropy(label_smoothing=0.1))},
        {"augment": (Flip(p=0.0), Crop())},
        {"augment": (Flip(), Crop(padding=0))},
    ],
    ids=["dropout", "activation_noise", "lsuv", "gaussian", "label_smoothing", "flip.p", "crop.padding"],
)
def test_members_that_differ_in_a_strength_share_a_pack(changes) -> None:
    assert key(**changes) == key()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": Mlp(norm="batch")},
        {"model": Mlp(tied=True)},
        {"model": Mlp(init="fixup")},
        {"training": TrainingSpec()},
        {"augment": (Flip(),)},
        {"augment": (Crop(), Flip())},
        {"augment": (Flip(), Crop(mode="constant"))},
    ],
    ids=["norm", "tied", "fixup", "loss", "fewer", "order", "mode"],
)
def test_members_that_compute_other_things_do_not(changes) -> None:
    assert key(**changes) != key()


STRENGTHS = {
    "p",
    "padding",
    "degrees",
    "strength",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "std",
    "magnitude",
}
STRENGTHS |= {"area", "ratio"}


@pytest.mark.parametrize("choice", list(AUGMENT), ids=lambda choice: choice.__name__)
def test_the_strengths_of_every_augmentation_may_differ_and_its_modes_may_not(choice: Any) -> None:
    other = {"mode": "constant", "fill": "random", "num": 3, "changes": ("identity",), "padding": 1}
    other |= {"area": (0.1, 0.2), "ratio": (0.9, 1.0)}
    for option in choice.model_fields.keys() - {"name"}:
        changed = choice.model_validate({option: other.get(option, 0.125)})
        assert (key(augment=(changed,)) == key(augment=(choice(),))) == (option in STRENGTHS), option
