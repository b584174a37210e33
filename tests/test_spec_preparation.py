"""Rules between the steps of the data section and what they ask of the network: one clear message each."""

from __future__ import annotations

import pytest

from ensemble_svc.errors import SpecError
from ensemble_svc.spec.augment import AUGMENT
from ensemble_svc.spec.load import parse_job
from ensemble_svc.spec.yaml import read

BROKEN = [
    ("[{name: decorrelate, components: 3, variance: 0.9}]", "mlp", "0.components", "both limit the axes"),
    ("[decorrelate]", "convnet", "0", "'convnet' reads images; use whiten with method: zca"),
    ("[center, whiten]", "lenet", "1", "'whiten' flattens images"),
    ("[whiten, per_channel_center]", "mlp", "1", "put it first"),
    ("[decorrelate, per_channel_center]", "mlp", "1", "put it first"),
    ("[standardize, whiten, impute]", "mlp", "2", "'whiten' mixes the columns"),
]
FINE = [
    ("[center, {name: whiten, method: zca}, per_channel_center]", "convnet"),
    ("[per_channel_center, {name: decorrelate, components: 3}]", "mlp"),
    ("[impute, scale, {name: decorrelate, variance: 0.9}, standardize]", "mlp"),
]


CHANGES = [
    ("{name: erase, area: [0.4, 0.1]}", "0.area", r"write \[0.1, 0.4\]"),
    ("{name: erase, ratio: [3, 0.3]}", "0.ratio", r"write \[0.3, 3\]"),
    ("{name: erase, area: [0.0, 0.1]}", "0.area.0", "above 0"),
    ("{name: rotate, degrees: 200.0}", "0.degrees", "at most 180"),
    ("{name: jitter, hue: 0.6}", "0.hue", "at most 0.5"),
    ("{name: contrast, strength: 1.5}", "0.strength", "at most 1"),
    ("{name: noise, std: -0.1}", "0.std", "at least 0"),
    ("{name: rand_augment, magnitude: 11.0}", "0.magnitude", "at most 10"),
    ("{name: rand_augment, changes: []}", "0.changes", "at least 1"),
    ("{name: rand_augment, changes: [rotat, rotate]}", "0.changes.0", "Did you mean 'rotate'"),
    ("{name: rand_augment, num: 0}", "0.num", "at least 1"),
]


def job_of(preprocess: str, model: str) -> object:
    text = f"{{name: j, data: {{source: digits, preprocess: {preprocess}}}, model: {model}}}"
    return parse_job(read(text)[0])


@pytest.mark.parametrize("preprocess, model, key, words", BROKEN)
def test_a_broken_rule_is_told_once_at_its_key(preprocess: str, model: str, key: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        job_of(preprocess, model)
    (fault,) = caught.value.faults
    assert fault.path == f"data.preprocess.{key}"


@pytest.mark.parametrize("change, key, words", CHANGES)
def test_a_change_out_of_range_is_told_at_its_key(change: str, key: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        parse_job(read(f"{{name: j, data: {{source: digits, augment: [{change}]}}}}")[0])
    (fault,) = caught.value.faults
    assert fault.path == f"data.augment.{key}"


@pytest.mark.parametrize("name", AUGMENT.by_name)
def test_changes_of_a_table_are_refused(name: str) -> None:
    with pytest.raises(SpecError, match=f"'{name}' is for images, and the source 'breast_cancer' is a table"):
        parse_job(read(f"{{name: j, data: {{source: breast_cancer, augment: [{name}]}}}}")[0])


@pytest.mark.parametrize("preprocess, model", FINE)
def test_what_makes_sense_is_allowed(preprocess: str, model: str) -> None:
    job_of(preprocess, model)
