"""What measuring itself costs a device: the share of `edge_client.sampler` in rounds of training.

    python -m benchmarks.profiler                 # under a minute; writes benchmarks/results/profiler.json

CPU time in the sampler over that of the rounds it measures, plus what the layers' clocks slow down the one step in 16
that they are on in. (Comparing whole rounds with and without cannot see 1 %: a round's time varies by more.) The first
round, which reads everything, is told apart. The process is as small as a device's, without torch: reading what memory
it takes costs the more the larger it is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from statistics import fmean, median

import numpy as np

from benchmarks.machine import commit, describe
from edge_client.runtimes import registry
from edge_client.runtimes.base import LayerClock, Runtime
from edge_client.sampler import LAYERS_EVERY, Sampler
from edge_client.trainer import train
from wire.bundle import decode_bundle
from wire.settings import Training

RESULT = Path(__file__).resolve().parent / "results" / "profiler.json"
NETS = ("har-cnn", "lenet", "conv2")
TURN_S = 15.0  # CPU seconds of rounds of one network, about
SAMPLES = 220  # about those of a person in HAPT


def turns(name: str, path: Path, samples: int, count: int) -> dict[str, float | str | int]:
    """What a sampler adds to rounds of a bundle, as a share of them."""
    data, training = path.read_bytes(), Training()
    bundle = decode_bundle(data, expected_id=sha256(data).digest())
    plan, runtime = bundle.ticket.plan, registry.open_runtime(bundle, training)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, *plan.input_shape), dtype=np.float32)
    y = rng.integers(0, plan.classes, samples)
    sampler = Sampler(runtime)
    count = max(min(count, int(TURN_S / one_round(runtime, x, y, training, None)[0])), 5)
    whole, inside = zip(*(one_round(runtime, x, y, training, sampler) for _ in range(count)), strict=True)
    clocked = layer_clocks(runtime, x[: training.batch], y[: training.batch], count)
    steps = training.epochs * -(-samples // training.batch)
    looks = steps * before_step_s(sampler)
    normal = [one + looks for one in inside[1:]]  # the first round reads everything
    return {
        "net": name,
        "steps": steps,
        "rounds": count,
        "round_s": round(median(whole), 5),
        "first_round_ms": round(inside[0] * 1e3, 3),
        "sampler_ms": round(fmean(normal) * 1e3, 4),
        "sampler_share": round(sum(normal) / sum(whole[1:]), 5),
        "layer_clock_share": round(clocked / LAYERS_EVERY, 5),
        "overhead": round(sum(normal) / sum(whole[1:]) + max(clocked, 0.0) / LAYERS_EVERY, 5),
    }


def one_round(
    runtime: Runtime, x: np.ndarray, y: np.ndarray, training: Training, sampler: Sampler | None
) -> tuple[float, float]:  # CPU seconds of all, and of them in start and finish
    """Train as `edge_client.client` does."""
    scores, prior = np.full(runtime.scores().shape, 0.1, np.float32), np.zeros(int(y.max()) + 1, np.float32)
    began = now = time.thread_time()
    last, inside, steps = None, 0.0, train(runtime, x, y, prior=prior, training=training, start=scores, seed=1)
    if sampler is not None:
        sampler.start()
        now = time.thread_time()
        inside += now - began
    while last is None:
        if sampler is not None:
            sampler.before_step()
        last = next(steps)
    if sampler is not None:
        before = time.thread_time()
        sampler.finish(1, last)
        now = time.thread_time()
        return now - began, inside + now - before
    return time.thread_time() - began, inside


def before_step_s(sampler: Sampler, count: int = 10_000) -> float:
    """CPU seconds of one look before a step: too short to be timed one by one."""
    began = time.thread_time()
    for _ in range(count):
        sampler.before_step()
    return (time.thread_time() - began) / count


def layer_clocks(runtime: Runtime, x: np.ndarray, y: np.ndarray, count: int) -> float:
    """What the layers' clocks add to a step that is timed so: the median of pairs of such steps, taking turns."""
    assert isinstance(runtime, LayerClock)
    weights, ratios = np.ones(len(x), np.float32), []
    for _ in range(5 * count):
        taken = []
        for on in (False, True):
            runtime.clock_layers(on=on)
            began = time.thread_time()
            runtime.step(x, y, weights)
            taken.append(time.thread_time() - began)
        ratios.append(taken[1] / taken[0])
    runtime.clock_layers(on=False)
    return median(ratios) - 1


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiler", description=__doc__)
    parser.add_argument("--turns", type=int, default=60, metavar="N")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="only this network, by this process: row on stdout")
    arguments = parser.parse_args(argv)
    if arguments.bundle:
        print(json.dumps(turns(arguments.bundle.stem, arguments.bundle, SAMPLES, arguments.turns)))
        assert "torch" not in sys.modules
        return
    from coordinator.models import build_plan
    from coordinator.prune import prune
    from export.bundle import make_bundle

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in NETS:
            path = Path(folder) / f"{name}.bundle"
            path.write_bytes(make_bundle(prune(build_plan(name), density=0.1, seed=0), "sparse", Training()).encoded)
            command = [sys.executable, "-m", "benchmarks.profiler", "--bundle", path, "--turns", str(arguments.turns)]
            rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(
                f"{name}: {rows[-1]['round_s']} s a round, of it {rows[-1]['overhead']:.2%} for measuring it",
                flush=True,
            )
    RESULT.write_text(json.dumps({"machine": describe(), "commit": commit(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
