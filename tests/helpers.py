"""Small networks and data that several test files share."""

from __future__ import annotations

import signal
from contextlib import closing
from math import gcd, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.keys import federation_key
from edge_client.runtimes import registry
from edge_client.runtimes.base import Floats, Labels
from edge_client.store import Store
from wire.bundle import Bundle
from wire.channel import Channel
from wire.envelope import DEFAULT_PACKET_BYTES
from wire.federation_messages import Hello
from wire.layers import (
    Add,
    Concat,
    Conv,
    Flatten,
    Gelu,
    Hardswish,
    Linear,
    MaxPool,
    Norm,
    Recall,
    Relu,
    Relu6,
)
from wire.mask import Signs
from wire.personal import Personal
from wire.personal import encode as encode_personal
from wire.plan import Plan
from wire.signing import public_key
from wire.ticket import Keep, Ticket
from wire.transport import MemoryBus

DEVICE_KEY = bytes(32)  # a private key


def root_with(root: Path, files: dict[str, str]) -> Path:
    """A root folder with such files, as /proc and /sys would have them."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def random_ticket(plan: Plan, density: float, seed: int, block: int = 4, magnitudes: str = "constant") -> Ticket:
    """A ticket with a seeded random mask at the same density in every layer; at least one block a layer.

    Layers whose rows do not divide into blocks of `block` take the greatest common divisor instead.
    """
    layers = []
    for shape in plan.weight_layers():
        rows = gcd(block, shape.out_units)
        blocks = max(1, round(shape.weights * density / rows))
        scale = float(np.float32(sqrt(2 * shape.out_units / (blocks * rows))))  # He, over the pruned fan-in
        layers.append(Keep(block=rows, mask=blocks, scale=scale))
    return Ticket(plan=plan, seed=seed, magnitudes=magnitudes, layers=tuple(layers))


def pooled_plan(name: str, length: int, classes: int) -> Plan:
    """A small 1-D network with one of every usual layer, of two channels of `length` samples."""
    layers = (
        Conv(out_channels=8, kernel=(3,), stride=(1,), padding=(1,)),
        Relu(),
        MaxPool(kernel=(2,), stride=(2,)),
        Flatten(),
        Linear(out_features=classes),
    )
    return Plan(name=name, input_shape=(2, length), layers=layers)


SMALL = pooled_plan("small", 16, 5)
TINY = pooled_plan("tiny", 12, 4)
TINY_TICKET = random_ticket(TINY, 0.4, seed=2, magnitudes="normal")

# One of every kind of layer that `TINY` lacks, branches among them.
BRANCHES = Plan(
    name="branches",
    input_shape=(6, 12),
    layers=(
        Conv(out_channels=8, kernel=(3,), stride=(1,), padding=(1,), groups=2),
        Gelu(),
        Recall(source=0),
        Conv(out_channels=8, kernel=(1,), stride=(1,), padding=(0,)),
        Hardswish(),
        Concat(source=2),
        Norm(groups=4),
        Relu6(),
        Conv(out_channels=16, kernel=(1,), stride=(1,), padding=(0,), groups=4),
        Add(source=8),
        Flatten(),
        Linear(out_features=5),
    ),
)


def tiny_batch(n: int) -> tuple[Floats, Labels, Floats]:
    """Random samples, labels and weights for `TINY`."""
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, 2, 12), dtype=np.float32), rng.integers(0, 4, n), np.ones(n, dtype=np.float32)


# ExecuTorch takes seconds to import and seconds for a program.
INSTALLED_RUNTIMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name == "executorch" else []) for name in registry.available()
]


def hear_ctrl_c() -> None:
    """For a child process that a test interrupts: one started in the background of a script ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def random_signs(ticket: Ticket, seed: int) -> Signs:
    """As many +1 as -1, about."""
    return np.random.default_rng(seed).random(ticket.kept) < 0.5


def federation_channel(bus: MemoryBus, packet_bytes: int = DEFAULT_PACKET_BYTES) -> Channel:
    """A coordinator's connection to a bus in memory, with the tests' federation key."""
    return Channel(bus.connect(), federation_key(), packet_bytes=packet_bytes)


def introduce(instance: str, runtime: str = "onnx", key: bytes = DEVICE_KEY, **more: Any) -> Hello:
    """A device's hello, by the process of this name."""
    rest = {"train_samples": 72, "test_samples": 24, "started": 1, "greetings": 1, "profile": ""} | more
    return Hello(instance=instance.encode().ljust(8), software="test", runtime=runtime, key=public_key(key), **rest)


def write_state(folder: Path, bundle: Bundle, signs: Signs) -> Personal:
    """A device's state folder after round 3: its bundle and what it learned."""
    prior = np.log(np.arange(1, bundle.ticket.plan.classes + 1, dtype=np.float32))
    personal = Personal(ticket=bundle.ticket.id, run=b"run-of-3", number=3, log_prior=prior, signs=signs)
    with closing(Store(folder)) as store:
        store.save_bundle(bundle.id, bundle.encoded)
        store.save_personal(encode_personal(personal))
    return personal
