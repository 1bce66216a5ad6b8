"""The ExecuTorch runtime: a bundle's two programs on the C++ runtime of the executorch wheel, without torch.

The programs are functions of fixed shapes (`export.executorch_program` describes them): the ticket's weights and
places go in with every call, short batches are padded with samples of weight 0, and the optimiser runs here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge_client import memory_limits
from edge_client.executorch import library
from edge_client.executorch.optimise import Optimiser, make_optimiser
from edge_client.runtimes.base import Floats, Labels, Operator, StepResult
from wire.bundle import Bundle
from wire.errors import ConfigError, DataError, TicketError
from wire.mask import as_multipliers
from wire.settings import Training
from wire.ticket import Ticket

_WHERE = "executorch runtime"
BYTES_PER_WEIGHT = 50  # of a kept weight, in our arrays: scores, places, gradients, the optimiser

Array: TypeAlias = NDArray[Any]
Typed: TypeAlias = tuple[str, tuple[int, ...]]  # type and shape of an input or output


class ExecutorchInference:
    """Infers with the file `infer.pte` of a bundle; starts with every sign +1.

    Args:
        bundle: made for the runtime "executorch".
        threads: threads inside one operator, of all programs of the process.

    Raises:
        RuntimeMissing: if executorch is not installed or its shim is not built.
        TicketError: if the bundle lacks the program, or executorch refuses it.
    """

    name = "executorch"

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self._program = _open(bundle, "infer.pte", threads)
        plan = bundle.ticket.plan
        capacity, batch = _sizes(self._program, "infer.pte", bundle.ticket, samples_at=3)
        kept, places = ("float32", (capacity,)), ("int64", (capacity,))
        inputs = [kept, kept, places, ("float32", (batch, *plan.input_shape))]
        _expect(self._program, "infer.pte", inputs, [("float32", (batch, plan.classes))])
        self._kept, self._batch, self._plan = bundle.ticket.kept, batch, plan
        self._initial, self._indices = _initial_weights(bundle.ticket, capacity)
        self._multipliers: Floats = np.ones(capacity, dtype=np.float32)

    def set_multipliers(self, multipliers: Floats) -> None:
        """Copy multipliers in, float32 (kept,).

        Raises:
            DataError: if there are not as many as kept weights.
        """
        _same_shape("multipliers", multipliers, (self._kept,))
        self._multipliers[: self._kept] = multipliers

    def logits(self, x: Floats) -> Floats:
        """Inference: float32 (n, classes).

        Raises:
            DataError: if the samples do not fit the network.
        """
        _same_shape("samples", x, (len(x), *self._plan.input_shape))
        logits: Floats = np.empty((len(x), self._plan.classes), dtype=np.float32)
        for start in range(0, len(x), self._batch):
            part = x[start : start + self._batch]
            samples = _padded(part, self._batch, np.float32)
            [found] = self._program.run([self._multipliers, self._initial, self._indices, samples])
            logits[start : start + len(part)] = found[: len(part)]
        return logits


class ExecutorchRuntime:
    """Trains and infers with the files `train.pte` and `infer.pte` of a bundle.

    The inference program is loaded on the first call of `logits`: a device that only trains never pays for it.

    Args:
        bundle: made for the runtime "executorch" and for batches as large as those of `training`, or larger.
        training: the optimiser and its settings.
        threads: threads inside one operator, of all programs of the process.
        timed: let `operators` know how long every instruction of the training program takes.

    Raises:
        RuntimeMissing: if executorch is not installed or its shim is not built.
        TicketError: if the bundle lacks a program, or executorch refuses one.
    """

    name = "executorch"

    def __init__(self, bundle: Bundle, training: Training, threads: int = 1, *, timed: bool = False) -> None:
        self._bundle, self._training, self._threads = bundle, training, threads
        ticket, plan = bundle.ticket, bundle.ticket.plan
        self._kept = ticket.kept
        self._program = _open(bundle, "train.pte", threads, timed=timed)
        capacity, self._batch = _sizes(self._program, "train.pte", ticket, samples_at=4)
        if self._batch < training.batch:
            raise TicketError(
                f"train.pte takes {self._batch} samples, the settings want {training.batch}",
                hint="Was the bundle made for other settings?",
            )
        kept, places, per_sample = ("float32", (capacity,)), ("int64", (capacity,)), ("float32", (self._batch,))
        inputs: list[Typed] = [kept, kept, places, ("float32", (plan.classes,))]
        inputs += [("float32", (self._batch, *plan.input_shape)), ("int64", (self._batch,)), per_sample]
        _expect(self._program, "train.pte", inputs, [("float32", (1,)), ("float32", (1,)), kept])
        memory_limits.require(  # the activations are planned, and not touched yet
            self._program.planned_bytes + BYTES_PER_WEIGHT * capacity,
            f"training '{plan.name}' in batches of {self._batch} with executorch",
            hint="take the sparse runtime, or a smaller network",
        )
        self._initial, self._indices = _initial_weights(ticket, capacity)
        self._log_prior: Floats = np.zeros(plan.classes, dtype=np.float32)
        self._infer: ExecutorchInference | None = None
        self._padded_scores: Floats = np.zeros(capacity, dtype=np.float32)
        self._scores = self._padded_scores[: self._kept]
        self._optimiser: Optimiser
        self.set_scores(np.full(self._kept, training.start, dtype=np.float32))

    @property
    def planned_bytes(self) -> int:
        """Memory of the training program's activations."""
        return self._program.planned_bytes

    def arenas(self) -> list[tuple[int, int]]:
        """Address and bytes of every buffer of the training program's activations."""
        return self._program.planned_buffers()

    def operators(self) -> list[Operator]:
        """Times of the training program's instructions; empty if it was not opened `timed`."""
        return self._program.operators()

    def set_scores(self, scores: Floats) -> None:
        """Copy scores in, float32 (kept,), and clear the optimiser's state.

        Raises:
            DataError: if there are not as many as kept weights.
        """
        _same_shape("scores", scores, (self._kept,))
        self._scores[:] = scores
        self._optimiser = make_optimiser(self._training, self._kept)
        self._multiplied = False

    def set_log_prior(self, log_prior: Floats) -> None:
        """Add log_prior, float32 (classes,), to the logits whose loss is trained; 0, as at first, changes nothing.

        Raises:
            DataError: if there are not as many as classes.
        """
        _same_shape("log prior", log_prior, self._log_prior.shape)
        self._log_prior[:] = log_prior

    def scores(self) -> Floats:
        """A copy of the scores, float32 (kept,)."""
        return self._scores.copy()

    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:
        """Forward, backward and one optimiser step; loss and correct are from before it.

        Raises:
            DataError: if the arrays do not fit the network and the batch, or a label is no class.
        """
        result, gradient = self.gradient(x, y, weights)
        self._optimiser.step(self._scores, gradient)
        self._multiplied = False
        return result

    def gradient(self, x: Floats, y: Labels, weights: Floats) -> tuple[StepResult, Floats]:
        """Forward and backward only; the gradient of every score, float32 (kept,).

        Raises:
            DataError: as `step`.
        """
        self._check(x, y, weights)
        batch: list[Array] = [
            _padded(x, self._batch, np.float32),
            _padded(y, self._batch, np.int64),
            _padded(weights, self._batch, np.float32),
        ]
        arrays: list[Array] = [self._padded_scores, self._initial, self._indices, self._log_prior, *batch]
        loss, correct, gradient = self._program.run(arrays)
        return StepResult(loss=float(loss[0]), correct=float(correct[0])), gradient[: self._kept]

    def logits(self, x: Floats) -> Floats:
        """Inference with the scores' signs, or the multipliers set: float32 (n, classes).

        Raises:
            DataError: if the samples do not fit the network.
        """
        inference = self._inference()
        if not self._multiplied:
            inference.set_multipliers(as_multipliers(self._scores >= 0))
        return inference.logits(x)

    def set_multipliers(self, multipliers: Floats) -> None:
        """Let `logits` use multipliers, float32 (kept,), until scores are set or trained.

        Raises:
            DataError: if there are not as many as kept weights.
        """
        self._inference().set_multipliers(multipliers)
        self._multiplied = True

    def _inference(self) -> ExecutorchInference:
        if self._infer is None:
            self._infer = ExecutorchInference(self._bundle, self._threads)
        return self._infer

    def _check(self, x: Floats, y: Labels, weights: Floats) -> None:
        """The program's kernels trust their inputs, so everything is checked here."""
        n, plan = len(x), self._bundle.ticket.plan
        if not 1 <= n <= self._training.batch:
            raise DataError(f"{n} samples, 1..{self._training.batch} expected", where=_WHERE)
        _same_shape("samples", x, (n, *plan.input_shape))
        _same_shape("labels", y, (n,))
        _same_shape("sample weights", weights, (n,))
        if y.min() < 0 or y.max() >= plan.classes:
            raise DataError(f"a label outside 0..{plan.classes - 1}", where=_WHERE)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and weights.any()):
            raise DataError("sample weights must be finite, >= 0 and not all 0", where=_WHERE)


