"""A device's process, fresh: what it takes to train a bundle. The other end of `benchmarks/planner.py`.

`planner_process.py BUNDLE BATCH STEPS SAMPLES` loads what `hidenseek-edge join` loads, trains STEPS steps of BATCH on
SAMPLES random samples and tries the network on as many, and prints a line of JSON: the largest resident memory after
each of these, in bytes, and the seconds of every step. It needs no torch and runs on a board as it is.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np


def main() -> int:
    """See above."""
    path, batch, steps, samples = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    from edge_client import cli, client, trainer  # noqa: F401  # all that a device imports
    from edge_client.readings import peak_memory_kb
    from edge_client.runtimes.registry import open_runtime
    from wire import mqtt  # noqa: F401
    from wire.bundle import decode_bundle
    from wire.settings import Training

    peaks = {"imported": peak_memory_kb() * 1024}

    def note(stage: str) -> None:
        peaks[stage] = peak_memory_kb() * 1024

    bundle = decode_bundle(path.read_bytes(), expected_id=Path(f"{path}.id").read_bytes())
    note("decoded")
    plan = bundle.ticket.plan
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, *plan.input_shape), dtype=np.float32)
    y = rng.integers(0, plan.classes, samples)
    note("samples")
    runtime = open_runtime(bundle, Training(batch=batch), threads=1)
    note("opened")
    ones, seconds = np.ones(batch, dtype=np.float32), []
    for number in range(steps):
        chosen = np.arange(number * batch, (number + 1) * batch) % samples
        began = time.perf_counter()
        runtime.step(x[chosen], y[chosen], ones)
        seconds.append(time.perf_counter() - began)
        if number == 0:
            note("step")
    note("steps")
    trainer.count_correct(runtime, x, y)
    note("evaluated")
    print(json.dumps({"runtime": bundle.runtime, "peaks": peaks, "seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
