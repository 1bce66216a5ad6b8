"""Ordinary training of a whole network in torch: what the rivals do on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from coordinator.baselines.method import Floats, Samples, Settings
from coordinator.saliency import initial_magnitudes
from export.torch_net import forward
from wire import prng
from wire.plan import Plan

Layers = list[Tensor]
EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Dense:
    """A plan whose weights are one flat float32 array (weights,), layer after layer.

    Args:
        plan: the network.
    """

    plan: Plan

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.plan.weights

    def initial(self, seed: int) -> Floats:
        """Kaiming-normal weights, read-only; the very ones tickets of this seed are pruned from."""
        return _initial(self.plan, seed)

    def slices(self) -> list[slice]:
        """Where each weight layer lies in the flat array."""
        ends = np.cumsum([shape.weights for shape in self.plan.weight_layers()]).tolist()
        return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    def layers(self, flat: NDArray[np.floating]) -> Layers:
        """Flat weights -> one tensor a layer, in its shape; copies."""
        return [
            torch.from_numpy(np.array(flat[part], dtype=np.float32)).reshape(shape.weight_shape)
            for part, shape in zip(self.slices(), self.plan.weight_layers(), strict=True)
        ]

    def flat(self, layers: Sequence[Tensor]) -> Floats:
        """Inverse of `layers`."""
        return np.concatenate([layer.detach().reshape(-1).numpy() for layer in layers])

    def logits(self, weights: Floats, x: Floats) -> Floats:
        """Run the network: (n, *input_shape) -> (n, classes)."""
        if not len(x):
            return np.zeros((0, self.plan.classes), dtype=np.float32)
        layers = self.layers(weights)
        with torch.no_grad():
            batches = [
                forward(self.plan, layers, torch.from_numpy(x[at : at + EVALUATION_BATCH]), fast=True)
                for at in range(0, len(x), EVALUATION_BATCH)
            ]
        return torch.cat(batches).numpy()

    def fit(
        self,
        parameters: Layers,
        samples: Samples,
        *,
        settings: Settings,
        optimiser: Callable[[Layers], torch.optim.Optimizer],
        seed: int,
        weights: Callable[[Layers], Layers] = lambda layers: layers,
        after_step: Callable[[], None] = lambda: None,
        prior: Floats | None = None,
    ) -> float:
        """Train `parameters` in place; return the last epoch's mean loss, nats.

        Args:
            parameters: what is trained, one tensor a layer.
            samples: to train on; drawn in the same order as devices do (`edge_client.trainer`).
            settings: epochs and batch.
            optimiser: makes one for the parameters.
            seed: of the order.
            weights: parameters -> the network's weights; by default they are the weights.
            after_step: called after every step.
            prior: added to the logits (classes,); None: nothing is.
        """
        for parameter in parameters:
            parameter.requires_grad_()
        steps = optimiser(parameters)
        loss_sum = 0.0
        count = samples.y.size
        for epoch in range(settings.epochs):
            order = prng.permutation(seed, epoch, count)
            loss_sum = 0.0
            for at in range(0, count, settings.batch):
                chosen = order[at : at + settings.batch]
                x, y = torch.from_numpy(samples.x[chosen]), torch.from_numpy(samples.y[chosen])
                logits = forward(self.plan, weights(parameters), x, fast=True)
                loss = F.cross_entropy(logits if prior is None else logits + torch.from_numpy(prior), y)
                gradients = torch.autograd.grad(loss, parameters)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                steps.step()
                after_step()
                loss_sum += float(loss.detach()) * chosen.size
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad = False
        return loss_sum / count


@lru_cache(maxsize=1)
def _initial(plan: Plan, seed: int) -> Floats:
    """Made once a process: masked methods start from them in every round, and conv2's take half a second."""
    layers = [
        np.where(prng.signs(seed, shape.index, shape.weights), 1.0, -1.0) * magnitudes.reshape(-1)
        for shape, magnitudes in zip(plan.weight_layers(), initial_magnitudes(plan, seed), strict=True)
    ]
    weights = np.concatenate(layers).astype(np.float32)
    weights.flags.writeable = False
    return weights


def sgd(settings: Settings, momentum: float = 0.9) -> Callable[[Layers], torch.optim.Optimizer]:
    """SGD with momentum at the settings' learning rate."""
    return lambda layers: torch.optim.SGD(layers, lr=settings.learning_rate, momentum=momentum, foreach=False)


def adam(settings: Settings) -> Callable[[Layers], torch.optim.Optimizer]:
    """Adam at the settings' learning rate."""
    return lambda layers: torch.optim.Adam(layers, lr=settings.learning_rate, foreach=False)


def weighted_mean(arrays: Sequence[Floats], counts: Sequence[int]) -> Floats:
    """Mean of arrays (n,), each as heavy as its number of samples; summed in float64, in the order given."""
    total = np.zeros(arrays[0].shape, dtype=np.float64)
    for array, count in zip(arrays, counts, strict=True):
        total += count * array.astype(np.float64)
    return (total / sum(counts)).astype(np.float32)
