"""How soon the live page shows a fleet, and what it takes of a core while browsers look: 1,000 made-up devices.

    python -m benchmarks.page -o benchmarks/results/page.json

Needs what `make web` installs, Chromium and curl. Processor time is that of the page's process, which does just this.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import commit, describe
from coordinator.brokers.process import end
from coordinator.page.server import PageServer
from tests.integration.browser import opened
from tests.page import Made

VIEW = {"viewport": {"width": 1280, "height": 900}}
LOAD = """
await page.goto(url);
await page.waitForSelector("#fleet tbody tr");
return page.evaluate(() => [
  performance.getEntriesByName("first-contentful-paint")[0].startTime,
  performance.getEntriesByName("fleet-shown")[0].startTime,
]);
"""
SMOOTH = """
return page.evaluate(async (seconds) => {
  const long = [];
  const watch = new PerformanceObserver((list) => long.push(...list.getEntries().map(({ duration }) => duration)));
  watch.observe({ type: "longtask" });
  const gaps = [];
  let last = performance.now();
  const end = last + 1000 * seconds;
  await new Promise((done) => requestAnimationFrame(function frame(now) {
    gaps.push(now - last);
    last = now;
    now < end ? requestAnimationFrame(frame) : done();
  }));
  return { longest_task_ms: Math.max(0, ...long), longest_frame_ms: Math.max(...gaps.slice(1)) };
}, seconds);
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--changes", type=int, default=50, help="devices a second of which something is new")
    parser.add_argument("--seconds", type=float, default=10.0, help="of every measurement")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the results here too")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print("filling a database ...", file=sys.stderr)
        made = Made(Path(folder), devices=arguments.devices, rounds=arguments.rounds)
        results = _measure(made, arguments)
    text = json.dumps({**results, "load": os.getloadavg()[0], "machine": describe(), "commit": commit()}, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return 0


def _measure(made: Made, arguments: argparse.Namespace) -> dict[str, Any]:
    over = threading.Event()

    def change() -> None:
        rng, devices = random.Random(1), list(made.figures.devices.values())
        while not over.wait(1 / arguments.changes):
            one = rng.choice(devices)
            one.mask_s, one.temperature_c = time.time(), rng.uniform(40, 80)

    results: dict[str, Any] = {
        "devices": arguments.devices,
        "rounds": arguments.rounds,
        "changes_a_second": arguments.changes,
    }
    with made.shown() as server:
        changing = threading.Thread(target=change)
        changing.start()
        try:
            shares = {"0": _share(arguments.seconds)}
            for browsers in (1, 20):
                with _listening(server, browsers):
                    shares[str(browsers)] = _share(arguments.seconds)
            results["share_of_a_core_by_browsers"] = shares
            with opened() as browser:
                log_in = "await page.goto(url); await page.waitForURL(home);"
                browser.run(log_in, view=VIEW, url=server.login_url, home=server.url)
                loads = [browser.run(LOAD, url=server.url) for _ in range(7)]
                results["first_paint_ms"] = [round(paint) for paint, _ in loads]
                results["first_rows_ms"] = [round(shown) for _, shown in loads]
                results["median_first_paint_ms"] = round(median(paint for paint, _ in loads))
                results |= browser.run(SMOOTH, seconds=arguments.seconds)
        finally:
            over.set()
            changing.join()
    return results


@contextmanager
def _listening(server: PageServer, count: int) -> Iterator[None]:
    """So many that are told what happens, in processes of their own."""
    command = ["curl", "-sN", "-H", f"Authorization: Bearer {server.token}", f"{server.url}events"]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]
    time.sleep(1)
    try:
        yield
    finally:
        end(processes, within_s=5)


def _share(seconds: float) -> float:
    """Processor time of this process, of a second."""
    began_s, cpu_s = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    return round((time.process_time() - cpu_s) / (time.perf_counter() - began_s), 4)


if __name__ == "__main__":
    sys.exit(main())
