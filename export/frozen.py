"""A ticket with signs, or the mean of many, frozen: a dense ONNX inference graph that any ONNX runtime executes.

    in    x (n, *input_shape)     float32
    out   logits (n, classes)     float32

Weights are float32 initialisers `<layer>.weight` in their full shape, zeros where nothing is kept: larger
than a ticket and its signs, and plain enough for phones, browsers and converters. For training and for small
files there are `export.onnx_graph` and the ticket itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.onnx_builder import GraphBuilder, Name
from export.onnx_graph import forward_pass, logits_output, samples_input
from export.torch_net import TorchNet, forward
from wire import prng
from wire.errors import ExportError
from wire.ticket import KeptLayer, Ticket

OPSET, IR_VERSION = 13, 7  # of ONNX 1.8 (2020), so that programs of several years ago run the file too
TOLERANCE = 1e-5  # of the largest logit
SAMPLES = 64
Multipliers: TypeAlias = NDArray[np.float32]
LogPrior: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Check:
    """How a frozen graph compared with torch.

    Attributes:
        samples: random samples tried.
        difference: largest difference of a logit.
        largest: largest |logit| of torch's.
        runtime: name and version of what executed the graph.
    """

    samples: int
    difference: float
    largest: float
    runtime: str


def freeze(
    ticket: Ticket, multipliers: Multipliers, notes: Mapping[str, str], *, log_prior: LogPrior | None = None
) -> bytes:
    """Return the ONNX file of a ticket whose kept weights are multipliers x initial weights.

    Args:
        ticket: the network.
        multipliers: float32 (kept,) in ticket order: a device's signs, +-1, or the mean vote, in [-1, 1].
        notes: metadata for the file, beside what is known of the ticket itself.
        log_prior: added to the logits, float32 (classes,), for a device's own predictions.

    Raises:
        ExportError: if the multipliers are not the ticket's, or a layer has no ONNX form.
    """
    if multipliers.shape != (ticket.kept,):
        raise ExportError(f"multipliers of shape {multipliers.shape}, the ticket keeps {ticket.kept} weights")
    if log_prior is not None and log_prior.shape != (ticket.plan.classes,):
        raise ExportError(f"log prior of shape {log_prior.shape}, the network has {ticket.plan.classes} classes")
    g = GraphBuilder()
    logits = forward_pass(g, ticket, _Frozen(g, multipliers), training=False)[-1].y
    if log_prior is not None:
        logits = g.add("Add", logits, g.constant(log_prior, "log_prior"))
    g.name(logits, "logits")
    return g.build(
        ticket.plan.name,
        [samples_input(ticket)],
        [logits_output(ticket)],
        notes={
            "ticket": ticket.id.hex(),
            "density": f"{ticket.density:.6g}",
            "kept_weights": str(ticket.kept),
            **notes,
        },
        opset=OPSET,
        ir_version=IR_VERSION,
    )


class _Frozen:
    """An `export.onnx_graph.DenseWeights` of constants; multipliers float32 (kept,)."""

    def __init__(self, g: GraphBuilder, multipliers: Multipliers) -> None:
        self._g = g
        self._multipliers = multipliers

    def dense(self, layer: KeptLayer) -> Name:
        """The layer's weight: initial ones times multipliers, zeros in the gaps."""
        flat = np.zeros(layer.shape.weights, dtype=np.float32)
        flat[layer.indices] = self._multipliers[layer.slice] * layer.weights
        return self._g.constant(flat.reshape(layer.shape.weight_shape), f"{layer.shape.name}.weight")


def check(
    model: bytes,
    ticket: Ticket,
    multipliers: Multipliers,
    *,
    log_prior: LogPrior | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Check:
    """Run a frozen graph in onnxruntime and compare it with torch in float64, on random samples.

    Args:
        model: the ONNX file.
        ticket: the network it was made of.
        multipliers: what it was made of, float32 (kept,).
        log_prior: the same, float32 (classes,).
        samples: tried as one batch, and the first of them alone.
        seed: of the samples.

    Raises:
        ExportError: if onnxruntime refuses the file, or the logits differ.
    """
    x = prng.generator(["frozen", seed, ticket.id]).standard_normal((samples, *ticket.plan.input_shape), np.float32)
    found = _run(model, x)
    net = TorchNet(ticket, dtype=torch.float64)
    with torch.no_grad():
        weights = net.multiplied(torch.from_numpy(multipliers).to(torch.float64))
        logits = forward(ticket.plan, weights, torch.from_numpy(x).to(torch.float64))
    expected: NDArray[np.float64] = logits.numpy() + (0 if log_prior is None else log_prior)
    difference = max(float(np.abs(found - expected).max()), float(np.abs(_run(model, x[:1]) - expected[:1]).max()))
    largest = float(np.abs(expected).max())
    if not difference <= TOLERANCE * largest:  # nor if it is not a number
        raise ExportError(
            f"a logit of the frozen graph differs from torch by {difference:.1e}, "
            f"at most {TOLERANCE:.0e} of {largest:.3g} allowed",
            hint="Report it with the ticket",
        )
    runtime = f"onnxruntime {ort.__version__}"
    return Check(samples=samples, difference=difference, largest=largest, runtime=runtime)


def _run(model: bytes, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits float32 (n, classes) of one batch."""
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        logits: NDArray[np.float32] = session.run(["logits"], {"x": x})[0]
    except Exception as error:  # onnxruntime's own classes, which only share Exception
        raise ExportError(f"onnxruntime {ort.__version__} refuses the frozen graph: {error}") from error
    return logits
