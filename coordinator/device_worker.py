"""A device's process, fresh: what it takes to train a bundle, and what this machine's core can do.

    python -m coordinator.device_worker BUNDLE BATCH STEPS SAMPLES [SECONDS]
    python -m coordinator.device_worker turns BUNDLE:BUNDLE... BATCH SAMPLES SECONDS
    python -m coordinator.device_worker machine

The first loads what `hidenseek-edge join` loads, trains STEPS steps or SECONDS seconds, whichever is longer, on
SAMPLES samples, tries the network on as many, and prints a line of JSON: the largest resident memory after each of
these, in bytes, and the seconds of every step, by the clock and of the processor.

The second opens all bundles and prints a line with the largest resident memory after the first of them, or why its
runtime is missing. To every line that it is told it trains each for SECONDS and answers with the processor's seconds of
every step, by bundle; to "machine" with what one core of this machine does, which the third prints by itself.

A bundle's SHA-256 lies beside it in BUNDLE.id. All need no more than a device has, so they run on boards as they are.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TRIES = 40  # each for a millisecond or a few
COPIES, COPIED = 4, 32 << 20  # bytes: more than caches hold
LEAST_STEPS = 2  # of a turn


def main() -> int:
    """See above."""
    what, *rest = sys.argv[1:]
    if what == "machine":
        _say(machine())
    elif what == "turns":
        take_turns([Path(path) for path in rest[0].split(os.pathsep)], *map(float, rest[1:]))
    else:
        _say(train(Path(what), *map(float, rest)))
    return 0


def train(path: Path, batch: float, steps: float, samples: float, seconds: float = 0.0) -> dict[str, object]:
    """Train a bundle; see above."""
    trial = _Trial(path, int(batch), int(samples))
    by_clock, of_processor = trial.steps(int(steps), seconds)
    trial.note("trained")
    trial.try_all()
    trial.note("tried")
    return {
        "runtime": trial.bundle.runtime,
        "peaks": trial.peaks,
        "seconds": by_clock,
        "cpu_seconds": of_processor,
    }


def take_turns(paths: list[Path], batch: float, samples: float, seconds: float) -> None:
    """Train bundles whenever told to; see above."""
    from wire.errors import RuntimeMissing, TicketError

    try:
        trials = [_Trial(path, int(batch), int(samples)) for path in paths]
    except (RuntimeMissing, TicketError) as error:  # a program of another version is as good as none
        _say({"missing": str(error)})
        return
    for trial in trials:
        trial.steps(1, 0.0)  # the first takes what others do not
    _say({"opened": trials[0].peaks["opened"]})
    for line in sys.stdin:
        if line.strip() == "machine":
            _say(machine())
        else:
            _say({"cpu_seconds": [trial.steps(LEAST_STEPS, seconds)[1] for trial in trials]})


class _Trial:
    """A bundle that this process trains on made-up samples, with all loaded that a device loads.

    Args:
        path: of the bundle.
        batch: samples of a step.
        samples: in all.
    """

    def __init__(self, path: Path, batch: int, samples: int) -> None:
        from edge_client import cli, client, workshop  # noqa: F401  # all that a device imports
        from edge_client.runtimes.registry import open_runtime
        from wire import mqtt  # noqa: F401
        from wire.bundle import decode_bundle
        from wire.settings import Training

        self.peaks: dict[str, int] = {}
        self.note("imported")
        self.bundle = decode_bundle(path.read_bytes(), expected_id=Path(f"{path}.id").read_bytes())
        self.note("decoded")
        plan = self.bundle.ticket.plan
        # No random numbers: devices do not import numpy.random, which takes 3 MB.
        x = np.sin(np.arange(samples * math.prod(plan.input_shape), dtype=np.float32))
        self._x, self._y = x.reshape(samples, *plan.input_shape), np.arange(samples) % plan.classes
        self.note("samples")
        self._batch = batch
        self._runtime = open_runtime(self.bundle, Training(batch=batch), threads=1)
        self.note("opened")

    def note(self, stage: str) -> None:
        """Write down the largest resident memory so far."""
        from edge_client.readings import peak_memory_kb

        self.peaks[stage] = peak_memory_kb() * 1024

    def steps(self, least: int, seconds: float) -> tuple[list[float], list[float]]:
        """Train so many steps and so long at least; seconds of every step by the clock, and of the processor."""
        ones = np.ones(self._batch, dtype=np.float32)
        by_clock: list[float] = []
        of_processor: list[float] = []
        while len(by_clock) < least or sum(by_clock) < seconds:
            first = len(by_clock) * self._batch
            chosen = np.arange(first, first + self._batch) % len(self._x)
            began, cpu_began = time.perf_counter(), time.process_time()
            self._runtime.step(self._x[chosen], self._y[chosen], ones)
            of_processor.append(time.process_time() - cpu_began)
            by_clock.append(time.perf_counter() - began)
        return by_clock, of_processor

    def try_all(self) -> None:
        """Try the network on all samples, as a device does between rounds."""
        from edge_client import trainer

        trainer.count_correct(self._runtime, self._x, self._y)


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def machine() -> dict[str, object]:
    """What one core of this machine does at best in a second, and the runtimes that are here."""
    from edge_client.runtimes import registry

    return {
        "flops": multiply_adds(),
        "bandwidth": copied(),
        "clock": cycles(),
        "runtimes": registry.available(),
    }


def multiply_adds() -> float | None:
    """Floating-point operations of a second; None: no kernels are built."""
    sink = ctypes.c_float()
    return _calm(lambda kernels: kernels.hs_multiply_adds(200_000, sink))


def cycles() -> float | None:
    """Cycles of a second: what a core's clock is while it works, whatever it is called; None: no kernels are built."""
    return _calm(lambda kernels: kernels.hs_cycles(50_000))


def _calm(work: Callable[[Any], int]) -> float | None:
    """What kernels do in a second of the processor, in a calm one of many short runs.

    Not in the best: where a hypervisor takes time away, single runs seem shorter than they were.
    """
    from edge_client.kernels import library
    from wire.errors import RuntimeMissing

    try:
        kernels = library.load()
    except RuntimeMissing:
        return None
    found = []
    for _ in range(TRIES):
        start = time.process_time()
        done = work(kernels)
        found.append(done / (time.process_time() - start))
    return statistics.quantiles(found, n=10)[-1]


def copied() -> float:
    """Bytes that one core reads and writes in a second when it copies COPIED bytes, the best of COPIES."""
    source = np.ones(COPIED // 8, dtype=np.float64)
    target = np.empty_like(source)
    best = 0.0
    for _ in range(COPIES):
        start = time.process_time()
        np.copyto(target, source)
        best = max(best, 2 * source.nbytes / (time.process_time() - start))
    return best


if __name__ == "__main__":
    sys.exit(main())
