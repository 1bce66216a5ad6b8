"""A ticket assembled for the kernels: one arena with everything that training touches, and structs that point into it.

Everything here happens once, at load, and is a function of (ticket, training, threads): what a step will touch is
known, to the byte, before the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_client import memory_limits
from edge_client.kernels import codes as kept_codes
from edge_client.kernels import library
from edge_client.kernels.codes import Codes
from wire.arena import ALIGN, place_bytes, plan_workspace
from wire.errors import PlanError
from wire.layers import AvgPool, Conv, Gelu, Hardswish, Layer, MaxPool, Norm, Relu, Relu6
from wire.lowering import make_schedule
from wire.schedule import Kind, Operation, lanes_for, pair
from wire.settings import Training
from wire.ticket import KeptLayer, Ticket

FUNCTIONS: dict[type[Layer], int] = {Relu: 0, Relu6: 1, Hardswish: 2, Gelu: 3}  # network.h


class Assembly:
    """The structs that the kernels read, and the arrays among their memory that Python reads and writes.

    Args:
        ticket: the network.
        training: optimiser and batch.
        threads: processor cores to use, at most as many as a batch has micro-batches.
        width: floats of the processor's vectors.

    Attributes:
        schedule: the operations.
        purposes: bytes of the arena by purpose.
        threads: of them used.
        scores: float32 (kept,), in kernel order.
        log_prior: float32 (classes,).
        order: ticket-order number of every score in kernel order, or None when the two orders are the same.
        operations, networks: the structs; networks has one entry a thread.

    Raises:
        TicketError: if the ticket's masks do not decode.
        PlanError: if an activation is too large for the kernels.
        NotEnoughMemory: if the arena cannot be had.
    """

    def __init__(self, ticket: Ticket, training: Training, *, threads: int, width: int) -> None:
        self._ticket, self._training = ticket, training
        self.schedule = make_schedule(ticket.plan, lanes=lanes_for(training.batch), width=width)
        self._lanes = self.schedule.lanes
        if max(t.geometry.positions for t in self.schedule.tensors) * self._lanes >= 1 << kept_codes.OFFSET_BITS:
            raise PlanError(f"plan '{ticket.plan.name}' has an activation too large for the sparse kernels")
        self._workspace = plan_workspace(self.schedule)
        self.threads = min(threads, -(-training.batch // self._lanes))
        codes = self._codes()
        self.purposes = self._bytes_by_purpose(codes)
        memory_limits.require(
            sum(self.purposes.values()),
            f"training '{ticket.plan.name}' in batches of {training.batch} with {self.threads} threads",
            hint="prune it to a lower density, take a smaller network, or fewer threads",
        )
        self._arena = _Arena(self.purposes)
        self.scores: NDArray[np.float32] = self._arena.take("scores", np.float32, ticket.kept)
        self.order = _ticket_numbers(codes, ticket)
        tensors = [self._tensor(i) for i in range(len(self.schedule.tensors))]
        self._tensors = (library.Tensor * len(tensors))(*tensors)
        operations = [self._operation(i, codes[i]) for i in range(len(self.schedule.operations))]
        self.operations = (library.Operation * len(operations))(*operations)
        self.log_prior: NDArray[np.float32] = self._arena.take("kept weights", np.float32, ticket.plan.classes)
        self.networks = self._make_networks()

    @property
    def parts(self) -> tuple[object, ...]:
        """All that the networks point into."""
        return (self.networks, self.operations, self._tensors, self._arena)

    @property
    def arena(self) -> NDArray[np.uint8]:
        """The block of memory, uint8 (bytes,)."""
        return self._arena.memory

    def _codes(self) -> list[Codes | None]:
        """The kept weights of every operation that has any."""
        return [
            kept_codes.codes_for(kept, self.schedule.tensors[operation.input].geometry, self._lanes) if kept else None
            for operation in self.schedule.operations
            for kept in [self._kept(operation)]
        ]

    def _kept(self, operation: Operation) -> KeptLayer | None:
        return None if operation.weights is None else self._ticket.kept_layers[operation.weights]

    def _make_networks(self) -> Any:  # a ctypes array
        ticket, training, take = self._ticket, self._training, self._arena.take
        logits = self.schedule.tensors[self.schedule.logits].geometry
        offsets = take("kept weights", np.int64, ticket.plan.classes)
        offsets[:] = (kept_codes.feature_offsets(logits) - logits.interior) * self._lanes
        adam = training.optimiser == "adam"
        main = library.Network(
            lanes=self._lanes,
            classes=ticket.plan.classes,
            kept=ticket.kept,
            operations=len(self.operations),
            tensors=len(self._tensors),
            logits=self.schedule.logits,
            ops=self.operations,
            tensor=self._tensors,
            workspace=take("activations", np.uint8, self._workspace.nbytes).ctypes.data,
            workspace_floats=self._workspace.nbytes // 4,
            class_offset=offsets.ctypes.data,
            log_prior=self.log_prior.ctypes.data,
            scores=self.scores.ctypes.data,
            gradient=take("gradient", np.float32, ticket.kept).ctypes.data,
            first=take("optimiser", np.float32, ticket.kept).ctypes.data,
            second=take("optimiser", np.float32, ticket.kept).ctypes.data if adam else None,
            optimiser=library.ADAM if adam else library.SGD,
            input_relu=self.schedule.input_relu,
            learning_rate=training.learning_rate,
            beta1=training.beta1,
            beta2=training.beta2,
            epsilon=training.epsilon,
            clip=training.clip,
        )
        members = [main]
        for _ in range(1, self.threads):
            member = library.Network.from_buffer_copy(main)
            member.workspace = take("activations", np.uint8, self._workspace.nbytes).ctypes.data
            member.gradient = take("gradient", np.float32, ticket.kept).ctypes.data
            members.append(member)
        return (library.Network * self.threads)(*members)

    def _bytes_by_purpose(self, codes: Sequence[Codes | None]) -> dict[str, int]:
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
            "gradient": self.threads * kept,
            "optimiser": moments * kept,
            "activations": self.threads * self._workspace.nbytes,
        }

    def _tensor(self, i: int) -> library.Tensor:
        tensor, lanes = self.schedule.tensors[i], self._lanes
        geometry, gradient = tensor.geometry, self._workspace.gradients[i]
        return library.Tensor(
            value=self._workspace.values[i].offset // 4,
            gradient=-1 if gradient is None else gradient.offset // 4,
            plane=geometry.plane * lanes,
            pitch=geometry.pitch * lanes,
            interior=geometry.interior * lanes,
            channels=geometry.channels,
            height=geometry.height,
            width=geometry.width,
            cut=tensor.cut,
        )

    def _operation(self, i: int, codes: Codes | None) -> library.Operation:
        planned = self.schedule.operations[i]
        operation = library.Operation(
            kind=planned.kind,
            input=planned.input,
            second=-1 if planned.second is None else planned.second,
            output=planned.output,
            relu=planned.relu,
        )
        extra = self._workspace.extras[i]
        operation.extra = 0 if extra is None else extra.offset
        match planned.layer:
            case MaxPool() | AvgPool() as pool if planned.kind in (Kind.MAX_POOL, Kind.AVERAGE_POOL):
                operation.kernel_h, operation.kernel_w = pair(pool.kernel, 1)
                operation.stride_h, operation.stride_w = pair(pool.stride, 1)
                operation.place_size = place_bytes(pool)
            case Conv() as conv if planned.kind == Kind.PHASES:
                operation.stride_h, operation.stride_w = pair(conv.stride, 1)
                operation.padding_h, operation.padding_w = pair(conv.padding, 0)
            case Norm() as norm if planned.kind == Kind.NORM:
                operation.groups = norm.groups
            case layer if planned.kind == Kind.POINTWISE:
                operation.function = FUNCTIONS[type(layer)]
        if codes is not None:
            self._set_runs(operation, planned)
            kept = self._kept(planned)
            assert kept is not None
            self._fill_weights(operation, kept, codes)
        return operation

    def _set_runs(self, operation: library.Operation, planned: Operation) -> None:
        tensors, lanes = self.schedule.tensors, self._lanes
        source, target = tensors[planned.input].geometry, tensors[planned.output].geometry
        whole = ((target.height - 1) * source.pitch + target.width) * lanes
        operation.runs, operation.run = (1, whole) if planned.flat else (target.height, target.width * lanes)
        operation.run_in, operation.run_out = source.pitch * lanes, target.pitch * lanes
        operation.run_chunk = kept_codes.CHUNK_FLOATS

    def _fill_weights(self, operation: library.Operation, kept: KeptLayer, codes: Codes) -> None:
        take = self._arena.take
        operation.block, operation.rows = codes.block, len(codes.row_start) - 1
        operation.start, operation.kept = kept.start, kept.kept
        row_start = take("kept weights", np.uint32, len(codes.row_start))
        code = take("kept weights", np.uint32, len(codes.offsets))
        initial = take("kept weights", np.uint8, len(codes.offsets))
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
            if codes.block == kept_codes.BLOCK:
                code = np.where(code & 8, code, code ^ 7)  # bits 0 to 2 of a code are relative to bit 3 (network.h)
            signs_of_code = code[:, None] >> np.arange(4) & 1
            operation.table[:] = ((2 * signs_of_code - 1) * kept.magnitudes[0]).reshape(-1).tolist()
        else:
            magnitudes = take("kept weights", np.float32, kept.kept)
            magnitudes[:] = kept.magnitudes[codes.order]
            operation.magnitudes = magnitudes.ctypes.data
            operation.weights = take("kept weights", np.float32, kept.kept).ctypes.data


def address(array: NDArray[Any]) -> int:
    """Address of an array's first element; `array.ctypes.data` takes three times as long."""
    found: int = array.__array_interface__["data"][0]
    return found


