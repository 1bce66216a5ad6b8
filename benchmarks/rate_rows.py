"""Work whose time is measured here, for benchmarks.rates: steps, and every operation in them.

Operations are timed by the clock, so what other programs take is in some of them: of many steps the lower times count.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.planner import BATCH, DENSITY
from benchmarks.rate_nets import network
from coordinator import sparse_work
from coordinator.blocks import block_sizes
from coordinator.models import MODELS, build_plan
from edge_client.runtimes.base import Runtime
from edge_client.runtimes.executorch import ExecutorchRuntime
from edge_client.runtimes.onnx import OnnxRuntime
from edge_client.runtimes.registry import open_runtime
from edge_client.runtimes.sparse import SparseRuntime
from export import executorch_work, onnx_work
from export.bundle import make_bundle
from export.onnx_graph import training_graph
from export.work import Work, total
from wire.bundle import Bundle
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Keep, Ticket

Floats = NDArray[np.float64]
DRAWN, DRAWN_EXECUTORCH = 40, 20  # networks drawn at random; a program of one takes a minute to make
CASES = ((0.1, 16), (0.03, 16), (0.3, 8))  # densities and batches
SECONDS, TURNS = 0.08, 3  # of steps, for each ticket and batch; how often
OPERATOR_STEPS, GRAPH_STEPS = 14, 30  # the first of which is not counted
CALM = 0.1  # the quantile of times that counts: other programs are in the others
LONGEST_S = 0.05  # an operator that takes longer is left out: interrupted every time


@dataclass(frozen=True, kw_only=True)
class Row:
    """Work whose time was measured.

    Attributes:
        net: the network that it is of.
        work: what was done.
        seconds: that it took.
        weight: how much its error counts; 1 for a whole step, the root of its share for an operation in one.
    """

    net: str
    work: Mapping[str, Work]
    seconds: float
    weight: float = 1.0


def plans(drawn: int) -> list[Plan]:
    """Networks drawn at random, and those with a name."""
    return [*(network(number) for number in range(drawn)), *(build_plan(name) for name in MODELS)]


def sparse_rows() -> list[Row]:
    """Steps of every network at several densities and batches, and the operations in them, all trained thrice here."""
    tickets = [(plan.name, _uniform(plan, density), batch) for plan in plans(DRAWN) for density, batch in CASES]
    timed = [[_times(ticket, batch) for _, ticket, batch in tickets] for _ in range(TURNS)]
    rows = []
    for (name, ticket, batch), *found in zip(tickets, *timed, strict=True):
        operations = np.min([parts for _, parts in found], axis=0)
        whole, parts = _sparse_work(ticket, batch)
        rows.append(Row(net=name, work=whole, seconds=min(step for step, _ in found)))
        rows += [
            Row(net=name, work=work, seconds=seconds, weight=math.sqrt(seconds / operations.sum()))
            for work, seconds in zip(parts, operations, strict=True)
        ]
    return rows


def _uniform(plan: Plan, density: float) -> Ticket:
    """A ticket that keeps the same share of every layer."""
    shapes = plan.weight_layers()
    keeps = [
        Keep(block=block, mask=max(-(-shape.out_units // block), round(density * shape.weights / block)), scale=1)
        for shape, block in zip(shapes, block_sizes(plan, 4), strict=True)
    ]
    return Ticket(plan=plan, seed=0, magnitudes="constant", layers=tuple(keeps))


def _sparse_work(ticket: Ticket, batch: int) -> tuple[dict[str, Work], list[dict[str, Work]]]:
    """Of a step, and of each operation in it and of what is in none of them."""
    found = sparse_work.plan_work(ticket.plan, tuple(keep.block for keep in ticket.layers), batch)
    whole, parts = found.of(ticket), [dict(work) for work in found.operations]
    schedule = sparse_work.schedule_of(ticket.plan, batch)
    for operation, part in zip(schedule.operations, parts, strict=True):
        if operation.weights is not None:
            blocks = ticket.kept_layers[operation.weights].blocks.size
            ((kind, one),) = ((kind, one) for kind, one in found.block[operation.weights].items() if kind != "update")
            part[kind] += one * blocks
    return whole, [*parts, {kind: whole[kind] for kind in ("input", "update")}]


def _times(ticket: Ticket, batch: int) -> tuple[float, Floats]:
    """Seconds of a step, of the processor, and by the clock of the operations in one; lower quartiles."""
    runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), Training(batch=batch))
    steps: list[float] = []
    parts: list[Floats] = []
    _step(runtime, ticket, batch)
    runtime.clock_layers(on=True)
    began = time.perf_counter()
    while len(steps) < 5 or time.perf_counter() - began < SECONDS:
        runtime.reset_layer_clock()
        steps.append(_step(runtime, ticket, batch))
        parts.append(runtime.operation_seconds())
    calm: Floats = np.quantile(parts, CALM, axis=0)
    return float(np.quantile(steps, CALM)), calm


def graph_rows(runtime: str) -> list[Row]:
    """Steps of every network, and their operators: nodes with onnx, all of a kind with executorch."""
    rows = []
    for plan in plans(DRAWN if runtime == "onnx" else DRAWN_EXECUTORCH):
        bundle = make_bundle(_uniform(plan, DENSITY), runtime, Training(batch=BATCH))
        work, parts = {"onnx": _nodes, "executorch": _kinds}[runtime](bundle)
        opened = open_runtime(bundle, Training(batch=BATCH), threads=1)
        steps = [_step(opened, bundle.ticket) for _ in range(GRAPH_STEPS)][1:]
        step_s, operators_s = float(np.quantile(steps, CALM)), sum(seconds for _, seconds in parts)
        rows.append(Row(net=plan.name, work=work, seconds=step_s))
        rows += [  # together as long as the step: they are timed by the clock
            Row(
                net=plan.name, work=one, seconds=seconds * step_s / operators_s, weight=math.sqrt(seconds / operators_s)
            )
            for one, seconds in parts
        ]  # fmt: skip
        print(f"{plan.name}: {step_s * 1e3:.2f} ms", flush=True)
    return rows


def _nodes(bundle: Bundle) -> tuple[Mapping[str, Work], list[tuple[Mapping[str, Work], float]]]:
    training = Training(batch=BATCH)
    runtime = OnnxRuntime(bundle, training, timed=True)
    for _ in range(OPERATOR_STEPS):
        _step(runtime, bundle.ticket)
    numbered = [(one.name.rpartition("_")[2], one.shortest) for one in runtime.operators()]
    calm = {int(number): seconds for number, seconds in numbered if number.isdigit()}  # others onnxruntime put in
    steps, _ = onnx_work.graph_steps(training_graph(bundle.ticket, training), BATCH)
    parts = [(onnx_work.work_of(step), calm.get(step.number) or 0.0) for step in steps]
    return total(work for work, _ in parts), [(work, seconds) for work, seconds in parts if LONGEST_S > seconds > 0]


def _kinds(bundle: Bundle) -> tuple[Mapping[str, Work], list[tuple[Mapping[str, Work], float]]]:
    runtime = ExecutorchRuntime(bundle, Training(batch=BATCH), timed=True)
    so_far = []
    for _ in range(OPERATOR_STEPS):
        _step(runtime, bundle.ticket)
        so_far.append([one.seconds for one in runtime.operators()])
    calm = np.diff(so_far, axis=0).min(axis=0)
    spent: dict[str, float] = defaultdict(float)
    for operator, seconds in zip(runtime.operators(), calm, strict=True):
        spent[executorch_work.kind_of(operator.kind)] += float(seconds)
    work = executorch_work.count(bundle.ticket.plan, bundle.ticket.kept, BATCH).work
    return work, [({kind: work[kind]}, seconds) for kind, seconds in spent.items() if kind in work]


def _step(runtime: Runtime, ticket: Ticket, batch: int = BATCH) -> float:
    """Train a step on made-up samples; seconds of the processor."""
    plan = ticket.plan
    x = np.sin(np.arange(batch * math.prod(plan.input_shape), dtype=np.float32)).reshape(batch, *plan.input_shape)
    start = time.process_time()
    runtime.step(x, np.arange(batch) % plan.classes, np.ones(batch, dtype=np.float32))
    return time.process_time() - start
