"""What a round of training costs, measured while it trains, for less than a hundredth of its time (docs/profiling.md).

Counters and clocks are read in every round. What takes longer - memory page by page, the arena, the board - is read
in the first round, and again when training has since taken so many times as long that it costs next to nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge_client import readings
from edge_client.energy import CODES, Meter
from edge_client.readings import ROOT, Usage
from edge_client.runtimes.base import Doubles, LayerClock, PlannedMemory, Runtime
from edge_client.trainer import Trained
from wire.telemetry import RoundTelemetry, histogram

LAYERS_EVERY = 16  # steps: of so many, one is timed layer by layer
SLOW_SHARE = 0.0025  # of training, for what takes long to read


@dataclass
class Sampler:
    """Measures one round after another on one runtime.

    Args:
        runtime: what trains.
        root: of /proc and /sys.
    """

    runtime: Runtime
    root: Path = ROOT
    _meter: Meter = field(init=False)
    _began: Usage = field(init=False)
    _clock: LayerClock | None = None
    _memory: PlannedMemory | None = None
    _steps: int = 0
    _trained_s: float = 0.0  # processor seconds, since what takes long was read
    _slow_s: float = 0.0  # processor seconds that that took

    def __post_init__(self) -> None:
        self._meter = Meter(self.root)
        if isinstance(self.runtime, LayerClock):  # asked once: that takes longer than reading a clock
            self._clock = self.runtime
        if isinstance(self.runtime, PlannedMemory):
            self._memory = self.runtime
        self.start()

    def start(self) -> None:
        """Training begins."""
        self._began, self._steps = readings.usage(), 0
        self._meter.start()
        if self._clock is not None:
            self._clock.clock_layers(on=False)
            self._clock.reset_layer_clock()

    def before_step(self) -> None:
        """A step begins."""
        if self._clock is not None and self._steps % LAYERS_EVERY < 2:
            self._clock.clock_layers(on=self._steps % LAYERS_EVERY == 0)
        self._steps += 1
        self._meter.tick()

    def finish(self, number: int, trained: Trained) -> RoundTelemetry:
        """Training of a round is over; what is not of the training itself is left unknown."""
        now, energy = readings.usage(), self._meter.millijoules()
        times_us = np.sort(trained.steps_s) * 1e6
        p50, p95, p99 = (round(_percentile(times_us, share)) for share in (0.5, 0.95, 0.99))
        first, counts = histogram(times_us.tolist())
        forward, backward = self._layers()
        began = self._began
        return RoundTelemetry(
            number=number,
            steps=len(times_us),
            step_p50_us=p50,
            step_p95_us=p95,
            step_p99_us=p99,
            step_max_us=round(float(times_us[-1])),
            first_bucket=first,
            bucket_counts=counts,
            train_ms=round(trained.train_s * 1000),
            minor_faults=now.minor_faults - began.minor_faults,
            major_faults=now.major_faults - began.major_faults,
            voluntary_switches=now.voluntary_switches - began.voluntary_switches,
            involuntary_switches=now.involuntary_switches - began.involuntary_switches,
            cpu_ms=round((now.cpu_s - began.cpu_s) * 1000),
            energy_mj=energy,
            energy_source=None if self._meter.source is None else CODES[self._meter.source],
            forward_us=forward,
            backward_us=backward,
            **self._slow(now.cpu_s - began.cpu_s),
        )

    def _slow(self, trained_s: float) -> dict[str, Any]:
        """What takes long to read, if it is time to read it again after so many more processor seconds of training."""
        self._trained_s += trained_s
        if self._slow_s > SLOW_SHARE * self._trained_s:
            return {}
        began_s = time.thread_time()
        memory, board = readings.memory(self.root), readings.board(self.root)
        planned, used = self._arena()
        self._slow_s, self._trained_s = time.thread_time() - began_s, 0.0
        return {
            "rss_kib": memory.rss_kib,
            "pss_kib": memory.pss_kib,
            "peak_kib": memory.peak_kib or None,
            "arena_planned_bytes": planned,
            "arena_used_bytes": used,
            "frequency_mhz": board.frequency_mhz,
            "temperature_c": board.temperature_c,
            "throttled": board.throttled,
        }

    def _layers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Microseconds of one step at every layer of the plan, forward and backward; empty if not known."""
        if self._clock is None:
            return (), ()
        timed = -(-self._steps // LAYERS_EVERY)
        forward, backward = (np.rint(seconds * 1e6 / timed) for seconds in self._clock.layer_seconds())
        return tuple(map(int, forward)), tuple(map(int, backward))

    def _arena(self) -> tuple[int | None, int | None]:
        """Bytes that the runtime has planned for training, and of them those ever touched; None if not known."""
        if self._memory is None:
            return None, None
        return readings.arena_bytes(self._memory.arenas())


def _percentile(ordered: Doubles, share: float) -> float:
    """Of ordered values, the one that `share` of them lie below, between two of them in proportion (as numpy's)."""
    at = share * (len(ordered) - 1)
    low = int(at)
    return float(ordered[low] + (at - low) * (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]))
