"""The laws of training: packed = alone, resumed = uninterrupted, no harm to neighbours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from law_runs import (
    Killed,
    assert_close,
    assert_same_bits,
    both,
    dying,
    job_of,
    payload_of,
    results,
    train,
)
from sklearn.datasets import load_digits
from torch import Tensor
from torch.optim.swa_utils import update_bn

from ensemble_svc.data.indices import member_rows
from ensemble_svc.errors import DataError, OutOfMemory, TrainError
from ensemble_svc.plan.plan import Pack, Slot
from ensemble_svc.spec.averages import AVERAGES
from ensemble_svc.spec.inits import INITS
from ensemble_svc.spec.job import RESAMPLES
from ensemble_svc.spec.norms import NORMS, BatchRenorm, GroupNorm, InstanceNorm
from ensemble_svc.spec.optimizers import OPTIMIZERS
from ensemble_svc.spec.regularizers import REGULARIZERS
from ensemble_svc.spec.schedules import SCHEDULES
from ensemble_svc.store.journal import Journal
from ensemble_svc.store.members import read_tensors, sealed
from ensemble_svc.train import watch
from ensemble_svc.train.assemble import assemble
from ensemble_svc.train.fit import fit
from ensemble_svc.train.member import MemberModule
from ensemble_svc.train.payload import Payload
from ensemble_svc.train.step import Batch
from ensemble_svc.train.strand import Strand

AT_WORK: dict[Any, dict[str, Any]] = {
    BatchRenorm: {"warmup": 3, "r_steps": 20, "d_steps": 10},
    GroupNorm: {"groups": 2},
}
"""With these a norm does within a few steps what it does in the end, and groups have more than two units, whose
norms are signs."""


class TestPackedIsAlone:
    """Law 1, for every choice that draws nothing inside a step."""

    @pytest.mark.parametrize("optimizer", list(OPTIMIZERS), ids=lambda c: c.model_fields["name"].default)
    def test_every_optimizer_with_its_own_rates(self, optimizer, tmp_path):
        job = job_of(
            training__optimizer={"name": optimizer.model_fields["name"].default, "lr": 0.01},
            ensemble__vary={"training.optimizer.lr": (0.01, 0.003, 0.03)},
        )
        together, apart = both(job, tmp_path)
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(together, apart)

    @pytest.mark.parametrize("schedule", list(SCHEDULES), ids=lambda c: c.model_fields["name"].default)
    def test_every_schedule(self, schedule, tmp_path):
        assert_close(*both(job_of(training__schedule=schedule.model_fields["name"].default), tmp_path))

    @pytest.mark.parametrize("place", ["before", "after"])
    @pytest.mark.parametrize("norm", list(NORMS), ids=lambda c: c.model_fields["name"].default)
    def test_every_norm(self, norm, place, tmp_path):
        """Of dense layers and of convolutions, with averages of their own.

        Behind a relu a norm may divide a group's round-off by its spread.
        """
        options = AT_WORK.get(norm, {})
        chosen = {"name": norm.model_fields["name"].default, **options}
        convnet = {"name": "convnet", "channels": (4,), "convs_per_stage": 1, "dense": (8,)}
        for model in ({"name": "mlp", "hidden": (16,)}, convnet):
            if model["name"] == "mlp" and norm is InstanceNorm:
                continue
            job = job_of(
                model={**model, "norm": chosen, "norm_place": place, "activation": "tanh"},
                training__epochs=2,
                training__optimizer={"name": "sgd", "lr": 0.05},
                training__average={"name": "ema", "decay": 0.9},
            )
            assert_close(*both(job, tmp_path / model["name"]))

    @pytest.mark.parametrize("activation", ["tanh", "prelu"])
    def test_tied_layers(self, activation, tmp_path):
        model = {
            "name": "mlp",
            "hidden": (12, 12, 12, 12),
            "tied": True,
            "activation": activation,
            "norm": "layer",
        }
        job = job_of(model=model, training__regularizers=({"name": "l2", "strength": 1e-3}, "sparsity"))
        together, apart = both(job, tmp_path)
        assert_close(together, apart)
        weights = [n for n in together[0] if n.startswith("weights") and n.endswith("linear.weight")]
        assert len(weights) == 2

    def test_every_init_in_one_pack_but_those_that_give_other_parts(self, tmp_path):
        names = [c.model_fields["name"].default for c in INITS if not c.is_structural]
        job = job_of(
            ensemble__members=len(names),
            ensemble__vary={"model.init": tuple(names)},
            training__optimizer={"name": "sgd", "lr": 0.05},
            model={"name": "mlp", "hidden": (16,), "activation": "tanh"},
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    def test_fixup_beside_members_of_another_structure(self, tmp_path):
        job = job_of(
            model={"name": "resnet", "depth": 8, "width": 4, "norm": "none"},
            training={"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.05}},
            ensemble={"members": 4, "vary": {"model.init": ("fixup", "he")}},
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 2
        assert_close(*both(job, tmp_path))

    @pytest.mark.parametrize("average", list(AVERAGES), ids=lambda c: c.model_fields["name"].default)
    @pytest.mark.parametrize("norm", ["none", "batch"])
    def test_every_average_with_and_without_batch_norm(self, average, norm, tmp_path):
        name = average.model_fields["name"].default  # a spread needs more iterates than the last epoch's
        job = job_of(
            training__average={"name": name, **({"start": 0.0} if name == "swag" else {})},
            model={"name": "mlp", "hidden": (16,), "norm": norm},
        )
        assert_close(*both(job, tmp_path))

    def test_averages_with_their_own_decays(self, tmp_path):
        job = job_of(
            training__average={"name": "ema", "decay": 0.9},
            ensemble__vary={"training.average.decay": (0.5, 0.9, 0.99)},
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    def test_label_smoothing_with_its_own_shares(self, tmp_path):
        job = job_of(
            training__loss={"name": "cross_entropy"},
            ensemble__vary={"training.loss.label_smoothing": (0.0, 0.1, 0.6)},
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    def test_a_member_without_dropout_or_noise_beside_members_with(self, tmp_path):
        job = job_of(
            ensemble__vary={"model.dropout": (0.0, 0.5, 0.9), "model.activation_noise": (0.0, 0.0, 0.5)}
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        together, apart = both(job, tmp_path)
        assert_close({0: together[0]}, {0: apart[0]})
        for index in (1, 2):  # these draw, and not what they draw alone
            weights = "weights.safetensors/body.output.weight"
            assert not torch.allclose(together[index][weights], apart[index][weights], atol=1e-3)

    def test_channel_dropout_draws_by_each_members_own_rate_and_replays(self, tmp_path):
        job = job_of(
            model={"name": "convnet", "channels": (4,), "convs_per_stage": 1, "dense": (8,), "norm": "none"},
            training__epochs=1,
            training__optimizer={"name": "sgd", "lr": 0.05},
            ensemble__vary={"model.channel_dropout": (0.0, 0.4, 0.8)},
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        together, apart = both(job, tmp_path)
        assert_same_bits(together, train(job, tmp_path / "again"))
        assert_close({0: together[0]}, {0: apart[0]})
        weights = "weights.safetensors/body.output.weight"
        plain = train(
            job_of(model=job.model.model_dump(), training=job.training.model_dump()), tmp_path / "p"
        )
        for index in (1, 2):
            assert not torch.allclose(together[index][weights], plain[index][weights], atol=1e-3)

    @pytest.mark.parametrize("resample", list(RESAMPLES), ids=lambda c: c.model_fields["name"].default)
    def test_every_resampling(self, resample, tmp_path):
        assert_close(*both(job_of(ensemble__resample=resample.model_fields["name"].default), tmp_path))

    @pytest.mark.parametrize("regularizer", list(REGULARIZERS), ids=lambda c: c.model_fields["name"].default)
    def test_every_regularizer_with_its_own_strength(self, regularizer, tmp_path):
        """Noise is off here, for its draws may depend on the pack; TestNoise has its laws."""
        name = regularizer.model_fields["name"].default
        option, values = {
            "l1": ("strength", (1e-3, 0.0, 1e-2)),
            "l2": ("strength", (1e-3, 0.0, 1e-2)),
            "sparsity": ("strength", (1e-2, 0.0, 0.1)),
            "max_norm": ("norm", (0.5, 2.0, 100.0)),
            "mixup": ("alpha", (0.0,)),
            "cutmix": ("alpha", (0.0,)),
        }.get(name, ("std", (0.0,)))
        job = job_of(
            training__regularizers=({"name": name, option: values[0]},),
            training__clip_norm=0.5,
            ensemble__vary={f"training.regularizers.0.{option}": values},
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    def test_proximal_l1_with_its_own_strengths(self, tmp_path):
        """Exact zeros, the more of them the stronger it is; none from the subgradient."""
        key, strengths = "training.regularizers.0.strength", (0.0, 0.3, 3.0)
        found = {}
        for proximal in (True, False):
            job = job_of(
                training__regularizers=({"name": "l1", "strength": 0.1, "proximal": proximal},),
                training__optimizer={"name": "sgd", "lr": 0.05},
                ensemble__vary={key: strengths},
            )
            together, apart = both(job, tmp_path / str(proximal))
            assert_close(together, apart)
            weights = [together[k]["weights.safetensors/body.hidden.0.linear.weight"] for k in range(3)]
            found[proximal] = [float((weight == 0).double().mean()) for weight in weights]
        assert found[True][0] == 0 < found[True][1] < found[True][2]
        assert found[False] == [0, 0, 0]

    def test_max_norm_bounds_every_units_weights(self, tmp_path):
        job = job_of(
            training__regularizers=({"name": "max_norm", "norm": 0.7},),
            training__optimizer={"name": "sgd", "lr": 0.5},
            ensemble__vary={"training.regularizers.0.norm": (0.7, 50.0)},
        )
        found = train(job, tmp_path)
        norms = [found[k]["weights.safetensors/body.hidden.0.linear.weight"].norm(dim=1) for k in (0, 1)]
        assert norms[0].max() <= 0.7 + 1e-5
        assert norms[0].max() > 0.69
        assert norms[1].max() > 0.8

    def test_every_elementwise_option_at_once(self, tmp_path):
        """Rates, schedules, lengths, decays, clipping, patience: each member its own, in one pack."""
        job = job_of(
            training__epochs=4,
            training__average={"name": "ema", "decay": 0.9},
            training__regularizers=({"name": "l2", "strength": 1e-3},),
            ensemble__members=6,
            ensemble__vary={
                "training.epochs": (2, 4, 3),
                "training.optimizer.lr": (0.01, 0.003),
                "training.optimizer.weight_decay": (0.0, 0.1, 0.3),
                "training.optimizer.betas": ((0.9, 0.999), (0.5, 0.99)),
                "training.schedule": ("constant", {"name": "cosine", "warmup": 5}, "cosine"),
                "training.average.decay": (0.5, 0.9),
                "training.clip_norm": (0.5, None),
                "training.early_stopping": (None, {"metric": "nll", "patience": 1, "min_delta": 0.05}),
                "training.regularizers.0.strength": (0.0, 1e-2, 1e-3),
                "training.loss": ({"name": "cross_entropy", "label_smoothing": 0.1}, "cross_entropy"),
            },
        )
        together, apart = both(job, tmp_path)
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        epochs = {e["index"]: e["epochs"] for e in sealed(tmp_path / "packed").values()}
        assert epochs == {e["index"]: e["epochs"] for e in sealed(tmp_path / "alone").values()}
        assert len(set(epochs.values())) > 1
        assert_close(together, apart)

    def test_momenta_of_their_own(self, tmp_path):
        job = job_of(
            training__optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9},
            ensemble__vary={"training.optimizer.momentum": (0.9, 0.0, 0.5)},
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    def test_bfloat16_products(self, tmp_path):
        """To the tolerance of bfloat16, whose products have 8 bits."""
        together, apart = both(job_of(training__precision="bf16-mixed", training__epochs=1), tmp_path)
        plain = train(job_of(training__epochs=1), tmp_path / "plain")
        for index, tensors in apart.items():
            for name, value in tensors.items():
                torch.testing.assert_close(together[index][name], value, rtol=0.05, atol=0.02)
                assert value.dtype == plain[index][name].dtype
        assert any(not torch.equal(t, plain[0][n]) for n, t in apart[0].items())
        log_probs = [t for run in (together, apart) for n, t in run[1].items() if n.endswith("log_probs")]
        assert log_probs
        for value in log_probs:
            torch.testing.assert_close(value.exp().sum(-1), torch.ones(len(value)))

    def test_early_stopping(self, tmp_path):
        job = job_of(
            training__epochs=12,
            training__optimizer={"name": "sgd", "lr": 0.3},
            training__schedule="constant",
            training__early_stopping={"metric": "nll", "patience": 1},
        )
        together, apart = both(job, tmp_path)
        stops = {e["index"]: e["best_epoch"] for e in sealed(tmp_path / "packed").values()}
        assert stops == {e["index"]: e["best_epoch"] for e in sealed(tmp_path / "alone").values()}
        assert_close(together, apart)

    @pytest.mark.parametrize("loss", ["mse", "gaussian_nll"])
    def test_regression(self, loss, tmp_path):
        job = job_of(
            task="regression",
            data={"source": "diabetes", "preprocess": ("standardize",)},
            training__loss=loss,
            ensemble__resample="bootstrap",
        )
        assert_close(*both(job, tmp_path))

    @pytest.mark.parametrize("model", ["lenet", "convnet", "resnet"])
    def test_networks_of_convolutions(self, model, tmp_path):
        small = {
            "lenet": {},
            "convnet": {"channels": (4,), "dense": (8,)},
            "resnet": {"depth": 8, "width": 4},
        }
        digits = load_digits()
        np.savez(
            tmp_path / "large.npz",
            x=np.kron(digits.images[:300], np.ones((2, 2))).astype(np.uint8),
            y=digits.target[:300],
        )
        job = job_of(
            data={
                "source": {"name": "npz", "path": str(tmp_path / "large.npz")},
                "preprocess": ("per_channel_center",),
            },
            model={"name": model, **small[model]},
            training={"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.05}},
            compute__pack=3,
        )
        assert_close(*both(job, tmp_path))

    def test_dropout_and_augmentation_replay_to_the_bit(self, tmp_path):
        """Draws inside a step may depend on the pack; the same pack draws the same again."""
        job = job_of(
            model={"name": "mlp", "hidden": (16,), "dropout": 0.3},
            data__augment=({"name": "crop", "padding": 1}, "flip"),
        )
        assert_same_bits(train(job, tmp_path / "a"), train(job, tmp_path / "b"))


class TestSparsity:
    CONVNET: ClassVar[dict[str, Any]] = {
        "name": "convnet",
        "channels": (4,),
        "convs_per_stage": 1,
        "dense": (8,),
    }

    @pytest.mark.parametrize("kind", ["l1", "kl"])
    @pytest.mark.parametrize("model", [{"name": "mlp", "hidden": (16, 8)}, CONVNET], ids=lambda m: m["name"])
    @pytest.mark.parametrize("streamed", ["off", "on"])
    def test_packed_is_alone_with_strengths_and_targets_of_their_own(self, kind, model, streamed, tmp_path):
        keys = {"strength": (0.0, 0.05, 0.2), "target": (0.05, 0.1, 0.3)}
        job = job_of(
            model={**model, "activation": "sigmoid", "norm": "none"},
            training__epochs=1,
            training__optimizer={"name": "sgd", "lr": 0.05},
            training__regularizers=({"name": "sparsity", "kind": kind},),
            data__stream=streamed,
            ensemble={
                "members": 3,
                "resample": "bootstrap",
                "vary": {f"training.regularizers.0.{key}": values for key, values in keys.items()},
            },
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    def test_a_strength_of_0_changes_no_bit(self, tmp_path):
        """Neither of a pack that has the penalty nor beside members that have some."""
        key = "training.regularizers.0.strength"
        plain = train(job_of(), tmp_path / "plain")
        none = {"training__regularizers": ({"name": "sparsity", "strength": 0.0},)}
        assert_same_bits(train(job_of(**none), tmp_path / "zero"), plain)
        mixed = train(job_of(**none, ensemble__vary={key: (0.0, 0.1, 0.0)}), tmp_path / "mixed")
        assert_same_bits({k: mixed[k] for k in (0, 2)}, {k: plain[k] for k in (0, 2)})
        weight = "weights.safetensors/body.hidden.0.linear.weight"
        assert not torch.allclose(mixed[1][weight], plain[1][weight], atol=1e-3)

    def test_the_stronger_it_is_the_fewer_units_are_active(self, tmp_path):
        strengths = (0.0, 0.01, 0.1)
        job = job_of(
            model={"name": "mlp", "hidden": (32,)},
            training__epochs=20,
            training__optimizer={"name": "adam", "lr": 0.02},
            training__regularizers=({"name": "sparsity"},),
            ensemble={"members": 3, "vary": {"training.regularizers.0.strength": strengths}},
        )
        train(job, tmp_path)
        payload, plan = payload_of(job, tmp_path)
        shares = []
        for event in sorted(sealed(tmp_path).values(), key=lambda e: e["index"]):
            net = assemble(
                next(m for m in plan.members if m.digest == event["digest"]), payload.schema
            ).eval()
            net.load_state_dict(
                read_tensors(tmp_path, event["files"], event["member"], "weights.safetensors")
            )
            x = net.transform(torch.from_numpy(payload.dataset.x[payload.split.train]))
            shares.append(float((net.body.hidden(x.flatten(1)) == 0).double().mean()))
        assert shares[0] + 0.02 < shares[1] < shares[2] - 0.02, shares

    @pytest.mark.parametrize("pack", ["auto", "off"])
    def test_it_resumes_to_the_same_bits(self, pack, tmp_path):
        job = job_of(training__regularizers=("sparsity",), compute__pack=pack)
        undisturbed = train(job, tmp_path / "a", commit_every_s=0)
        with pytest.raises(Killed):
            train(job, tmp_path / "b", report=dying(2), commit_every_s=0)
        assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))


class TestNoise:
    """What is drawn inside a step: laws of distributions, and of replay."""

    @pytest.mark.parametrize("name", ["input_noise", "weight_noise"])
    def test_each_member_has_its_own_strength(self, name, tmp_path):
        """A member whose noise is 0 is the member without noise, whatever its neighbours draw."""
        key = "training.regularizers.0.std"
        noise = {"training__regularizers": ({"name": name, "std": 0.0},)}
        mixed = train(job_of(**noise, ensemble__vary={key: (0.0, 0.5, 0.0)}), tmp_path / "mixed")
        quiet = train(job_of(**noise), tmp_path / "quiet")
        again = train(job_of(**noise, ensemble__vary={key: (0.0, 0.5, 0.0)}), tmp_path / "again")
        assert_close({k: mixed[k] for k in (0, 2)}, {k: quiet[k] for k in (0, 2)})
        assert any(not torch.allclose(t, quiet[1][n], atol=1e-3) for n, t in mixed[1].items())
        assert_same_bits(mixed, again)

    def test_input_noise_on_a_linear_network_is_an_l2_penalty(self, tmp_path):
        """With squared error the expected gradients agree (Bishop 1995): sigma² times each weight, twice."""
        std = 0.5
        common = {
            "task": "regression",
            "data": {"source": "diabetes", "preprocess": ("standardize",), "validation": 0.0},
            "model": {"name": "mlp", "hidden": ()},
            "ensemble__members": 24,
            "training__loss": "mse",
            "training__batch_size": 400,
            "training__epochs": 400,
            "training__optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.0},
        }
        noisy = train(
            job_of(**common, training__regularizers=({"name": "input_noise", "std": std},)), tmp_path / "n"
        )
        decay = ({"name": "l2", "strength": 2 * std**2},)
        ridge = train(job_of(**common, training__regularizers=decay), tmp_path / "r")
        plain = train(job_of(**common), tmp_path / "p")
        name = "weights.safetensors/body.output.weight"
        mean = [torch.stack([run[k][name] for k in run]).mean(0) for run in (noisy, ridge, plain)]
        apart = (mean[2] - mean[1]).norm()
        assert (mean[0] - mean[1]).norm() < 0.15 * apart


def test_a_margin_that_varies_is_checked_for_each_member(tmp_path):
    job = job_of(
        data__augment=({"name": "crop", "padding": 1},), ensemble__vary={"data.augment.0.padding": (1, 9)}
    )
    with pytest.raises(DataError, match="9 pixels cannot be mirrored from images of 8 x 8"):
        payload_of(job, tmp_path)


class TestCompaction:
    """Members that have stopped cost nothing further, and those that go on do not notice."""

    JOB: ClassVar[dict[str, Any]] = {
        "training__epochs": 12,
        "training__optimizer": {"name": "sgd", "lr": 0.3, "momentum": 0.5},
        "training__schedule": "constant",
        "training__early_stopping": {"metric": "nll", "patience": 1},
        "training__average": {"name": "ema", "decay": 0.5},
        "model": {"name": "mlp", "hidden": (16,), "norm": "batch"},
        "ensemble": {"members": 5, "resample": "bootstrap"},
    }

    def test_the_same_members_with_and_without(self, tmp_path, monkeypatch):
        sizes: list[int] = []
        step = Strand.step

        def counted(self: Strand, batch: Batch) -> Tensor:
            sizes.append(len(batch.x_KB))
            return step(self, batch)

        monkeypatch.setattr(Strand, "step", counted)
        compacted = train(job_of(**self.JOB), tmp_path / "with")
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] == 5 > sizes[-1]
        with monkeypatch.context() as never:
            never.setattr(watch, "drop_stopped", lambda module, ledger, feed: None)
            whole = train(job_of(**self.JOB), tmp_path / "without")
        assert_close(compacted, whole)
        epochs = [
            {e["index"]: e["epochs"] for e in sealed(tmp_path / n).values()} for n in ("with", "without")
        ]
        assert epochs[0] == epochs[1]

    @pytest.mark.parametrize("epoch", [2, 3, 4, 5])
    def test_a_compacted_pack_resumes_to_the_same_bits(self, epoch, tmp_path):
        undisturbed = train(job_of(**self.JOB), tmp_path / "a", commit_every_s=0)
        with pytest.raises(Killed):
            train(job_of(**self.JOB), tmp_path / "b", report=dying(epoch), commit_every_s=0)
        assert_same_bits(undisturbed, train(job_of(**self.JOB), tmp_path / "b", commit_every_s=0))


class TestMemory:
    """A pack that memory does not hold is halved, and nothing is lost."""

    def test_halved_in_the_middle_it_ends_with_the_members_of_the_whole(self, tmp_path, monkeypatch):
        job = job_of(training__epochs=4, ensemble__members=5)
        whole = train(job, tmp_path / "whole")
        step, notes = Strand.step, []

        def limited(self: Strand, batch: Batch) -> Tensor:
            if len(batch.x_KB) > 2 and self.optimizer.num_steps >= 20:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return step(self, batch)

        monkeypatch.setattr(Strand, "step", limited)
        halved = train(job, tmp_path / "halved", lambda p: notes.append(p.note), commit_every_s=0)
        assert_close(halved, whole)
        told = [note for note in notes if note]
        assert ["packs of 3 and 2" in told[0], "packs of 2 and 1" in told[1], len(told)] == [True, True, 2]
        starts = Journal(tmp_path / "halved" / "journal.jsonl").of_kind("start")
        assert [len(e["members"]) for e in starts] == [5, 3, 2, 1, 2]
        assert not (tmp_path / "halved" / "packs").exists() or not list(
            (tmp_path / "halved" / "packs").iterdir()
        )
        history = [e["epochs"] for e in sealed(tmp_path / "halved").values()]
        assert history == [4] * 5

    def test_halved_to_members_alone_whose_momenta_differ(self, tmp_path, monkeypatch):
        """A member goes on without the running values that only other members of its pack had."""
        job = job_of(
            training__optimizer={"name": "sgd", "lr": 0.05},
            ensemble__vary={"training.optimizer.momentum": (0.0, 0.9)},
            ensemble__members=2,
        )
        whole = train(job, tmp_path / "whole")
        step = Strand.step

        def limited(self: Strand, batch: Batch) -> Tensor:
            if self.optimizer.num_steps >= 12:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return step(self, batch)

        monkeypatch.setattr(Strand, "step", limited)
        assert_close(train(job, tmp_path / "halved", commit_every_s=0), whole)

    def test_a_member_alone_that_does_not_fit_says_what_to_do(self, tmp_path, monkeypatch):
        def none(self: MemberModule, *_: Any) -> Tensor:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")

        monkeypatch.setattr(MemberModule, "training_step", none)
        with pytest.raises(OutOfMemory, match=r"does not hold one member .* lower training\.batch_size"):
            train(job_of(ensemble__members=1), tmp_path)

    def test_an_attempt_killed_for_its_memory_starts_again_in_halves(self, tmp_path):
        job = job_of(ensemble__members=4)
        payload, plan = payload_of(job, tmp_path)
        died = {"reason": "the machine ran out of memory; lower training.batch_size or compute.pack"}
        Journal(tmp_path / "journal.jsonl").append("retry", pack=plan.slots[0].pack.id, members=[], **died)
        fit(payload, plan.slots[0], lambda progress: None)
        assert {e["pack"].partition("-")[0] for e in sealed(tmp_path).values()} == {"0000x2", "0002x2"}

    @pytest.mark.slow
    def test_a_real_limit_of_the_address_space(self, tmp_path):
        """The allocator itself refuses, in a process whose address space is bounded."""
        script = Path(__file__).with_name("limited_memory.py")
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert Journal(tmp_path / "journal.jsonl").of_kind("halved")
        assert len(sealed(tmp_path)) == 16


class TestCompiled:
    @pytest.mark.slow
    @pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
    @pytest.mark.parametrize("members", [1, 3])
    @pytest.mark.parametrize("norm", ["none", "batch"])
    def test_a_compiled_step_trains_the_same_members(self, norm, members, tmp_path):
        job = job_of(
            model={"name": "mlp", "hidden": (16,), "norm": norm},
            training__epochs=1,
            ensemble__members=members,
        )
        payload, plan = payload_of(job, tmp_path / "on")
        fit(payload, plan.slots[0].model_copy(update={"compile": True}), lambda progress: None)
        assert_close(results(tmp_path / "on"), train(job, tmp_path / "off"))


class TestAveragedBatchNorm:
    """Law 8: an averaged model's statistics are those of its own weights."""

    @pytest.mark.parametrize("pack", ["auto", "off"])
    def test_they_are_what_torch_estimates_from_the_same_batches(self, pack, tmp_path):
        job = job_of(
            training__average={"name": "ema", "decay": 0.9},
            model={"name": "mlp", "hidden": (16,), "norm": "batch"},
            ensemble__members=2,
            compute__pack=pack,
        )
        train(job, tmp_path)
        payload, plan = payload_of(job, tmp_path)
        for event in sealed(tmp_path).values():
            member = next(m for m in plan.members if m.digest == event["digest"])
            net = assemble(member, payload.schema)
            averaged = read_tensors(tmp_path, event["files"], event["member"], "averaged.safetensors")
            net.load_state_dict(averaged)
            x = torch.from_numpy(payload.dataset.x[payload.split.train])
            update_bn(x.split(64), net)
            for name, value in net.state_dict().items():
                torch.testing.assert_close(averaged[name], value, rtol=1e-4, atol=1e-5)