def _ticket_numbers(codes: list[Codes | None], ticket: Ticket) -> NDArray[np.int64] | None:
    """Ticket-order number of every score in kernel order, or None when the two orders are the same."""
    layers = zip((c for c in codes if c is not None), ticket.kept_layers, strict=True)
    order = np.concatenate([c.order + kept.start for c, kept in layers])
    return None if np.array_equal(order, np.arange(ticket.kept)) else order


class _Arena:
    """One block of memory, handed out in cache-line aligned pieces until it is used up."""

    def __init__(self, nbytes: Mapping[str, int]) -> None:
        total = sum(nbytes.values())
        block = np.zeros(total + ALIGN, dtype=np.uint8)
        first = -block.ctypes.data % ALIGN
        self.memory = block[first : first + total]
        self._next = 0
        self._left = dict(nbytes)

    def take(self, purpose: str, dtype: type[np.generic], count: int) -> NDArray[Any]:
        nbytes = _aligned(count * np.dtype(dtype).itemsize)
        if nbytes > self._left[purpose]:
            raise AssertionError(f"{purpose}: {nbytes} bytes wanted, {self._left[purpose]} planned")  # a bug of ours
        self._left[purpose] -= nbytes
        piece = self.memory[self._next : self._next + nbytes]
        self._next += nbytes
        return piece.view(dtype)[:count]


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGN) * ALIGN
