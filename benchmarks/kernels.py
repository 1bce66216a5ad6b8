"""`make bench-kernels`: one training step on every runtime, and what limits ours.

Every runtime runs in a fresh process with one thread. For a network and a batch all of them are loaded,
then take turns of a few steps, so that a neighbour's load hits all alike; what is reported are medians
over the turns, and ratios of medians. Dense PyTorch does not depend on the density: it takes its turns
beside every density again. A turn begins with a step that is not timed: training runs step after step, and the
first one after another process's turn would pay for its cold caches.

    make bench-kernels
    make bench-kernels NETS=conv4 DENSITIES=0.05 BATCH=32      # one point, under a minute
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import metadata
from math import prod
from pathlib import Path
from statistics import median

from benchmarks.kernel_process import RUNTIMES
from benchmarks.machine import commit, describe, fma_peak
from benchmarks.roofline import write_roofline
from coordinator.models import build_plan
from coordinator.prune import prune
from wire.errors import PruneError
from wire.plan import Plan
from wire.ticket import Ticket

ROOT = Path(__file__).resolve().parents[1]
NETS = {"har-cnn": ((6, 128), 6), "lenet": ((1, 28, 28), 10), "conv2": ((1, 28, 28), 10), "conv4": ((1, 28, 28), 10)}
TURN_S = 0.3
TURNS = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One runtime at one point. `ratio_to_torch_dense` above 1 means faster."""

    net: str
    sparsity: str
    density: float
    batch: int
    mode: str
    runtime: str
    step_ms: float
    ratio_to_torch_dense: float
    peak_rss_mb: float
    fma_peak_share: float
    intensity: float  # operations per byte moved, estimated; see `traffic_bytes`


class Worker:
    """A runtime's process."""

    def __init__(self, runtime: str, mode: str, ticket: Path, batch: int) -> None:
        self.runtime = runtime
        environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.kernel_process", runtime, mode, ticket, str(batch)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT,
        )  # fmt: skip
        self._read()
        self._steps = max(1, round(TURN_S * 1e3 / self.turn(1)))

    def turn(self, steps: int | None = None) -> float:
        """Take a turn; its mean milliseconds a step."""
        self._process.stdin.write(f"run {steps or self._steps}\n")
        self._process.stdin.flush()
        return self._read()["step_ms"]

    def end(self) -> float:
        """Stop; the process's peak resident memory in MB."""
        self._process.stdin.close()
        peak = self._read()["peak_rss_mb"]
        self._process.wait()
        return peak

    def _read(self) -> dict[str, float]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.runtime} ended with exit code {self._process.wait()}")
        return json.loads(line)


def measure(ticket: Ticket, batch: int, mode: str, runtimes: list[str], peak_gflops: float, labels: dict) -> list[Row]:
    """Let all runtimes take turns at one point."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.hns"
        path.write_bytes(ticket.encoded)
        workers = [Worker(runtime, mode, path, batch) for runtime in runtimes]
        times: dict[str, list[float]] = {runtime: [] for runtime in runtimes}
        for _ in range(TURNS):
            for worker in workers:
                times[worker.runtime].append(worker.turn())
        memory = {worker.runtime: worker.end() for worker in workers}
    medians = {runtime: median(values) for runtime, values in times.items()}
    flops = 2 * batch * step_macs(ticket, mode)
    return [
        Row(
            **labels,
            batch=batch,
            mode=mode,
            runtime=runtime,
            step_ms=round(ms, 4),
            ratio_to_torch_dense=round(medians["torch-dense"] / ms, 3),
            peak_rss_mb=memory[runtime],
            fma_peak_share=round(flops / (ms * 1e-3) / (peak_gflops * 1e9), 4),
            intensity=round(flops / traffic_bytes(ticket, batch, mode), 2),
        )
        for runtime, ms in medians.items()
    ]


def first_ticket(plan: Plan, density: float, method: str) -> Ticket:
    """The first seed's whose mask reaches every class; at 0.02 a uniform random mask often does not."""
    for seed in range(100):
        try:
            return prune(plan, density=density, seed=seed, method=method)
        except PruneError:
            continue
    raise SystemExit(f"no seed below 100 gives {plan.name} at density {density} by {method} a path to every class")


