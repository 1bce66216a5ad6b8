"""A runtime's numbers against torch autograd, with a stated tolerance for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from export.comparison import GRADIENT_OF, SIGNS_APART, Row
from export.torch_net import TorchReference
from wire import prng
from wire.bundle import Bundle
from wire.settings import Training
from wire.ticket import Ticket

Array: TypeAlias = NDArray[Any]
Batch: TypeAlias = tuple[Array, Array, Array]  # x float32 (n, *input_shape), y int64 (n,), weights float32 (n,)

GRADIENT_TOLERANCE = 1e-5  # of the layer's largest |gradient|
REPEAT_TOLERANCE = 1e-6  # the same, for one batch seen twice: only the order of a sum may change
UPDATE_TOLERANCE = 5e-6  # of the largest |score|, after all steps
SIGN_TOLERANCE = 2e-3  # share of signs that may differ after one step from the same scores

JITTER = 1e-6  # of a weight; some roundings of float32, and far too little to matter where nothing ties
JITTERS = 8


class Result(Protocol):
    """What a step tells: `edge_client.runtimes.base.StepResult`."""

    @property
    def loss(self) -> float:
        """Weighted mean cross-entropy."""

    @property
    def correct(self) -> float:
        """Weighted number of hits."""


class OpenRuntime(Protocol):
    """A loaded bundle: `edge_client.runtimes.base.Runtime`, named here because export does not see the device."""

    def set_scores(self, scores: Array, /) -> None:
        """Copy scores in and clear the optimiser's state."""

    def set_log_prior(self, log_prior: Array, /) -> None:
        """Add log_prior (classes,) to the logits whose loss is trained."""

    def scores(self) -> Array:
        """A copy of the scores."""

    def step(self, x: Array, y: Array, weights: Array, /) -> Result:
        """One optimiser step."""

    def gradient(self, x: Array, y: Array, weights: Array, /) -> tuple[Result, Array]:
        """The gradient of every score."""

    def logits(self, x: Array, /) -> Array:
        """Inference."""


def check(
    bundle: Bundle,
    training: Training,
    runtime: OpenRuntime,
    *,
    batches: int = 3,
    batch: int = 4,
    steps: int = 10,
    seed: int = 0,
) -> list[Row]:
    """Compare an opened runtime with torch on random batches.

    Where all weights of a layer are +c or -c, sums cancel to exactly 0 before a ReLU and two elements of a
    pooling window are exactly equal, several times per sample; which side rounding lets them fall to
    differs between runtimes, and each side's gradient is right. So an entry that misses torch's gradient
    must lie among those torch gives when its weights are jittered by a float32 rounding (`_excess`), and
    each layer is judged by its median over the batches: what is computed wrongly is wrong in all of them.

    Args:
        bundle: what the runtime was opened with.
        training: the settings it was opened with.
        runtime: the runtime; its scores and state are overwritten.
        batches: random batches whose gradients are compared, each twice in a row on the loaded runtime.
        batch: samples in each, 2 or more and at most the batch of the settings.
        steps: training steps.
        seed: of the batches and scores.

    Returns:
        one row per comparison; all are `ok` if the runtime is right.
    """
    rng = prng.generator(["verify", seed, bundle.ticket.id])
    seen = [_random_batch(bundle.ticket, batch, rng) for _ in range(batches)]
    scores = rng.uniform(-training.start, training.start, bundle.ticket.kept).astype(np.float32)
    # Training on a few batches again and again drives the loss to zero; Adam then amplifies what is only rounding.
    fresh = [_random_batch(bundle.ticket, batch, rng) for _ in range(steps)]
    prior = np.log(rng.dirichlet(np.ones(bundle.ticket.plan.classes))).astype(np.float32)
    exact = TorchReference(bundle.ticket, training, dtype=torch.float64)
    follower, companion = (TorchReference(bundle.ticket, training) for _ in range(2))
    runtime.set_log_prior(prior)
    for reference in (exact, follower, companion):
        reference.set_log_prior(prior)
    return [
        *_compare_gradients(bundle.ticket, exact, runtime, seen, scores),
        *_compare_padding(bundle.ticket, runtime, seen),
        *_compare_training(training, runtime, follower, companion, fresh, scores),
    ]


def _compare_gradients(
    ticket: Ticket, reference: TorchReference, runtime: OpenRuntime, batches: Sequence[Batch], scores: Array
) -> list[Row]:
    reference.set_scores(scores)
    runtime.set_scores(scores)
    apart, repeated, losses, hits, logits = [], [], [], [], []
    for seen in batches:
        loss, correct, expected = reference.gradient(*seen)
        result, first = runtime.gradient(*seen)
        again, second = runtime.gradient(*seen)
        errors = np.maximum(_layer_errors(ticket, first, expected), _layer_errors(ticket, second, expected))
        if errors.max() > GRADIENT_TOLERANCE:
            spread = _tied_gradients(reference, scores, seen)
            errors = np.maximum(*(_layer_errors(ticket, _excess(g, spread), 0 * g, expected) for g in (first, second)))
        apart.append(errors)
        repeated.append(_layer_errors(ticket, second, first).max() + abs(again.loss - result.loss))
        losses.append(abs(result.loss - loss) / max(1.0, abs(loss)))
        hits.append(abs(result.correct - correct))
        outputs = reference.logits(seen[0])
        logits.append(_relative(runtime.logits(seen[0]), outputs, outputs))
    names = [layer.shape.name for layer in ticket.kept_layers]
    return [
        Row(what="loss, relative", found=float(np.max(losses)), allowed=GRADIENT_TOLERANCE),
        Row(what="weighted hits", found=float(np.median(hits)), allowed=GRADIENT_TOLERANCE),
        Row(what="logits, relative to the largest", found=float(np.max(logits)), allowed=GRADIENT_TOLERANCE),
        *(
            Row(what=f"{GRADIENT_OF}{name}, relative to its largest", found=float(error), allowed=GRADIENT_TOLERANCE)
            for name, error in zip(names, np.median(apart, axis=0), strict=True)
        ),
        Row(what="gradient, second call against first", found=float(np.max(repeated)), allowed=REPEAT_TOLERANCE),
    ]


