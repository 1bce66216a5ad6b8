"""What a step of the onnx runtime saves by keeping freed memory: the same process with and without, taking turns.

python -m benchmarks.onnx_heap        # two minutes; writes benchmarks/results/onnx-heap.json
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.machine import commit, describe
from edge_client import readings
from edge_client.profiler import random_data
from edge_client.runtimes import onnx
from wire.bundle import decode_bundle
from wire.settings import Training

RESULT = Path(__file__).resolve().parent / "results" / "onnx-heap.json"
NETS = ("mlp", "lenet", "har-cnn", "conv2", "conv4", "resnet8")
TURNS, SECONDS, FEWEST = 3, 3.0, 8


def one(path: Path, *, keep: bool) -> dict[str, float]:
    """CPU milliseconds and minor page faults of a step, and the peak of this process in KiB."""
    if not keep:
        onnx._keep_freed_memory = lambda: None
    data, training = path.read_bytes(), Training()
    bundle = decode_bundle(data, expected_id=sha256(data).digest())
    runtime = onnx.OnnxRuntime(bundle, training)
    x, y = random_data(bundle, training)
    weights, steps = np.ones(training.batch, np.float32), []
    for _ in range(3):
        runtime.step(x, y, weights)
    end_s, before = time.perf_counter() + SECONDS, readings.usage()
    while time.perf_counter() < end_s or len(steps) < FEWEST:
        began_s = time.process_time()
        runtime.step(x, y, weights)
        steps.append(time.process_time() - began_s)
    faults = readings.usage().minor_faults - before.minor_faults
    runtime.logits(np.repeat(x, 4, 0))
    return {"step_ms": median(steps) * 1e3, "faults": faults / len(steps), "peak_kib": readings.peak_memory_kb()}


def main() -> None:
    """Measure, print, write."""
    if len(sys.argv) == 3:
        print(json.dumps(one(Path(sys.argv[1]), keep=sys.argv[2] == "keep")))
        return
    from coordinator.models import build_plan
    from coordinator.prune import prune
    from export.bundle import make_bundle

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NETS:
            path = Path(folder) / f"{name}.hnsb"
            ticket = prune(build_plan(name), density=0.1, seed=0, method="uniform")
            path.write_bytes(make_bundle(ticket, "onnx", Training()).encoded)
            found: dict[str, list[dict[str, float]]] = {"give": [], "keep": []}
            for _ in range(TURNS):
                for how, so_far in found.items():
                    command = [sys.executable, "-m", "benchmarks.onnx_heap", str(path), how]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    so_far.append(json.loads(done.stdout))
            row: dict[str, object] = {"net": name}
            for figure in ("step_ms", "faults", "peak_kib"):
                for how, so_far in found.items():
                    row[f"{figure}_{how}"] = round(median(one[figure] for one in so_far), 3)
            rows.append(row)
            print(f"{name}: {row['step_ms_give']} -> {row['step_ms_keep']} ms of processor time a step", flush=True)
    RESULT.write_text(json.dumps({"machine": describe(), "commit": commit(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
