"""Fits the rates of `coordinator.rates`: seconds of every kind of work, from what is measured here.

    python -m benchmarks.rates --runtime sparse               # some minutes; onnx; executorch: half an hour
    python -m benchmarks.rates --test --bundles DIR RESULTS   # how good today's rates are; both of benchmarks.planner

Fits to networks drawn at random (`benchmarks.rate_nets`): to their steps, and to the operations in them, which count a
tenth, so that no kind makes up for another. Errors are shown for those networks and for all with a name, which no fit
has seen, and for each of these of a fit to all others. Least squares of the error relative to the mean of what is
measured and predicted, no rate below what the reference core can do at best (its peak; eight times its copy bandwidth,
for what is in a cache).

`--test` fits nothing but one factor for all networks on a machine and runtime, as `hidenseek plan --here` finds one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.planner import BATCH, DENSITY
from benchmarks.rate_rows import Floats, Row, graph_rows, sparse_rows
from coordinator import sparse_work
from coordinator.models import MODELS
from coordinator.rates import RATES, REFERENCE, Core, seconds, slowness
from export import executorch_work, onnx_work
from export.work import Work
from wire.settings import Training
from wire.ticket import Ticket, read_ticket

Feature = tuple[str, str]  # kind of work ("" for all), attribute of Work
FEATURES: Mapping[str, Sequence[Feature]] = {
    "sparse": [
        ("convolution", "flops"), ("convolution", "moved"), ("convolution", "calls"), ("linear", "flops"),
        ("linear", "moved"), ("linear", "calls"), ("max pool", "values"), ("average pool", "values"),
        ("phases", "values"), ("norm", "values"), ("norm", "calls"), ("pointwise", "values"), ("gelu", "values"),
        ("stream", "moved"), ("input", "values"), ("update", "moved"), ("step", "calls"), ("far", "moved"),
    ],
    "onnx": [
        ("convolution", "flops"), ("convolution", "values"), ("grouped convolution", "flops"),
        ("grouped convolution", "values"), ("matmul", "flops"),
        ("matmul", "moved"), ("elementwise", "moved"), ("index", "moved"), ("pool", "flops"), ("copy", "moved"),
        ("copy", "values"), ("strided copy", "values"), ("reduction", "moved"), ("reduction", "values"),
        ("far", "moved"), ("", "calls"),
    ],
    "executorch": [
        ("matmul", "flops"), ("batched matmul", "flops"), ("copy", "moved"), ("copy", "values"),
        ("elementwise", "moved"), ("one by one", "values"), ("sum", "values"), ("index", "values"), ("", "calls"),
    ],
}  # fmt: skip
LEAST = {"flops": 1 / REFERENCE.flops, "moved": 1 / (8 * REFERENCE.bandwidth), "values": 0.0, "calls": 0.0}
ROUNDS, AGAIN = 1_500, 6  # of coordinate descent; with the errors relative to what the last one predicts
OPERATION = 0.1  # what an operation's error counts of a step's


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="*", type=Path)
    parser.add_argument("--bundles", type=Path)
    parser.add_argument("--runtime", choices=tuple(RATES), help="measure here and fit")
    parser.add_argument("--test", action="store_true")
    arguments = parser.parse_args()
    if arguments.runtime:
        show(arguments.runtime, sparse_rows() if arguments.runtime == "sparse" else graph_rows(arguments.runtime))
    elif arguments.test:
        for path in arguments.results:
            for runtime in RATES:
                test(runtime, path, arguments.bundles)
    else:
        parser.error("--runtime or --test")


def show(runtime: str, rows: Sequence[Row]) -> None:
    """Print a fit to the networks drawn at random, and its errors for these and for those with a name."""
    features = FEATURES[runtime]
    drawn = [row for row in rows if row.net not in MODELS]
    rates = fit(features, drawn)
    for (kind, attribute), rate in zip(features, rates, strict=True):
        print(f"{runtime:11} {kind or 'all':20} {attribute:6} {rate:.3g} s")
    steps = [row for row in rows if row.weight == 1]
    print(f"{runtime:11} fitted to: {_said(_errors(features, [row for row in steps if row in drawn], rates))}")
    print(f"{runtime:11} unseen:    {_said(_errors(features, [row for row in steps if row not in drawn], rates))}")
    for net in MODELS:
        own = [row for row in steps if row.net == net]
        without = fit(features, [row for row in rows if row.net != net])
        unseen, left_out = (_errors(features, own, found) for found in (rates, without))
        print(f"{runtime:11} {net:20} unseen {_each(unseen)}   left out of a fit to all {_each(left_out)}")


def test(runtime: str, results: Path, bundles: Path) -> None:
    """Print the errors of today's rates on a machine, with one factor for it."""
    rows = measured(runtime, [results], bundles)
    found = np.array([seconds(row.work, runtime, REFERENCE) / row.seconds for row in rows])
    factor = np.exp(np.log(found).mean())
    print(f"{results.name} {runtime:11} factor {1 / factor:.2f}, {_said(found / factor - 1)}")