class TestReestimated:
    @pytest.mark.parametrize("pack", ["auto", "off"])
    def test_statistics_are_those_of_the_finished_weights(self, pack, tmp_path):
        """What predicts, and is kept, is the mean over the batches of one pass; the weights are those trained."""
        found = {}
        for statistics in ("running", "reestimated"):
            norm = {"name": "batch", "statistics": statistics}
            job = job_of(
                model={"name": "mlp", "hidden": (16, 16), "norm": norm},
                ensemble__members=2,
                compute__pack=pack,
            )
            found[statistics] = train(job, tmp_path / statistics)
        payload, plan = payload_of(job, tmp_path / "reestimated")
        members = tuple(plan.members)
        for index, tensors in found["reestimated"].items():
            net = assemble(members[index], payload.schema)
            own = {n.partition("/")[2]: t for n, t in tensors.items() if n.startswith("weights.safetensors/")}
            net.load_state_dict(own)
            update_bn(torch.from_numpy(payload.dataset.x[payload.split.train]).split(64), net)
            for name, value in net.state_dict().items():
                torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-5)
                running = found["running"][index][f"weights.safetensors/{name}"]
                assert torch.equal(running, own[name]) != ("running_" in name or name.endswith("tracked"))
            net.eval()
            x = torch.from_numpy(payload.dataset.x[payload.split.test])
            told = next(t for n, t in tensors.items() if "test" in n and n.endswith("log_probs"))
            torch.testing.assert_close(net(x).log_softmax(-1), told, rtol=1e-4, atol=1e-4)