def _open(bundle: Bundle, file: str, threads: int, *, timed: bool = False) -> library.Program:
    """Load one program of a bundle.

    Raises:
        ConfigError: if the number of threads is none.
        RuntimeMissing: if executorch is not installed or its shim is not built.
        TicketError: if the bundle lacks the file, or executorch refuses it.
    """
    if threads < 1:
        raise ConfigError(f"threads is {threads}, 1 or more expected", where=_WHERE)
    library.set_threads(threads)
    if file not in bundle.files:
        raise TicketError(f"the bundle for runtime '{bundle.runtime}' has no file {file}")
    return library.Program(bundle.files[file], file, timed=timed)


def _sizes(program: library.Program, file: str, ticket: Ticket, *, samples_at: int) -> tuple[int, int]:
    """Capacity and batch that a program was made for; the samples are its input number `samples_at`.

    Raises:
        TicketError: if the program has no such inputs, or not enough capacity for the ticket.
    """
    shapes = [tensor.shape for tensor in program.inputs]
    if len(shapes) <= samples_at or not shapes[0] or not shapes[samples_at]:
        raise TicketError("not a program of this kind", where=file)
    capacity, batch = shapes[0][0], shapes[samples_at][0]
    if capacity < ticket.kept:
        raise TicketError(
            f"has room for {capacity} kept weights, the ticket has {ticket.kept}",
            where=file,
            hint="Was the bundle made for another ticket?",
        )
    return capacity, batch


