"""What a ticket costs on this machine, measured by training it here for some seconds: no coordinator, no torch.

The steps are those of a federation (`edge_client.trainer` makes them the same way). First they are run undisturbed, for
latency, memory and what the system says; then some more with the runtime's own clocks on, layer by layer or, with a
runtime opened a second time, operator by operator.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from edge_client import readings
from edge_client.breakdown import TIMED_SHARE, Batch, Breakdown
from edge_client.energy import Meter
from edge_client.readings import ROOT
from edge_client.runtimes.base import Doubles, Floats, Labels, PlannedMemory, Runtime
from edge_client.runtimes.registry import open_runtime, version_of
from wire import __version__
from wire.bundle import Bundle
from wire.profile_report import (
    FORMAT,
    VERSION,
    Board,
    ColdStart,
    Latency,
    Memory,
    ProfileReport,
    Subject,
    System,
)
from wire.settings import Training
from wire.telemetry import histogram

WARM_UP = 3  # steps: buffers are touched, the clock of the processor goes up
FEWEST, MOST = 20, 20_000  # steps that are measured
READ_EVERY_S = 1.0  # the board
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(kw_only=True)
class Profiler:
    """One measurement.

    Args:
        bundle: what to train.
        training: optimiser and batch.
        x: samples to take batches from, float32 (n, *input_shape); n at least 1.
        y: labels, int64 (n,).
        data: where they are from.
        seconds: about how long to measure; longer where that is fewer than 20 steps.
        threads: for the runtime.
        profile: kind of hardware, a name from devices.yaml.
        tell: told what is going on, in words.
        root: of /proc and /sys.
    """

    bundle: Bundle
    training: Training
    x: Floats
    y: Labels
    data: str
    seconds: float
    threads: int = 1
    profile: str = ""
    tell: Callable[[str], None] = lambda _: None
    root: Path = ROOT
    _boards: list[readings.Board] = field(default_factory=list)

    def measure(self) -> ProfileReport:
        """Measure; takes about `seconds`.

        Raises:
            HidenseekError: as opening the runtime and its steps do.
        """
        started_s = _age_s(self.root)
        start = readings.memory(self.root)
        batches = self._batches()
        self.tell(f"opening the {self.bundle.runtime} runtime")
        began_s = time.perf_counter()
        runtime = open_runtime(self.bundle, self.training, self.threads)
        open_s = time.perf_counter() - began_s
        warm_up = [_step(runtime, batches[number % len(batches)]) for number in range(WARM_UP)]
        count = int(min(max(self.seconds * (1 - TIMED_SHARE) / min(warm_up), FEWEST), MOST))
        self.tell(f"up to {count:,} training steps")
        steps_s, memory, system = self._steady(runtime, batches, count, start)
        count = len(steps_s)
        breakdown = Breakdown(bundle=self.bundle, training=self.training, threads=self.threads, tell=self.tell)
        layers, operators = breakdown.layers(runtime, batches, count), breakdown.operators(runtime, batches, count)
        return ProfileReport(
            format=FORMAT,
            version=VERSION,
            software=f"hidenseek-edge {__version__}",
            made=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            profile=self.profile,
            board=board(self.root),
            subject=self._subject(),
            cold_start=ColdStart(
                import_ms=None if started_s is None else round(started_s * 1e3, 1),
                open_ms=round(open_s * 1e3, 3),
                first_step_ms=round(warm_up[0] * 1e3, 3),
            ),
            latency=_latency(steps_s, breakdown.flop),
            layers=layers,
            operators=operators,
            memory=memory,
            system=system,
        )

    def _batches(self) -> list[Batch]:
        """A few full batches, or one that repeats the samples if they are fewer."""
        size, weights = self.training.batch, np.ones(self.training.batch, dtype=np.float32)
        many = max(min(len(self.x) // size, 8), 1)
        rows = np.arange(many * size).reshape(many, size) % len(self.x)
        return [(self.x[chosen], self.y[chosen], weights) for chosen in rows]

    def _steady(
        self, runtime: Runtime, batches: list[Batch], count: int, start: readings.Memory
    ) -> tuple[Doubles, Memory, System]:
        """Undisturbed steps."""
        steps_s: Doubles = np.zeros(count)  # touched before the first step: it is not to be counted as growth
        meter = Meter(self.root)
        rss_kib, heap = readings.memory(self.root).rss_kib, readings.heap_bytes()
        written, read_s = readings.written_bytes(self.root), 0.0
        before = readings.usage()
        meter.start()
        began_s = now_s = time.perf_counter()
        half, number = False, 0
        while number < count and (number < FEWEST or now_s - began_s < self.seconds):
            batch = batches[number % len(batches)]
            step_began_s = time.perf_counter()
            runtime.step(*batch)
            now_s = time.perf_counter()
            steps_s[number] = now_s - step_began_s
            number += 1
            if not half and (number > count // 2 or now_s - began_s > self.seconds / 2):
                heap, half = readings.heap_bytes(), True
            if now_s - read_s >= READ_EVERY_S:
                meter.tick()
                self._boards.append(readings.board(self.root))
                read_s = now_s
        steps_s = steps_s[:number]
        seconds, millijoules = time.perf_counter() - began_s, meter.millijoules()
        after, grown = readings.usage(), readings.heap_bytes()
        memory = readings.memory(self.root)
        self._boards.append(readings.board(self.root))
        planned, used = readings.arena_bytes(runtime.arenas()) if isinstance(runtime, PlannedMemory) else (None, None)
        return (
            steps_s,
            Memory(
                start_kib=start.rss_kib,
                rss_kib=memory.rss_kib,
                pss_kib=memory.pss_kib,
                peak_kib=memory.peak_kib or None,
                arena_planned_bytes=planned,
                arena_used_bytes=used,
                heap_growth_bytes=_more(grown, heap),
                rss_growth_kib=_more(memory.rss_kib, rss_kib),
            ),
            System(
                seconds=round(seconds, 4),
                cpu_share=round((after.cpu_s - before.cpu_s) / seconds, 3),
                minor_faults=after.minor_faults - before.minor_faults,
                major_faults=after.major_faults - before.major_faults,
                voluntary_switches=after.voluntary_switches - before.voluntary_switches,
                involuntary_switches=after.involuntary_switches - before.involuntary_switches,
                written_bytes=_more(readings.written_bytes(self.root), written),
                energy_source=meter.source,
                energy_j=None if millijoules is None else millijoules / 1e3,
                energy_per_step_mj=None if millijoules is None else round(millijoules / number, 4),
                **self._condition(),
            ),
        )

    def _condition(self) -> dict[str, Any]:
        """What was read of the board while the steps ran."""
        clocks = [one.frequency_mhz for one in self._boards if one.frequency_mhz is not None]
        bits = [one.throttled for one in self._boards if one.throttled is not None]
        together = 0
        for one in bits:
            together |= one
        return {
            "frequency_mhz": round(median(clocks)) if clocks else None,
            "frequency_min_mhz": min(clocks, default=None),
            "temperature_c": max(
                (one.temperature_c for one in self._boards if one.temperature_c is not None), default=None
            ),
            "throttled": together if bits else None,
        }

    def _subject(self) -> Subject:
        ticket = self.bundle.ticket
        return Subject(
            network=ticket.plan.name,
            ticket=ticket.id.hex(),
            weights=ticket.plan.weights,
            kept=ticket.kept,
            mac_density=round(ticket.mac_density, 6),
            runtime=self.bundle.runtime,
            runtime_version=version_of(self.bundle.runtime),
            threads=self.threads,
            optimiser=self.training.optimiser,
            batch=self.training.batch,
            data=self.data,
        )


def random_data(bundle: Bundle, training: Training) -> tuple[Floats, Labels]:
    """A batch of noise that fits the network: what a step costs does not depend on what it learns."""
    plan, rng = bundle.ticket.plan, np.random.default_rng(0)
    x = rng.standard_normal((training.batch, *plan.input_shape), dtype=np.float32)
    return x, rng.integers(0, plan.classes, training.batch)


def board(root: Path = ROOT) -> Board:
    """What this process runs on."""
    ram_kib = readings.labelled(root / "proc/meminfo").get("MemTotal")
    return Board(
        name=socket.gethostname(),
        model=readings.model(root),
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        ram_kib=ram_kib,
    )


def _step(runtime: Runtime, batch: Batch) -> float:
    """Seconds of one step."""
    began_s = time.perf_counter()
    runtime.step(*batch)
    return time.perf_counter() - began_s


def _latency(steps_s: Doubles, flop: int) -> Latency:
    p50, p95, p99 = (float(one) for one in np.percentile(steps_s, (50, 95, 99)) * 1e3)
    first, counts = histogram((steps_s * 1e6).tolist())
    return Latency(
        steps=len(steps_s),
        warm_up_steps=WARM_UP,
        mean_ms=round(float(steps_s.mean()) * 1e3, 4),
        p50_ms=round(p50, 4),
        p95_ms=round(p95, 4),
        p99_ms=round(p99, 4),
        max_ms=round(float(steps_s.max()) * 1e3, 4),
        first_bucket=first,
        bucket_counts=counts,
        flop=flop,
        gflop_per_s=round(flop / float(steps_s.mean()) * 1e-9, 4),
    )


def _more(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before


def _age_s(root: Path) -> float | None:
    """Seconds since this process was started (proc(5): field 22 of stat, clock ticks after the start of the system)."""
    stat, uptime = readings.read_text(root / "proc/self/stat"), readings.read_text(root / "proc/uptime")
    try:
        ticks = int((stat or "").rpartition(")")[2].split()[19])
        return max(float((uptime or "").split()[0]) - ticks / CLOCK_TICKS, 0.0)
    except (ValueError, IndexError):
        return None
