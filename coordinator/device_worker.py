"""A device's process, fresh: what it takes to train a bundle, and what this machine's core can do.

    python -m coordinator.device_worker BUNDLE[:BUNDLE...] BATCH STEPS SAMPLES [SECONDS]
    python -m coordinator.device_worker machine

The first loads what `hidenseek-edge join` loads, trains STEPS steps or SECONDS seconds, whichever is longer, on
SAMPLES samples, tries the network on as many, and prints a line of JSON: the largest resident memory after each of
these, in bytes, and the seconds of every step, by the clock and of the processor; a line for each of several bundles,
one after the other in the same process. A bundle's SHA-256 lies beside it in BUNDLE.id. Neither needs more than a
device has, so both run on boards as they are.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np

TRIES = 40
COPIES = 5


def main() -> int:
    """See above."""
    if sys.argv[1] == "machine":
        sys.stdout.write(json.dumps(machine()) + "\n")
        return 0
    for path in sys.argv[1].split(os.pathsep):
        sys.stdout.write(json.dumps(train(Path(path), *map(float, sys.argv[2:]))) + "\n")
    return 0


def train(path: Path, batch: float, steps: float, samples: float, seconds: float = 0.0) -> dict[str, object]:
    """Train a bundle; see above."""
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
    plan, size, count = bundle.ticket.plan, int(batch), int(samples)
    # No random numbers: devices do not import numpy.random, which takes 3 MB.
    x = np.sin(np.arange(count * math.prod(plan.input_shape), dtype=np.float32)).reshape(count, *plan.input_shape)
    y = np.arange(count) % plan.classes
    note("samples")
    runtime = open_runtime(bundle, Training(batch=size), threads=1)
    note("opened")
    ones = np.ones(size, dtype=np.float32)
    by_clock: list[float] = []
    of_processor: list[float] = []
    while len(by_clock) < steps or sum(by_clock) < seconds:
        chosen = np.arange(len(by_clock) * size, (len(by_clock) + 1) * size) % count
        began, cpu_began = time.perf_counter(), time.process_time()
        runtime.step(x[chosen], y[chosen], ones)
        of_processor.append(time.process_time() - cpu_began)
        by_clock.append(time.perf_counter() - began)
    note("trained")
    trainer.count_correct(runtime, x, y)
    note("tried")
    return {"runtime": bundle.runtime, "peaks": peaks, "seconds": by_clock, "cpu_seconds": of_processor}


def machine() -> dict[str, object]:
    """What one core of this machine does at best, the runtimes that are here, and the clock while it did it."""
    from edge_client import readings
    from edge_client.runtimes import registry

    return {
        "flops": multiply_adds(),
        "bandwidth": copied(),
        "frequency_mhz": readings.board().frequency_mhz,
        "runtimes": registry.available(),
    }


def multiply_adds() -> float | None:
    """What one core multiplies and adds in a second, the best of many short runs; None: no kernels are built."""
    from edge_client.kernels import library
    from wire.errors import RuntimeMissing

    try:
        kernels = library.load()
    except RuntimeMissing:
        return None
    sink, best = ctypes.c_float(), 0.0
    for _ in range(TRIES):
        start = time.process_time()
        done = kernels.hs_multiply_adds(300_000, sink)
        best = max(best, done / (time.process_time() - start))
    return best


def copied() -> float:
    """Bytes that one core reads and writes in a second when it copies 64 MB, the best of five."""
    source = np.ones(8 << 20, dtype=np.float64)
    target = np.empty_like(source)
    best = 0.0
    for _ in range(COPIES):
        start = time.process_time()
        np.copyto(target, source)
        best = max(best, 2 * source.nbytes / (time.process_time() - start))
    return best


if __name__ == "__main__":
    sys.exit(main())
