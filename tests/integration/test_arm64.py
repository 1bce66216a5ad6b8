"""The wheels for ARM boards, installed in Debian systems of those boards and run there by qemu-user.

The reference is torch autograd in float64 on this machine, on the exact sums of `arm_cases`.
"""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from export.torch_net import TorchReference  # noqa: E402
from tests.integration.arm_cases import HAR, LENET, STEPS, STRAY_SIGNS, apart, exact_samples, exact_ticket  # noqa: E402
from tests.integration.arm_debian import AARCH64, ARMV7L  # noqa: E402
from tests.integration.arm_remote import Remote, remote  # noqa: E402
from tests.integration.arm_root import Root, installed  # noqa: E402
from wire.bundle import Bundle  # noqa: E402
from wire.layers import AvgPool, Conv, Flatten, Linear, MaxPool, Relu  # noqa: E402
from wire.plan import Plan  # noqa: E402
from wire.settings import Training  # noqa: E402
from wire.ticket import Ticket  # noqa: E402

pytestmark = pytest.mark.slow
TOLERANCE = 1e-5  # relative to the layer's largest gradient, the largest logit, the loss
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


@pytest.fixture(scope="session", params=[AARCH64, ARMV7L], ids=lambda machine: machine.name)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A system of every kind, with this tree's wheel; one for all of pytest's processes."""
    return installed(request.param, tmp_path_factory)


def test_trains_as_torch_does(root: Root) -> None:
    """The installed wheel finds autograd's losses, gradients and logits, and after 20 Adam steps the same signs."""
    with remote(root) as device:
        for plan, density in ((HAR, 0.1), (LENET, 0.1), (STRIDES, 0.4), (SERIES, 0.4)):
            ticket = exact_ticket(plan, density)
            for batch in BATCHES:
                _compare(device, ticket, batch)
        facts = device.facts()
    assert facts["machine"] == root.machine.name
    assert facts["kernels"] == str(root.site[0] / "edge_client/kernels/sparse-v1.so")
    assert facts["vector_floats"] == 4


def _compare(device: Remote, ticket: Ticket, batch: int) -> None:
    rng = np.random.default_rng(batch)
    x, y = exact_samples(ticket.plan, batch, rng)
    weights = rng.integers(1, 3, batch).astype(np.float32)
    scores = rng.uniform(-0.2, 0.2, ticket.kept).astype(np.float32)
    training = Training(batch=batch)
    reference = TorchReference(ticket, training, dtype=torch.float64)
    reference.set_scores(scores)
    loss, correct, gradient = reference.gradient(x, y, weights)
    where = f"{ticket.plan.name}, batch {batch}"

    device.open(Bundle(runtime="sparse", ticket=ticket), training, threads=2 if batch == 20 else 1)
    for _ in range(2):  # the second time on memory that the first has used
        device.set_scores(scores)
        result, found = device.gradient(x, y, weights)
        assert result.loss == pytest.approx(loss, rel=TOLERANCE), where
        assert result.correct == pytest.approx(correct, abs=TOLERANCE), where
        for layer in ticket.kept_layers:
            expected = gradient[layer.slice]
            worst = np.abs(found[layer.slice] - expected).max() / max(np.abs(expected).max(), 1e-2)
            assert worst <= TOLERANCE, f"{where}: the gradient of {layer.shape.name} differs by {worst:.1e}"
    logits = reference.logits(x)
    np.testing.assert_allclose(device.logits(x), logits, rtol=0, atol=TOLERANCE * np.abs(logits).max(), err_msg=where)
    if batch not in TRAINED:
        return
    device.set_scores(scores)
    for _ in range(STEPS):
        expected_loss = reference.step(x, y, weights)[0]
        assert device.step(x, y, weights).loss == pytest.approx(expected_loss, rel=LOSSES), where
    assert apart(reference.scores(), scores) > 0.01, "there is something to agree on"
    strays = apart(device.scores(), reference.scores())
    assert strays <= STRAY_SIGNS, f"{where}: {strays:.2%} of the signs differ after {STEPS} steps"


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
