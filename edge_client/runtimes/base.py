"""The contract of a runtime, whatever executes the network beneath."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One batch seen.

    Attributes:
        loss: mean softmax cross-entropy in nats, weighted by the sample weights.
        correct: sum of the sample weights of the samples whose largest logit is their label.
    """

    loss: float
    correct: float


@dataclass(frozen=True, kw_only=True)
class Operator:
    """What one operator of a runtime's graph has taken, in all calls together.

    Attributes:
        name: of the node, or the number of the instruction.
        kind: the operator or kernel.
        seconds: in it.
        calls: how often.
        shortest: seconds of the quickest call; None if only their sum is known.
    """

    name: str
    kind: str
    seconds: float
    calls: int
    shortest: float | None = None


class Inference(Protocol):
    """A ticket loaded for inference only.

    A kept weight is its multiplier x its initial weight: multipliers are a device's own signs, +-1, or the
    mean of many voters' signs, in [-1, 1] (`wire.mask.Votes.mean`). float32 (kept,) in ticket order.
    """

    name: str

    def set_multipliers(self, multipliers: Floats) -> None:
        """Copy multipliers in."""

    def logits(self, x: Floats) -> Floats:
        """Float32 (n, classes) of samples (n, *input_shape), any n."""


class Runtime(Protocol):
    """A ticket loaded for training and inference.

    Scores are float32 (kept,) in ticket order (`wire.ticket`). The effective weight is
    w = sign(score) x initial weight with sign(0) = +1, and the straight-through gradient of a
    score is dloss/dw x initial weight.
    Batches are x float32 (n, *input_shape), y int64 (n,), weights float32 (n,) >= 0 with a positive
    sum; a sample of weight 0 is padding and changes nothing. n is 1 .. the batch of the settings
    for `step` and `gradient`, anything for `logits`.
    """

    name: str

    def set_scores(self, scores: Floats) -> None:
        """Copy scores in and clear the optimiser's state."""

    def set_log_prior(self, log_prior: Floats) -> None:
        """Add log_prior, float32 (classes,), to the logits whose loss is trained; 0, as at first, changes nothing."""

    def scores(self) -> Floats:
        """A copy of the scores, float32 (kept,)."""

    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:
        """Forward, backward and one optimiser step (`wire.settings.Training`); loss and correct are from before it."""

    def gradient(self, x: Floats, y: Labels, weights: Floats) -> tuple[StepResult, Floats]:
        """Forward and backward only; the gradient of every score, float32 (kept,)."""

    def set_multipliers(self, multipliers: Floats) -> None:
        """Let `logits` use multipliers (see `Inference`), not the scores' signs, until scores are set or trained."""

    def logits(self, x: Floats) -> Floats:
        """Inference with the scores' signs, or the multipliers set, and no prior: float32 (n, classes)."""


@runtime_checkable
class PlannedMemory(Protocol):
    """A runtime that knows to the byte what memory its training takes."""

    def arenas(self) -> list[tuple[int, int]]:
        """Address and bytes of every block of memory that is planned for training."""


@runtime_checkable
class LayerClock(Protocol):
    """A runtime that can time its layers."""

    def clock_layers(self, *, on: bool) -> None:
        """Time the layers of the steps that follow, or no longer."""

    def reset_layer_clock(self) -> None:
        """Forget the times so far."""

    def layer_seconds(self) -> tuple[Doubles, Doubles]:
        """Seconds forward and backward at every layer of the plan, float64 (layers,) each, of all timed steps."""


@runtime_checkable
class OperatorClock(Protocol):
    """A runtime that was opened to time its operators; that slows it down."""

    def operators(self) -> list[Operator]:
        """Times of all steps so far; to be asked for once, when no more steps follow."""
