"""What measuring itself costs a device: rounds of training with and without `edge_client.sampler`, taking turns.

    python -m benchmarks.profiler                 # under a minute; writes benchmarks/results/profiler.json

Every turn trains the same round on the same loaded runtime; CPU times, the median of the turns' ratios. The process
is as small as a device's, without torch: reading what memory it takes costs the more the larger it is.
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
from statistics import median

import numpy as np

from benchmarks.machine import commit, describe
from edge_client.runtimes import registry
from edge_client.runtimes.base import Runtime
from edge_client.sampler import Sampler
from edge_client.trainer import train
from wire.bundle import decode_bundle
from wire.settings import Training

RESULT = Path(__file__).resolve().parent / "results" / "profiler.json"
NETS = ("har-cnn", "lenet", "conv2")
SAMPLES = 220  # about those of a person in HAPT


def turns(name: str, path: Path, samples: int, count: int) -> dict[str, float | str | int]:
    """Median CPU seconds of a round of a bundle without and with the sampler."""
    data, training = path.read_bytes(), Training()
    bundle = decode_bundle(data, expected_id=sha256(data).digest())
    plan, runtime = bundle.ticket.plan, registry.open_runtime(bundle, training)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, *plan.input_shape), dtype=np.float32)
    y = rng.integers(0, plan.classes, samples)
    sampler = Sampler(runtime)
    one_round(runtime, x, y, training, None)
    plain, sampled = [], []
    for turn in range(count):
        for which in (None, sampler) if turn % 2 else (sampler, None):
            (plain if which is None else sampled).append(one_round(runtime, x, y, training, which))
    return {
        "net": name,
        "steps": training.epochs * -(-samples // training.batch),
        "turns": count,
        "round_s": round(median(plain), 5),
        "overhead": round(median(b / a for a, b in zip(plain, sampled, strict=True)) - 1, 5),
    }


def one_round(
    runtime: Runtime, x: np.ndarray, y: np.ndarray, training: Training, sampler: Sampler | None
) -> float:  # CPU seconds
    """Train as `edge_client.client` does."""
    scores, prior = np.full(runtime.scores().shape, 0.1, np.float32), np.zeros(int(y.max()) + 1, np.float32)
    began = time.process_time()
    last, steps = None, train(runtime, x, y, prior=prior, training=training, start=scores, seed=1)
    if sampler is not None:
        sampler.start()
    while last is None:
        if sampler is not None:
            sampler.before_step()
        last = next(steps)
    if sampler is not None:
        sampler.finish(1, last)
    return time.process_time() - began


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiler", description=__doc__)
    parser.add_argument("--turns", type=int, default=15, metavar="N")
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
                f"{name}: {rows[-1]['round_s']} s a round, and {rows[-1]['overhead']:.2%} for measuring it", flush=True
            )
    RESULT.write_text(json.dumps({"machine": describe(), "commit": commit(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
