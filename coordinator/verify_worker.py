"""One runtime of an exported folder, run in a process of its own: its numbers against torch autograd."""

from __future__ import annotations

import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edge_client.readings import peak_memory_kb
from edge_client.runtimes import registry
from export.comparison import GRADIENT_OF, SIGNS_APART, Row, largest
from wire.bundle import Bundle
from wire.errors import ExportError
from wire.settings import Training

if TYPE_CHECKING:
    from export.verify import OpenRuntime

STEPS = 50
TIMED_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What came of one runtime.

    Attributes:
        rows: all comparisons.
        step_ms: median milliseconds of a training step of a full batch on this machine, one thread.
        runtime_mb: 1e6 bytes that loading and training added to the process.
        seconds: that all of it took.
    """

    rows: tuple[Row, ...]
    step_ms: float
    runtime_mb: float
    seconds: float

    @property
    def ok(self) -> bool:
        """True if nothing differs by too much."""
        return all(row.ok for row in self.rows)

    @property
    def worst_gradient(self) -> float:
        """Largest error of a layer's gradient, over the layer's largest gradient."""
        return largest(self.rows, GRADIENT_OF)

    @property
    def signs_apart(self) -> float:
        """Largest share of signs that differed after one of the training steps, 0 to 1."""
        return largest(self.rows, SIGNS_APART)


def verify(folder: Path, runtime: str) -> Verified:
    """Check one runtime of a folder in a fresh process.

    Raises:
        ExportError: if the process dies, as a broken native runtime makes it.
        HidenseekError: as reading the folder and opening the runtime do.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the reference shall not fight the runtime for the processor
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    try:
        return pool.submit(_verify, folder, runtime).result()
    except BrokenProcessPool as error:
        raise ExportError(
            f"the process that ran '{runtime}' died", where=str(folder / runtime), hint="Report it with the folder"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _verify(folder: Path, name: str) -> Verified:
    from export import manifest

    began = time.monotonic()
    exported = manifest.read(folder)
    bundle, training = exported.bundles[name], exported.training
    before = peak_memory_kb()
    runtime = _open(bundle, training)
    step_ms = _step_ms(runtime, bundle.ticket.plan.input_shape, training)
    grown = peak_memory_kb() - before

    from export.verify import check

    rows = check(bundle, training, runtime, batch=training.batch, steps=STEPS)
    return Verified(
        rows=tuple(rows),
        step_ms=step_ms,
        runtime_mb=grown * 1024 / 1e6,
        seconds=time.monotonic() - began,
    )


def _open(bundle: Bundle, training: Training) -> OpenRuntime:
    if bundle.runtime == "executorch-trainer":
        from export.executorch_app import ExecutorchApp

        return ExecutorchApp(bundle, training)
    return registry.open_runtime(bundle, training)


def _step_ms(runtime: OpenRuntime, input_shape: tuple[int, ...], training: Training) -> float:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((training.batch, *input_shape)).astype(np.float32)
    y, weights = np.zeros(training.batch, dtype=np.int64), np.ones(training.batch, dtype=np.float32)
    taken = []
    for _ in range(TIMED_STEPS):
        start = time.perf_counter()
        runtime.step(x, y, weights)
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)
