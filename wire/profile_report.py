"""What one board spends on one ticket, measured on the board itself: the report that `hidenseek-edge profile` writes.

As JSON it is this dataclass, field by field, with `None` as null: nobody measured. A reader takes every report of its
own `version`, and ignores fields it does not know; a field changes its meaning only with the version.
"""

from __future__ import annotations

from dataclasses import dataclass

FORMAT = "hidenseek profile"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Board:
    """The machine.

    Attributes:
        name: what it calls itself on the network.
        model: of the board, as its firmware says, or of the processor.
        machine: architecture, such as "aarch64".
        system: kernel and its release.
        python: version.
        cores: processors that this process may use.
        ram_kib: memory of the whole machine.
    """

    name: str
    model: str
    machine: str
    system: str
    python: str
    cores: int
    ram_kib: int | None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was run.

    Attributes:
        network: name of its plan.
        ticket: SHA-256 of the ticket, hexadecimal.
        weights, kept: before and after pruning.
        mac_density: share of a sample's multiply-adds that is left.
        runtime: "sparse", "onnx" or "executorch".
        runtime_version: of the package, or the name of the kernels' build.
        threads: that it was given.
        optimiser, batch: of the training step.
        data: "random", or the name of the file or folder.
    """

    network: str
    ticket: str
    weights: int
    kept: int
    mac_density: float
    runtime: str
    runtime_version: str
    threads: int
    optimiser: str
    batch: int
    data: str


@dataclass(frozen=True, kw_only=True)
class ColdStart:
    """From the start of the process to the end of the first step, milliseconds.

    Attributes:
        import_ms: Python, its modules, the bundle and the data are read.
        open_ms: the runtime loads the bundle.
        first_step_ms: the first training step.
    """

    import_ms: float | None
    open_ms: float
    first_step_ms: float


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Training steps of a full batch, after warm-up.

    Attributes:
        steps: how many.
        warm_up_steps: before them, in no other figure than the first of them.
        mean_ms, p50_ms, p95_ms, p99_ms, max_ms: milliseconds of one step.
        first_bucket, bucket_counts: their histogram (`wire.telemetry.histogram`).
        flop: floating-point operations that kept weights need in one step; a multiply-add counts two.
        gflop_per_s: 1e-9 times `flop` over the mean step.
    """

    steps: int
    warm_up_steps: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    first_bucket: int
    bucket_counts: tuple[int, ...]
    flop: int
    gflop_per_s: float


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """One layer of the plan in one step of a full batch, mean of the timed steps.

    Attributes:
        name: such as "conv0" or "relu".
        forward_us, backward_us: microseconds; with threads those of the first one's share of the batch.
        forward_flop, backward_flop: of kept weights in the same share; 0 for layers without weights.
    """

    name: str
    forward_us: float
    backward_us: float
    forward_flop: int
    backward_flop: int


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """One operator of a runtime's own graph.

    Attributes:
        name: of the node, or the number of the instruction.
        kind: operator or kernel.
        us: microseconds in one step, mean of the timed steps; timing slows a step down.
        calls: in one step.
    """

    name: str
    kind: str
    us: float
    calls: float


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Memory of the process.

    Attributes:
        start_kib: resident before the runtime is opened, with Python, numpy and the data.
        rss_kib: resident at the end of the steps.
        pss_kib: of it, pages shared with others count by their share.
        peak_kib: the largest resident so far, before operators are timed.
        arena_planned_bytes: that the runtime planned for training.
        arena_used_bytes: of it, what was ever touched.
        heap_growth_bytes: by which what malloc gave out grew in the second half of the steps: about 0 if a step keeps
            nothing.
        rss_growth_kib: by which resident memory grew during the steps.
    """

    start_kib: int | None
    rss_kib: int | None
    pss_kib: int | None
    peak_kib: int | None
    arena_planned_bytes: int | None
    arena_used_bytes: int | None
    heap_growth_bytes: int | None
    rss_growth_kib: int | None


@dataclass(frozen=True, kw_only=True)
class System:
    """What the steps asked of the system, and how the board was doing.

    Attributes:
        seconds: that the steps took, with what is between them.
        cpu_share: processor seconds of all threads over seconds.
        minor_faults: page faults without reading from storage.
        major_faults: page faults that read from storage.
        voluntary_switches: times that the process gave up the processor.
        involuntary_switches: times that the processor was taken from it.
        written_bytes: to storage.
        frequency_mhz: of the fastest core, median of what was read once a second.
        frequency_min_mhz: the lowest of these.
        temperature_c: of the processor, the highest.
        throttled: bits of the Raspberry Pi's firmware (`vcgencmd get_throttled`), of all readings together.
        energy_source: "pmic", "ina" or "rapl" (docs/profiling.md); None: nothing measures it here.
        energy_j: joules of the steps.
        energy_per_step_mj: millijoules of one.
    """

    seconds: float
    cpu_share: float
    minor_faults: int
    major_faults: int
    voluntary_switches: int
    involuntary_switches: int
    written_bytes: int | None
    frequency_mhz: int | None
    frequency_min_mhz: int | None
    temperature_c: float | None
    throttled: int | None
    energy_source: str | None
    energy_j: float | None
    energy_per_step_mj: float | None


@dataclass(frozen=True, kw_only=True)
class ProfileReport:
    """A whole report.

    Attributes:
        format: always `FORMAT`.
        version: of this format.
        software: what measured.
        made: when, in UTC, as "2026-11-26T14:00:00Z".
        profile: kind of hardware, a name from devices.yaml; empty if nobody named it.
        layers: of the plan, in order; empty if the runtime cannot time them.
        operators: of the runtime's graph, in order; empty if the runtime has none.
    """

    format: str
    version: int
    software: str
    made: str
    profile: str
    board: Board
    subject: Subject
    cold_start: ColdStart
    latency: Latency
    layers: tuple[LayerTime, ...]
    operators: tuple[OperatorTime, ...]
    memory: Memory
    system: System
