"""The laws of training over every registered preprocessing and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from law_runs import assert_close, assert_same_bits, both, job_of, train

from ensemble_svc.plan.progress import Progress
from ensemble_svc.spec.augment import AUGMENT
from ensemble_svc.spec.preprocess import PREPROCESS

SOME = {"whiten": {"shrinkage": 0.1, "method": "zca"}, "decorrelate": {"components": 10}}
STRENGTHS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "flip": ("p", (0.0, 0.5, 1.0)),
    "crop": ("padding", (0, 1, 2)),
    "rotate": ("degrees", (0.0, 10.0, 30.0)),
    "contrast": ("strength", (0.0, 0.2, 0.9)),
    "jitter": ("brightness", (0.0, 0.2, 0.9)),
    "noise": ("std", (0.0, 0.1, 0.3)),
    "erase": ("area", ((0.02, 0.1), (0.1, 0.2), (0.2, 0.5))),
    "rand_augment": ("magnitude", (0.0, 3.0, 9.0)),
}


@pytest.mark.parametrize("name", [name for name in PREPROCESS.by_name if name != "impute"])
def test_packed_is_alone_where_each_member_fits_its_own_rows(name: str, tmp_path: Path) -> None:
    steps = ({"name": name, **SOME.get(name, {})},)
    job = job_of(data__preprocess=steps, ensemble__resample={"name": "bootstrap"}, training__epochs=2)
    together, apart = both(job, tmp_path)
    assert_close(together, apart)


@pytest.mark.parametrize("name", AUGMENT.by_name)
def test_a_pack_of_its_own_strengths_replays_to_the_bit(name: str, tmp_path: Path) -> None:
    """All members share a pack; the one without strength trains as if there were no augmentation beside it."""
    option, values = STRENGTHS[name]
    job = job_of(
        data__augment=({"name": name},),
        ensemble__vary={f"data.augment.0.{option}": values},
        training__epochs=2,
    )
    once, again = train(job, tmp_path / "once"), train(job, tmp_path / "again")
    assert len(once) == 3
    assert_same_bits(once, again)
    if name not in ("erase", "jitter"):  # whose other options are strengths too
        plain = train(job_of(training__epochs=2), tmp_path / "plain")
        assert_close({0: once[0]}, {0: plain[0]})


class Killed(Exception):
    """Stands for a death in the middle of a slot."""


@pytest.mark.parametrize("pack", ["auto", "off"])
def test_resumed_is_uninterrupted_with_all_of_them(pack: str, tmp_path: Path) -> None:
    def die(progress: Progress) -> None:
        if progress.epoch == 2:
            raise Killed

    job = job_of(
        data__preprocess=({"name": "whiten", "shrinkage": "auto"},),
        data__augment=tuple({"name": name} for name in AUGMENT.by_name),
        compute__pack=pack,
    )
    undisturbed = train(job, tmp_path / "a", commit_every_s=0)
    with pytest.raises(Killed):
        train(job, tmp_path / "b", report=die, commit_every_s=0)
    assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))
