"""How long counted work takes on a core: a roofline for every kind of operation of every runtime.

The time of a step is a sum over kinds: operations at a share of the core's peak, bytes at a multiple of its copy
bandwidth (most are in a cache; "far" is what no second-level cache of 2 MB holds), and cycles for every value of a loop
and for every call. The shares are fits to the processor time of training steps of networks drawn at random, and of the
operations in them, on one core: REFERENCE (benchmarks/rates.py); no network with a name is among them. They are carried
over to other cores by the ratio of peaks, bandwidths and clocks, which on ARM is an assumption; `hidenseek plan --here`
measures how far off it is. docs/profiling.md has the errors.
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


# Operations of a cycle that are of use: two vectors of 256 bits, multiplied and added. A core with wider ones trains no
# more in a cycle, for it waits for what it loads (docs/profiling.md). ExecuTorch's code is compiled for half of them.
WIDEST: Mapping[str, float] = {"sparse": 32.0, "onnx": 32.0, "executorch": 16.0}
LOOPS_IN_VECTORS = ("sparse",)  # over values, which others take one at a time
# An Intel Xeon of a cloud (Sapphire Rapids, AVX-512), 27 November 2026, as coordinator.device_worker measures it.
REFERENCE = Core(flops=240e9, bandwidth=14e9, clock=4.08e9)
RATES: Mapping[str, Mapping[str, Rate]] = {
    "sparse": {
        "convolution": Rate(flop=9.84e-12, byte=8.93e-12),
        "linear": Rate(flop=4.17e-12, byte=1.99e-11, call=5.67e-10),
        "max pool": Rate(value=2.06e-10),
        "average pool": Rate(value=7.8e-10),
        "phases": Rate(value=1.56e-09),
        "norm": Rate(value=1.72e-09, call=4.56e-08),
        "pointwise": Rate(value=7.37e-10),
        "gelu": Rate(value=1.25e-08),
        "stream": Rate(byte=8.93e-12),
        "input": Rate(value=1.39e-09),
        "update": Rate(byte=2.84e-11),
        "step": Rate(call=1.54e-05),
        "far": Rate(byte=3.19e-11),
    },
    "onnx": {
        "convolution": Rate(flop=9.98e-12, value=4.28e-09, call=4.77e-07),
        "grouped convolution": Rate(flop=1.81e-10, call=4.77e-07),
        "matmul": Rate(flop=1.43e-11, byte=8.93e-12, call=4.77e-07),
        "elementwise": Rate(byte=3.29e-11, call=4.77e-07),
        "index": Rate(byte=1.7e-10, call=4.77e-07),
        "pool": Rate(flop=1.53e-09, call=4.77e-07),
        "copy": Rate(byte=4.67e-11, value=2.24e-09, call=4.77e-07),
        "strided copy": Rate(value=3.26e-09, call=4.77e-07),
        "reduction": Rate(byte=3.19e-11, value=5.66e-07, call=4.77e-07),
        "far": Rate(byte=3.11e-11),
        "view": Rate(call=4.77e-07),
    },
    "executorch": {
        "matmul": Rate(flop=4.4e-11),
        "batched matmul": Rate(flop=3.33e-10),
        "copy": Rate(byte=3.02e-11, value=2.78e-09),
        "elementwise": Rate(byte=3.45e-11),
        "one by one": Rate(value=1.5e-09),
        "sum": Rate(value=2.38e-10),
        "index": Rate(value=6.53e-09),
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
    reference, width = (min(one.width, WIDEST[runtime]) for one in (REFERENCE, core))
    cycle, vector = REFERENCE.clock / core.clock, reference / width
    return Rate(
        flop=cycle * vector,
        byte=REFERENCE.bandwidth / core.bandwidth,
        value=cycle * vector if runtime in LOOPS_IN_VECTORS else cycle,
        call=cycle,
    )
