"""How long the report of a large fleet takes, and how large it is: a made-up run of 500 devices and 100 rounds.

What the devices say in it is drawn at random; only the time and the sizes are results.

    python -m benchmarks.report -o benchmarks/results/report.json
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import commit, describe
from coordinator.report.page import write_page
from coordinator.report.summary import summarise
from coordinator.store import Store
from coordinator.telemetry import Inbox
from tests.helpers import introduce, pooled_plan, random_ticket
from wire.federation_messages import MaskUpdate, Telemetry
from wire.telemetry import RoundTelemetry, histogram

RUN = bytes(range(8))


def fill(
    store: Store,
    devices: int,
    rounds: int,
    profiles: Sequence[str] = ("",),
    *,
    settings: str = "{}",
    finished: bool = True,
) -> None:
    """Write a made-up run, in which every device trains in every round and sends telemetry."""
    rng = random.Random(8)
    ticket = random_ticket(pooled_plan("made-up", 128, 6), density=0.1, seed=1)
    store.start_run(run=RUN, name="made-up", ticket=ticket.encoded, settings=settings, bundle_bytes=10_000)
    names = [f"pi-{number:03}" for number in range(devices)]
    runtimes = ("sparse", "onnx")
    for number, name in enumerate(names):
        store.save_device(
            name,
            introduce(
                name,
                runtime=runtimes[number % 2],
                train_samples=rng.randrange(50, 500),
                profile=profiles[number % len(profiles)],
            ),
        )
    inbox, layers, masks = Inbox(store), len(ticket.plan.layers), []
    for number in range(1, rounds + 1):
        store.open_round(RUN, number, tuple(names), b"")
        for name in names:
            times_us = sorted(rng.lognormvariate(9, 0.2) for _ in range(30))
            first, counts = histogram(times_us)
            spent = RoundTelemetry(
                number=number, steps=30, step_p50_us=int(times_us[15]), step_p95_us=int(times_us[28]),
                step_p99_us=int(times_us[29]), step_max_us=int(times_us[29]), first_bucket=first, bucket_counts=counts,
                train_ms=int(sum(times_us) / 1e3), peak_kib=rng.randrange(40_000, 60_000), major_faults=0,
                involuntary_switches=rng.randrange(20), frequency_mhz=1800, temperature_c=rng.uniform(45, 85),
                throttled=0, energy_mj=rng.randrange(1000, 3000), energy_source=0, written_bytes=8192,
                forward_us=tuple(rng.randrange(1, 500) for _ in range(layers)),
                backward_us=tuple(rng.randrange(1, 900) for _ in range(layers)),
            )  # fmt: skip
            inbox.add(name, Telemetry(run=RUN, rounds=(spent,)), 250)
            update = MaskUpdate(
                run=RUN, number=number, signs=b"", train_samples=100, loss=1 / number, correct=rng.randrange(50, 90),
                test_samples=100, train_s=1.0, step_ms=times_us[15] / 1e3, peak_memory_kb=50_000,
            )  # fmt: skip
            masks.append((name, update))
        inbox.flush(2.0 * number)
        store.close_round(RUN, number)
    columns = "run, number, device, signs, train_samples, loss, correct, test_samples, train_s, step_ms, peak_memory_kb"
    store.write_rows(
        f"INSERT INTO mask ({columns}, payload_bytes, receipt_bytes, arrived_s, counted) "
        f"VALUES ({', '.join('?' * 15)})",
        [
            (RUN, u.number, name, u.signs, u.train_samples, u.loss, u.correct, u.test_samples, u.train_s, u.step_ms,
             u.peak_memory_kb, 1000, 50, time.time(), u.number)
            for name, u in masks
        ],
    )  # fmt: skip
    if finished:
        store.finish_run(RUN)


def main(argv: Sequence[str] | None = None) -> int:
    """Fill a database, write its report, print what that took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the results here too")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        store, page = Store(Path(folder) / "coordinator.db"), Path(folder) / "report.html"
        print("filling a database ...", file=sys.stderr)
        fill(store, arguments.devices, arguments.rounds)
        start, began_s = time.perf_counter(), time.process_time()
        summary = summarise(store)
        read_s = time.perf_counter() - start
        write_page(summary, page)
        results = {
            "devices": arguments.devices,
            "rounds": arguments.rounds,
            "seconds": round(time.perf_counter() - start, 3),
            "of_them_reading_s": round(read_s, 3),
            "cpu_seconds": round(time.process_time() - began_s, 3),
            "page_bytes": page.stat().st_size,
        }
        store.close()
    text = json.dumps({**results, "machine": describe(), "commit": commit()}, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
