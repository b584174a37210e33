"""Rules between the steps of the data section and what they ask of the network: one clear message each."""

from __future__ import annotations

import pytest

from ensemble_svc.errors import SpecError
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


def job_of(preprocess: str, model: str) -> object:
    text = f"{{name: j, data: {{source: digits, preprocess: {preprocess}}}, model: {model}}}"
    return parse_job(read(text)[0])


@pytest.mark.parametrize("preprocess, model, key, words", BROKEN)
def test_a_broken_rule_is_told_once_at_its_key(preprocess: str, model: str, key: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        job_of(preprocess, model)
    (fault,) = caught.value.faults
    assert fault.path == f"data.preprocess.{key}"


@pytest.mark.parametrize("preprocess, model", FINE)
def test_what_makes_sense_is_allowed(preprocess: str, model: str) -> None:
    job_of(preprocess, model)
