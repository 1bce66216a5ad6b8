"""The sparse runtime: trains a ticket with C kernels that touch kept weights only.

Everything it needs is one block of memory, sized at load from (ticket, batch); a step allocates nothing.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edge_client.kernels import library
from edge_client.kernels.assembly import Assembly, address
from edge_client.runtimes.base import Doubles, Floats, Labels, StepResult
from wire.bundle import Bundle
from wire.errors import ConfigError, DataError, StateError
from wire.settings import Training


class SparseRuntime:
    """`edge_client.runtimes.base.Runtime` on the sparse kernels.

    Args:
        bundle: the ticket; needs no artifacts.
        training: optimiser and batch.
        threads: processor cores to use; each takes whole micro-batches and a workspace of its own, so there
            are never more of them than micro-batches in a batch.

    Raises:
        RuntimeMissing: if the kernels are not built.
        TicketError: if the ticket's masks do not decode.
        PlanError: if an activation is too large for the kernels.
        StateError: if the system refuses the threads.
    """

    name = "sparse"

    def __init__(self, bundle: Bundle, training: Training, threads: int = 1) -> None:
        if threads < 1:
            raise ConfigError(f"threads is {threads}, 1 or more expected", where="sparse runtime")
        self._library = library.load()
        self._ticket = bundle.ticket
        self._training = training
        width = int(self._library.hs_vector_width())
        self._parts = parts = Assembly(self._ticket, training, threads=threads, width=width)
        self._scores, self._order, self._log_prior = parts.scores, parts.order, parts.log_prior
        self._network = parts.networks[0]
        fault = int(self._library.hs_check(self._network))
        if fault:
            raise AssertionError(f"the planned network does not fit its arena (check {fault})")  # a bug of ours
        if parts.threads > 1:
            team = self._library.hs_team_start(parts.networks, parts.threads)
            if not team:
                raise StateError(f"{parts.threads} threads cannot be started", where="sparse runtime")
            # The threads read the arena and the structs, so those are kept alive until they have stopped.
            weakref.finalize(self, _stop, self._library, team, parts.parts)
        self.set_scores(np.full(self._ticket.kept, training.start, dtype=np.float32))

    def memory_plan(self) -> Mapping[str, int]:
        """Bytes of the arena by purpose; their sum is all the memory that training takes here."""
        return dict(self._parts.purposes)

    def arenas(self) -> list[tuple[int, int]]:
        """Address and bytes of the arena, which all of training lies in."""
        return [(address(self._parts.arena), self._parts.arena.nbytes)]

    def clock_layers(self, *, on: bool) -> None:
        """Time the layers of the steps that follow, or no longer; with threads, the first one's share of the batch."""
        self._network.seconds = address(self._seconds) if on else None

    def reset_layer_clock(self) -> None:
        """Forget the times so far."""
        self._seconds[:] = 0

    def layer_seconds(self) -> tuple[Doubles, Doubles]:
        """Seconds forward and backward at every layer of the plan, float64 (layers,) each, of all timed steps.

        A ReLU that a kernel applies as it writes is in the layer before it; loss and update are in none.
        """
        layers, seconds = len(self._ticket.plan.layers), self._seconds[:-1]
        parts: Doubles = np.zeros((layers, 3))
        np.add.at(parts, self._layer_of, seconds)
        return parts[:, 0], parts[:, 1] + parts[:, 2]

    def operation_seconds(self) -> Doubles:
        """As `layer_seconds`, of the schedule's operations, float64 (operations + 1,); last: all else in a step."""
        found: Doubles = self._seconds.sum(axis=1)
        return found

    @cached_property
    def _layer_of(self) -> NDArray[np.int64]:
        """Place in the plan of every operation's layer."""
        layers, at, found = self._ticket.plan.layers, 0, []
        for operation in self._parts.schedule.operations:
            # What lowering makes of a layer in several operations of its own belongs to the layer before them.
            at = next((position for position in range(at, len(layers)) if layers[position] is operation.layer), at)
            found.append(at)
        return np.array(found)

    @cached_property
    def _seconds(self) -> Doubles:
        """What the kernels add their times to: every operation's forward, at weights, at inputs; last: all else."""
        return np.zeros((len(self._parts.schedule.operations) + 1, 3))

    def set_scores(self, scores: Floats) -> None:
        """Copy scores in and clear the optimiser's state.

        Raises:
            DataError: if there are not as many as kept weights.
        """
        if scores.shape != (self._ticket.kept,):
            raise DataError(f"scores of shape {scores.shape}, ({self._ticket.kept},) expected", where="sparse runtime")
        self._scores[:] = scores if self._order is None else scores[self._order]
        self._library.hs_load_scores(self._network)
        self._multiplied = False

    def set_log_prior(self, log_prior: Floats) -> None:
        """Add log_prior, float32 (classes,), to the logits whose loss is trained; 0, as at first, changes nothing.

        Raises:
            DataError: if there are not as many as classes.
        """
        if log_prior.shape != self._log_prior.shape:
            shapes = f"{log_prior.shape}, {self._log_prior.shape} expected"
            raise DataError(f"log prior of shape {shapes}", where="sparse runtime")
        self._log_prior[:] = log_prior

    def scores(self) -> Floats:
        """A copy of the scores, float32 (kept,)."""
        return self._ticket_order(self._scores)

    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:
        """Forward, backward and one optimiser step; loss and correct are from before it.

        Raises:
            DataError: if the arrays do not fit the network and the batch, or a label is no class.
        """
        x, y, weights = self._checked(x, y, weights)
        result = library.Result()
        self._refuse(self._library.hs_step(self._network, address(x), address(y), address(weights), len(x), result))
        self._multiplied = False
        return StepResult(loss=result.loss, correct=result.correct)

    def gradient(self, x: Floats, y: Labels, weights: Floats) -> tuple[StepResult, Floats]:
        """Forward and backward only; the gradient of every score, float32 (kept,).

        Raises:
            DataError: as `step`.
        """
        x, y, weights = self._checked(x, y, weights)
        result = library.Result()
        gradient = np.empty(self._ticket.kept, dtype=np.float32)
        self._refuse(
            self._library.hs_gradient(
                self._network, address(x), address(y), address(weights), len(x), result, address(gradient)
            )
        )
        return StepResult(loss=result.loss, correct=result.correct), self._ticket_order(gradient)

    def set_multipliers(self, multipliers: Floats) -> None:
        """Let `logits` use multipliers x initial weights, float32 (kept,), until scores are set or trained.

        Raises:
            DataError: if there are not as many as kept weights.
        """
        if multipliers.shape != (self._ticket.kept,):
            shape, kept = multipliers.shape, self._ticket.kept
            raise DataError(f"multipliers of shape {shape}, ({kept},) expected", where="sparse runtime")
        weights = multipliers * self._ticket.initial_weights
        self._free_weights[:] = weights if self._order is None else weights[self._order]
        self._multiplied = True

    @cached_property
    def _free_weights(self) -> Floats:
        """Weights of any size, float32 (kept,) in kernel order; most devices never infer with them."""
        return np.empty(self._ticket.kept, dtype=np.float32)

    @cached_property
    def _free_network(self) -> library.Network:
        """The network with `_free_weights` instead of scores; it shares all else."""
        self._free_operations = type(self._parts.operations).from_buffer_copy(self._parts.operations)
        for operation in self._free_operations:
            if operation.rows:
                operation.constant = 0
                operation.weights = address(self._free_weights) + 4 * operation.start
        network = library.Network.from_buffer_copy(self._network)
        network.ops = self._free_operations
        return network

    def logits(self, x: Floats) -> Floats:
        """Inference with the scores' signs, or the multipliers set: float32 (n, classes).

        Raises:
            DataError: if the samples do not fit the network.
        """
        x = self._samples(x)
        logits = np.empty((len(x), self._ticket.plan.classes), dtype=np.float32)
        network = self._free_network if self._multiplied else self._network
        self._library.hs_logits(network, address(x), len(x), address(logits))
        return logits

    def _ticket_order(self, values: Floats) -> Floats:
        if self._order is None:
            return values.copy()
        arranged = np.empty_like(values)
        arranged[self._order] = values
        return arranged

    def _samples(self, x: Floats) -> Floats:
        if x.shape[1:] != self._ticket.plan.input_shape:
            expected = ("n", *self._ticket.plan.input_shape)
            raise DataError(f"samples of shape {x.shape}, {expected} expected", where="sparse runtime")
        return np.ascontiguousarray(x, dtype=np.float32)

    def _checked(self, x: Floats, y: Labels, weights: Floats) -> tuple[Floats, Labels, Floats]:
        """The kernels trust the lengths of their arguments, so every one is checked here."""
        x = self._samples(x)
        y = np.ascontiguousarray(y, dtype=np.int64)
        weights = np.ascontiguousarray(weights, dtype=np.float32)
        n = len(x)
        if not 1 <= n <= self._training.batch:
            raise DataError(f"{n} samples, 1..{self._training.batch} expected", where="sparse runtime")
        if y.shape != (n,) or weights.shape != (n,):
            raise DataError(f"{y.shape} labels and {weights.shape} weights for {n} samples", where="sparse runtime")
        return x, y, weights

    def _refuse(self, fault: int) -> None:
        """Raise what the kernels found in a batch before they touched anything."""
        match fault:
            case 0:
                return
            case 1:
                raise DataError(f"a label outside 0..{self._ticket.plan.classes - 1}", where="sparse runtime")
            case _:
                raise DataError("sample weights must be finite, >= 0 and not all 0", where="sparse runtime")


def _stop(kernels: ctypes.CDLL, team: int, _kept_alive: object) -> None:
    kernels.hs_team_stop(team)
