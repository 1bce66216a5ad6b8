"""Fits the rates of `coordinator.rates`: seconds of an operation, a byte and a call of every kind, from measured steps.

    python -m benchmarks.rates --bundles DIR --runtime onnx RESULTS [RESULTS ...]   # of benchmarks.planner
    python -m benchmarks.rates --sparse                              # trains all networks here, about a minute

Least squares of the relative error, no rate below what the reference core can do at best (its peak; four times its
copy bandwidth, for what is in a cache). Beside every fit: its errors, and those for each network when the fit leaves
it out.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.planner import BATCH, DENSITY
from coordinator import sparse_work
from coordinator.blocks import block_sizes
from coordinator.models import MODELS, build_plan
from coordinator.rates import REFERENCE, Core, slowness
from edge_client.runtimes.sparse import SparseRuntime
from export import executorch_work, onnx_work
from export.work import Work
from wire.bundle import Bundle
from wire.settings import Training
from wire.ticket import Keep, Ticket, read_ticket

Floats = NDArray[np.float64]
Feature = tuple[str, str]  # kind of work ("" for all), attribute of Work
DENSITIES, BATCHES, SECONDS = (0.03, 0.1, 0.3), (4, 16, 32), 0.5
FEATURES: Mapping[str, Sequence[Feature]] = {
    "sparse": [
        ("convolution", "flops"), ("convolution", "moved"), ("convolution", "calls"), ("linear", "flops"),
        ("linear", "moved"), ("pool", "moved"), ("norm", "moved"), ("pointwise", "moved"), ("stream", "moved"),
        ("update", "moved"), ("step", "calls"),
    ],
    "onnx": [
        ("convolution", "flops"), ("grouped convolution", "flops"), ("matmul", "flops"), ("elementwise", "moved"),
        ("index", "moved"), ("pool", "flops"), ("", "calls"),
    ],
    "executorch": [("matmul", "flops"), ("copy", "moved"), ("elementwise", "moved"), ("index", "moved"), ("", "calls")],
}  # fmt: skip
LEAST = {"flops": 1 / REFERENCE.flops, "moved": 1 / (4 * REFERENCE.bandwidth), "calls": 0.0}
ROUNDS = 20_000  # of coordinate descent

Row = tuple[str, Mapping[str, Work], float]  # network, work, seconds of a step


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path)
    parser.add_argument("--bundles", type=Path)
    parser.add_argument("--runtime", choices=("onnx", "executorch"))
    parser.add_argument("--sparse", action="store_true")
    arguments = parser.parse_args()
    if arguments.sparse:
        show("sparse", sparse_rows())
    elif arguments.results:
        for runtime in (arguments.runtime,) if arguments.runtime else ("onnx", "executorch"):
            show(runtime, measured(runtime, arguments.results, arguments.bundles))
    else:
        parser.error("name results, or --sparse")


def show(runtime: str, rows: Sequence[Row]) -> None:
    """Print a fit and its errors."""
    features = FEATURES[runtime]
    rates = fit(features, rows)
    for (kind, attribute), rate in zip(features, rates, strict=True):
        print(f"{runtime:11} {kind or 'all':20} {attribute:6} {rate:.3g} s")
    print(f"{runtime:11} {_said(_errors(features, rows, rates))}")
    for net in dict.fromkeys(name for name, _, _ in rows):
        own = [row for row in rows if row[0] == net]
        without = fit(features, [row for row in rows if row[0] != net])
        print(f"{runtime:11} without {net:20} {_said(_errors(features, own, without))}")


def fit(features: Sequence[Feature], rows: Sequence[Row]) -> Floats:
    """Seconds per unit of every feature, each at least LEAST."""
    matrix, seconds = _matrix(features, rows), np.array([row[2] for row in rows])
    least = np.array([LEAST[attribute] for _, attribute in features])
    scale = np.maximum(matrix.max(axis=0), 1e-300)
    relative = matrix / scale / seconds[:, None]
    gram, target = relative.T @ relative, relative.T @ (1 - matrix @ least / seconds)
    found = np.zeros(len(features))
    for _ in range(ROUNDS):
        for i in np.flatnonzero(np.diag(gram) > 0):
            found[i] = max(0.0, found[i] + (target[i] - gram[i] @ found) / gram[i, i])
    return found / scale + least


def measured(runtime: str, results: Sequence[Path], bundles: Path) -> list[Row]:
    """Steps of benchmarks.planner's results, with the work of their tickets as it would be on the reference core."""
    count: Callable[[Ticket], Mapping[str, Work]] = {
        "onnx": lambda ticket: onnx_work.count(ticket, Training(batch=BATCH), BATCH).work,
        "executorch": lambda ticket: executorch_work.count(ticket.plan, ticket.kept, BATCH).work,
    }[runtime]
    work = {name: count(read_ticket(bundles / f"{name}-{DENSITY}.hns")) for name in MODELS}
    rows = [row for path in results for row in json.loads(path.read_text())["rows"] if row["runtime"] == runtime]
    return [(row["net"], _carried(work[row["net"]], runtime, row), row["step_ms"] / 1e3) for row in rows]


def _carried(work: Mapping[str, Work], runtime: str, row: Mapping[str, Any]) -> dict[str, Work]:
    slower = slowness(runtime, Core(**row["core"]) if "core" in row else REFERENCE)  # before 27 November none was named
    return {
        kind: Work(flops=one.flops * slower.flop, moved=one.moved * slower.byte, calls=one.calls * slower.call)
        for kind, one in work.items()
    }


def sparse_rows() -> list[Row]:
    """Steps of every network at several densities and batches, trained here; medians of processor time."""
    rows = []
    for name in MODELS:
        plan = build_plan(name)
        for density in DENSITIES:
            keeps = [
                Keep(
                    block=block, mask=max(-(-shape.out_units // block), round(density * shape.weights / block)), scale=1
                )
                for shape, block in zip(plan.weight_layers(), block_sizes(plan, 4), strict=True)
            ]
            ticket = Ticket(plan=plan, seed=0, magnitudes="constant", layers=tuple(keeps))
            rows += [(name, sparse_work.count(ticket, batch).work, _step_s(ticket, batch)) for batch in BATCHES]
        print(f"trained {name}", flush=True)
    return rows


def _step_s(ticket: Ticket, batch: int) -> float:
    runtime, plan = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), Training(batch=batch)), ticket.plan
    x = np.sin(np.arange(batch * math.prod(plan.input_shape), dtype=np.float32)).reshape(batch, *plan.input_shape)
    y, ones = np.arange(batch) % plan.classes, np.ones(batch, dtype=np.float32)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 7 or time.perf_counter() - began < SECONDS:
        start = time.process_time()
        runtime.step(x, y, ones)
        times.append(time.process_time() - start)
    return statistics.median(times[2:])


def _matrix(features: Sequence[Feature], rows: Sequence[Row]) -> Floats:
    def units(work: Mapping[str, Work], kind: str, attribute: str) -> float:
        return float(sum(getattr(one, attribute) for name, one in work.items() if kind in ("", name)))

    return np.array([[units(work, *feature) for feature in features] for _, work, _ in rows])


def _errors(features: Sequence[Feature], rows: Sequence[Row], rates: Floats) -> Floats:
    found: Floats = _matrix(features, rows) @ rates / np.array([row[2] for row in rows]) - 1
    return found


def _said(errors: Floats) -> str:
    size = np.abs(errors)
    within = float((size <= 0.25).mean())
    return f"error: median {np.median(size):.0%}, largest {size.max():.0%}, {within:.0%} of {len(size)} within 25 %"


if __name__ == "__main__":
    main()
