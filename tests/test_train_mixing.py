"""The laws of mixup and CutMix: the papers' formulas, each member its own, replay and resume to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from law_runs import Killed, assert_close, assert_same_bits, dying, job_of, payload_of, train
from scipy.stats import beta as beta_law
from torch import Tensor

from ensemble_svc.errors import DataError
from ensemble_svc.train.build import build_module, training_rows
from ensemble_svc.train.mixing import Mixed, Mixing, beta, kept_pixels, mix_all, mix_one
from ensemble_svc.train.pack import PackModule
from ensemble_svc.train.step import Step
from ensemble_svc.train.stream import BagWeights, StreamBatch

CPU = torch.device("cpu")
MIXUP = {"training__regularizers": ({"name": "mixup", "alpha": 0.4},)}
CUTMIX = {"training__regularizers": ({"name": "cutmix", "alpha": 1.0, "p": 0.6},)}
BOTH = {"training__regularizers": ("mixup", {"name": "cutmix", "p": 0.5})}
KINDS = pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH], ids=["mixup", "cutmix", "both"])


def step_of(job: Any, run: Path) -> tuple[Step, Any, list[Any]]:
    """The inside of a step of the job's one pack, its stack of weights, and the members' rows."""
    payload, plan = payload_of(job, run)
    (slot,) = plan.slots
    rows = training_rows(payload, slot.pack.members)
    module = build_module(payload, slot.pack.members, rows, CPU)
    generator = torch.Generator().manual_seed(1)
    step = Step(module.recipe, module.net, module.data, None, module.scale_K, generator)
    return step, module.weights, rows


def draws_of(mixing: dict[str, Any], run: Path, **changes: Any) -> tuple[Step, Any, Any]:
    step, stack, rows = step_of(job_of(**mixing, **changes), run)
    batch = step.batch(torch.from_numpy(np.stack([r[:32] for r in rows])))
    return step, stack, batch


@settings(max_examples=20, deadline=None)
@given(alpha=st.sampled_from([0.01, 0.1, 0.4, 1.0, 3.0, 50.0]), seed=st.integers(0, 5))
def test_shares_follow_their_beta_law(alpha: float, seed: int) -> None:
    """Also for an alpha so small that float32 numbers of Gamma(alpha) would be 0 and their share no number."""
    share_K = beta(torch.full((4000,), alpha), torch.Generator().manual_seed(seed))
    assert ((share_K >= 0) & (share_K <= 1)).all()
    at = np.array([1e-6, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    below = (share_K.numpy()[:, None] < at).mean(0)
    np.testing.assert_allclose(below, beta_law(alpha, alpha).cdf(at), atol=4.5 * 0.5 / 4000**0.5)


def test_each_share_has_its_own_law_and_none_at_strength_0() -> None:
    share_K = beta(torch.tensor([0.0, 0.1, 5.0, 0.0]).repeat(3000), torch.Generator().manual_seed(0)).view(
        -1, 4
    )
    assert (share_K[:, [0, 3]] == 1).all()
    for column, alpha in ((1, 0.1), (2, 5.0)):  # Var = 1 / (4 (2 alpha + 1))
        assert share_K[:, column].mean() == pytest.approx(0.5, abs=0.03)
        assert share_K[:, column].var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 33), width=st.integers(1, 33), seed=st.integers(0, 100))
def test_the_rectangle_has_the_images_proportions_and_at_most_its_area(height, width, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    share_K = torch.rand(50, dtype=torch.float64, generator=generator)
    cut_KHW = 1 - kept_pixels(share_K, (height, width), generator)
    assert set(cut_KHW.unique().tolist()) <= {0.0, 1.0}
    for share, cut in zip(share_K, cut_KHW, strict=True):
        rows, columns = cut.any(1).sum(), cut.any(0).sum()
        assert cut.sum() == rows * columns
        assert rows <= height * (1 - share) ** 0.5
        assert columns <= width * (1 - share) ** 0.5


def test_a_rectangle_of_all_is_centred_anywhere() -> None:
    """Share 0: the side is the image's own, its centre uniform, so 3/4 of each side is cut on average."""
    cut_KHW = 1 - kept_pixels(torch.zeros(4000), (16, 16), torch.Generator().manual_seed(0))
    assert cut_KHW.any(2).double().mean() == pytest.approx(0.75, abs=0.02)
    assert cut_KHW.mean() == pytest.approx(0.75**2, abs=0.02)