def step_macs(ticket: Ticket, mode: str) -> int:
    """Multiply-adds on kept weights one sample costs: forward, weight gradient, and input gradient but the first's."""
    kept = [layer.kept_macs for layer in ticket.kept_layers]
    return sum(kept) if mode == "infer" else 3 * sum(kept) - kept[0]


def traffic_bytes(ticket: Ticket, batch: int, mode: str) -> int:
    """Bytes a step must move if every activation were read and written once a pass, and indices once a micro-batch."""
    passes = 1 if mode == "infer" else 3
    activations = sum(
        4 * (prod(layer.shape.input_shape) + prod(layer.shape.output_shape)) for layer in ticket.kept_layers
    )
    indices = sum(2 * layer.blocks.size + layer.kept // 8 for layer in ticket.kept_layers)
    return passes * (batch * activations + -(-batch // 8) * indices)


def main() -> int:
    """Measure, print as it goes, write JSON and the roofline."""
    options = parse()
    machine, peak = describe(), fma_peak()
    print(f"{machine['cpu']}, multiply-add peak {peak:.1f} GFLOP/s measured, load {os.getloadavg()[0]:.1f}")
    print("net      sparsity density batch mode   runtime              ms       x     MB   peak")
    stem = options.output or ROOT / "benchmarks" / "results" / f"kernels-{time.strftime('%Y%m%d-%H%M')}"
    rows: list[Row] = []
    began = time.monotonic()
    for net in options.nets:
        shape, classes = NETS[net]
        plan = build_plan(net, input_shape=shape, classes=classes)
        points = [("uniform", density) for density in options.densities] + [("synflow", 0.10)] * options.synflow
        for sparsity, density in points:
            ticket = first_ticket(plan, density, sparsity)
            for batch in options.batches:
                for mode in options.modes:
                    labels = {"net": net, "sparsity": sparsity, "density": density}
                    for row in measure(ticket, batch, mode, options.runtimes, peak, labels):
                        rows.append(row)
                        show(row)
        write(stem, machine, peak, rows)
    print(
        f"{len(rows)} rows in {time.monotonic() - began:.0f} s: {stem.with_suffix('.json')}, {stem.with_suffix('.svg')}"
    )
    return 0


def write(stem: Path, machine: dict[str, object], peak: float, rows: list[Row]) -> None:
    """Write what there is; called after every network, so that an interrupt loses one at most."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime", "numpy")}
    result = {
        "machine": machine,
        "fma_peak_gflops": round(peak, 1),
        "commit": commit(),
        "versions": versions | {"python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "rows": [asdict(row) for row in rows],
    }
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    write_roofline(stem.with_suffix(".svg"), result)


def show(row: Row) -> None:
    """One line of the table."""
    print(
        f"{row.net:8} {row.sparsity:8} {row.density:7.2f} {row.batch:5} {row.mode:6} {row.runtime:13} "
        f"{row.step_ms:9.3f} {row.ratio_to_torch_dense:6.1f}x {row.peak_rss_mb:6.0f} {row.fma_peak_share:6.1%}",
        flush=True,
    )


def parse() -> argparse.Namespace:
    """Options, all of them lists separated by commas."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def of(kind: type) -> object:
        return lambda text: [kind(part) for part in text.split(",") if part]

    parser.add_argument("--nets", type=of(str), default=list(NETS))
    parser.add_argument("--densities", type=of(float), default=[0.20, 0.10, 0.05, 0.02])
    parser.add_argument("--batches", type=of(int), default=[1, 16, 32])
    parser.add_argument("--modes", type=of(str), default=["train"], help="train, infer")
    parser.add_argument(
        "--runtimes", type=of(str), default=["torch-dense", "torch-masked", "onnx", "sparse"], help=", ".join(RUNTIMES)
    )
    parser.add_argument("--synflow", action="store_true", help="SynFlow tickets of density 0.10 too")
    parser.add_argument("--output", type=Path, help="path without suffix")
    options = parser.parse_args()
    if "torch-dense" not in options.runtimes:
        parser.error("--runtimes must name torch-dense: everything is a ratio to it")
    return options


if __name__ == "__main__":
    sys.exit(main())
