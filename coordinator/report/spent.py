"""What training cost every device of a run, from what the devices measured and sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from coordinator import telemetry
from coordinator.store import Store
from wire.telemetry import RoundTelemetry

if TYPE_CHECKING:
    from coordinator.report.summary import DeviceSummary

KIB = 1024
DAY_S = 86_400


@dataclass(frozen=True, kw_only=True)
class Spent:
    """One device over a run. None: not measured.

    Attributes:
        name, profile, runtime: the device.
        train_samples: samples it trains on.
        rounds: rounds that it sent telemetry of.
        step_ms: median over rounds of the median step, milliseconds; known without telemetry too.
        step_p95_ms, step_p99_ms: medians over rounds of that round's percentile.
        step_max_ms: the longest step of all.
        round_s: longest local training of a round, seconds; known without telemetry too.
        peak_mb: largest resident memory, 1e6 bytes; known without telemetry too.
        arena_mb: largest memory that the runtime planned, 1e6 bytes.
        major_faults: page faults that read from storage, of all rounds.
        involuntary_per_s: times that the processor was taken from the process, per second of training.
        frequency_mhz: median of the processor's frequency at the end of rounds.
        temperature_c: the highest at the end of a round.
        throttled: every bit of `vcgencmd get_throttled` that was set in some round.
        round_j: mean joules of a round.
        energy_measured: whether a sensor measured them; else the device estimated them.
        round_bytes: mean payload bytes sent up a round; counted by the coordinator.
        day_bytes: the most payload bytes sent and received in one day (UTC) of the run.
        written_bytes: written to storage, of all rounds.
        layers_us: forward and backward microseconds of one step by layer of the plan, medians over rounds.
        histogram: steps of all rounds by bucket (`wire.telemetry.bucket_of`).
        by_round_ms: median step of every round that it told of, in order.
    """

    name: str
    profile: str
    runtime: str
    train_samples: int
    rounds: int = 0
    step_ms: float | None = None
    step_p95_ms: float | None = None
    step_p99_ms: float | None = None
    step_max_ms: float | None = None
    round_s: float | None = None
    peak_mb: float | None = None
    arena_mb: float | None = None
    major_faults: int | None = None
    involuntary_per_s: float | None = None
    frequency_mhz: float | None = None
    temperature_c: float | None = None
    throttled: int | None = None
    round_j: float | None = None
    energy_measured: bool = False
    round_bytes: float | None = None
    day_bytes: int | None = None
    written_bytes: int | None = None
    layers_us: tuple[float, ...] = ()
    histogram: Mapping[int, int] = field(default_factory=dict)
    by_round_ms: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Group:
    """All devices of one profile and runtime.

    Attributes:
        profile, runtime: theirs.
        devices: how many.
        step_ms, step_p95_ms, round_j: medians over devices.
        peak_mb, temperature_c: the largest of all.
        layers_us: medians over devices.
        histogram: steps of all devices and rounds by bucket.
    """

    profile: str
    runtime: str
    devices: int
    step_ms: float | None
    step_p95_ms: float | None
    round_j: float | None
    peak_mb: float | None
    temperature_c: float | None
    layers_us: tuple[float, ...]
    histogram: Mapping[int, int]


def spent_by_device(store: Store, run: bytes, devices: Sequence[DeviceSummary], layers: int) -> list[Spent]:
    """What every one of a run's devices spent, whose plan has so many layers."""
    told: dict[str, list[RoundTelemetry]] = defaultdict(list)
    days: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for row in telemetry.rounds(store, run):
        told[row.device].append(row.spent)
        if row.spent.sent_bytes is not None and row.spent.received_bytes is not None:
            days[row.device][int(row.arrived_s // DAY_S)] += row.spent.sent_bytes + row.spent.received_bytes
    longest = "SELECT device, max(train_s) AS train_s FROM mask WHERE run = ? GROUP BY device"
    round_s = {row["device"]: row["train_s"] for row in store.query(longest, run)}
    found = []
    for device in devices:
        rounds = told[device.name]
        peak_kib = max([device.peak_memory_kb, *known(rounds, "peak_kib")])
        found.append(
            Spent(
                name=device.name,
                profile=device.profile,
                runtime=device.runtime,
                train_samples=device.train_samples,
                step_ms=device.step_ms,
                round_s=round_s.get(device.name),
                peak_mb=peak_kib * KIB / 1e6 if peak_kib else None,
                round_bytes=device.up_bytes / device.rounds if device.rounds else None,
                day_bytes=max(days[device.name].values(), default=None),
                **_told(rounds, layers),
            )
        )
    return found


def _told(rounds: Sequence[RoundTelemetry], layers: int) -> dict[str, Any]:
    trained_ms = sum(one.train_ms or 0 for one in rounds if one.involuntary_switches is not None)
    switches = sum(known(rounds, "involuntary_switches"))
    bits = 0
    for word in known(rounds, "throttled"):
        bits |= int(word)
    times = [
        [f + b for f, b in zip(one.forward_us, one.backward_us, strict=True)]
        for one in rounds
        if len(one.forward_us) == len(one.backward_us) == layers
    ]
    return {
        "rounds": len(rounds),
        "step_p95_ms": figure(median, rounds, "step_p95_us", 1e-3),
        "step_p99_ms": figure(median, rounds, "step_p99_us", 1e-3),
        "step_max_ms": figure(max, rounds, "step_max_us", 1e-3),
        "arena_mb": figure(max, rounds, "arena_planned_bytes", 1e-6),
        "major_faults": figure(sum, rounds, "major_faults"),
        "involuntary_per_s": switches / (trained_ms / 1e3) if trained_ms else None,
        "frequency_mhz": figure(median, rounds, "frequency_mhz"),
        "temperature_c": figure(max, rounds, "temperature_c"),
        "throttled": bits if known(rounds, "throttled") else None,
        "round_j": figure(fmean, rounds, "energy_mj", 1e-3),
        "energy_measured": bool(rounds) and all(one.energy_source for one in rounds if one.energy_mj is not None),
        "written_bytes": figure(sum, rounds, "written_bytes"),
        "layers_us": tuple(map(median, zip(*times, strict=True))),
        "histogram": _added(
            dict(enumerate(one.bucket_counts, one.first_bucket)) for one in rounds if one.first_bucket is not None
        ),
        "by_round_ms": tuple(us * 1e-3 for us in known(rounds, "step_p50_us")),
    }


def groups(devices: Iterable[Spent]) -> list[Group]:
    """Devices together that have profile and runtime in common, in order of both."""
    together: dict[tuple[str, str], list[Spent]] = defaultdict(list)
    for one in devices:
        together[one.profile, one.runtime].append(one)
    return [
        Group(
            profile=profile,
            runtime=runtime,
            devices=len(members),
            step_ms=figure(median, members, "step_ms"),
            step_p95_ms=figure(median, members, "step_p95_ms"),
            round_j=figure(median, members, "round_j"),
            peak_mb=figure(max, members, "peak_mb"),
            temperature_c=figure(max, members, "temperature_c"),
            layers_us=tuple(map(median, zip(*(one.layers_us for one in members if one.layers_us), strict=True))),
            histogram=_added(one.histogram for one in members),
        )
        for (profile, runtime), members in sorted(together.items())
    ]


def _added(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """One histogram of all, without empty buckets."""
    found: dict[int, int] = defaultdict(int)
    for one in histograms:
        for bucket, count in one.items():
            if count:
                found[bucket] += count
    return dict(found)


def known(items: Iterable[object], attribute: str) -> list[float]:
    """The values of an attribute, without those that nobody measured."""
    return [value for value in (getattr(item, attribute) for item in items) if value is not None]


def figure(
    summary: Callable[[list[float]], float], items: Iterable[object], attribute: str, scale: float = 1
) -> float | None:
    """A summary, such as the median, of an attribute's known values, times `scale`; None if there are none."""
    values = known(items, attribute)
    return summary(values) * scale if values else None