@KINDS
def test_what_the_network_reads_is_the_papers_mixture(mixing, tmp_path) -> None:
    """Row by row: λ x_i + (1 - λ) x_j, pixel by pixel for CutMix; at once as one member at a time."""
    _, _, batch = draws_of(mixing, tmp_path)
    mixed = batch.mixed
    together = mix_all(batch.x_KB, mixed.own_K)
    for k in range(3):
        own = {name: value[k] for name, value in mixed.own_K.items()}
        assert torch.equal(mix_one(batch.x_KB[k], own), together[k])
        for i, j in enumerate(mixed.partner_KB[k].tolist()):
            keep = mixed.keep_K[k]
            expected = keep * batch.x_KB[k, i] + (1 - keep) * batch.x_KB[k, j]
            assert torch.equal(together[k, i], expected)
        assert mixed.share_K[k] == pytest.approx(float(mixed.keep_K[k].mean()), abs=1e-6)
        assert sorted(mixed.partner_KB[k].tolist()) == list(range(32))


@KINDS
def test_the_loss_is_that_of_soft_labels(mixing, tmp_path) -> None:
    step, _, batch = draws_of(mixing, tmp_path)
    outputs_KBC = torch.randn(3, 32, 10, generator=torch.Generator().manual_seed(3))
    one_hot = F.one_hot(batch.y_KB, 10).float()
    for k in range(3):
        share, other = batch.mixed.share_K[k], one_hot[k][batch.mixed.partner_KB[k]]
        soft = F.cross_entropy(outputs_KBC[k], share * one_hot[k] + (1 - share) * other)
        torch.testing.assert_close(step.losses(outputs_KBC, batch)[k], soft)
        mine = batch.member(k)
        torch.testing.assert_close(step.losses(outputs_KBC[k : k + 1], mine, member=k)[0], soft)


@pytest.mark.parametrize("loss", ["mse", "gaussian_nll"])
def test_numbers_are_mixed_themselves(loss, tmp_path) -> None:
    table = {"task": "regression", "data": {"source": "diabetes", "preprocess": ("standardize",)}}
    step, _, batch = draws_of(MIXUP, tmp_path, **table, training__loss=loss)
    outputs_KBO = torch.randn(3, 32, 1 if loss == "mse" else 2)
    share, other = batch.mixed.share_K[:, None, None], batch.mixed.partners(batch.y_KB)
    plain = batch._replace(y_KB=share * batch.y_KB + (1 - share) * other, mixed=None)
    assert torch.equal(step.losses(outputs_KBO, batch), step.losses(outputs_KBO, plain))


def test_mixing_a_linear_network_is_the_mixture_of_its_outputs(tmp_path) -> None:
    """After the transform, so whatever the transform is."""
    for preprocess in ((), ("standardize",)):
        job = job_of(**MIXUP, data__preprocess=preprocess, model={"name": "mlp", "hidden": ()})
        step, stack, rows = step_of(job, tmp_path / str(len(preprocess)))
        batch = step.batch(torch.from_numpy(np.stack([r[:32] for r in rows])))
        for k in range(3):
            weights = {name: value[k] for name, value in stack.items()}
            plain = step.outputs_of(weights, batch.x_KB[k], {})
            own = {name: value[k] for name, value in batch.own_K({}).items()}
            share, partner = batch.mixed.share_K[k], batch.mixed.partner_KB[k]
            found = step.outputs_of(weights, batch.x_KB[k], own)
            torch.testing.assert_close(found, share * plain + (1 - share) * plain[partner])


