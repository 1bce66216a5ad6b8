"""One runtime in a fresh process: loads, then takes steps when told. The other end of `benchmarks/kernels.py`.

Reads commands from standard input, one a line, and answers each with a line of JSON:
`run N` takes one step and then N more and answers the N steps' mean milliseconds; an end of input
answers the peak memory.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wire.bundle import Bundle, decode_bundle
from wire.settings import Training
from wire.ticket import Ticket, read_ticket

Step = Callable[[], object]
RUNTIMES = ("torch-dense", "torch-masked", "torch-compile", "onnx", "sparse")


def main() -> int:
    """`kernel_process.py RUNTIME train|infer TICKET BATCH`."""
    runtime, mode, ticket, batch = sys.argv[1:]
    step = make_step(runtime, mode, read_ticket(Path(ticket)), int(batch))
    for _ in range(2):
        step()
    print(json.dumps({"ready": runtime}), flush=True)
    for line in sys.stdin:
        count = int(line.split()[1])
        step()  # not timed: it finds the caches full of another process's data
        start = time.perf_counter()
        for _ in range(count):
            step()
        print(json.dumps({"step_ms": (time.perf_counter() - start) / count * 1e3}), flush=True)
    from edge_client.readings import peak_memory_kb

    print(json.dumps({"peak_rss_mb": round(peak_memory_kb() / 1024, 1)}), flush=True)
    return 0


def make_step(runtime: str, mode: str, ticket: Ticket, batch: int) -> Step:
    """One training step (forward, backward, Adam) or one inference, on the same random samples for every runtime."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *ticket.plan.input_shape)).astype(np.float32)
    y = rng.integers(0, ticket.plan.classes, batch)
    if runtime.startswith("torch"):
        return torch_step(ticket, x, y, runtime.removeprefix("torch-"), mode)
    from edge_client.runtimes.registry import open_runtime

    training = Training(batch=batch)
    bundle = Bundle(runtime="sparse", ticket=ticket) if runtime == "sparse" else onnx_bundle(ticket)
    opened = open_runtime(bundle, training, threads=1)
    ones = np.ones(batch, dtype=np.float32)
    return (lambda: opened.step(x, y, ones)) if mode == "train" else (lambda: opened.logits(x))


def onnx_bundle(ticket: Ticket) -> Bundle:
    """Export in a child process, so that this one's memory stays a device's."""
    import subprocess
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "t.hns", Path(folder) / "b"
        source.write_bytes(ticket.encoded)
        subprocess.run([sys.executable, "-m", "benchmarks.export_onnx", source, target], check=True)
        digest = Path(f"{target}.id").read_bytes()
        return decode_bundle(target.read_bytes(), expected_id=digest)


def torch_step(ticket: Ticket, x: np.ndarray, y: np.ndarray, kind: str, mode: str) -> Step:
    """PyTorch on the same plan: dense weights, or dense weights times a keep mask, eager or compiled."""
    import torch
    from torch.nn import functional as F

    from export.torch_net import forward

    torch.set_num_threads(1)
    torch.manual_seed(0)
    plan = ticket.plan
    samples, labels = torch.from_numpy(x), torch.from_numpy(y)
    weights = [torch.randn(s.weight_shape).mul_((2 / s.fan_in) ** 0.5).requires_grad_() for s in plan.weight_layers()]
    masks = []
    for layer in ticket.kept_layers:
        mask = torch.zeros(layer.shape.weights)
        mask[torch.from_numpy(layer.indices.astype(np.int64))] = 1.0
        masks.append(mask.view(layer.shape.weight_shape))
    optimiser = torch.optim.Adam(weights)

    def logits() -> torch.Tensor:
        kept = [w * m for w, m in zip(weights, masks, strict=True)] if kind == "masked" else weights
        return forward(plan, kept, samples)

    def loss() -> torch.Tensor:
        return F.cross_entropy(logits(), labels)

    if kind == "compile":
        logits, loss = torch.compile(logits), torch.compile(loss)

    def train() -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    def infer() -> None:
        with torch.inference_mode():
            logits()

    return train if mode == "train" else infer


if __name__ == "__main__":
    sys.exit(main())
