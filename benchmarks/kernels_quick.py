"""The sparse runtime against PyTorch eager dense, one thread, in one process: a first look, not the published table.

    python benchmarks/kernels_quick.py                        # all networks, densities and batches
    python benchmarks/kernels_quick.py --nets conv4 --densities 0.05 --batches 32 --layers
    python benchmarks/kernels_quick.py --isa avx2             # both sides held to AVX2
    python benchmarks/kernels_quick.py --rss --nets har-cnn --densities 0.1 --batches 16

A step is forward, backward and an Adam update on the same random samples. Runs of several steps take
turns, and a ratio is one of medians, so that a neighbour's load hits both alike. Shares of the peak
count two operations per kept weight and use, in the forward pass, the weight gradient and the input gradient.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from coordinator.models import build_plan
from edge_client.kernels import library
from edge_client.runtimes.sparse import SparseRuntime
from tests.helpers import random_ticket
from wire.bundle import Bundle
from wire.plan import Plan
from wire.settings import Training

NETS = {"har-cnn": ((6, 128), 6), "lenet": ((1, 28, 28), 10), "conv2": ((1, 28, 28), 10), "conv4": ((1, 28, 28), 10)}
ISAS = {  # what each side is told
    "native": {},
    "avx2": {"HIDENSEEK_KERNELS": "v3", "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
RUN_SECONDS = 0.04  # of one turn


def fma_peak() -> float:
    """Multiply-add peak of this core in GFLOP/s: the best of many short runs."""
    kernels, sink = library.load(), ctypes.c_float()
    best = 0.0
    for _ in range(40):
        start = time.perf_counter()
        done = kernels.hs_multiply_adds(300_000, sink)
        best = max(best, done / (time.perf_counter() - start) * 1e-9)
    return best


def samples(plan: Plan, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random samples, labels and weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *plan.input_shape)).astype(np.float32)
    return x, rng.integers(0, plan.classes, batch), np.ones(batch, dtype=np.float32)


def torch_step(plan: Plan, batch: int) -> Callable[[], object]:
    """One training step of the dense network in PyTorch eager."""
    import torch

    from export.torch_net import forward

    torch.set_num_threads(1)
    x, y, _ = (torch.from_numpy(a) for a in samples(plan, batch))
    weights = [torch.randn(s.weight_shape).mul_((2 / s.fan_in) ** 0.5).requires_grad_() for s in plan.weight_layers()]
    optimiser = torch.optim.Adam(weights)

    def step() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(forward(plan, weights, x), y).backward()
        optimiser.step()

    return step


def sparse_runtime(plan: Plan, density: float, batch: int) -> SparseRuntime:
    """A ticket of uniform density in blocks of 4, loaded."""
    ticket = random_ticket(plan, density, seed=5)
    return SparseRuntime(Bundle(runtime="sparse", ticket=ticket), Training(batch=batch))


def interleaved(steps: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds per step of each, taking turns for about `seconds`."""
    repeats, times = {}, {name: [] for name in steps}
    for name, step in steps.items():
        step()
        start = time.perf_counter()
        step()
        repeats[name] = max(1, int(RUN_SECONDS / (time.perf_counter() - start)))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[name]) < 5:
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                step()
            times[name].append((time.perf_counter() - start) / repeats[name] * 1e3)
    return {name: median(values) for name, values in times.items()}


