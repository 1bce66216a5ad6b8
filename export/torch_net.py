"""A ticket in torch: the reference that every runtime's numbers are checked against.

Nothing is shared with the exported graphs: gradients come from autograd, updates from torch.optim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from wire.errors import ExportError
from wire.layers import (
    NORM_EPSILON,
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
from wire.ticket import Ticket

Array: TypeAlias = NDArray[Any]


def forward(plan: Plan, weights: Sequence[Tensor], x: Tensor, *, fast: bool = False, linear: bool = False) -> Tensor:
    """Run a plan.

    Args:
        plan: the network.
        weights: one per weight layer, in its `weight_shape`.
        x: samples (n, *input_shape) of the weights' dtype.
        fast: channels last, and 1-D convolutions as flat 2-D ones: 1.1 to 1.4 times as fast, other rounding.
        linear: without activations and normalisation, as synaptic flow wants it.

    Returns:
        logits (n, classes).

    Raises:
        ExportError: if a layer has no torch form.
    """
    layers = plan.layers
    if fast and x.dim() in (3, 4):
        layers = tuple(map(_flat_2d, layers))
        weights = [weight.unsqueeze(2) if weight.dim() == 3 else weight for weight in weights]
        x = (x.unsqueeze(2) if x.dim() == 3 else x).contiguous(memory_format=torch.channels_last)
    left = iter(weights)
    last_reader = {source: position for position, sources in enumerate(plan.sources()) for source in sources}
    values = {0: x}
    for position, (layer, sources) in enumerate(zip(layers, plan.sources(), strict=True)):
        read = [values[source] for source in sources]
        skipped = linear and isinstance(layer, Activation | Norm)
        values[position + 1] = read[0] if skipped else _layer(layer, read, left)
        for source in {source for source in sources if last_reader[source] == position}:
            del values[source]  # evaluation takes large batches: nothing is kept that nobody reads any more
    return values[len(layers)]


def _flat_2d(layer: Layer) -> Layer:
    """A 1-D convolution or pool as a 2-D one over a single row."""
    match layer:
        case Conv() if len(layer.kernel) == 1:
            return replace(layer, kernel=(1, *layer.kernel), stride=(1, *layer.stride), padding=(0, *layer.padding))
        case MaxPool() | AvgPool() if len(layer.kernel) == 1:
            return replace(layer, kernel=(1, *layer.kernel), stride=(1, *layer.stride))
    return layer


def _layer(layer: Layer, read: Sequence[Tensor], weights: Iterator[Tensor]) -> Tensor:
    x = read[0]
    match layer:
        case Conv():
            convolve = F.conv1d if len(layer.kernel) == 1 else F.conv2d
            return convolve(x, next(weights), stride=layer.stride, padding=layer.padding, groups=layer.groups)
        case Linear():
            return F.linear(x, next(weights))
        case Relu():
            return F.relu(x)
        case Relu6():
            return F.relu6(x)
        case Hardswish():
            return F.hardswish(x)
        case Gelu():
            return F.gelu(x)
        case Norm():
            return F.group_norm(x, layer.groups, eps=NORM_EPSILON)
        case Add():
            return x + read[1]
        case Concat():
            return torch.cat([x, read[1]], 1)
        case Recall():
            return x
        case MaxPool():
            pool = F.max_pool1d if len(layer.kernel) == 1 else F.max_pool2d
            return pool(x, layer.kernel, layer.stride)
        case AvgPool():
            average = F.avg_pool1d if len(layer.kernel) == 1 else F.avg_pool2d
            return average(x, layer.kernel, layer.stride)
        case Flatten():
            return x.flatten(1)
    raise ExportError(f"no torch form of layer {layer!r}")


class _Sign(torch.autograd.Function):
    """Sign with sign(0) = +1; its gradient is passed straight through."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:  # torch's signature
        return torch.where(scores >= 0, 1.0, -1.0).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def straight_through_sign(scores: Tensor) -> Tensor:
    """+1 where the score is >= 0, else -1; the gradient of the output is the gradient of the scores."""
    signs: Tensor = _Sign.apply(scores)  # type: ignore[no-untyped-call]
    return signs


