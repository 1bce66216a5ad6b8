"""Local training: epochs of batches over a runtime, one step at a time so that the caller can listen meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_client.runtimes.base import Floats, Labels, Runtime
from wire import prng
from wire.settings import Training

EVALUATION_BATCH = 64
ABSENT = -20.0  # added to the logit of a class that a device does not have: e^-20 is nothing to its softmax


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What local training came to.

    Attributes:
        signs: sign mask, bool (kept,), True for +1.
        scores: float32 (kept,).
        loss: mean training loss of the last epoch, nats.
        steps_s: seconds of every optimiser step.
    """

    signs: NDArray[np.bool_]
    scores: Floats
    loss: float
    steps_s: tuple[float, ...]

    @property
    def train_s(self) -> float:
        """Seconds spent in optimiser steps."""
        return sum(self.steps_s)

    @property
    def step_ms(self) -> float:
        """Median milliseconds of one step."""
        ordered = sorted(self.steps_s)  # np.median would load numpy.ma, 1.5 MB
        half = len(ordered) // 2
        return (ordered[half] + ordered[~half]) / 2 * 1e3


def log_prior(y: Labels, classes: int) -> Floats:
    """Which classes a device has, float32 (classes,): 0 for those of its samples, ABSENT for others.

    Added to the logits, it keeps training from teaching the network that classes never happen which just do not
    happen here: a vote of devices with different classes could not put that together again (restricted softmax;
    Li and Zhan, FedRS, KDD 2021, with scaling factor 0). Added again in use, it makes the device's own predictions.

    Args:
        y: labels, int64 (n,).
        classes: of the network.
    """
    present = np.bincount(y, minlength=classes) > 0
    return np.where(present, np.float32(0), np.float32(ABSENT))


def train(
    runtime: Runtime, x: Floats, y: Labels, *, prior: Floats, training: Training, start: Floats, seed: int
) -> Iterator[Trained | None]:
    """Train from `start` and yield None after every step, at last a `Trained`.

    Args:
        runtime: a loaded ticket.
        x: samples, float32 (n, *input_shape).
        y: labels, int64 (n,).
        prior: `log_prior` of the labels, float32 (classes,); zeros for the plain loss.
        training: epochs, batch size and optimiser.
        start: scores to start from, float32 (kept,).
        seed: fixes the order of the samples, which is another in every epoch.
    """
    runtime.set_log_prior(prior)
    runtime.set_scores(start)
    ones = np.ones(training.batch, dtype=np.float32)
    durations: list[float] = []
    loss_sum = 0.0
    for epoch in range(training.epochs):
        order = prng.permutation(seed, epoch, y.size)
        loss_sum = 0.0
        for at in range(0, y.size, training.batch):
            chosen = order[at : at + training.batch]
            began = time.perf_counter()
            result = runtime.step(x[chosen], y[chosen], ones[: chosen.size])
            durations.append(time.perf_counter() - began)
            loss_sum += result.loss * chosen.size
            yield None
    scores = runtime.scores()
    yield Trained(
        signs=scores >= 0,
        scores=scores,
        loss=loss_sum / y.size,
        steps_s=tuple(durations),
    )


def count_correct(runtime: Runtime, x: Floats, y: Labels, prior: Floats | float = 0.0) -> int:
    """Count the samples whose largest logit, plus prior (classes,), is their label, with the runtime's weights."""
    correct = 0
    for at in range(0, y.size, EVALUATION_BATCH):
        logits = runtime.logits(x[at : at + EVALUATION_BATCH]) + prior
        correct += int(np.count_nonzero(logits.argmax(axis=1) == y[at : at + EVALUATION_BATCH]))
    return correct
