"""Laws of the ensemble that is measured from its file: it is the one in memory, however the rows are cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ensemble_svc.aggregate.predictions import average, combine
from ensemble_svc.errors import CorruptArtifact, EnsembleError
from ensemble_svc.evaluate.binning import calibration
from ensemble_svc.evaluate.crowd import NARROW, Crowd, Sums, member_metrics
from ensemble_svc.evaluate.metrics import METRICS, measure
from ensemble_svc.evaluate.summary import summarize
from ensemble_svc.spec.job import EvaluateSpec
from ensemble_svc.store.slices import cuts, places, read_rows
from ensemble_svc.store.tensors import encode
from ensemble_svc.streamed import combine_streamed, measure_streamed

law = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)
ALL = tuple(name for name, metric in METRICS.items() if "classification" in metric.needs)


def problem(seed: int, num_members: int, num_rows: int = 40, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    target = torch.randint(5, (num_rows,), generator=draw)
    noise = torch.randn(num_members, num_rows, 5, generator=draw) * scale
    return (noise + 2 * torch.nn.functional.one_hot(target, 5)).log_softmax(-1), target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("streamed")


@law
@given(seed=seeds, num_members=st.integers(1, 20), piece=st.integers(1, 5000), threads=st.integers(1, 3))
def test_it_measures_what_is_measured_in_memory(folder, seed, num_members, piece, threads) -> None:
    log_probs, target = problem(seed, num_members)
    path = folder / "all.safetensors"
    path.write_bytes(encode({"row": torch.arange(40), "log_probs": log_probs, "target": target}))
    found = measure_streamed(path, target, names=ALL, threads=threads, piece_bytes=piece)
    ensemble = combine({"log_probs": log_probs})
    assert found["ensemble"] == pytest.approx(
        measure("classification", ensemble, target, names=ALL), rel=2e-5, abs=2e-6
    )
    members = {"log_probs": log_probs}
    few = EvaluateSpec(resamples=100)
    table = summarize("classification", members, ensemble, target, spec=few, best=None, seed=0)["members"]
    for key in ("mean", "std", "best", "worst"):
        assert found["members"][key] == pytest.approx(table[key], rel=1e-5, abs=1e-6)
    for one, other in zip(found["members"]["each"], table["each"], strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


@law
@given(
    seed=seeds,
    num_members=st.integers(1, 20),
    even=st.booleans(),
    scale=st.sampled_from([0.1, 3.0, 300.0]),
    piece=st.integers(1, 1000),
)
def test_the_fast_mixture_is_the_exact_one(folder, seed, num_members, even, scale, piece) -> None:
    log_probs, target = problem(seed, num_members, scale=scale)
    log_probs[0, 0] = torch.tensor([0.0, *[-torch.inf] * 4])
    path = folder / "mixture.safetensors"
    path.write_bytes(encode({"log_probs": log_probs}))
    weights = None if even else torch.rand(num_members, dtype=torch.float64) + 0.1
    weights = None if weights is None else weights / weights.sum()
    fast, _ = combine_streamed(path, target, weights_K=weights, piece_bytes=piece)
    torch.testing.assert_close(fast, average(log_probs, weights), rtol=1e-6, atol=1e-6)


def scored(log_probs: Tensor, targets: list[Tensor], bins: int) -> list[Sums]:
    """Of each piece of the rows, by one ``Crowd``."""
    num_members, _, num_classes = log_probs.shape
    crowd = Crowd(num_members, num_classes, max(map(len, targets)), bins=bins)
    found = []
    for target, some in zip(targets, log_probs.split(list(map(len, targets)), dim=1), strict=True):
        crowd.begin(target)
        for k, member in enumerate(some):
            totals = crowd.score(k, member.contiguous(), member.exp().contiguous())
            torch.testing.assert_close(totals, torch.ones(len(target)))
        found.append(crowd.sums())
    return found


@law
@given(
    seed=seeds,
    num_members=st.integers(1, 11),
    decimals=st.integers(0, 2),
    bins=st.integers(1, 20),
    classes=st.sampled_from([2, 4, NARROW, NARROW + 1, 70]),
)
def test_of_equal_classes_the_first_counts_and_edges_belong_to_the_bin_above(
    seed, num_members, decimals, bins, classes
) -> None:
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randint(0, 4, (num_members, 60, classes), generator=draw).float()
    weights[..., 0] += 1e-30
    log_probs = (weights / weights.sum(-1, keepdim=True)).log()
    target = torch.randint(classes, (60,), generator=draw)
    pieces = scored(log_probs, list(target.split([25, 25, 10])), bins)
    gaps_found = torch.stack([piece.gaps_KB for piece in pieces]).sum(dim=0)
    right_found = sum(piece.parts_3K[0] for piece in pieces)
    for k, member in enumerate(log_probs):
        cell, confidence, right = calibration(member, target, bins)
        assert right_found[k] == right.sum()
        gaps = torch.zeros(bins + 1, dtype=torch.float64).scatter_add_(0, cell, confidence - right)
        torch.testing.assert_close(gaps_found[k], gaps, rtol=0, atol=1e-5)


def test_what_cannot_be_combined_is_named(folder) -> None:
    log_probs, target = problem(0, 3)
    log_probs[1, 17] += 0.2
    path = folder / "wrong.safetensors"
    path.write_bytes(encode({"log_probs": log_probs}))
    with pytest.raises(
        EnsembleError, match=r"member 1: its probabilities sum to 1\.2\d* in row 17, not to 1"
    ):
        measure_streamed(path, target, threads=1, piece_bytes=200)
    log_probs[2, 5, 3] = torch.nan
    path.write_bytes(encode({"log_probs": log_probs}))
    with pytest.raises(EnsembleError, match="member 2: log_probs is NaN in row 5"):
        measure_streamed(path, target, threads=1, piece_bytes=200)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptArtifact, match="not those that its header tells"):
        measure_streamed(path, target)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(CorruptArtifact, match="not a tensor file"):
        places(path)
    with pytest.raises(EnsembleError, match="no rows"):
        member_metrics([])


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.zeros(30, dtype=torch.int64), "30 targets, and predictions of 40 rows"),
        (torch.zeros(50, dtype=torch.int64), "50 targets, and predictions of 40 rows"),
        (torch.full((40,), 5), "the targets run from 5 to 5; 5 classes are 0 to 4"),
        (torch.full((40,), -1), "the targets run from -1 to -1"),
        (torch.zeros(40), "class numbers are integers"),
        (torch.zeros(40, 1, dtype=torch.int64), "class numbers are integers"),
    ],
)
def test_targets_of_other_rows_or_classes_are_refused_before_anything_is_read(folder, target, words) -> None:
    path = folder / "targets.safetensors"
    path.write_bytes(encode({"log_probs": problem(0, 3)[0]}))
    with pytest.raises(EnsembleError, match=words):
        measure_streamed(path, target, threads=1)


def test_integers_of_any_size_are_class_numbers(folder) -> None:
    log_probs, target = problem(1, 3)
    path = folder / "small.safetensors"
    path.write_bytes(encode({"log_probs": log_probs}))
    assert measure_streamed(path, target.to(torch.uint8)) == measure_streamed(path, target)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"mean": torch.zeros(3, 40, 1)}, "mean torch.float32 .* is needed"),
        ({"log_probs": torch.zeros(40, 5)}, "is needed"),
        ({"log_probs": torch.zeros(3, 40, 5, dtype=torch.float64)}, "is needed"),
        ({"log_probs": torch.zeros(3, 0, 5)}, "nothing to measure"),
    ],
)
def test_files_of_other_tensors_are_refused(folder, tensors, words) -> None:
    path = folder / "tensors.safetensors"
    path.write_bytes(encode(tensors))
    with pytest.raises(EnsembleError, match=words):
        measure_streamed(path, torch.zeros(40, dtype=torch.int64))


@law
@given(seed=seeds, piece=st.integers(1, 3000))
def test_rows_come_back_whole_and_in_order(folder, seed, piece) -> None:
    draw = torch.Generator().manual_seed(seed)
    tensors = {"a": torch.randn(3, 25, 4, generator=draw), "b": torch.randint(9, (2, 25), generator=draw)}
    path = folder / "two.safetensors"
    path.write_bytes(encode(tensors))
    known = places(path)
    pieces = [read_rows(path, known, ["b", "a"], rows) for rows in cuts(known["a"], piece_bytes=piece)]
    for name, value in tensors.items():
        assert torch.equal(torch.cat([one[name] for one in pieces], dim=1), value)