def _expect(program: library.Program, file: str, inputs: Sequence[Typed], outputs: Sequence[Typed]) -> None:
    """Refuse a program whose inputs or outputs are others.

    Raises:
        TicketError: if they are.
    """
    for kind, found, wanted in (("inputs", program.inputs, inputs), ("outputs", program.outputs, outputs)):
        expected = [library.Tensor(shape=shape, dtype=np.dtype(dtype)) for dtype, shape in wanted]
        if found != expected:
            raise TicketError(
                f"has {kind} {', '.join(map(str, found))}; {', '.join(map(str, expected))} expected",
                where=file,
                hint="Was the bundle made for another ticket?",
            )


def _initial_weights(ticket: Ticket, capacity: int) -> tuple[Floats, NDArray[np.int64]]:
    """Initial weights and their places among all dense weights, both (capacity,); padding is 0 at the place after."""
    initial: Floats = np.zeros(capacity, dtype=np.float32)
    indices = np.full(capacity, ticket.plan.weights, dtype=np.int64)
    initial[: ticket.kept], indices[: ticket.kept] = ticket.initial_weights, ticket.places
    return initial, indices


def _padded(values: Array, batch: int, dtype: type[np.generic]) -> Array:
    """Contiguous (batch, ...) of `dtype` that starts with values (n, ...); the rest is 0."""
    if len(values) == batch:
        return np.ascontiguousarray(values, dtype=dtype)
    longer: Array = np.zeros((batch, *values.shape[1:]), dtype=dtype)
    longer[: len(values)] = values
    return longer


def _same_shape(name: str, found: Array, expected: tuple[int, ...]) -> None:
    if found.shape != expected:
        raise DataError(f"{name} of shape {found.shape}, {expected} expected", where=_WHERE)
