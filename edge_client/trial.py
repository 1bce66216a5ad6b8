"""Whether a new client does here what it is for, before it stays: one real training step, in the memory it may take."""

from __future__ import annotations

import math

import numpy as np

from edge_client import readings
from edge_client.data import DeviceData
from edge_client.runtimes.base import Floats, Runtime
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


def check_memory(peak_mb: float | None) -> None:
    """Hold the largest memory of this process so far against a device's budget.

    Args:
        peak_mb: 1e6 bytes; None for no limit.

    Raises:
        StateError: if it is above.
    """
    took_mb = readings.peak_memory_kb() * 1024 / 1e6
    if peak_mb is not None and took_mb > peak_mb:
        raise StateError(f"it took {took_mb:.1f} MB to train, and the device's budget is {peak_mb:g} MB")
