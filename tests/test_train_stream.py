"""Laws of the stream: one decoded stream for the pack, bags as weights, packed = alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from law_runs import Killed, assert_close, assert_same_bits, both, dying, job_of, payload_of, train

from ensemble_svc.data.indices import member_rows
from ensemble_svc.errors import SpecError
from ensemble_svc.spec.contradictions import contradictions
from ensemble_svc.spec.job import RESAMPLES
from ensemble_svc.store.members import sealed
from ensemble_svc.train.assemble import check_networks
from ensemble_svc.train.build import build_module, training_rows
from ensemble_svc.train.step import Step
from ensemble_svc.train.stream import BagWeights, StreamBatch, StreamFeed

CPU = torch.device("cpu")


def feed_of(host: np.ndarray, train: np.ndarray, **changes: Any) -> StreamFeed:
    settings_: dict[str, Any] = {"job_seed": 3, "batch_size": 4} | changes
    return StreamFeed(train, host, CPU, **settings_)


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(2, 60), batch_size=st.integers(1, 20), epoch=st.integers(0, 3))
def test_an_epoch_holds_every_training_row_once_but_for_a_last_lone_one(num_rows, batch_size, epoch) -> None:
    host = np.arange(200, dtype=np.float32).reshape(100, 2)
    rows = np.random.default_rng(num_rows).permutation(100)[:num_rows]
    feed = feed_of(host, rows, batch_size=batch_size)
    feed.set_epoch(epoch)
    batches = list(feed)
    assert len(batches) == len(feed)
    seen = torch.cat([b.rows_B for b in batches]) if batches else torch.empty(0)
    lone = batch_size > 1 and num_rows % batch_size == 1
    if batch_size > 1:
        assert len(seen) == num_rows - lone
        assert set(seen.tolist()) <= set(rows.tolist())
        assert len(set(seen.tolist())) == len(seen)
    for batch in batches:
        np.testing.assert_array_equal(batch.x_B.numpy(), host[batch.rows_B.numpy()])


def test_worker_processes_bring_the_same_batches() -> None:
    host = np.random.default_rng(0).integers(0, 255, (50, 1, 4, 4)).astype(np.uint8)
    one, other = (list(feed_of(host, np.arange(40), num_workers=n)) for n in (0, 2))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.rows_B, b.rows_B)
        assert torch.equal(a.x_B, b.x_B)


@pytest.mark.parametrize("resample", list(RESAMPLES), ids=lambda c: c.model_fields["name"].default)
def test_packed_is_alone(resample, tmp_path) -> None:
    job = job_of(data__stream="on", ensemble__resample=resample.model_fields["name"].default)
    together, apart = both(job, tmp_path)
    assert len(payload_of(job, tmp_path)[1].slots) == 1
    assert_close(together, apart)


def test_a_streamed_regression_and_early_stops(tmp_path) -> None:
    job = job_of(
        task="regression",
        data={"source": "diabetes", "preprocess": ("standardize",), "stream": "on"},
        training={
            "epochs": 8,
            "optimizer": {"name": "adamw", "lr": 0.05},
            "early_stopping": {"metric": "nll", "patience": 1},
        },
        ensemble__resample="bootstrap",
    )
    together, apart = both(job, tmp_path)
    epochs = [{e["index"]: e["epochs"] for e in sealed(tmp_path / n).values()} for n in ("packed", "alone")]
    assert epochs[0] == epochs[1]
    assert_close(together, apart)


@pytest.mark.parametrize("resample", ["bootstrap", "kfold"])
def test_the_weighted_gradient_is_that_of_the_bag(resample, tmp_path) -> None:
    """Over one batch of all rows, the stream's gradient is that of the mean over the member's own bag."""
    job = job_of(data__stream="on", ensemble__resample=resample)
    payload, plan = payload_of(job, tmp_path)
    members = plan.slots[0].pack.members
    rows = training_rows(payload, members)
    module = build_module(payload, members, rows, CPU)
    step = Step(module.recipe, module.net, module.data, module.bags, {})
    stack = {n: w.clone().requires_grad_(w.is_floating_point()) for n, w in module.weights.items()}
    every = torch.from_numpy(payload.split.train)
    batch = step.batch(StreamBatch(every, torch.from_numpy(payload.dataset.x[payload.split.train])))
    outputs = torch.vmap(step.outputs_of, in_dims=(0, 0, None))(stack, batch.x_KB, {})
    step.losses(outputs, batch).sum().backward()
    for k, bag in enumerate(rows):
        own = {name: w.detach()[k].requires_grad_(w.is_floating_point()) for name, w in stack.items()}
        x, y = torch.from_numpy(payload.dataset.x[bag]), torch.from_numpy(payload.dataset.y[bag])
        loss = torch.nn.functional.cross_entropy(step.outputs_of(own, x, {}), y)
        names = [name for name in own if stack[name].grad is not None]
        grads = torch.autograd.grad(loss, [own[name] for name in names])
        for name, grad in zip(names, grads, strict=True):
            torch.testing.assert_close(stack[name].grad[k], grad, rtol=1e-4, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(num_members=st.integers(1, 6), seed=st.integers(0, 100))
def test_weights_average_to_one_and_are_zero_outside_the_bag(num_members, seed) -> None:
    generator = np.random.default_rng(seed)
    train_rows = np.arange(10, 60)
    bags = [np.repeat(train_rows, generator.poisson(1.0, 50)) for _ in range(num_members)]
    weights = BagWeights.from_bags(bags, 80, 50, CPU)
    over_train = weights.of(torch.from_numpy(train_rows))
    torch.testing.assert_close(over_train.mean(1), torch.ones(num_members))
    for k, bag in enumerate(bags):
        out = np.setdiff1d(train_rows, bag)
        assert not weights.of(torch.from_numpy(out))[k].any()


def test_a_poisson_bag_leaves_out_the_same_share_as_drawing(tmp_path) -> None:
    payload, plan = payload_of(job_of(data__stream="on", ensemble__resample="bootstrap"), tmp_path)
    member = plan.slots[0].pack.members[0]
    sizes = [
        len(
            np.unique(
                member_rows(
                    member.resample,
                    payload.split,
                    payload.dataset.y,
                    task="classification",
                    job_seed=seed,
                    member=0,
                    streamed=True,
                )
            )
        )
        for seed in range(40)
    ]
    share = np.mean(sizes) / len(payload.split.train)
    assert abs(share - (1 - np.exp(-1))) < 4 * 0.5 / np.sqrt(40 * len(payload.split.train))


@pytest.mark.parametrize("pack", ["auto", "off"])
def test_killed_it_ends_with_the_same_bits(pack, tmp_path) -> None:
    job = job_of(data__stream="on", ensemble__resample="bootstrap", training__epochs=4, compute__pack=pack)
    undisturbed = train(job, tmp_path / "a", commit_every_s=0)
    with pytest.raises(Killed):
        train(job, tmp_path / "b", report=dying(2), commit_every_s=0)
    assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))


def test_large_data_stream_by_themselves(tmp_path) -> None:
    small, large = job_of(), job_of(data__device_gib=1e-5)
    kinds = [next(payload_of(job, tmp_path)[1].members).streamed for job in (small, large)]
    assert kinds == [False, True]


def test_batch_norm_may_not_see_rows_that_a_member_leaves_out(tmp_path) -> None:
    normed = {"model": {"name": "mlp", "hidden": (8,), "norm": "batch"}, "ensemble__resample": "bootstrap"}
    faults = contradictions(job_of(data__stream="on", **normed))
    assert [fault.path for fault in faults] == ["data.stream"]
    assert "norm: layer or group" in faults[0].message
    payload, plan = payload_of(job_of(data__device_gib=1e-5, **normed), tmp_path)
    with pytest.raises(SpecError, match=r"model\.norm: the data are streamed"):
        check_networks(plan.members, payload.schema)
