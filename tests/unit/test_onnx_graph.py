"""The ONNX graphs of a ticket: valid, small, and equal to torch autograd."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from coordinator.models import MODELS, build_plan
from edge_client.runtimes.registry import available, open_runtime
from export.bundle import make_bundle
from export.comparison import Row
from export.onnx_graph import inference_graph, training_graph
from export.torch_net import TorchReference
from export.verify import check
from tests.helpers import random_ticket
from wire.errors import ExportError
from wire.layers import (
    Activation,
    Add,
    AvgPool,
    Concat,
    Conv,
    Flatten,
    Gelu,
    Hardswish,
    Layer,
    Linear,
    MaxPool,
    Norm,
    Recall,
    Relu,
    Relu6,
)
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Keep, Ticket

torch.set_num_threads(1)

DEEP = ("resnet8", "resnet20", "mobilenet-v2-tiny")
SMALL = ("mlp", "lenet", "har-cnn", "har-resnet")
# Seconds a check: their gradients are compared on two samples.
LARGE = ("conv2", "conv4", "ds-cnn", *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP))


def _conv(
    channels: int, kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...], groups: int = 1
) -> Conv:
    return Conv(out_channels=channels, kernel=kernel, stride=stride, padding=padding, groups=groups)


SAME = _conv(4, (3, 3), (1, 1), (1, 1))
ODD_PLANS: dict[str, tuple[tuple[int, ...], list[Layer]]] = {
    "strides that leave input over": (
        (3, 11, 10),
        [_conv(8, (3, 3), (2, 3), (1, 0)), Relu(), _conv(4, (3, 2), (2, 2), (0, 1))],
    ),
    "even kernels, uneven padding": (
        (2, 9, 8),
        [_conv(4, (2, 4), (1, 2), (1, 3)), Relu(), _conv(8, (4, 2), (1, 1), (2, 0))],
    ),
    "stride larger than kernel": ((2, 12, 11), [SAME, Relu(), _conv(4, (2, 2), (3, 4), (0, 0))]),
    "overlapping max pool": ((2, 9, 9), [SAME, MaxPool(kernel=(3, 3), stride=(2, 2))]),
    "overlapping max pool after relu": ((2, 9, 9), [SAME, Relu(), MaxPool(kernel=(3, 2), stride=(1, 2))]),
    "max pool with gaps": ((2, 9, 8), [SAME, Relu(), MaxPool(kernel=(2, 2), stride=(3, 3))]),
    "overlapping average pool": ((2, 10, 9), [SAME, Relu(), AvgPool(kernel=(3, 3), stride=(2, 2))]),
    "pools before weights": (
        (2, 12),
        [Relu(), MaxPool(kernel=(2,), stride=(1,)), AvgPool(kernel=(2,), stride=(2,)), _conv(4, (3,), (1,), (1,))],
    ),
    "one dimension, strided": (
        (3, 30),
        [_conv(8, (5,), (3,), (2,)), Relu(), AvgPool(kernel=(2,), stride=(2,)), _conv(4, (2,), (2,), (1,))],
    ),
    "1x1 kernels": ((3, 4, 4), [_conv(8, (1, 1), (1, 1), (0, 0)), Relu(), _conv(4, (1, 1), (2, 2), (0, 0))]),
    "no hidden layer": ((2, 3, 4), []),
    "groups, strided": (
        (4, 9, 8),
        [_conv(8, (3, 2), (2, 1), (1, 0), groups=2), Relu(), _conv(4, (2, 3), (1, 2), (0, 2), groups=4)],
    ),
    "depthwise": (
        (3, 9, 8),
        [_conv(6, (1, 1), (1, 1), (0, 0)), _conv(6, (3, 3), (2, 1), (1, 1), groups=6), Relu(), SAME],
    ),
    "depthwise with a multiplier, one dimension": (
        (3, 14),
        [_conv(4, (3,), (1,), (1,)), _conv(8, (4,), (3,), (2,), groups=4), Relu()],
    ),
    "relu6": ((2, 6, 6), [SAME, Relu6(), SAME, Relu6(), MaxPool(kernel=(2, 2), stride=(2, 2))]),
    "hardswish": ((2, 6, 6), [SAME, Hardswish(), Flatten(), Linear(out_features=8), Hardswish()]),
    "gelu": ((2, 12), [_conv(4, (3,), (1,), (1,)), Gelu(), Flatten(), Linear(out_features=8), Gelu()]),
    "norms of maps": ((2, 6, 7), [SAME, Norm(groups=2), Relu(), SAME, Norm(groups=1), Relu(), SAME, Norm(groups=4)]),
    "norms of rows and features": (
        (2, 12),
        [_conv(4, (3,), (1,), (1,)), Norm(groups=4), Relu(), Flatten(), Linear(out_features=12), Norm(groups=3)],
    ),
    "norms before weights": ((4, 5, 5), [Norm(groups=2), Gelu(), SAME, Flatten(), Norm(groups=2)]),
    "residual sums": ((2, 6, 6), [SAME, Relu(), SAME, Relu(), SAME, Add(source=2), Relu(), Add(source=1)]),
    "shortcut of another shape": (
        (2, 8, 7),
        [
            SAME,
            Relu(),
            _conv(8, (3, 3), (2, 2), (1, 1)),
            Recall(source=2),
            _conv(8, (1, 1), (2, 2), (0, 0)),
            Add(source=3),
            Norm(groups=2),
            Relu(),
        ],
    ),
    "concatenations": (
        (2, 9),
        [
            _conv(4, (3,), (1,), (1,)),
            Relu(),
            Concat(source=0),
            _conv(4, (3,), (1,), (1,)),
            Concat(source=1),
            Flatten(),
            Linear(out_features=5),
            Concat(source=6),
            Concat(source=8),
        ],
    ),
    "values read twice by one layer": ((2, 6), [_conv(4, (3,), (1,), (1,)), Add(source=1), Relu(), Concat(source=3)]),
    "a relu that a pool and another layer read": (
        (2, 8, 8),
        [
            SAME,
            Relu(),
            MaxPool(kernel=(2, 2), stride=(2, 2)),
            Recall(source=2),
            AvgPool(kernel=(2, 2), stride=(2, 2)),
            Concat(source=3),
            Relu(),
            MaxPool(kernel=(2, 2), stride=(1, 1)),
            AvgPool(kernel=(3, 3), stride=(3, 3)),
        ],
    ),
    "joints before weights": (
        (2, 6, 6),
        [
            Relu6(),
            Add(source=0),
            Recall(source=1),
            Hardswish(),
            Concat(source=2),
            SAME,
            Recall(source=0),
            _conv(4, (1, 1), (1, 1), (0, 0)),
            Add(source=6),
        ],
    ),
}


def odd_ticket(name: str, *, density: float = 0.4) -> Ticket:
    """A ticket of an odd plan; its magnitudes differ, so that no two sums tie exactly."""
    input_shape, layers = ODD_PLANS[name]
    plan = Plan(name=name, input_shape=input_shape, layers=(*layers, Flatten(), Linear(out_features=3)))
    return random_ticket(plan, density, seed=5, magnitudes="normal")


def model_ticket(name: str, density: float = 0.1) -> Ticket:
    """A ticket of a named model."""
    shapes = MODELS[name].shapes
    shape = (1, 28, 28) if (1, 28, 28) in shapes and name not in DEEP else shapes[0]
    return random_ticket(build_plan(name, input_shape=shape), density, seed=1)


def run_check(ticket: Ticket, training: Training, **sizes: int) -> list[Row]:
    """The rows of a ticket's ONNX bundle that are not right."""
    bundle = make_bundle(ticket, "onnx", training)
    rows = check(bundle, training, open_runtime(bundle, training), **sizes)
    return [row for row in rows if not row.ok]


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("name", SMALL)
def test_model_equals_torch(name: str, optimiser: str) -> None:
    """Gradients twice on one session, padded batches and ten optimiser steps equal torch's."""
    assert run_check(model_ticket(name), Training(optimiser=optimiser)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_model_equals_torch(name: str) -> None:
    """The large convolutional networks' gradients equal torch's too."""
    # At random masks of a tenth, paths of few weights through norms leave gradients of rounding only.
    ticket = model_ticket(name, 0.4 if name == "mobilenet-v2-tiny" else 0.1)
    assert run_check(ticket, Training(), batch=2, batches=1, steps=1) == []


@pytest.mark.parametrize("name", ODD_PLANS)
def test_odd_plan_equals_torch(name: str) -> None:
    """Strides, paddings, kernels and pools of every kind have torch's gradients."""
    assert run_check(odd_ticket(name), Training(optimiser="sgd", learning_rate=0.1), steps=3) == []


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
def test_equal_maxima_give_their_gradient_to_the_first(kernel: int, stride: int) -> None:
    """Where a window has several maxima the first one takes the gradient, as in torch; windows may overlap."""
    pool = MaxPool(kernel=(kernel,) * 2, stride=(stride,) * 2)
    layers = (_conv(2, (2, 1), (1, 1), (0, 0)), Relu(), pool, Flatten(), Linear(out_features=3))
    ticket = random_ticket(Plan(name="ties", input_shape=(1, 10, 9), layers=layers), 1.0, seed=4)
    training = Training()
    runtime = open_runtime(make_bundle(ticket, "onnx", training), training)
    reference = TorchReference(ticket, training)
    rng = np.random.default_rng(0)
    # Sums of two values out of 0, 1, 2 with equal weights: exact in float32, and equal again and again.
    x = rng.integers(0, 3, (4, 1, 10, 9)).astype(np.float32)
    y, weights = rng.integers(0, 3, 4), np.ones(4, dtype=np.float32)
    expected = reference.gradient(x, y, weights)[2]
    np.testing.assert_allclose(runtime.gradient(x, y, weights)[1], expected, rtol=0, atol=1e-6 * abs(expected).max())


KINKS = np.array([0, 6, 3, -3, 1, -1, 5, 7, -7], dtype=np.float32)


def kinked(activation: Activation) -> Ticket:
    """One weight of +-1, an activation and three classes, so that samples `KINKS` meet its kinks exactly."""
    layers = (Linear(out_features=1), activation, Linear(out_features=3))
    keeps = (Keep(block=1, mask=1, scale=1.0), Keep(block=1, mask=3, scale=0.5))
    plan = Plan(name="kinks", input_shape=(1,), layers=layers)
    return Ticket(plan=plan, seed=1, magnitudes="constant", layers=keeps)


@pytest.mark.parametrize("name", [name for name in ("sparse", "onnx") if name in available()])
@pytest.mark.parametrize("activation", [Relu(), Relu6(), Hardswish()])
def test_kinks_have_the_derivative_of_torch(activation: Activation, name: str) -> None:
    """At 0, 6, 3 and -3, which are met exactly, every activation's gradient is the one torch chooses."""
    ticket, training = kinked(activation), Training()
    runtime = open_runtime(make_bundle(ticket, name, training), training)
    reference = TorchReference(ticket, training)
    y, weights = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.float32)
    for value in KINKS:
        expected = reference.gradient(value.reshape(1, 1), y, weights)[2]
        found = runtime.gradient(value.reshape(1, 1), y, weights)[1]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7, err_msg=str(value))


