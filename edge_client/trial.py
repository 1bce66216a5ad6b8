"""Whether a new client or bundle does here what it is for: one real training step, in the memory it may take."""

from __future__ import annotations

import math

import numpy as np

from edge_client import readings
from edge_client.data import DeviceData
from edge_client.runtimes.base import Floats, Runtime
from edge_client.runtimes.registry import open_runtime
from edge_client.trainer import log_prior
from wire.bundle import Bundle
from wire.errors import StateError
from wire.settings import Training


def step(runtime: Runtime, data: DeviceData, prior: Floats, training: Training) -> None:
    """Train one step on the device's first samples; what it changes is set anew when a round's training begins.

    Args:
        runtime: a loaded ticket.
        data: the device's.
        prior: `trainer.log_prior` of its labels, float32 (classes,).
        training: the federation's.

    Raises:
        StateError: if its loss is no number.
        HidenseekError: whatever the runtime says.
    """
    x, y = data.x_train[: training.batch], data.y_train[: training.batch]
    runtime.set_log_prior(prior)
    runtime.set_scores(runtime.scores())
    loss = runtime.step(x, y, np.ones(y.size, dtype=np.float32)).loss
    if not math.isfinite(loss):
        raise StateError(f"the loss of its first training step is {loss}")


def bundle(tried: Bundle, data: DeviceData, training: Training, *, threads: int, peak_mb: float | None) -> None:
    """See that a bundle fits the device's data and trains on them, in the memory that it may take.

    Args:
        tried: with its runtime.
        data: the device's.
        training: of the run that it is for.
        threads: cores to train with.
        peak_mb: as of `check_memory`.

    Raises:
        HidenseekError: if it does not; with what is wrong.
    """
    plan, before_kb = tried.ticket.plan, readings.peak_memory_kb()
    data.check(plan)
    runtime = open_runtime(tried, training, threads)
    step(runtime, data, log_prior(data.y_train, plan.classes), training)
    check_memory(peak_mb, before_kb)


def check_memory(peak_mb: float | None, before_kb: int = 0) -> None:
    """Hold the largest memory of this process so far against a device's budget.

    Args:
        peak_mb: 1e6 bytes; None for no limit.
        before_kb: the largest before what is tried now; it is not to blame for that.

    Raises:
        StateError: if it is above.
    """
    took_kb = readings.peak_memory_kb()
    took_mb = took_kb * 1024 / 1e6
    if peak_mb is not None and took_mb > peak_mb and took_kb > before_kb:
        raise StateError(f"it took {took_mb:.1f} MB to train, and the device's budget is {peak_mb:g} MB")