class TestGrowing:
    """Law 9: more members change no earlier one."""

    def test_earlier_members_keep_digest_and_weights(self, tmp_path):
        few = train(job_of(ensemble__members=2), tmp_path / "few")
        many = train(job_of(ensemble__members=4), tmp_path / "many")
        ids = [{e["index"]: e["digest"] for e in sealed(tmp_path / n).values()} for n in ("few", "many")]
        assert all(ids[1][index] == digest for index, digest in ids[0].items())
        assert_close({k: many[k] for k in few}, few)

    def test_members_differ_from_one_another(self, tmp_path):
        found = train(job_of(), tmp_path)
        weights = [next(t for n, t in found[k].items() if n.endswith("weight")) for k in found]
        assert not torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[1], weights[2])


class TestResume:
    """Law 3: whatever epoch a slot dies in, it ends with the bits of the undisturbed one."""

    @pytest.mark.parametrize("pack", ["auto", "off"])
    @pytest.mark.parametrize("epoch", [1, 2, 4])
    def test_killed_at_an_epochs_end(self, pack, epoch, tmp_path):
        job = job_of(
            training__epochs=5,
            training__average={"name": "ema", "decay": 0.9},
            training__early_stopping={"metric": "nll", "patience": 3},
            model={"name": "mlp", "hidden": (16,), "norm": "batch", "dropout": 0.2},
            compute__pack=pack,
        )
        undisturbed = train(job, tmp_path / "a", commit_every_s=0)
        with pytest.raises(Killed):
            train(job, tmp_path / "b", report=dying(epoch), commit_every_s=0)
        assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))

    @pytest.mark.parametrize("pack", ["auto", "off"])
    def test_the_steps_that_bound_batch_renorm_are_counted_on(self, pack, tmp_path):
        norm = {"name": "batch_renorm", "warmup": 10, "r_steps": 90, "d_steps": 60}
        job = job_of(model={"name": "mlp", "hidden": (16,), "norm": norm}, compute__pack=pack)
        undisturbed = train(job, tmp_path / "a", commit_every_s=0)
        with pytest.raises(Killed):
            train(job, tmp_path / "b", report=dying(2), commit_every_s=0)
        assert_same_bits(undisturbed, train(job, tmp_path / "b", commit_every_s=0))

    def test_a_damaged_commit_costs_an_epoch_and_no_bit(self, tmp_path):
        job = job_of(training__epochs=5)
        undisturbed = train(job, tmp_path / "a")
        with pytest.raises(Killed):
            train(job, tmp_path / "b", report=dying(4), commit_every_s=0)
        newest = max((tmp_path / "b" / "packs").rglob("*.safetensors"))
        newest.write_bytes(newest.read_bytes()[:-1])
        assert_same_bits(undisturbed, train(job, tmp_path / "b"))

    def test_a_sealed_slot_is_left_alone(self, tmp_path):
        train(job_of(), tmp_path)
        before = (tmp_path / "journal.jsonl").read_bytes()
        train(job_of(), tmp_path)
        assert (tmp_path / "journal.jsonl").read_bytes() == before