@pytest.mark.parametrize("block", [1, 2, 4])
def test_rows_without_kept_weights(block: int) -> None:
    """A layer most of whose rows are empty, and one that is empty as a whole, train like torch's."""
    plan = Plan(name="sparse", input_shape=(12,), layers=(Linear(out_features=16), Relu(), Linear(out_features=4)))
    nearly = random_ticket(plan, 0.02, seed=3, block=block, magnitudes="normal")
    assert run_check(nearly, Training(), steps=3) == []
    first, last = nearly.layers
    assert run_check(replace(nearly, layers=(first, replace(last, mask=0))), Training(), steps=3) == []
    assert run_check(replace(nearly, layers=(replace(first, mask=0), last)), Training(), steps=3) == []


def test_gaps_wider_than_a_byte() -> None:
    """Kept weights more than 255, and more than 65,535, positions apart are found again."""
    plan = Plan(name="wide", input_shape=(300,), layers=(Linear(out_features=1000), Linear(out_features=2)))
    scale = float(np.float32(0.1))
    for kept in (150, 2):
        layers = (Keep(block=1, mask=kept, scale=scale), Keep(block=1, mask=1500, scale=scale))
        ticket = Ticket(plan=plan, seed=9, magnitudes="normal", layers=layers)
        widest = np.diff(ticket.kept_layers[0].blocks, prepend=0).max()
        assert widest > (65_535 if kept == 2 else 255)
        assert run_check(ticket, Training(), steps=2) == []


