"""Work whose time is measured here, for benchmarks.rates: steps, and every operation in them.

Operations are timed by the clock, so what other programs take is in some of them: of many steps the lower times count.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.planner import BATCH, DENSITY
from coordinator import sparse_work
from coordinator.blocks import block_sizes
from coordinator.models import MODELS, build_plan
from edge_client.runtimes.base import Runtime
from edge_client.runtimes.executorch import ExecutorchRuntime
from edge_client.runtimes.onnx import OnnxRuntime
from edge_client.runtimes.sparse import SparseRuntime
from export import executorch_work, onnx_work
from export.onnx_graph import training_graph
from export.work import Work
from wire.bundle import Bundle, decode_bundle
from wire.layers import Gelu, Hardswish, Relu, Relu6
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Keep, Ticket

Floats = NDArray[np.float64]
DENSITIES, BATCHES = (0.03, 0.1, 0.3), (4, 16, 32)
SECONDS, TURNS = 0.2, 2  # of steps, for each ticket and batch; how often
OPERATOR_STEPS = 12  # the first of which is not counted
LONGEST_S = 0.01  # an operator that takes longer, with executorch its network, is left out: interrupted every time


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


def sparse_rows() -> list[Row]:
    """Steps of every network at several densities and batches, and the operations in them, all trained twice here."""
    tickets = [
        (name, _uniform(plan, density), batch)
        for name, plan in _plans().items()
        for density in (DENSITIES if name in MODELS else (DENSITY,))
        for batch in BATCHES
    ]
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


def _plans() -> dict[str, Plan]:
    """The ten networks, and two of them with other activations in place of their ReLUs."""
    plans = {name: build_plan(name) for name in MODELS}
    for name in ("har-cnn", "resnet8"):
        for other in (Relu6(), Hardswish(), Gelu()):
            layers = tuple(other if isinstance(layer, Relu) else layer for layer in plans[name].layers)
            plans[f"{name} {type(other).__name__}"] = replace(plans[name], layers=layers)
    return plans


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
    calm: Floats = np.quantile(parts, 0.25, axis=0)
    return float(np.quantile(steps, 0.25)), calm


def operator_rows(runtime: str, bundles: Path) -> list[Row]:
    """Operators of the training step of every network, of its nodes with onnx, of all of a kind with executorch."""
    rows = []
    for name in MODELS:
        path = bundles / f"{name}-{DENSITY}-{runtime}.hnsb"
        bundle = decode_bundle(path.read_bytes(), expected_id=Path(f"{path}.id").read_bytes())
        parts = {"onnx": _nodes, "executorch": _kinds}[runtime](bundle)
        whole = sum(seconds for _, seconds in parts)
        rows += [
            Row(net=name, work=work, seconds=seconds, weight=math.sqrt(seconds / whole)) for work, seconds in parts
        ]
        print(f"{name}: {whole * 1e3:.2f} ms in operators", flush=True)
    return rows


def _nodes(bundle: Bundle) -> list[tuple[Mapping[str, Work], float]]:
    training = Training(batch=BATCH)
    runtime = OnnxRuntime(bundle, training, timed=True)
    for _ in range(OPERATOR_STEPS):
        _step(runtime, bundle.ticket)
    calm = {int(one.name.rpartition("_")[2]): one.shortest for one in runtime.operators()}
    steps, _ = onnx_work.graph_steps(training_graph(bundle.ticket, training), BATCH)
    return [
        ({step.kind: step.work}, seconds) for step in steps if LONGEST_S > (seconds := calm.get(step.number) or 0) > 0
    ]


def _kinds(bundle: Bundle) -> list[tuple[Mapping[str, Work], float]]:
    runtime = ExecutorchRuntime(bundle, Training(batch=BATCH), timed=True)
    so_far = []
    for _ in range(OPERATOR_STEPS):
        _step(runtime, bundle.ticket)
        so_far.append([one.seconds for one in runtime.operators()])
    calm = np.diff(so_far, axis=0).min(axis=0)
    if calm.max() > LONGEST_S:
        return []
    spent: dict[str, float] = defaultdict(float)
    for operator, seconds in zip(runtime.operators(), calm, strict=True):
        spent[executorch_work.kind_of(operator.kind)] += float(seconds)
    work = executorch_work.count(bundle.ticket.plan, bundle.ticket.kept, BATCH).work
    return [({kind: work[kind]}, seconds) for kind, seconds in spent.items() if kind in work]


def _step(runtime: Runtime, ticket: Ticket, batch: int = BATCH) -> float:
    """Train a step on made-up samples; seconds of the processor."""
    plan = ticket.plan
    x = np.sin(np.arange(batch * math.prod(plan.input_shape), dtype=np.float32)).reshape(batch, *plan.input_shape)
    start = time.process_time()
    runtime.step(x, np.arange(batch) % plan.classes, np.ones(batch, dtype=np.float32))
    return time.process_time() - start