def test_bytes_are_mixed_as_numbers(tmp_path) -> None:
    """uint8 images stay bytes until the transform; the mixture is that of the same images as float32."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (80, 6, 6), dtype=np.uint8)
    found = []
    for name, x in (("bytes", pixels), ("floats", (pixels / 255).astype(np.float32))):
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(80) % 4)
        source = {"name": "npz", "path": str(tmp_path / f"{name}.npz")}
        job = job_of(**BOTH, data={"source": source}, training__epochs=2)
        found.append(train(job, tmp_path / name))
    assert_close(*found)


def test_a_stream_draws_partners_from_the_bag_alone(tmp_path) -> None:
    rows_B = torch.arange(40)
    generator = np.random.default_rng(0)
    bags = [np.sort(generator.choice(40, 40)) for _ in range(3)]
    weights = BagWeights.from_bags(bags, 40, 40, CPU)
    weight_KB = weights.of(rows_B)
    mixing = Mixing(*torch.ones(3, 3).unbind(1), cuts=False)
    drawn = [mixing.draw(torch.zeros(3, 40, 2), weight_KB, None).partner_KB for _ in range(400)]
    partners_KN = torch.cat(drawn, dim=1)
    for k, bag in enumerate(bags):
        counts = np.bincount(partners_KN[k].numpy(), minlength=40)
        assert (counts[np.bincount(bag, minlength=40) == 0] == 0).all()
        np.testing.assert_allclose(counts / 400, np.bincount(bag, minlength=40), atol=0.35)


def test_a_batch_that_holds_no_row_of_a_bag_is_drawn_all_the_same() -> None:
    mixing = Mixing(*torch.ones(2, 3).unbind(1), cuts=False)
    weight_KB = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    drawn = mixing.draw(torch.zeros(2, 3, 4), weight_KB, None)
    assert (drawn.partner_KB[1] == 1).all()


@KINDS
@pytest.mark.parametrize("pack", ["auto", "off"])
def test_strength_0_changes_no_bit(mixing, pack, tmp_path) -> None:
    """Nothing is even drawn, so dropout draws the same as without."""
    rules = tuple({"name": rule if isinstance(rule, str) else rule["name"], "alpha": 0.0}
                  for rule in mixing["training__regularizers"])  # fmt: skip
    common = {"model": {"name": "mlp", "hidden": (16,), "dropout": 0.2}, "compute__pack": pack}
    plain = train(job_of(**common), tmp_path / "plain")
    assert_same_bits(plain, train(job_of(**common, training__regularizers=rules), tmp_path / "mixed"))


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_each_member_has_its_own_strength(name, tmp_path) -> None:
    """A member of strength 0 is the member without, whatever its neighbours draw; the others learn other things."""
    job = job_of(
        training__regularizers=({"name": name, "alpha": 0.5},),
        ensemble__vary={"training.regularizers.0.alpha": (0.0, 0.5, 0.0)},
    )
    assert len(payload_of(job, tmp_path)[1].slots) == 1
    mixed, quiet = train(job, tmp_path / "mixed"), train(job_of(), tmp_path / "quiet")
    assert_same_bits({k: mixed[k] for k in (0, 2)}, {k: quiet[k] for k in (0, 2)})
    assert any(not torch.allclose(t, quiet[1][n], atol=1e-3) for n, t in mixed[1].items())
    assert_same_bits(mixed, train(job, tmp_path / "again"))


@KINDS
@pytest.mark.parametrize("pack", ["auto", "off"])
def test_resumed_is_uninterrupted(mixing, pack, tmp_path) -> None:
    job = job_of(**mixing, compute__pack=pack, training__epochs=4, data__augment=("flip",))
    undisturbed = train(job, tmp_path / "a", commit_every_s=0)
    with pytest.raises(Killed):
        train(job, tmp_path / "b", report=dying(2), commit_every_s=0)
    assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))


@KINDS
@pytest.mark.parametrize("stream", ["off", "on"])
@pytest.mark.parametrize(
    "model", [{"name": "mlp", "hidden": (8,)}, {"name": "convnet", "channels": (4,), "dense": ()}]
)
def test_every_way_of_training_learns(mixing, stream, model, tmp_path) -> None:
    """Packed, in turn, alone and in a stream of bags: the loss falls although the labels are mixed."""
    for pack in ("auto", "off"):
        job = job_of(
            **mixing, model=model, data__stream=stream, ensemble__resample="bootstrap", compute__pack=pack,
            training__optimizer={"name": "adamw", "lr": 0.01},
        )  # fmt: skip
        losses: list[list[float]] = []
        train(
            job, tmp_path / pack, report=lambda p, into=losses: into.append([m.train_loss for m in p.members])
        )
        assert all(np.isfinite(epoch).all() for epoch in losses)
        assert np.mean(losses[-1]) < np.mean(losses[0])


@pytest.mark.parametrize("learns", ["mixup", "cutmix"])
def test_the_mixed_gradient_is_unbiased_for_the_papers_risk(learns, tmp_path) -> None:
    """Over many draws the mean loss of a step is the expectation over λ, and over the pairs of a batch."""
    mixing = MIXUP if learns == "mixup" else {"training__regularizers": ({"name": "cutmix", "p": 1.0},)}
    step, _, rows = step_of(job_of(**mixing, model={"name": "mlp", "hidden": ()}), tmp_path)
    batch_rows = torch.from_numpy(np.stack([r[:8] for r in rows]))
    outputs = torch.randn(3, 8, 10, generator=torch.Generator().manual_seed(0))
    y_KB = step.data.targets(batch_rows)
    found = [step.losses(outputs, step.batch(batch_rows)) for _ in range(3000)]
    own = step._rows(step.recipe.loss, outputs, y_KB, None)
    pairs = torch.stack(
        [step._rows(step.recipe.loss, outputs, y_KB[:, j : j + 1].expand_as(y_KB), None) for j in range(8)]
    ).mean(0)
    share = mean_share(step, batch_rows)
    expected = (share * own + (1 - share) * pairs).mean(1)
    torch.testing.assert_close(torch.stack(found).mean(0), expected, rtol=0.02, atol=0.02)


def mean_share(step: Step, rows: Tensor) -> float:
    return float(torch.stack([step.batch(rows).mixed.share_K for _ in range(2000)]).mean())


def test_the_mean_share_of_mixup_is_a_half(tmp_path) -> None:
    step, _, rows = step_of(job_of(**MIXUP), tmp_path)
    assert mean_share(step, torch.from_numpy(np.stack([r[:4] for r in rows]))) == pytest.approx(0.5, abs=0.02)


def test_cutmix_of_a_table_is_refused_also_where_only_the_data_tell(tmp_path) -> None:
    np.savez(tmp_path / "table.npz", x=np.random.default_rng(0).normal(size=(60, 3)), y=np.arange(60) % 2)
    source = {"name": "npz", "path": str(tmp_path / "table.npz")}
    with pytest.raises(DataError, match=r"training\.regularizers\.0: cutmix is for images.* Use mixup"):
        payload_of(job_of(**CUTMIX, data={"source": source}), tmp_path)


def test_the_rows_of_a_stream_are_mixed_within_each_member(tmp_path) -> None:
    payload, plan = payload_of(job_of(**MIXUP, data__stream="on"), tmp_path)
    members = plan.slots[0].pack.members
    module = build_module(payload, members, training_rows(payload, members), CPU)
    assert isinstance(module, PackModule)
    step = Step(module.recipe, module.net, module.data, None, {})
    rows = torch.from_numpy(payload.split.train[:16])
    batch = step.batch(StreamBatch(rows, torch.from_numpy(payload.dataset.x[payload.split.train[:16]])))
    assert isinstance(batch.mixed, Mixed)
    assert not torch.equal(batch.mixed.partner_KB[0], batch.mixed.partner_KB[1])
    assert len(batch.mixed.share_K.unique()) == 3