def fit(features: Sequence[Feature], rows: Sequence[Row]) -> Floats:
    """Seconds per unit of every feature, each at least LEAST.

    Errors are relative to the geometric mean of what is measured and what the fit before predicted: relative to what is
    measured alone, a prediction of nothing is never more than 100 % off, and all would come out too low.
    """
    matrix, measured_s = _matrix(features, rows), np.array([row.seconds for row in rows])
    weight = np.array([1.0 if row.weight == 1 else OPERATION * row.weight for row in rows])
    least = np.array([LEAST[attribute] for _, attribute in features])
    scale = np.maximum(matrix.max(axis=0), 1e-300)
    found, middle = np.zeros(len(features)), measured_s
    for _ in range(AGAIN):
        relative = matrix / scale / middle[:, None] * weight[:, None]
        gram, target = relative.T @ relative, relative.T @ (weight * (measured_s - matrix @ least) / middle)
        for _ in range(ROUNDS):
            for i in np.flatnonzero(np.diag(gram) > 0):
                found[i] = max(0.0, found[i] + (target[i] - gram[i] @ found) / gram[i, i])
        middle = np.sqrt(measured_s * np.maximum(matrix @ (found / scale + least), measured_s / 20))
    rates: Floats = found / scale + least
    return rates


def measured(runtime: str, results: Sequence[Path], bundles: Path) -> list[Row]:
    """Steps of benchmarks.planner's results, with the work of their tickets as it would be on the reference core."""
    count: Callable[[Ticket], Mapping[str, Work]] = {
        "sparse": lambda ticket: sparse_work.count(ticket, BATCH).work,
        "onnx": lambda ticket: onnx_work.count(ticket, Training(batch=BATCH), BATCH).work,
        "executorch": lambda ticket: executorch_work.count(ticket.plan, ticket.kept, BATCH).work,
    }[runtime]
    work = {name: count(read_ticket(bundles / f"{name}-{DENSITY}.hns")) for name in MODELS}
    rows = [row for path in results for row in json.loads(path.read_text())["rows"] if row["runtime"] == runtime]
    return [
        Row(net=row["net"], work=_carried(work[row["net"]], runtime, row), seconds=row["step_ms"] / 1e3) for row in rows
    ]


def _carried(work: Mapping[str, Work], runtime: str, row: Mapping[str, Any]) -> dict[str, Work]:
    slower = slowness(runtime, Core(**row["core"]))
    return {
        kind: Work(
            flops=one.flops * slower.flop,
            moved=one.moved * slower.byte,
            values=one.values * slower.value,
            calls=one.calls * slower.call,
        )
        for kind, one in work.items()
    }


def _matrix(features: Sequence[Feature], rows: Sequence[Row]) -> Floats:
    def units(work: Mapping[str, Work], kind: str, attribute: str) -> float:
        return float(sum(getattr(one, attribute) for name, one in work.items() if kind in ("", name)))

    return np.array([[units(row.work, *feature) for feature in features] for row in rows])


def _errors(features: Sequence[Feature], rows: Sequence[Row], rates: Floats) -> Floats:
    found: Floats = _matrix(features, rows) @ rates / np.array([row.seconds for row in rows]) - 1
    return found


def _each(errors: Floats) -> str:
    return " ".join(f"{error:+4.0%}" for error in errors)


def _said(errors: Floats) -> str:
    size = np.abs(errors)
    within = float((size <= 0.25).mean())
    return f"error: median {np.median(size):.0%}, largest {size.max():.0%}, {within:.0%} of {len(size)} within 25 %"


if __name__ == "__main__":
    main()
