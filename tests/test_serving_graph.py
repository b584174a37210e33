"""Law of the graph: whatever the members are and however they are combined, the file says what the ensemble says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from ensemble_svc.aggregate.calibration.isotonic import fit_isotonic
from ensemble_svc.aggregate.calibration.plain import to_plain
from ensemble_svc.aggregate.calibration.temperature import Temperature
from ensemble_svc.aggregate.calibration.variance import VarianceScale
from ensemble_svc.aggregate.calibration.vector import VectorScaling
from ensemble_svc.errors import EnsembleError
from ensemble_svc.predictor import Ensemble
from ensemble_svc.serving import onnx_file, traced
from ensemble_svc.serving.check import TOLERANCE, differences
from ensemble_svc.serving.described import describe, outputs_of
from ensemble_svc.serving.traced import Predict
from ensemble_svc.serving.whole import Whole
from ensemble_svc.spec.activations import ACTIVATIONS
from ensemble_svc.spec.fitness import unfit
from ensemble_svc.spec.losses import Mse
from ensemble_svc.spec.model import MODELS, Network, PythonModel, ResNet
from ensemble_svc.spec.norms import NORMS
from ensemble_svc.spec.preprocess import PREPROCESS, Impute, PerChannelCenter, Standardize
from ensemble_svc.spec.training import TrainingSpec
from tests.serving_ensembles import ensemble_of, image_schema, rows_for, table_schema

ZOO = [choice for choice in MODELS if issubclass(choice, Network)]
SMALL: dict[str, tuple[dict[str, Any], Any]] = {
    "mlp": ({"hidden": (6, 4)}, table_schema(5)),
    "lenet": ({"channels": (2, 4), "dense": (6,)}, image_schema(1, 12, 12)),
    "convnet": ({"channels": (4, 4), "convs_per_stage": 1, "dense": (6,)}, image_schema(3, 8, 8)),
    "resnet": ({"depth": 8, "width": 4}, image_schema(3, 8, 8)),
}


def name_of(choice: Any) -> str:
    return choice.model_fields["name"].default


def mlp(**options: Any) -> Any:
    return MODELS.get("mlp")(hidden=(6, 4), **options)


def check(ensemble: Ensemble) -> bytes:
    """Both files say what the ensemble says, of one row and of many; returns the ONNX file."""
    program = check_traced(ensemble)
    graph = onnx_file.to_bytes(program, describe(ensemble), outputs_of(ensemble))
    compare(ensemble, onnx_file.read_back(graph))
    return graph


def check_traced(ensemble: Ensemble) -> ExportedProgram:
    """The same of the ``.pt2`` file alone, which takes a tenth of the time; returns the program."""
    program = traced.trace(ensemble)
    compare(ensemble, traced.read_back(traced.to_bytes(program, describe(ensemble))))
    return program


def compare(ensemble: Ensemble, predict: Predict) -> None:
    for num_rows in (1, 2, 300):
        found = differences(ensemble, predict, rows_for(ensemble.schema, num_rows))
        assert set(found) == set(outputs_of(ensemble))
        assert max(found.values()) <= TOLERANCE, found


def alike(model: Any, schema: Any) -> Ensemble:
    return ensemble_of([model, model], schema)


@pytest.mark.parametrize("choice", ZOO, ids=name_of)
def test_every_network_with_every_norm(choice):
    """All norms side by side, a structure each, so that one graph holds them.

    As ONNX they all stand in one network of dense layers and in one of convolutions, and two in each other.
    """
    options, schema = SMALL[name_of(choice)]
    models = [choice(**options, norm=norm()) for norm in NORMS]
    fit = [model for model in models if not list(unfit(model))]
    assert len(fit) > 4
    if name_of(choice) in ("mlp", "convnet"):
        check(ensemble_of(fit, schema))
    else:
        check_traced(ensemble_of(fit, schema))
        check(ensemble_of(fit[:2], schema))


@pytest.mark.parametrize(("name", "place"), [("mlp", "before"), ("convnet", "after")])
def test_every_activation(name, place):
    """As ONNX those that know of channels stand in both networks, and all in the first."""
    options, schema = SMALL[name]
    each = [
        MODELS.get(name)(**options, activation=activation(), norm="layer", norm_place=place)
        for activation in ACTIVATIONS
    ]
    if name == "mlp":
        check(ensemble_of(each, schema))
    else:
        check_traced(ensemble_of(each, schema))
        check(ensemble_of([model for model in each if model.activation.name in ("maxout", "prelu")], schema))


def test_fixup_and_tied_layers():
    check(
        alike(ResNet(depth=8, width=4, norm="none", init="fixup", activation="relu"), image_schema(3, 8, 8))
    )
    check(alike(MODELS.get("mlp")(hidden=(6, 6, 6, 6), tied=True), table_schema(5)))


@pytest.mark.parametrize("bags", [False, True], ids=["alike", "own rows"])
def test_every_preprocessing_of_a_table_is_in_the_graph(bags):
    """A member for each step, and one with all that a table can have."""
    schema = table_schema(5, categories=(("x4", ("no", "yes", "perhaps")),), indicators=(0, 2))
    steps = [step() for step in PREPROCESS if step not in (PerChannelCenter, Impute)]
    each = [[Impute(), step] for step in steps] + [[Impute(strategy="mean", indicator=False)]]
    ensemble = ensemble_of([mlp()] * 2 * len(each), schema, preprocess=[*each, *each], bags=bags)
    check(ensemble)
    stacks = Whole(ensemble).groups
    assert len(stacks) == len(each)
    assert {stack.alike for stack in stacks} == {not bags}


def test_every_preprocessing_of_images_is_in_the_graph():
    steps = [[step()] for step in PREPROCESS if step is not Impute]
    check(ensemble_of([mlp()] * len(steps), image_schema(3, 4, 4), preprocess=steps))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_of_both_types(dtype):
    check(ensemble_of([mlp(), mlp()], image_schema(1, 6, 6, dtype=dtype), preprocess=[[Standardize()]]))


def isotonic() -> Any:
    draw = torch.Generator().manual_seed(0)
    log_probs_NC = (2 * torch.randn(200, 3, generator=draw)).log_softmax(-1)
    target_N = torch.multinomial(log_probs_NC.exp(), 1, generator=draw)[:, 0]
    return fit_isotonic(log_probs_NC, target_N)


CALIBRATIONS = {
    "none": None,
    "temperature": Temperature(1.7, before=False),
    "of the members": Temperature(0.6, before=True),
    "vector": VectorScaling((1.2, 0.8, 1.0), (0.3, 0.0, -0.5)),
    "isotonic": isotonic(),
}


@pytest.mark.parametrize("pooling", ["mean", "geometric", "vote"])
@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_every_way_to_combine_and_to_calibrate(pooling, calibration):
    fitted = CALIBRATIONS[calibration]
    decision = {"combine": pooling, "calibration": fitted and to_plain(fitted)}
    ensemble = ensemble_of([mlp(), mlp(), mlp()], table_schema(5), decision=decision)
    whole = Whole(ensemble)

    def predict(x: Any) -> Any:
        return {name: value.numpy() for name, value in whole(torch.from_numpy(x)).items()}

    for num_rows in (1, 2000):
        found = differences(ensemble, predict, rows_for(ensemble.schema, num_rows))
        assert max(found.values()) <= 1e-6, found
    if pooling == "mean" or calibration == "isotonic":
        check(ensemble)


@pytest.mark.parametrize("loss", ["gaussian_nll", "mse"])
@pytest.mark.parametrize("scale", [None, VarianceScale(2.5, before=True)], ids=["as it is", "scaled"])
def test_numbers_with_their_variances(loss, scale):
    schema = table_schema(5, classes=(), targets=("price", "weight"))
    training = TrainingSpec(loss=loss)
    assert isinstance(training.loss, Mse) == (loss == "mse")
    decision = {"calibration": scale and to_plain(scale)}
    check(ensemble_of([mlp(), mlp(activation="tanh")], schema, training=training, decision=decision))


def test_several_structures_in_one_graph_and_out_of_order():
    wide = MODELS.get("mlp")(hidden=(9,))
    check(ensemble_of([wide, mlp(), wide, mlp(norm="batch")], table_schema(5), preprocess=[[Standardize()]]))


def test_more_members_are_larger_tensors_and_no_more_operations():
    sizes = []
    for count in (2, 8):
        graph = onnx.load_from_string(check(ensemble_of([mlp(norm="batch")] * count, table_schema(5))))
        sizes.append(len(graph.graph.node))
    assert sizes[0] == sizes[1]


def test_nothing_is_drawn_in_the_graph():
    model = SMALL["convnet"]
    noisy = MODELS.get("convnet")(**model[0], dropout=0.5, channel_dropout=0.5, activation_noise=1.0)
    operations = {node.op_type for node in onnx.load_from_string(check(alike(noisy, model[1]))).graph.node}
    assert not {name for name in operations if "Random" in name or name in ("Dropout", "Bernoulli")}


def plain_net(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """The user's own: a convolution and two layers that share one weight."""
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return nn.Sequential(
        nn.Linear(input_shape[0], 4), nn.BatchNorm1d(4), first, nn.ReLU(), second, nn.Linear(4, num_outputs)
    )


class Asks(nn.Module):
    """Does one thing or another, as the values are."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(5, num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def asking_net(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Asks(num_outputs)


def own(factory: str) -> PythonModel:
    return PythonModel(factory=f"tests.test_serving_graph:{factory}")


def test_a_network_of_the_user_s_own():
    check(
        ensemble_of(
            [own("plain_net"), mlp(), own("plain_net")], table_schema(5), preprocess=[[Standardize()]]
        )
    )


def test_a_network_that_cannot_be_traced_is_refused_with_the_reason():
    with pytest.raises(
        EnsembleError, match=r"cannot trace a network of your own \(model python\).*same for all"
    ):
        traced.trace(alike(own("asking_net"), table_schema(5)))


def test_networks_with_their_dropout_drawn_are_refused():
    ensemble = alike(mlp(dropout=0.5), table_schema(5))
    (group,) = ensemble.groups
    drawn = Ensemble(
        ensemble.schema, [replace(group, draws=((0, 1), (1, 2)))], ensemble.order, ensemble.decision
    )
    with pytest.raises(EnsembleError, match="2 of the chosen .*mc_samples.*distill"):
        traced.trace(drawn)
