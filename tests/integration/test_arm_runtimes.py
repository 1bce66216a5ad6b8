"""Every runtime on 64-bit ARM: exported graphs as `hidenseek verify` checks them, and the same signs as on x86.

`hidenseek export` writes the folders here; what devices would download of them runs in a Debian system of that
machine, emulated and without torch. Numbers come back and are compared here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from edge_client.runtimes import registry  # noqa: E402
from export import manifest  # noqa: E402
from export.torch_net import TorchReference  # noqa: E402
from export.verify import check  # noqa: E402
from tests.integration.arm_cases import (  # noqa: E402
    EXECUTORCH,
    HAR,
    LENET,
    STEPS,
    STRAY_SIGNS,
    apart,
    exact_samples,
    exact_ticket,
    needs_executorch,
)
from tests.integration.arm_debian import AARCH64, locked  # noqa: E402
from tests.integration.arm_remote import Remote, remote  # noqa: E402
from tests.integration.arm_root import Root, installed, shared_folder  # noqa: E402

torch.set_num_threads(1)  # the emulated process needs the other core
BATCH = 4  # emulation is slow, and an ExecuTorch program takes as long for a short batch
PLANS = {"lenet": LENET, "har-cnn": HAR}
CASES = [
    pytest.param("sparse", "lenet"),
    pytest.param("sparse", "har-cnn"),
    pytest.param("onnx", "lenet"),
    pytest.param("onnx", "har-cnn", marks=pytest.mark.arm),  # a second a step
    pytest.param("executorch", "lenet", marks=needs_executorch),
    pytest.param("executorch", "har-cnn", marks=[needs_executorch, pytest.mark.arm]),
]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize(("runtime", "network"), CASES)]

Export = Callable[[str], manifest.Exported]
Devices = Callable[[str], Remote]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """The system, with this tree's wheel and all runtimes."""
    return installed(AARCH64, tmp_path_factory)


@pytest.fixture(scope="module")
def devices(root: Root) -> Iterator[Devices]:
    """By runtime, a process in the system that has loaded no other one."""
    with ExitStack() as processes:
        yield cache(lambda runtime: processes.enter_context(remote(root)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """By network, the folder that `hidenseek export` wrote; one for all of pytest's processes."""
    shared = shared_folder(tmp_path_factory)
    targets = ",".join(name for name in registry.RUNTIMES if name != "executorch" or EXECUTORCH)

    @cache
    def export(network: str) -> manifest.Exported:
        folder, ticket = shared / f"export-{network}", shared / f"{network}.hns"
        with locked(shared / f"{network}.lock"):
            if not folder.exists():
                ticket.write_bytes(exact_ticket(PLANS[network], 0.1).encoded)
                command = [sys.executable, "-m", "coordinator.cli", "export", ticket, "--target", targets]
                command += ["--batch", str(BATCH), "-o", folder]
                env = os.environ | {"OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
                assert done.returncode == 0, done.stderr[-3000:]
        return manifest.read(folder)

    return export


def test_equals_torch(devices: Devices, exported: Export, runtime: str, network: str) -> None:
    """All that `hidenseek verify` compares: gradients twice on one graph, short batches, a prior, 20 steps."""
    found, device = exported(network), devices(runtime)
    bundle = found.bundles[runtime]
    device.open(bundle, found.training)
    rows = check(bundle, found.training, device, batch=BATCH, steps=STEPS)
    assert [row for row in rows if not row.ok] == []
    assert len(rows) == 7 + len(bundle.ticket.kept_layers), "nothing was left out"


def test_same_signs_as_here(devices: Devices, exported: Export, runtime: str, network: str) -> None:
    """After 20 Adam steps from the same scores, on batches some of which are short, there, here and in torch."""
    found, device = exported(network), devices(runtime)
    bundle, plan = found.bundles[runtime], found.ticket.plan
    device.open(bundle, found.training)
    here = registry.open_runtime(bundle, found.training)
    reference = TorchReference(found.ticket, found.training, dtype=torch.float64)
    rng = np.random.default_rng(5)
    start = rng.uniform(-0.2, 0.2, found.ticket.kept).astype(np.float32)
    prior = np.where(np.arange(plan.classes) < plan.classes // 2, 0, -20).astype(np.float32)
    for one in (device, here, reference):
        one.set_log_prior(prior)
        one.set_scores(start)
    for number in range(STEPS):
        x, y = exact_samples(plan, BATCH if number % 4 else 1 + number // 4 % BATCH, rng)
        batch = x, y % (plan.classes // 2), rng.integers(1, 3, len(x)).astype(np.float32)
        for one in (device, here, reference):
            one.step(*batch)
    assert apart(device.scores(), start) > 0.01, "there is something to agree on"
    assert apart(device.scores(), here.scores()) <= STRAY_SIGNS
    assert apart(device.scores(), reference.scores()) <= STRAY_SIGNS


def test_runs_there_and_without_torch(devices: Devices, exported: Export, runtime: str, network: str) -> None:
    """The process that computes is one of the other machine, with this runtime's package only and never torch."""
    found, device = exported(network), devices(runtime)
    device.open(found.bundles[runtime], found.training)
    facts = device.facts()
    assert facts["machine"] == "aarch64"
    assert facts["runtimes"] == registry.RUNTIMES
    assert "torch" not in facts["imported"]
    assert ("onnxruntime" in facts["imported"]) == (runtime == "onnx")