def layers(runtime: SparseRuntime, plan: Plan, batch: int, peak: float, steps: int) -> tuple[list[str], float]:
    """Per-layer milliseconds (best of `steps`) and GFLOP/s, and the convolutions' share of the peak."""
    x, y, weights = samples(plan, batch)
    operations = runtime._layout.steps
    seconds = np.zeros((len(operations) + 1, 3))
    best = np.full_like(seconds, np.inf)
    runtime._network.seconds = seconds.ctypes.data
    for _ in range(steps):
        seconds[:] = 0
        runtime.step(x, y, weights)
        best = np.minimum(best, seconds)
    runtime._network.seconds = None
    lines, conv_flops, conv_seconds = [], 0.0, 0.0
    for i, operation in enumerate(operations):
        line = f"    {type(operation.layer).__name__:8}"
        for part, label in enumerate(("forward", "weights", "inputs")):
            line += f"  {label} {best[i, part] * 1e3:7.3f} ms"
            if operation.kept is None or best[i, part] == 0:
                line += " " * 20
                continue
            flops = 2 * operation.kept.kept_macs * batch
            line += f" {flops / best[i, part] * 1e-9:6.1f} GF/s {flops / best[i, part] * 1e-7 / peak:3.0f} %"
            if operation.kept.shape.fan_in > 64 and len(operation.kept.shape.weight_shape) > 2:
                conv_flops, conv_seconds = conv_flops + flops, conv_seconds + best[i, part]
        lines.append(line)
    pack, loss, update = best[-1] * 1e3
    lines.append(f"    samples in {pack:.3f} ms, loss {loss:.3f} ms, update {update:.3f} ms")
    return lines, conv_flops / conv_seconds * 1e-9 / peak if conv_seconds else float("nan")


def measure_rss(net: str, density: float, batch: int) -> None:
    """Peak memory of a process that trains and holds what a client holds; no torch."""
    import paho.mqtt.client  # noqa: F401  # part of the client

    shape, classes = NETS[net]
    plan = build_plan(net, input_shape=shape, classes=classes)
    data = np.random.default_rng(0).normal(size=(400, *shape)).astype(np.float32)  # one person's windows
    runtime = sparse_runtime(plan, density, batch)
    labels, weights = np.zeros(batch, dtype=np.int64), np.ones(batch, dtype=np.float32)
    for start in range(0, 400 - batch, batch):
        runtime.step(data[start : start + batch], labels, weights)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    arena = sum(runtime.memory_plan().values()) / 2**20
    print(f"{net} density {density} batch {batch}: peak {peak:.1f} MB, of which arena {arena:.2f} MB", flush=True)


def main() -> int:
    """Parse the command line and print one row per network and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--densities", default="0.1,0.05,0.02")
    parser.add_argument("--batches", default="1,16,32")
    parser.add_argument("--seconds", type=float, default=4.0, help="per network and batch")
    parser.add_argument("--isa", choices=ISAS, default="native")
    parser.add_argument("--layers", action="store_true", help="per-layer times and shares of the peak")
    parser.add_argument("--rss", action="store_true", help="peak memory of fresh processes instead of times")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ISAS[options.isa].items()):
        return subprocess.call([sys.executable, *sys.argv], env={**os.environ, **ISAS[options.isa]})
    densities = [float(d) for d in options.densities.split(",")]
    batches = [int(b) for b in options.batches.split(",")]
    if options.rss:
        for net in options.nets.split(","):
            for density in densities:
                for batch in batches:
                    if len(densities) * len(batches) == 1 and options.nets == net:
                        measure_rss(net, density, batch)
                    else:
                        one = ["--rss", "--nets", net, "--densities", str(density), "--batches", str(batch)]
                        subprocess.check_call([sys.executable, __file__, *one])
        return 0
    peak = fma_peak()
    print(f"kernels {library.library_path()}, multiply-add peak {peak:.1f} GFLOP/s, load {os.getloadavg()[0]:.1f}")
    for net in options.nets.split(","):
        shape, classes = NETS[net]
        plan = build_plan(net, input_shape=shape, classes=classes)
        for batch in batches:
            runtimes = {d: sparse_runtime(plan, d, batch) for d in densities}
            steps: dict[str, Callable[[], object]] = {"torch": torch_step(plan, batch)}
            steps |= {str(d): partial(runtime.step, *samples(plan, batch)) for d, runtime in runtimes.items()}
            times = interleaved(steps, options.seconds)
            row = f"{net:8} batch {batch:2}  torch dense {times['torch']:8.2f} ms"
            for density in densities:
                row += f" | {density}: {times[str(density)]:7.3f} ms {times['torch'] / times[str(density)]:5.1f}x"
            print(row, flush=True)
            for density in densities if options.layers else ():
                lines, share = layers(runtimes[density], plan, batch, peak, max(10, int(300 / times[str(density)])))
                print(f"  density {density}: convolutions {share:.0%} of the peak on kept weights", *lines, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
