"""Makes what `hidenseek plan --here` measures graphs with, in a minute: `python -m coordinator.make_programs`.

Making ExecuTorch's takes torch and ten seconds each, and onnxruntime's the package onnx, which a board does not have.
They are good until `coordinator.here.NETS` or the exporters change; a test compares the networks. What each does in a
step is counted beside it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import product

from coordinator.hardware import Runtime
from coordinator.here import BATCH, GRAPHS, NETS, PROGRAMS, ticket_of
from coordinator.planner import Load, Planner
from export.bundle import make_bundle
from wire.plan import Plan
from wire.settings import Training


def main() -> None:
    """Write a bundle of every network, and the work in it."""
    PROGRAMS.mkdir(exist_ok=True)
    work = {runtime: {plan.name: said(planner(plan), runtime) for plan in NETS} for runtime in GRAPHS}
    (PROGRAMS / "work.json").write_text(json.dumps(work, indent=1) + "\n")
    for plan, runtime in product(NETS, GRAPHS):
        path = PROGRAMS / f"{plan.name}-{runtime}.hnsb"
        path.write_bytes(make_bundle(ticket_of(plan), runtime, Training(batch=BATCH)).encoded)
        sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")


def said(planner: Planner, runtime: Runtime) -> dict[str, dict[str, float]]:
    """The work of a step as it is written down."""
    return {kind: asdict(one) for kind, one in planner.count(runtime, BATCH).work.items()}


def planner(plan: Plan) -> Planner:
    """For a ticket of a network."""
    return Planner(ticket=ticket_of(plan), load=Load())


if __name__ == "__main__":
    main()
