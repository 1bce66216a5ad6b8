"""The wheels for ARM boards, installed in Debian systems of those boards and run there by qemu-user.

The reference is torch autograd in float64 on this machine. As in `tests/property/test_sparse_parity.py`, data and
scales are small multiples of powers of two, so that the sums that ReLUs and max pools compare are the same in both.
"""

from __future__ import annotations

import json
import os
from math import gcd, log2, sqrt
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from coordinator.models import build_plan  # noqa: E402
from export.torch_net import TorchReference  # noqa: E402
from tests.integration.arm64_root import AARCH64, ARMV7L, Machine, Root, install  # noqa: E402
from wire.bundle import Bundle  # noqa: E402
from wire.plan import AvgPool, Conv, Flatten, Linear, MaxPool, Plan, Relu  # noqa: E402
from wire.settings import Training  # noqa: E402
from wire.ticket import Keep, Ticket  # noqa: E402

pytestmark = pytest.mark.slow
STEPS = 20
TOLERANCE = 1e-5  # relative to the layer's largest gradient, the largest logit, the loss
# After 20 steps: Adam moves a score by its gradient's sign however small the gradient is, so scores whose gradient
# is nearly 0 may go their own ways; at most so many of all may do so.
STRAY_SIGNS = 1e-3
LOSSES = 1e-4
TRAINED = (5, 20)  # the batches that are trained for STEPS steps; emulated training is slow
BATCHES = (1, 3, 5, 16, 20)  # micro-batches of 1, 4, 8, 8 + 8 and 8 + 8 + 4 samples

STRIDES = Plan(
    name="strides",
    input_shape=(3, 17, 14),
    layers=(
        Conv(out_channels=6, kernel=(3, 2), stride=(2, 3), padding=(2, 1)),
        Relu(),
        AvgPool(kernel=(2, 2), stride=(2, 1)),
        Conv(out_channels=8, kernel=(3, 3), stride=(1, 1), padding=(1, 1)),
        Flatten(),
        Linear(out_features=5),
    ),
)
SERIES = Plan(
    name="series",
    input_shape=(4, 37),
    layers=(
        Conv(out_channels=12, kernel=(5,), stride=(2,), padding=(2,)),
        Relu(),
        MaxPool(kernel=(3,), stride=(2,)),
        Conv(out_channels=7, kernel=(3,), stride=(1,), padding=(0,)),
        Relu(),
        Flatten(),
        Linear(out_features=3),
    ),
)
HAR = build_plan("har-cnn", input_shape=(6, 128), classes=6)
LENET = build_plan("lenet", input_shape=(1, 28, 28), classes=10)


def _ticket(plan: Plan, density: float) -> Ticket:
    """A seeded random mask; the scale of every layer is the power of two next to He's."""
    layers = []
    for shape in plan.weight_layers():
        block = gcd(4, shape.out_units)
        blocks = max(1, round(shape.weights * density / block))
        scale = 2.0 ** round(log2(sqrt(2 * shape.out_units / (blocks * block))))
        layers.append(Keep(block=block, mask=blocks, scale=scale))
    return Ticket(plan=plan, seed=3, magnitudes="constant", layers=tuple(layers))


def _write_case(path: Path, ticket: Ticket, batch: int, threads: int) -> None:
    """Write a batch and what the reference finds for it."""
    rng = np.random.default_rng(batch)
    x = (rng.integers(-3, 4, (batch, *ticket.plan.input_shape)) / 4).astype(np.float32)
    y = rng.integers(0, ticket.plan.classes, batch)
    weights = rng.integers(1, 3, batch).astype(np.float32)
    scores = rng.uniform(-0.2, 0.2, ticket.kept).astype(np.float32)
    reference = TorchReference(ticket, Training(batch=batch), dtype=torch.float64)
    reference.set_scores(scores)
    loss, correct, gradient = reference.gradient(x, y, weights)
    logits = reference.logits(x)
    steps = STEPS if batch in TRAINED else 0
    losses = [reference.step(x, y, weights)[0] for _ in range(steps)]
    assert not steps or np.mean((reference.scores() >= 0) != (scores >= 0)) > 0.01  # there is something to agree on
    np.savez(
        path,
        bundle=np.frombuffer(Bundle(runtime="sparse", ticket=ticket).encoded, dtype=np.uint8),
        batch=batch,
        threads=threads,
        x=x,
        y=y,
        weights=weights,
        scores=scores,
        loss=loss,
        correct=correct,
        gradient=gradient,
        logits=logits,
        losses=losses,
        trained=reference.scores(),
    )


@pytest.fixture(scope="session", params=[AARCH64, ARMV7L], ids=lambda machine: machine.name)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A system of every kind, with this tree's wheel; one for all of pytest's processes."""
    machine: Machine = request.param
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return install(machine, shared / f"root-{machine.name}")


def test_trains_as_torch_does(root: Root, tmp_path: Path) -> None:
    """The installed wheel finds autograd's losses, gradients and logits, and after 20 Adam steps the same signs."""
    for plan, density in ((HAR, 0.1), (LENET, 0.1), (STRIDES, 0.4), (SERIES, 0.4)):
        ticket = _ticket(plan, density)
        for batch in BATCHES:
            _write_case(tmp_path / f"{plan.name}-{batch}.npz", ticket, batch, threads=2 if batch == 20 else 1)
    done = root.python(Path(__file__).with_name("arm64_parity.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["machine"] == root.machine.name
    assert report["kernels"] == str(root.site[0] / "edge_client/kernels/sparse-v1.so")
    assert report["vector_floats"] == 4
    assert len(report["cases"]) == 4 * len(BATCHES)
    for name, worst in report["cases"].items():
        for what in ("loss", "correct", "gradient", "logits"):
            assert worst[what] <= TOLERANCE, f"{name}: {what} differs by {worst[what]:.1e}"
        assert worst["losses"] <= LOSSES, f"{name}: a loss of {STEPS} steps differs by {worst['losses']:.1e}"
        assert worst["signs"] <= STRAY_SIGNS, f"{name}: {worst['signs']:.2%} of the signs differ after {STEPS} steps"


def test_the_command_starts(root: Root) -> None:
    """`hidenseek-edge --help`, the script that pip wrote, runs in the installed system."""
    done = root.python(root.site[0] / "bin/hidenseek-edge", "--help")
    assert done.returncode == 0, done.stderr
    assert "hidenseek-edge" in done.stdout
    assert "join" in done.stdout


def test_the_tag_is_for_that_machine_and_every_python(root: Root) -> None:
    """The wheel is py3-none-manylinux_2_XX of the cross compiler's machine; pip took it for Python and glibc there."""
    assert root.wheel.startswith("hidenseek-")
    assert root.wheel.endswith(f"_{root.machine.name}.whl")
    assert "-py3-none-manylinux_2_" in root.wheel
