"""How long counted work takes on a core: a roofline for every kind of operation of every runtime.

The time of a step is a sum over kinds: operations at a share of the core's peak, bytes at a multiple of its copy
bandwidth (most are in a cache), and cycles for every call. The shares are fits to the processor time of training steps
of every network here on one core: REFERENCE (benchmarks/rates.py). They are carried over to other cores by the ratio
of peaks, bandwidths and clocks, which on ARM is an assumption; `hidenseek plan --here` measures how far off it is.
docs/profiling.md has the errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.hardware import Profile
from export.work import Work


@dataclass(frozen=True, kw_only=True)
class Core:
    """One core: floating-point operations, bytes copied (read and written) and cycles, of a second."""

    flops: float
    bandwidth: float
    clock: float


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Seconds on the reference core for an operation, a byte moved, and a call."""

    flop: float = 0
    byte: float = 0
    call: float = 0


# Operations of a cycle that a runtime's own code is compiled for; others choose theirs by what the core has.
WIDEST: Mapping[str, float] = {"executorch": 16.0}  # vectors of 128 bits, two of them a cycle, multiplied and added
# A Xeon of a cloud at 2.76 GHz with AVX-512, 26 November 2026, as coordinator.device_worker measures it.
REFERENCE = Core(flops=176.9e9, bandwidth=12.2e9, clock=2.76e9)
RATES: Mapping[str, Mapping[str, Rate]] = {
    "sparse": {
        "convolution": Rate(flop=7.97e-12, byte=4.38e-11, call=2.21e-9),
        "linear": Rate(flop=2.25e-11, byte=8.5e-12),
        "norm": Rate(byte=1.84e-10),
        "pointwise": Rate(byte=1.29e-10),
        "pool": Rate(byte=3.0e-11),
        "stream": Rate(byte=3.0e-11),
        "update": Rate(byte=4.4e-11),
        "step": Rate(call=1.03e-5),
    },
    # Fitted on an AMD EPYC at 2.6 GHz (118 GFLOP/s, 22 GB/s), 27 November 2026, and carried over to REFERENCE.
    "onnx": {
        "convolution": Rate(flop=1.18e-11, call=2.13e-6),
        "grouped convolution": Rate(flop=1.79e-10, call=2.13e-6),
        "matmul": Rate(flop=5.65e-12, call=2.13e-6),
        "pool": Rate(flop=1.11e-9, call=2.13e-6),
        "index": Rate(byte=2.05e-11, call=2.13e-6),
        "elementwise": Rate(byte=7.16e-11, call=2.13e-6),
        "view": Rate(call=2.13e-6),
    },
    # Fitted on both.
    "executorch": {
        "matmul": Rate(flop=3.8e-11, call=2.81e-6),
        "copy": Rate(byte=2.05e-11, call=2.81e-6),
        "elementwise": Rate(byte=1.44e-10, call=2.81e-6),
        "index": Rate(byte=1.28e-9, call=2.81e-6),
    },
}


def core_of(profile: Profile) -> Core | None:
    """A profile's fastest core; None if it lacks a figure."""
    if profile.clock_ghz is None or profile.flops_per_cycle is None or profile.memory_gb_s is None:
        return None
    clock = profile.clock_ghz * 1e9
    return Core(flops=clock * profile.flops_per_cycle, bandwidth=profile.memory_gb_s * 1e9, clock=clock)


def seconds(work: Mapping[str, Work], runtime: str, core: Core) -> float:
    """Time of the work on one core.

    Args:
        work: by kind, as counted for the runtime.
        runtime: its name.
        core: where it runs.
    """
    slower = slowness(runtime, core)
    spent = 0.0
    for kind, one in work.items():
        rate = RATES[runtime][kind]
        spent += one.flops * rate.flop * slower.flop
        spent += one.moved * rate.byte * slower.byte
        spent += one.calls * rate.call * slower.call
    return spent


def slowness(runtime: str, core: Core) -> Rate:
    """How many times as long as on REFERENCE an operation, a byte and a call take on a core."""
    widest = WIDEST.get(runtime, float("inf"))
    peak, reference = (min(one.flops, widest * one.clock) for one in (core, REFERENCE))
    return Rate(flop=reference / peak, byte=REFERENCE.bandwidth / core.bandwidth, call=REFERENCE.clock / core.clock)
