"""Every choice that a job file knows trains on the digits, in a pack and alone, to the same ensemble.

What draws inside a step (dropout, noise, augmentation, mixing) may draw otherwise in another pack; there the
ensembles are compared by their scores. Choices that the digits cannot show stand in ``ELSEWHERE``, with the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ensemble_svc import pipeline
from ensemble_svc.local import LocalExecutor
from ensemble_svc.registry import Choice
from ensemble_svc.spec.catalogue import REGISTRIES
from ensemble_svc.spec.load import parse_job

LISTS = {"preprocess", "augment", "regularizer"}
PLACES: dict[str, tuple[str, ...]] = {
    "preprocess": ("data", "preprocess"),
    "augment": ("data", "augment"),
    "model": ("model",),
    "activation": ("model", "activation"),
    "norm": ("model", "norm"),
    "init": ("model", "init"),
    "loss": ("training", "loss"),
    "optimizer": ("training", "optimizer"),
    "schedule": ("training", "schedule"),
    "regularizer": ("training", "regularizers"),
    "average": ("training", "average"),
    "resample": ("ensemble", "resample"),
    "algorithm": ("search", "algorithm"),
    "scheduler": ("search", "scheduler"),
    "combine": ("aggregate", "combine"),
    "select": ("aggregate", "select"),
    "calibrate": ("aggregate", "calibrate"),
    "soup": ("aggregate", "soup"),
}
ELSEWHERE = {
    "source": "other data are not the digits; test_data_sources.py reads every source",
    "split": "the digits have no named splits; test_data_split.py makes every split",
    "impute": "no pixel of the digits is missing; test_data_transform.py fills gaps",
    "gaussian_nll": "a loss of regression",
    "mse": "a loss of regression",
    "variance": "a calibration of regression",
    "lenet": "needs images of 12x12, and the digits have 8x8; test_jobs.py trains cifar10, test_train_laws.py lenet",
    "bohb": "asks for brackets of hyperband; test_search_bohb.py trains with it",
    "pbt": "copies trials inside a pack, and alone there are none; test_search_pbt.py trains with it",
    "asha": "stops trials on Ray alone; test_search_racing.py trains with it",
    "median": "stops trials on Ray alone; test_search_racing.py trains with it",
    "tracker": "names a store of results and trains nothing; test_tracking.py writes to each",
    "python": "a network of one's own; test_nn_build.py and test_train_laws.py train some",
}
DRAWS = {"augment", "input_noise", "weight_noise", "mixup", "cutmix"}
IMAGES = {
    "model": {"name": "convnet", "channels": [4, 8], "convs_per_stage": 1, "dense": [16], "norm": "none"}
}
SMALL: dict[str, Any] = {
    "mlp": {"hidden": [16, 16]},
    "convnet": {"channels": [4, 8], "convs_per_stage": 1, "dense": [16]},
    "resnet": {"depth": 8, "width": 4},
}
NEEDS: dict[str, dict[str, Any]] = {
    "dirac": IMAGES,
    "instance": {"model": {**IMAGES["model"], "dense": []}},
    "fixup": {"model": {"name": "resnet", "depth": 8, "width": 4, "norm": "none"}},
    "per_channel_center": IMAGES,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "swag": {"start": 0.0, "samples": 3},
    "whiten": {"shrinkage": 0.1},
    "stacking": {"prior_rows": 10.0},
    "top_k": {"k": 1},
    "diverse": {"k": 2},
    "swa": {"start": 0.3},
    "kfold": {"folds": 2},
    "hyperband": {"factor": 2},
}


def cells() -> list[Any]:
    found = []
    for registry in REGISTRIES:
        for choice in registry:
            name = choice.model_fields["name"].default
            if registry.kind not in ELSEWHERE and name not in ELSEWHERE:
                found.append(pytest.param(registry.kind, choice, id=f"{registry.kind}-{name}"))
    return found


def job_of(kind: str, choice: type[Choice], **compute: Any) -> Any:
    name = choice.model_fields["name"].default
    job: dict[str, Any] = {
        "name": "cell",
        "data": {"source": "digits", "preprocess": ["standardize"], "validation": 0.15, "test": 0.2},
        "model": {"name": "mlp", "hidden": [16, 16], "activation": "tanh"},
        "training": {"epochs": 2, "batch_size": 128},
        "ensemble": {"members": 2},
        "evaluate": {"resamples": 100},
        "compute": {"executor": "local", "measure": "off", **compute},
    }
    job |= NEEDS.get(name, IMAGES if kind == "augment" else {})
    value = {"name": name, **OPTIONS.get(name, {}), **(SMALL.get(name, {}) if kind == "model" else {})}
    place, section = PLACES[kind], job
    for key in place[:-1]:
        section = section.setdefault(key, {})
    if kind == "model":
        job["model"] = value
    else:
        section[place[-1]] = [value] if kind in LISTS else value
    if place[0] == "search":
        section |= {"space": {"training.optimizer.lr": {"choice": [0.001, 0.002]}}, "trials": 2}
    return parse_job(job)


@pytest.mark.parametrize("kind, choice", cells())
def test_it_trains_in_a_pack_and_alone_to_the_same_ensemble(
    kind: str, choice: type[Choice], tmp_path: Path
) -> None:
    name = choice.model_fields["name"].default
    scores = []
    for pack in ("auto", "off"):
        job = job_of(kind, choice, pack=pack)
        run = pipeline.train(job, out=tmp_path / pack, directory=tmp_path, executor=LocalExecutor(retries=0))
        manifest = run.manifest()
        assert [member["status"] for member in manifest["members"]] == ["done", "done"]
        assert [len(slot["members"]) for slot in manifest["packs"]] == ([2] if pack == "auto" else [1, 1])
        scores.append(run.metrics()["test"]["members"]["mean"])
    together, apart = scores
    draws = kind in DRAWS or name in DRAWS
    assert together["nll"] == pytest.approx(apart["nll"], rel=0.25 if draws else 5e-3)
    assert together["accuracy"] == pytest.approx(apart["accuracy"], abs=0.15 if draws else 0.01)


def test_what_is_shown_elsewhere_is_a_choice() -> None:
    kinds = {registry.kind for registry in REGISTRIES}
    names = {choice.model_fields["name"].default for registry in REGISTRIES for choice in registry}
    assert set(ELSEWHERE) <= kinds | names
    assert kinds == set(PLACES) | (kinds & set(ELSEWHERE))