class TestDivergence:
    def test_a_diverged_member_is_named_and_harms_nobody(self, tmp_path):
        rates = {"training.optimizer.lr": (0.05, 1e30, 0.05)}
        healthy = {"training.optimizer.lr": (0.05, 0.05, 0.05)}
        changes = {"training__optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}
        sick = train(job_of(**changes, ensemble__vary=rates), tmp_path / "sick")
        well = train(job_of(**changes, ensemble__vary=healthy), tmp_path / "well")
        events = {e["index"]: e for e in sealed(tmp_path / "sick").values()}
        assert [events[k]["status"] for k in range(3)] == ["done", "diverged", "done"]
        assert "epoch 1" in events[1]["reason"]
        assert all(t.isfinite().all() for t in sick[1].values() if t.is_floating_point())
        assert_close({k: sick[k] for k in (0, 2)}, {k: well[k] for k in (0, 2)})


class TestHonesty:
    """Law 5: no row that scores or reports has trained."""

    def test_averages_with_their_own_decays(self, tmp_path):
        job = job_of(
            training__average={"name": "ema", "decay": 0.9},
            ensemble__vary={"training.average.decay": (0.5, 0.9, 0.99)},
        )
        assert len(payload_of(job, tmp_path)[1].slots) == 1
        assert_close(*both(job, tmp_path))

    @pytest.mark.parametrize("resample", list(RESAMPLES), ids=lambda c: c.model_fields["name"].default)
    def test_training_rows_are_apart_from_the_others(self, resample, tmp_path):
        job = job_of(ensemble__resample=resample.model_fields["name"].default)
        payload, plan = payload_of(job, tmp_path)
        scored = set(payload.split.validation) | set(payload.split.test)
        for m in plan.members:
            rows = member_rows(
                m.resample, payload.split, payload.dataset.y, task=m.task, job_seed=0, member=m.index
            )
            assert not scored & set(rows.tolist())

    def test_the_stored_rows_are_those_that_trained(self, tmp_path):
        job = job_of(ensemble__resample="bootstrap")
        train(job, tmp_path)
        payload, plan = payload_of(job, tmp_path)
        for m in plan.members:
            rows = member_rows(
                m.resample, payload.split, payload.dataset.y, task=m.task, job_seed=0, member=m.index
            )
            np.testing.assert_array_equal(np.load(tmp_path / "members" / m.id / "resample.npy"), rows)

    def test_changing_test_rows_changes_no_member(self, tmp_path):
        job = job_of()
        payload, plan = payload_of(job, tmp_path / "a")
        poisoned = payload.dataset.x.copy()
        poisoned[payload.split.test] = 1e6
        other = Payload(
            replace(payload.dataset, x=poisoned),
            payload.split,
            payload.schema,
            str(tmp_path / "b"),
            1e9,
        )
        (tmp_path / "b").mkdir()
        for run in (payload, other):
            fit(run, plan.slots[0], lambda progress: None)
        one, two = results(tmp_path / "a"), results(tmp_path / "b")
        for index, tensors in one.items():
            trained = {n: t for n, t in tensors.items() if n.startswith("weights")}
            assert all(torch.equal(t, two[index][n]) for n, t in trained.items())


def test_a_slot_of_other_structure_is_refused(tmp_path):
    """Two structures in one pack are a planner's bug, told as such."""
    payload, plan = payload_of(job_of(), tmp_path)
    wide = payload_of(job_of(model={"name": "mlp", "hidden": (8,)}), tmp_path)[1]
    mixed = Pack(members=(plan.slots[0].pack.members[0], wide.slots[0].pack.members[1]))
    with pytest.raises((RuntimeError, TrainError)):
        fit(payload, Slot(pack=mixed, cpus=1, gpus=0, reason=""), lambda progress: None)
