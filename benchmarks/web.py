"""A training step in a browser against the same step natively and by onnxruntime-web, in one run.

    python -m benchmarks.web -o benchmarks/results/web.json

Needs what `make web` installs, Chromium, and onnxruntime-web, which `make bench-web` installs beside this file. Ours
and onnxruntime-web (the exported training graph, wasm backend, one thread) run in a worker of one page, headless;
native is our kernels for AVX2 on one thread, in this process (HIDENSEEK_KERNELS=v4 for AVX-512). They take turns, a
few blocks of steps each. First all three train a few steps from the same start, and have to come to the same loss.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.machine import commit, describe
from coordinator.models import MODELS, build_plan
from edge_client.runtimes.sparse import SparseRuntime
from export.onnx_graph import training_graph
from tests.helpers import random_ticket
from tests.integration import web
from wire.bundle import Bundle
from wire.settings import Training

RIVAL = Path(__file__).parent / "onnxruntime-web" / "node_modules" / "onnxruntime-web"
SAME = 20  # steps after which the losses are compared


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=sorted(MODELS), default="har-cnn", help="network (default har-cnn)")
    parser.add_argument("--density", type=float, default=0.1, help="kept weights / all (default 0.1)")
    parser.add_argument("--batch", type=int, default=32, help="samples a step (default 32)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each (default 3)")
    parser.add_argument("--blocks", type=int, default=5, help="blocks of steps a turn (default 5)")
    parser.add_argument("--steps", type=int, default=20, help="steps a block (default 20)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("HIDENSEEK_KERNELS", "v3")
    if not RIVAL.exists():
        parser.error(f"onnxruntime-web is not installed; run: make bench-web, or npm ci --prefix {RIVAL.parents[1]}")
    figures = {"commit": commit(), "machine": describe(), "versions": _versions(), **measure(arguments)}
    text = json.dumps(figures, indent=1) + "\n"
    if arguments.output:
        arguments.output.write_text(text)
    print(text, end="")
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds a step of each, and the two ratios."""
    training = Training(batch=arguments.batch)
    ticket = random_ticket(build_plan(arguments.model), arguments.density, seed=5)
    rng = np.random.default_rng(3)
    x = rng.normal(size=(training.batch, *ticket.plan.input_shape)).astype(np.float32)
    y = rng.integers(0, ticket.plan.classes, training.batch)
    weights = np.ones(training.batch, dtype=np.float32)
    runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), training)
    request: dict[str, Any] = {
        "ticket": ticket.encoded.hex(), "training": web.as_javascript(training), "x": x.tobytes().hex(),
        "y": y.tolist(), "graph": training_graph(ticket, training).hex(),
    }  # fmt: skip
    loss = [runtime.step(x, y, weights).loss for _ in range(SAME)][-1]
    times: dict[str, list[float]] = {"native": [], "kernels": [], "onnx": []}
    with web.started("chromium", str(RIVAL / "dist")) as program:
        for who in ("kernels", "onnx"):
            found = web.ask(program, ask=f"time {who}", warmup=0, blocks=1, steps=SAME, **request)["loss"]
            if not np.isclose(found, loss, rtol=1e-4):
                raise SystemExit(
                    f"{who} have a loss of {found} after {SAME} steps, {loss} natively: they do not do the same"
                )
        for _ in range(arguments.turns):
            for _ in range(arguments.blocks):
                start_s = time.perf_counter()
                for _ in range(arguments.steps):
                    runtime.step(x, y, weights)
                times["native"].append((time.perf_counter() - start_s) * 1e3 / arguments.steps)
            for who, warmup, steps in (("kernels", 200, arguments.steps), ("onnx", 10, max(1, arguments.steps // 4))):
                asked = {"ask": f"time {who}", "warmup": warmup, "blocks": arguments.blocks, "steps": steps}
                times[who] += web.ask(program, **asked, **request)["ms"]
    turns = {who: _medians(every, arguments.blocks) for who, every in times.items()}
    return {
        "model": arguments.model,
        "density": arguments.density,
        "batch": training.batch,
        "median_ms": {who: round(median(every), 4) for who, every in times.items()},
        "kernels_over_native": _ratio(turns["kernels"], turns["native"]),
        "onnx_over_kernels": _ratio(turns["onnx"], turns["kernels"]),
        "every_ms": {who: [round(value, 4) for value in every] for who, every in times.items()},
    }


def _medians(every: Sequence[float], blocks: int) -> list[float]:
    """That of each turn."""
    return [median(every[at : at + blocks]) for at in range(0, len(every), blocks)]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the turns' ratios: what disturbs a turn mostly disturbs both."""
    return round(median(a / b for a, b in zip(ours, theirs, strict=True)), 2)


def _versions() -> dict[str, str]:
    """Of the browser and of onnxruntime-web."""
    package = json.loads((RIVAL / "package.json").read_text())
    browser = subprocess.run([str(web.CHROMIUM), "--version"], capture_output=True, text=True, check=True)
    return {"chromium": browser.stdout.split()[1], "onnxruntime-web": package["version"]}


if __name__ == "__main__":
    sys.exit(main())