def test_ticket_without_kept_weights_is_refused() -> None:
    """Nothing to train is an error, not an empty graph."""
    ticket = odd_ticket("no hidden layer")
    with pytest.raises(ExportError, match="keeps no weight"):
        training_graph(replace(ticket, layers=(replace(ticket.layers[0], mask=0),)), Training())


@pytest.mark.parametrize("name", MODELS)
def test_graphs_are_standard_onnx(name: str) -> None:
    """The checker's full check passes and every operator is a standard one of a single opset."""
    ticket = model_ticket(name)
    for data in (training_graph(ticket, Training()), inference_graph(ticket)):
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
        assert {node.domain for node in model.graph.node} == {""}
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


@pytest.mark.parametrize(
    ("name", "density", "ceiling"),
    [
        # onnx 1.23.2, 2026-11-22, both graphs together: 38.7, 29.3, 29.2, 266.6 and 98.3 kB
        ("har-cnn", 0.10, 45_000),
        ("lenet", 0.10, 35_000),
        ("mlp", 0.10, 35_000),
        ("conv2", 0.10, 300_000),
        ("conv4", 0.05, 115_000),
    ],
)
def test_file_sizes(name: str, density: float, ceiling: int) -> None:
    """Both graphs together stay under a ceiling a little above what was measured."""
    ticket = model_ticket(name, density)
    assert len(training_graph(ticket, Training())) + len(inference_graph(ticket)) < ceiling


def test_unpacking_is_folded_at_load_and_no_dense_tensor_is_kept(tmp_path: Path) -> None:
    """At load onnxruntime unpacks masks once and for all, and keeps nothing as large as a dense layer."""
    ticket = model_ticket("har-cnn")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(training_graph(ticket, Training()), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "loaded.onnx").graph
    assert not {"CumSum", "BitShift", "BitwiseAnd", "Expand"} & {node.op_type for node in graph.node}
    assert max(np.prod(tensor.dims) for tensor in graph.initializer) == ticket.kept


def test_same_ticket_gives_the_same_bytes() -> None:
    """Bundles are content-addressed, so a graph must not depend on when it is made."""
    ticket = model_ticket("lenet")
    assert training_graph(ticket, Training()) == training_graph(ticket, Training())


def test_settings_other_than_the_optimiser_are_not_baked_in() -> None:
    """One file serves every learning rate."""
    ticket = model_ticket("mlp")
    assert training_graph(ticket, Training(learning_rate=0.5)) == training_graph(ticket, Training())
    assert training_graph(ticket, Training(optimiser="sgd")) != training_graph(ticket, Training())
