"""A profile report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from wire.profile_report import LayerTime, ProfileReport
from wire.telemetry import PER_OCTAVE, bucket_start_us, throttled_words

MOST_OPERATORS = 15
BAR = 40  # characters
DASH = "-"  # nobody measured
KIB = 1024


def lines(report: ProfileReport) -> Iterator[str]:
    """The whole report, a line at a time, without colours; a dash is what nobody measured."""
    yield from _head(report)
    yield from _latency(report)
    if report.layers:
        yield from _layers(report.layers, report.subject.threads)
    if report.operators:
        yield from _operators(report)
    yield from _memory(report)
    yield from _system(report)


def _head(report: ProfileReport) -> Iterator[str]:
    board, subject = report.board, report.subject
    ram = "" if board.ram_kib is None else f", {board.ram_kib / KIB:,.0f} MiB"
    cores = f"{board.cores} core{'' if board.cores == 1 else 's'}"
    yield f"{board.name}: {board.model or board.machine}, {cores}{ram}"
    yield f"  {board.machine}, {board.system}, Python {board.python}, {report.software}, {report.made}"
    yield (
        f"{subject.network}, {subject.kept:,} of {subject.weights:,} weights kept, "
        f"{subject.mac_density:.1%} of the multiply-adds, ticket {subject.ticket[:16]}"
    )
    threads = f"{subject.threads} thread{'' if subject.threads == 1 else 's'}"
    yield (
        f"  runtime {subject.runtime} ({subject.runtime_version or 'unknown version'}), {threads}, "
        f"batch {subject.batch}, {subject.optimiser}, data: {subject.data}"
    )


def _latency(report: ProfileReport) -> Iterator[str]:
    steps, cold = report.latency, report.cold_start
    yield ""
    yield f"Training step   {'p50':>9} {'p95':>9} {'p99':>9} {'longest':>9} {'mean':>9}   GFLOP/s"
    values = (steps.p50_ms, steps.p95_ms, steps.p99_ms, steps.max_ms, steps.mean_ms)
    yield f"  milliseconds  {' '.join(f'{value:9.3f}' for value in values)}   {steps.gflop_per_s:7.2f}"
    yield f"  {steps.steps:,} steps after {steps.warm_up_steps} to warm up; kept weights take {steps.flop:,} flop"
    most = max(steps.bucket_counts)
    for number, count in _condensed(steps.first_bucket, steps.bucket_counts):
        bar = "#" * max(round(BAR * count / most), 1) if count else ""
        yield f"  {bucket_start_us(number) / 1e3:9.3f} ms | {bar:{BAR}} {count:,}"
    yield (
        f"Cold start      {_number(cold.import_ms, 0)} ms to import, {cold.open_ms:,.1f} ms to open the runtime, "
        f"{cold.first_step_ms:,.2f} ms for the first step"
    )


def _condensed(first: int, counts: Sequence[int]) -> list[tuple[int, int]]:
    """(bucket, count); a long empty stretch is left out."""
    found: list[tuple[int, int]] = []
    empty = 0
    for number, count in enumerate(counts, first):
        empty = 0 if count else empty + 1
        if empty <= PER_OCTAVE // 2:
            found.append((number, count))
    return found


def _layers(layers: Sequence[LayerTime], threads: int) -> Iterator[str]:
    whole = sum(one.forward_us + one.backward_us for one in layers) or 1.0
    yield ""
    of = "of a step" if threads == 1 else "of the first thread's share of a step"
    yield f"Layer           forward  backward   {of}, microseconds"
    yield f"{'':14} {'us':>8} {'us':>9} {'share':>7} {'forward':>9} {'backward':>9}  GFLOP/s"
    for one in layers:
        both = one.forward_us + one.backward_us
        yield (
            f"  {one.name:12} {one.forward_us:8.1f} {one.backward_us:9.1f} {both / whole:7.1%} "
            f"{_rate(one.forward_flop, one.forward_us):>9} {_rate(one.backward_flop, one.backward_us):>9}"
        )


def _operators(report: ProfileReport) -> Iterator[str]:
    operators = sorted(report.operators, key=lambda one: -one.us)
    whole = sum(one.us for one in operators) or 1.0
    yield ""
    yield f"{'Operator':30} {'node':>26} {'us a step':>10} {'share':>7}"
    for one in operators[:MOST_OPERATORS]:
        yield f"  {one.kind[:28]:28} {one.name[:26]:>26} {one.us:10.1f} {one.us / whole:7.1%}"
    if rest := operators[MOST_OPERATORS:]:
        us = sum(one.us for one in rest)
        yield f"  {f'{len(rest)} more':28} {'':>26} {us:10.1f} {us / whole:7.1%}"


def _memory(report: ProfileReport) -> Iterator[str]:
    memory = report.memory
    yield ""
    yield (
        f"Memory          peak {_mb(memory.peak_kib)} MB, resident {_mb(memory.rss_kib)} MB "
        f"({_mb(memory.pss_kib)} MB shared out), {_mb(memory.start_kib)} MB before the runtime"
    )
    planned, used = memory.arena_planned_bytes, memory.arena_used_bytes
    if planned is not None:
        yield f"  arena         {planned:,} bytes planned, {_number(used, 0)} used"
    grown = memory.heap_growth_bytes
    yield (
        f"  after warm-up {_number(grown, 0)} bytes of heap taken and kept in the second half of the steps; "
        f"resident {_number(memory.rss_growth_kib, 0)} KiB more"
    )


def _system(report: ProfileReport) -> Iterator[str]:
    system = report.system
    yield (
        f"System          {system.cpu_share:.0%} of a core for {system.seconds:.1f} s; page faults "
        f"{system.minor_faults:,} minor ({system.minor_faults / report.latency.steps:,.1f} a step), "
        f"{system.major_faults:,} major"
    )
    yield (
        f"  switches      {system.voluntary_switches:,} voluntary, {system.involuntary_switches:,} involuntary; "
        f"{_number(system.written_bytes, 0)} bytes written to storage"
    )
    throttled = DASH if system.throttled is None else throttled_words(system.throttled)
    yield (
        f"  board         {_number(system.frequency_mhz, 0)} MHz (lowest {_number(system.frequency_min_mhz, 0)}), "
        f"{_number(system.temperature_c, 1)} °C, throttled: {throttled}"
    )
    if system.energy_source is None:
        yield "Energy          - (no sensor that this program can read)"
    else:
        yield (
            f"Energy          {_number(system.energy_j, 2)} J, {_number(system.energy_per_step_mj, 3)} mJ a step, "
            f"measured by {system.energy_source}"
        )


def _rate(flop: int, us: float) -> str:
    return f"{flop / us * 1e-3:.2f}" if flop and us else ""


def _mb(kib: int | None) -> str:
    return DASH if kib is None else f"{kib * KIB / 1e6:.1f}"


def _number(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"
