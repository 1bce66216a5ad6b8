"""Where a step of the sparse runtime goes: time of every layer and pass, and its share of the multiply-add peak.

    python -m benchmarks.kernel_layers --net conv4 --density 0.05 --batch 32
    HIDENSEEK_KERNELS=v3 python -m benchmarks.kernel_layers        # the AVX2 build

Best of many steps, for what the kernels can do; medians against rivals are in `benchmarks.kernels`.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from benchmarks.kernels import NETS
from benchmarks.machine import describe, fma_peak
from coordinator.models import build_plan
from coordinator.prune import prune
from edge_client.runtimes.sparse import SparseRuntime
from wire.bundle import Bundle
from wire.settings import Training
from wire.ticket import Ticket

PASSES = ("forward", "weights", "inputs")


def best_seconds(runtime: SparseRuntime, ticket: Ticket, batch: int, steps: int) -> np.ndarray:
    """Fewest seconds of every operation and pass over `steps` steps, float64 (operations + 1, 3)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *ticket.plan.input_shape)).astype(np.float32)
    y, weights = rng.integers(0, ticket.plan.classes, batch), np.ones(batch, dtype=np.float32)
    seconds = np.zeros((len(runtime._parts.schedule.operations) + 1, 3))
    best = np.full_like(seconds, np.inf)
    runtime._network.seconds = seconds.ctypes.data
    for _ in range(steps):
        seconds[:] = 0
        runtime.step(x, y, weights)
        best = np.minimum(best, seconds)
    runtime._network.seconds = None
    return best


def main() -> int:
    """Print one line a layer and the convolutions' share of the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=NETS, default="conv4")
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    shape, classes = NETS[options.net]
    plan = build_plan(options.net, input_shape=shape, classes=classes)
    ticket = prune(plan, density=options.density, seed=0, method="uniform")
    runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), Training(batch=options.batch))
    machine, peak = describe(), fma_peak()
    print(f"{machine['cpu']}, {machine['kernels']}, peak {peak:.1f} GFLOP/s, load {machine['load']}")
    best = best_seconds(runtime, ticket, options.batch, options.steps)
    conv_flops = conv_seconds = 0.0
    for operation, seconds in zip(runtime._parts.schedule.operations, best, strict=False):
        kept = None if operation.weights is None else ticket.kept_layers[operation.weights]
        cells = [f"{operation.kind.name.lower():12}"]
        for name, taken in zip(PASSES, seconds, strict=True):
            cells.append(f"{name} {taken * 1e3:7.3f} ms")
            if kept is None or taken == 0:
                cells.append(" " * 19)
                continue
            flops = 2 * kept.kept_macs * options.batch
            cells.append(f"{flops / taken * 1e-9:6.1f} GF/s {flops / taken * 1e-9 / peak:4.0%}")
            # The first layer reads one channel: too little work to say anything about the inner loops.
            if len(kept.shape.weight_shape) > 2 and kept.shape.index > 0:
                conv_flops, conv_seconds = conv_flops + flops, conv_seconds + taken
        print("  ".join(cells))
    print(f"samples in {best[-1][0] * 1e3:.3f} ms, loss {best[-1][1] * 1e3:.3f} ms, update {best[-1][2] * 1e3:.3f} ms")
    if conv_seconds:
        print(f"convolutions: {conv_flops / conv_seconds * 1e-9 / peak:.0%} of the peak on kept weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
