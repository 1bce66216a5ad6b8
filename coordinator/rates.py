"""How long counted work takes on a core: a roofline for every kind of operation of every runtime.

The time of a step is a sum over kinds: operations at a share of the core's peak, bytes at a multiple of its copy
bandwidth (most are in a cache), and cycles for every value of a loop and for every call. The shares are fits to the
processor time of training steps of every network here, and for `sparse` of every operation in them, on one core:
REFERENCE (benchmarks/rates.py). They are carried over to other cores by the ratio of peaks, bandwidths and clocks,
which on ARM is an assumption; `hidenseek plan --here` measures how far off it is. docs/profiling.md has the errors.
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

    @property
    def width(self) -> float:
        """Operations of a cycle: by how wide its vectors are, and how many it takes at once."""
        return self.flops / self.clock


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Seconds on the reference core for an operation, a byte moved, a loop's value, and a call."""

    flop: float = 0
    byte: float = 0
    value: float = 0
    call: float = 0


# Operations of a cycle that a runtime's own code is compiled for; others choose theirs by what the core has.
WIDEST: Mapping[str, float] = {"executorch": 16.0}  # vectors of 128 bits, two of them a cycle, multiplied and added
# The same of loops over values: those of the sparse runtime take vectors of 8, those of others a value at a time.
LOOPS: Mapping[str, float] = {"sparse": 32.0}
# An AMD EPYC of a cloud with AVX-512, 27 November 2026, as coordinator.device_worker measures it. Its clock is worked
# out from 32 operations a cycle: the 2.6 GHz that its kernel tells of are not what it runs at.
REFERENCE = Core(flops=118.0e9, bandwidth=22.6e9, clock=3.6875e9)
RATES: Mapping[str, Mapping[str, Rate]] = {
    "sparse": {
        "convolution": Rate(flop=8.47e-12, byte=1.24e-11, call=1.32e-9),
        "linear": Rate(flop=8.47e-12, byte=1.11e-11, call=5.98e-10),
        "max pool": Rate(value=2.85e-10),
        "average pool": Rate(value=9.43e-10),
        "phases": Rate(value=1.34e-9),
        "norm": Rate(value=1.71e-9, call=1.11e-8),
        "pointwise": Rate(value=6.05e-10),
        "gelu": Rate(value=2.0e-8),
        "stream": Rate(byte=1.47e-11),
        "input": Rate(value=4.2e-10),
        "update": Rate(byte=2.26e-11),
        "step": Rate(call=8.01e-6),
    },
    "onnx": {
        "convolution": Rate(flop=1.33e-11, value=3.01e-9, call=2.27e-6),
        "grouped convolution": Rate(flop=1.3e-10, value=2.79e-9, call=2.27e-6),
        "matmul": Rate(flop=1.04e-11, byte=1.11e-11, call=2.27e-6),
        "pool": Rate(flop=1.54e-9, call=2.27e-6),
        "index": Rate(byte=6.62e-11, call=2.27e-6),
        "elementwise": Rate(byte=1.94e-11, call=2.27e-6),
        "copy": Rate(byte=2.71e-11, value=2.01e-9, call=2.27e-6),
        "strided copy": Rate(value=1.37e-9, call=2.27e-6),
        "reduction": Rate(byte=2.77e-11, value=2.11e-7, call=2.27e-6),
        "view": Rate(call=2.27e-6),
    },
    "executorch": {
        "matmul": Rate(flop=3.45e-11, call=6.38e-7),
        "batched matmul": Rate(flop=2.23e-10, call=6.38e-7),
        "copy": Rate(byte=1.74e-11, value=1.39e-9, call=6.38e-7),
        "elementwise": Rate(byte=3.03e-11, call=6.38e-7),
        "one by one": Rate(value=1.42e-9, call=6.38e-7),
        "sum": Rate(value=5.89e-10, call=6.38e-7),
        "index": Rate(value=6.25e-9, call=6.38e-7),
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
        spent += one.values * rate.value * slower.value
        spent += one.calls * rate.call * slower.call
    return spent


def slowness(runtime: str, core: Core) -> Rate:
    """How many times as long as on REFERENCE an operation, a byte, a loop's value and a call take on a core."""
    widest = WIDEST.get(runtime, float("inf"))
    peak, reference = (min(one.flops, widest * one.clock) for one in (core, REFERENCE))
    cycle, vectors = REFERENCE.clock / core.clock, 1.0
    if runtime in LOOPS:
        vectors = min(REFERENCE.width, LOOPS[runtime]) / min(core.width, LOOPS[runtime])
    return Rate(flop=reference / peak, byte=REFERENCE.bandwidth / core.bandwidth, value=cycle * vectors, call=cycle)
