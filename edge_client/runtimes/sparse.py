"""The sparse runtime: trains a ticket with C kernels that touch kept weights only.

Everything it needs is one block of memory, sized at load from (ticket, batch); a step allocates nothing.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_client.kernels import layout, library
from edge_client.runtimes.base import Floats, Labels, StepResult
from wire.bundle import Bundle
from wire.errors import ConfigError, DataError, StateError
from wire.plan import AvgPool, Conv, MaxPool
from wire.settings import Training
from wire.ticket import KeptLayer, Ticket

_ALIGN = layout.ALIGN


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
        self._layout = layout.plan_layout(
            self._ticket, lanes=layout.lanes_for(training.batch), width=int(self._library.hs_vector_width())
        )
        self._workspace = layout.plan_workspace(self._layout)
        self._threads = min(threads, -(-training.batch // self._layout.lanes))
        self._build()
        self.set_scores(np.full(self._ticket.kept, training.start, dtype=np.float32))

    def memory_plan(self) -> Mapping[str, int]:
        """Bytes of the arena by purpose; their sum is all the memory that training takes here."""
        return dict(self._purposes)

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
        self._refuse(self._library.hs_step(self._network, _at(x), _at(y), _at(weights), len(x), result))
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
            self._library.hs_gradient(self._network, _at(x), _at(y), _at(weights), len(x), result, _at(gradient))
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
        weights = multipliers * np.concatenate([layer.weights for layer in self._ticket.kept_layers])
        self._free_weights[:] = weights if self._order is None else weights[self._order]
        self._multiplied = True

    @cached_property
    def _free_weights(self) -> Floats:
        """Weights of any size, float32 (kept,) in kernel order; most devices never infer with them."""
        return np.empty(self._ticket.kept, dtype=np.float32)

    @cached_property
    def _free_network(self) -> library.Network:
        """The network with `_free_weights` instead of scores; it shares all else."""
        self._free_operations = type(self._operations).from_buffer_copy(self._operations)
        for operation in self._free_operations:
            if operation.rows:
                operation.constant = 0
                operation.weights = _at(self._free_weights) + 4 * operation.start
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
        self._library.hs_logits(network, _at(x), len(x), _at(logits))
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

    # -- building, once ----------------------------------------------------------------------------

    def _build(self) -> None:
        plan, ticket = self._layout, self._ticket
        codes = [
            layout.codes_for(step.kept, source, plan.lanes) if step.kept is not None else None
            for step, source in zip(plan.steps, plan.tensors, strict=False)
        ]
        arena = _Arena(self._bytes_by_purpose(codes))
        self._purposes = arena.purposes
        self._arena = arena  # the network points into it
        self._scores: Floats = arena.take("scores", np.float32, ticket.kept)
        self._order = _ticket_numbers(codes, ticket)
        self._tensors = (library.Tensor * len(plan.tensors))(*map(self._tensor, range(len(plan.tensors))))
        self._operations = (library.Operation * len(plan.steps))(
            *(self._operation(i, codes[i], arena) for i in range(len(plan.steps)))
        )
        offsets = arena.take("kept weights", np.int64, ticket.plan.classes)
        offsets[:] = (plan.tensors[-1].feature_offsets() - plan.tensors[-1].interior) * plan.lanes
        self._log_prior: Floats = arena.take("kept weights", np.float32, ticket.plan.classes)
        adam = self._training.optimiser == "adam"
        main = library.Network(
            lanes=plan.lanes,
            classes=ticket.plan.classes,
            kept=ticket.kept,
            operations=len(plan.steps),
            tensors=len(plan.tensors),
            ops=self._operations,
            tensor=self._tensors,
            workspace=arena.take("activations", np.uint8, self._workspace.nbytes).ctypes.data,
            workspace_floats=self._workspace.nbytes // 4,
            class_offset=offsets.ctypes.data,
            log_prior=self._log_prior.ctypes.data,
            scores=self._scores.ctypes.data,
            gradient=arena.take("gradient", np.float32, ticket.kept).ctypes.data,
            first=arena.take("optimiser", np.float32, ticket.kept).ctypes.data,
            second=arena.take("optimiser", np.float32, ticket.kept).ctypes.data if adam else None,
            optimiser=library.ADAM if adam else library.SGD,
            input_relu=plan.input_relu,
            learning_rate=self._training.learning_rate,
            beta1=self._training.beta1,
            beta2=self._training.beta2,
            epsilon=self._training.epsilon,
            clip=self._training.clip,
        )
        members = [main]
        for _ in range(1, self._threads):
            member = library.Network.from_buffer_copy(main)
            member.workspace = arena.take("activations", np.uint8, self._workspace.nbytes).ctypes.data
            member.gradient = arena.take("gradient", np.float32, ticket.kept).ctypes.data
            members.append(member)
        self._networks = (library.Network * self._threads)(*members)
        self._network = self._networks[0]
        fault = int(self._library.hs_check(self._network))
        if fault:
            raise AssertionError(f"the planned network does not fit its arena (check {fault})")  # a bug of ours
        if self._threads > 1:
            team = self._library.hs_team_start(self._networks, self._threads)
            if not team:
                raise StateError(f"{self._threads} threads cannot be started", where="sparse runtime")
            # The threads read the arena and the structs, so those are kept alive until they have stopped.
            kept_alive = (self._networks, self._operations, self._tensors, arena)
            weakref.finalize(self, _stop, self._library, team, kept_alive)

    def _bytes_by_purpose(self, codes: Sequence[layout.Codes | None]) -> dict[str, int]:
        kept, ticket = _aligned(4 * self._ticket.kept), self._ticket
        indices = _aligned(8 * ticket.plan.classes)
        indices += _aligned(4 * ticket.plan.classes)
        for code, layer in zip((c for c in codes if c is not None), ticket.kept_layers, strict=True):
            blocks = len(code.offsets)
            indices += _aligned(4 * len(code.row_start)) + _aligned(4 * blocks) + _aligned(blocks)
            indices += 2 * _aligned(4 * layer.kept) if ticket.magnitudes == "normal" else 0
        moments = 2 if self._training.optimiser == "adam" else 1
        return {
            "kept weights": indices,
            "scores": kept,
            "gradient": self._threads * kept,
            "optimiser": moments * kept,
            "activations": self._threads * self._workspace.nbytes,
        }

    def _tensor(self, i: int) -> library.Tensor:
        geometry, lanes = self._layout.tensors[i], self._layout.lanes
        gradient = self._workspace.gradients[i]
        return library.Tensor(
            value=self._workspace.values[i].offset // 4,
            gradient=-1 if gradient is None else gradient.offset // 4,
            plane=geometry.plane * lanes,
            pitch=geometry.pitch * lanes,
            interior=geometry.interior * lanes,
            channels=geometry.channels,
            height=geometry.height,
            width=geometry.width,
        )

    def _operation(self, i: int, codes: layout.Codes | None, arena: _Arena) -> library.Operation:
        step, plan = self._layout.steps[i], self._layout
        source, target, lanes = plan.tensors[i], plan.tensors[i + 1], plan.lanes
        operation = library.Operation(
            kind=step.kind, input=i, output=i + 1, relu=step.relu, mask_input=i > 0 and plan.steps[i - 1].relu
        )
        match step.layer:
            case MaxPool() | AvgPool() as pool:
                operation.kernel_h, operation.kernel_w = layout.pair(pool.kernel, 1)
                operation.stride_h, operation.stride_w = layout.pair(pool.stride, 1)
                winners = self._workspace.argmax[i]
                operation.argmax = 0 if winners is None else winners.offset
                operation.argmax_size = layout.argmax_size(pool)
            case Conv() as conv if step.kind == library.PHASES:
                operation.stride_h, operation.stride_w = layout.pair(conv.stride, 1)
                operation.padding_h, operation.padding_w = layout.pair(conv.padding, 0)
            case _:
                assert step.kept is not None
                assert codes is not None
                row = target.width * lanes
                whole = ((target.height - 1) * source.pitch + target.width) * lanes
                operation.runs, operation.run = (1, whole) if step.flat else (target.height, row)
                operation.run_in, operation.run_out = source.pitch * lanes, target.pitch * lanes
                operation.run_chunk = layout.CHUNK_FLOATS
                self._fill_weights(operation, step.kept, codes, arena)
        return operation

    def _fill_weights(self, operation: library.Operation, kept: KeptLayer, codes: layout.Codes, arena: _Arena) -> None:
        operation.block, operation.rows = codes.block, len(codes.row_start) - 1
        operation.start, operation.kept = kept.start, kept.kept
        row_start = arena.take("kept weights", np.uint32, len(codes.row_start))
        code = arena.take("kept weights", np.uint32, len(codes.offsets))
        initial = arena.take("kept weights", np.uint8, len(codes.offsets))
        row_start[:] = codes.row_start
        code[:] = codes.offsets << 4
        signs = kept.signs[codes.order].reshape(-1, codes.block)
        initial[:] = (signs << np.arange(codes.block)).sum(axis=1)
        operation.row_start, operation.code, operation.initial = (
            row_start.ctypes.data,
            code.ctypes.data,
            initial.ctypes.data,
        )
        operation.constant = self._ticket.magnitudes == "constant"
        if operation.constant:
            operation.scale = kept.magnitudes[0]
            code = np.arange(16)
            if codes.block == layout.BLOCK:
                code = np.where(code & 8, code, code ^ 7)  # bits 0 to 2 of a code are relative to bit 3 (network.h)
            signs_of_code = code[:, None] >> np.arange(4) & 1
            operation.table[:] = ((2 * signs_of_code - 1) * kept.magnitudes[0]).reshape(-1).tolist()
        else:
            magnitudes = arena.take("kept weights", np.float32, kept.kept)
            magnitudes[:] = kept.magnitudes[codes.order]
            operation.magnitudes = magnitudes.ctypes.data
            operation.weights = arena.take("kept weights", np.float32, kept.kept).ctypes.data


def _stop(kernels: ctypes.CDLL, team: int, _kept_alive: object) -> None:
    kernels.hs_team_stop(team)


def _ticket_numbers(codes: list[layout.Codes | None], ticket: Ticket) -> NDArray[np.int64] | None:
    """Ticket-order number of every score in kernel order, or None when the two orders are the same."""
    layers = zip((c for c in codes if c is not None), ticket.kept_layers, strict=True)
    order = np.concatenate([c.order + kept.start for c, kept in layers])
    return None if np.array_equal(order, np.arange(ticket.kept)) else order


class _Arena:
    """One block of memory, handed out in cache-line aligned pieces until it is used up."""

    def __init__(self, nbytes: Mapping[str, int]) -> None:
        self.purposes = dict(nbytes)
        total = sum(self.purposes.values())
        block = np.zeros(total + _ALIGN, dtype=np.uint8)
        first = -block.ctypes.data % _ALIGN
        self._memory = block[first : first + total]
        self._next = 0
        self._left = dict(self.purposes)

    def take(self, purpose: str, dtype: type[np.generic], count: int) -> NDArray[Any]:
        nbytes = _aligned(count * np.dtype(dtype).itemsize)
        if nbytes > self._left[purpose]:
            raise AssertionError(f"{purpose}: {nbytes} bytes wanted, {self._left[purpose]} planned")  # a bug of ours
        self._left[purpose] -= nbytes
        piece = self._memory[self._next : self._next + nbytes]
        self._next += nbytes
        return piece.view(dtype)[:count]


def _at(array: NDArray[Any]) -> int:
    """Address of an array's first element; `array.ctypes.data` takes three times as long."""
    address: int = array.__array_interface__["data"][0]
    return address


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGN) * _ALIGN
