"""What a round of training costs, measured while it trains, for a few milliseconds a round (docs/profiling.md)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_client import readings
from edge_client.energy import CODES, Meter
from edge_client.readings import ROOT, Usage
from edge_client.runtimes.base import LayerClock, Runtime
from edge_client.trainer import Trained
from wire.telemetry import RoundTelemetry, histogram

LAYERS_EVERY = 16  # steps: of so many, one is timed layer by layer


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
    _steps: int = 0

    def __post_init__(self) -> None:
        self._meter = Meter(self.root)
        if isinstance(self.runtime, LayerClock):  # asked once: that takes longer than reading a clock
            self._clock = self.runtime
        self.start()

    def start(self) -> None:
        """Training begins."""
        self._began, self._steps = readings.usage(self.root), 0
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
        now, memory, board = readings.usage(self.root), readings.memory(self.root), readings.board(self.root)
        times_us = np.array(trained.steps_s) * 1e6
        p50, p95, p99 = (round(float(one)) for one in np.percentile(times_us, (50, 95, 99)))
        first, counts = histogram(times_us.tolist())
        planned, used = self._arena()
        forward, backward = self._layers()
        energy = self._meter.millijoules()
        began = self._began
        return RoundTelemetry(
            number=number,
            steps=len(times_us),
            step_p50_us=p50,
            step_p95_us=p95,
            step_p99_us=p99,
            step_max_us=round(float(times_us.max())),
            first_bucket=first,
            bucket_counts=counts,
            train_ms=round(trained.train_s * 1000),
            rss_kib=memory.rss_kib,
            pss_kib=memory.pss_kib,
            peak_kib=memory.peak_kib or None,
            arena_planned_bytes=planned,
            arena_used_bytes=used,
            minor_faults=now.minor_faults - began.minor_faults,
            major_faults=now.major_faults - began.major_faults,
            voluntary_switches=now.voluntary_switches - began.voluntary_switches,
            involuntary_switches=now.involuntary_switches - began.involuntary_switches,
            cpu_ms=round((now.cpu_s - began.cpu_s) * 1000),
            frequency_mhz=board.frequency_mhz,
            temperature_c=board.temperature_c,
            throttled=board.throttled,
            energy_mj=energy,
            energy_source=None if self._meter.source is None else CODES[self._meter.source],
            forward_us=forward,
            backward_us=backward,
        )

    def _layers(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Microseconds of one step at every layer of the plan, forward and backward; empty if not known."""
        if self._clock is None:
            return (), ()
        timed = -(-self._steps // LAYERS_EVERY)
        forward, backward = (np.rint(seconds * 1e6 / timed) for seconds in self._clock.layer_seconds())
        return tuple(map(int, forward)), tuple(map(int, backward))

    def _arena(self) -> tuple[int | None, int | None]:
        """Bytes that the runtime has planned for training, and of them those ever touched; None if it has no plan."""
        if self._clock is None:
            return None, None
        address, planned = self._clock.arena()
        return planned, readings.touched_bytes(address, planned)