def _compare_padding(ticket: Ticket, runtime: OpenRuntime, batches: Sequence[Batch]) -> list[Row]:
    """A batch whose last samples weigh nothing against the batch without them."""
    errors = []
    for x, y, weights in batches:
        real = len(x) - len(x) // 2
        padded = np.where(np.arange(len(x)) < real, weights, 0).astype(np.float32)
        exact, expected = runtime.gradient(x[:real], y[:real], weights[:real])
        result, gradient = runtime.gradient(x, y, padded)
        error = max(_layer_errors(ticket, gradient, expected).max(), abs(result.correct - exact.correct))
        errors.append(max(error, abs(result.loss - exact.loss) / max(1.0, abs(exact.loss))))
    return [Row(what="padded batch against short batch", found=float(np.median(errors)), allowed=GRADIENT_TOLERANCE)]


def _compare_training(
    training: Training,
    runtime: OpenRuntime,
    follower: TorchReference,
    companion: TorchReference,
    batches: Sequence[Batch],
    scores: Array,
) -> list[Row]:
    """Steps of the runtime against torch.optim, on the runtime's gradients and on torch's own.

    The companion starts every step from the runtime's scores, with an optimiser state of its own. Left
    to itself it may part from *any* other order of summation, torch's own float64 included, once one near-tie
    or one score within rounding of 0 has fallen to the other side: after 10 steps of Adam a percent of the
    signs differ, and nothing is wrong.
    """
    for trained in (runtime, follower, companion):
        trained.set_scores(scores)
    differ = 0.0
    for seen in batches:
        follower.apply(runtime.gradient(*seen)[1])
        companion.move_to(runtime.scores())
        companion.step(*seen)
        runtime.step(*seen)
        differ = max(differ, float(np.mean((runtime.scores() >= 0) != (companion.scores() >= 0))))
    expected = follower.scores()
    update = np.abs(runtime.scores() - expected).max() / np.abs(expected).max()
    # In a tiny network one sign is a large share: one may always differ.
    allowed = max(SIGN_TOLERANCE, 1 / scores.size)
    name = f"{len(batches)} steps of {training.optimiser}"
    return [
        Row(what=f"{name}: scores, given the same gradients", found=float(update), allowed=UPDATE_TOLERANCE),
        Row(what=f"{name}: {SIGNS_APART}, largest", found=differ, allowed=allowed),
    ]


def _tied_gradients(reference: TorchReference, scores: Array, batch: Batch) -> Array:
    """Gradients of jittered copies of the network, float64 (JITTERS, kept)."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(JITTERS):
        reference.net, original = reference.net.jittered(JITTER, generator), reference.net
        found.append(reference.gradient(*batch)[2])
        reference.net = original
    return np.array(found)


def _excess(gradient: Array, spread: Array) -> Array:
    """How far every entry (kept,) lies outside three times the range of its jittered values (JITTERS, kept).

    Three times, because one entry may hang on many ties and eight draws do not show their extremes.
    """
    low, high = spread.min(0), spread.max(0)
    outside: Array = np.abs(gradient - (low + high) / 2) - 1.5 * (high - low)
    return np.maximum(outside, 0)  # nan stays nan


def _layer_errors(ticket: Ticket, found: Array, expected: Array, unit: Array | None = None) -> Array:
    """`_relative` of every layer, float64 (layers,); `unit` is `expected` unless given."""
    unit = expected if unit is None else unit
    slices = [layer.slice for layer in ticket.kept_layers]
    return np.array([_relative(found[s], expected[s], unit[s]) for s in slices])


def _relative(found: Array, expected: Array, unit: Array) -> float:
    """Largest difference over the largest |unit|; not a number counts as infinite, two times nothing as equal."""
    difference = np.abs(found.astype(np.float64) - expected).max(initial=0.0)
    largest = max(float(np.abs(unit).max(initial=0.0)), float(np.finfo(np.float32).tiny))
    return float(np.nan_to_num(difference / largest, nan=np.inf))


def _random_batch(ticket: Ticket, n: int, rng: np.random.Generator) -> Batch:
    x = rng.standard_normal((n, *ticket.plan.input_shape), dtype=np.float32)
    y = rng.integers(0, ticket.plan.classes, n, dtype=np.int64)
    return x, y, rng.uniform(0.5, 1.5, n).astype(np.float32)