class TorchNet:
    """A ticket as a differentiable function of its scores.

    Args:
        ticket: the network.
        dtype: torch.float32 or torch.float64; initial weights are the ticket's float32 values either way.
    """

    def __init__(self, ticket: Ticket, *, dtype: torch.dtype = torch.float32) -> None:
        self.ticket = ticket
        self.dtype = dtype
        self._initial = [torch.from_numpy(layer.weights).to(dtype) for layer in ticket.kept_layers]
        self._indices = [torch.from_numpy(layer.indices.astype(np.int64)) for layer in ticket.kept_layers]

    def jittered(self, size: float, generator: torch.Generator) -> TorchNet:
        """A copy whose initial weights are multiplied by 1 + size x N(0, 1), so that ties fall at random."""
        copy = TorchNet(self.ticket, dtype=self.dtype)
        for weights in copy._initial:
            weights *= 1 + size * torch.randn(weights.shape, generator=generator, dtype=self.dtype)
        return copy

    def weights(self, scores: Tensor) -> list[Tensor]:
        """Effective dense weights, one per weight layer, from scores (kept,)."""
        return self.multiplied(straight_through_sign(scores))

    def multiplied(self, multipliers: Tensor) -> list[Tensor]:
        """Dense weights, one per weight layer: multipliers (kept,) x initial weights, zeros in the gaps."""
        dense = []
        for layer, initial, indices in zip(self.ticket.kept_layers, self._initial, self._indices, strict=True):
            effective = multipliers[layer.slice] * initial
            flat = torch.zeros(layer.shape.weights, dtype=self.dtype).index_put((indices,), effective)
            dense.append(flat.view(layer.shape.weight_shape))
        return dense

    def logits(self, scores: Tensor, x: Tensor) -> Tensor:
        """Logits (n, classes) of samples (n, *input_shape)."""
        return forward(self.ticket.plan, self.weights(scores), x)

    def loss(self, scores: Tensor, x: Tensor, y: Tensor, weights: Tensor, log_prior: Tensor) -> tuple[Tensor, Tensor]:
        """Loss sum(weights x cross-entropy) / sum(weights), and the weighted number of hits; both 0-d.

        The log prior (classes,) is added to the logits.
        """
        logits = self.logits(scores, x) + log_prior
        losses = F.cross_entropy(logits, y, reduction="none")
        hits = ((logits.argmax(1) == y).to(self.dtype) * weights).sum()
        return (losses * weights).sum() / weights.sum(), hits.detach()


class TorchReference:
    """A runtime like those of the devices (`step`, `gradient`, `logits`), in torch.

    Args:
        ticket: the network.
        training: optimiser and its settings.
        dtype: torch.float32 or torch.float64; returned arrays have it too.
    """

    name = "torch"

    def __init__(self, ticket: Ticket, training: Training, *, dtype: torch.dtype = torch.float32) -> None:
        self.net = TorchNet(ticket, dtype=dtype)
        self._training = training
        self._log_prior = torch.zeros(ticket.plan.classes, dtype=dtype)
        self.set_scores(np.full(ticket.kept, training.start))

    def set_log_prior(self, log_prior: Array) -> None:
        """Add log_prior (classes,) to the logits whose loss is trained."""
        self._log_prior = torch.from_numpy(np.array(log_prior)).to(self.net.dtype)

    def set_scores(self, scores: Array) -> None:
        """Copy scores in, (kept,), and clear the optimiser's state."""
        self._scores = torch.from_numpy(np.array(scores)).to(self.net.dtype).requires_grad_()
        self._optimiser = self._make_optimiser()

    def _make_optimiser(self) -> torch.optim.Optimizer:
        t = self._training
        match t.optimiser:
            case "adam":
                return torch.optim.Adam([self._scores], lr=t.learning_rate, betas=(t.beta1, t.beta2), eps=t.epsilon)
            case "sgd":
                return torch.optim.SGD([self._scores], lr=t.learning_rate, momentum=t.beta1)
        raise ExportError(f"no torch form of optimiser '{t.optimiser}'")

    def scores(self) -> Array:
        """A copy of the scores, (kept,)."""
        return self._scores.detach().numpy().copy()

    def move_to(self, scores: Array) -> None:
        """Overwrite the scores, (kept,), and keep the optimiser's state."""
        with torch.no_grad():
            self._scores.copy_(torch.from_numpy(np.array(scores)))

    def step(self, x: Array, y: Array, weights: Array) -> tuple[float, float]:
        """One optimiser step; loss and weighted hits from before it."""
        loss, correct, gradient = self.gradient(x, y, weights)
        self.apply(gradient)
        return loss, correct

    def apply(self, gradient: Array) -> None:
        """One optimiser step with a gradient that is given, (kept,)."""
        self._scores.grad = torch.from_numpy(np.array(gradient)).to(self.net.dtype)
        self._optimiser.step()
        with torch.no_grad():
            self._scores.clamp_(-self._training.clip, self._training.clip)

    def gradient(self, x: Array, y: Array, weights: Array) -> tuple[float, float, Array]:
        """Loss, weighted hits, and the gradient of every score (kept,)."""
        dtype = self.net.dtype
        loss, correct = self.net.loss(
            self._scores,
            torch.from_numpy(x).to(dtype),
            torch.from_numpy(y),
            torch.from_numpy(weights).to(dtype),
            self._log_prior,
        )
        (gradient,) = torch.autograd.grad(loss, self._scores)
        return float(loss.detach()), float(correct), gradient.numpy()

    def logits(self, x: Array) -> Array:
        """Logits (n, classes)."""
        with torch.no_grad():
            return self.net.logits(self._scores, torch.from_numpy(x).to(self.net.dtype)).numpy()
