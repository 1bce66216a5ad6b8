"""What a round of local training cost a device, in figures that it has measured itself, and their histogram."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from wire.fields import at, optional

PER_OCTAVE = 4  # buckets of a histogram from one power of two to the next
MAX_BUCKETS = 64
LARGEST_BUCKET = 256
THROTTLED_BITS = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
    16: "under-voltage has occurred",
    17: "frequency has been capped",
    18: "has been throttled",
    19: "soft temperature limit has been reached",
}
ENERGY_SOURCES = {0: "estimated", 1: "pmic", 2: "ina", 3: "rapl"}


@dataclass(frozen=True, kw_only=True)
class RoundTelemetry:
    """One round on one device. None, or an empty tuple: it does not know.

    Counts and times are those of this round's local training, unless they say otherwise.

    Attributes:
        number: which round.
        steps: optimiser steps.
        step_p50_us: median microseconds of one.
        step_p95_us: 95 of 100 took no longer.
        step_p99_us: 99 of 100 took no longer.
        step_max_us: the longest.
        first_bucket: of the steps' histogram, the first bucket with a step in it (`bucket_of`).
        bucket_counts: steps in that bucket and those after it.
        train_ms: milliseconds in optimiser steps.
        evaluate_ms: trying networks on its test samples, since the record before.
        cold_start_ms: opening the bundle and its runtime, and the first step; only in the first record after that.
        rss_kib: resident memory of the process when training ended.
        pss_kib: of it, pages that are shared count by their share.
        peak_kib: largest resident memory of the process so far.
        arena_planned_bytes: memory that the runtime planned for training.
        arena_used_bytes: of it, what was ever touched.
        minor_faults: page faults without reading from storage.
        major_faults: page faults that read from storage.
        voluntary_switches: times that the process gave up the processor.
        involuntary_switches: times that the processor was taken from it.
        cpu_ms: processor milliseconds of all its threads.
        frequency_mhz: of the processor, when training ended.
        temperature_c: of the processor, when training ended, degrees Celsius.
        throttled: bits of the Raspberry Pi's firmware (`vcgencmd get_throttled`).
        energy_mj: millijoules of the whole board, or of what its source measures.
        energy_source: 0 estimated, 1 the Pi 5's power chip, 2 an INA sensor, 3 RAPL.
        sent_bytes: payloads sent since the record before.
        received_bytes: payloads received since the record before.
        written_bytes: written to storage since the record before.
        forward_us: microseconds of one step forward through every layer of the plan, in its order.
        backward_us: backward.
    """

    number: int = at(1)
    steps: int = at(2)
    step_p50_us: int | None = optional(3)
    step_p95_us: int | None = optional(4)
    step_p99_us: int | None = optional(5)
    step_max_us: int | None = optional(6)
    first_bucket: int | None = optional(7)
    bucket_counts: tuple[int, ...] = optional(8, ())
    train_ms: int | None = optional(9)
    evaluate_ms: int | None = optional(10)
    cold_start_ms: int | None = optional(11)
    rss_kib: int | None = optional(12)
    pss_kib: int | None = optional(13)
    peak_kib: int | None = optional(14)
    arena_planned_bytes: int | None = optional(15)
    arena_used_bytes: int | None = optional(16)
    minor_faults: int | None = optional(17)
    major_faults: int | None = optional(18)
    voluntary_switches: int | None = optional(19)
    involuntary_switches: int | None = optional(20)
    cpu_ms: int | None = optional(21)
    frequency_mhz: int | None = optional(22)
    temperature_c: float | None = optional(23)
    throttled: int | None = optional(24)
    energy_mj: int | None = optional(25)
    energy_source: int | None = optional(26)
    sent_bytes: int | None = optional(27)
    received_bytes: int | None = optional(28)
    written_bytes: int | None = optional(29)
    forward_us: tuple[int, ...] = optional(30, ())
    backward_us: tuple[int, ...] = optional(31, ())


def bucket_start_us(bucket: int) -> float:
    """The shortest time in a bucket, microseconds: 2^(bucket / 4); the first holds all that is shorter, too."""
    return float(2.0 ** (bucket / PER_OCTAVE))


_STARTS_US = [bucket_start_us(bucket) for bucket in range(LARGEST_BUCKET + 1)]


def bucket_of(us: float) -> int:
    """The histogram's bucket of a time: floor(4 log2(microseconds)), 0 for all below 1, at most 256."""
    return max(bisect_right(_STARTS_US, us) - 1, 0)


def histogram(times_us: Iterable[float]) -> tuple[int, tuple[int, ...]]:
    """The first bucket that is not empty, and the counts from there on, the last one of all that are longer.

    Args:
        times_us: at least one, microseconds.
    """
    buckets = Counter(map(bucket_of, times_us))
    first = min(buckets)
    counts = [0] * (min(max(buckets) - first, MAX_BUCKETS - 1) + 1)
    for bucket, count in buckets.items():
        counts[min(bucket - first, MAX_BUCKETS - 1)] += count
    return first, tuple(counts)


def throttled_words(bits: int) -> str:
    """The firmware's bits in words."""
    return ", ".join(words for bit, words in THROTTLED_BITS.items() if bits >> bit & 1) or "never"
