"""A federation over a real broker in which half of the devices are 64-bit ARM systems, one for each runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_client import data
from edge_client.runtimes import registry
from edge_client.trainer import log_prior, train
from tests.integration.arm_cases import LENET, STRAY_SIGNS, exact_samples, exact_ticket, needs_executorch
from tests.integration.arm_debian import AARCH64
from tests.integration.arm_root import Root, installed
from tests.integration.fleet import Processes, assert_every_mask_counted_once, rows
from wire import dither, mask
from wire.mask import Signs
from wire.prng import training_seed
from wire.settings import Training
from wire.state_folder import read_learned

pytestmark = [pytest.mark.slow, pytest.mark.broker, needs_executorch]
EMULATED = {"arm-sparse": "sparse", "arm-onnx": "onnx", "arm-executorch": "executorch"}
NATIVE = {"pc-sparse": "sparse", "pc-onnx": "onnx"}
EVERYONE = EMULATED | NATIVE
ROUNDS = 3
SAMPLES = 40  # and five epochs of four batches are 20 steps a round
CONFIG = f"""
federation:
  name: t
  ticket: TICKET
  rounds: {ROUNDS}
  per_round: {len(EVERYONE)}
  quorum: {len(EVERYONE)}
  deadline_s: 240
  start_devices: {len(EVERYONE)}
  runtimes: [sparse, onnx, executorch]
  training: {{epochs: 5, batch: 10, learning_rate: 0.03}}
devices: {{{", ".join(f"{name}: {{}}" for name in EVERYONE)}}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """The system, with this tree's wheel and all runtimes."""
    return installed(AARCH64, tmp_path_factory)


def test_round_with_emulated_devices(root: Root, processes: Processes, mosquitto: str) -> None:
    """Every mask is counted, once, and is the one that this machine would have sent; devices leave in order."""
    ticket = processes.home / "lenet.hns"
    ticket.write_bytes(exact_ticket(LENET, 0.1).encoded)
    for seed, device in enumerate(EVERYONE):
        _write_person(processes.home / "data" / device, seed)
    processes.serve(CONFIG.replace("TICKET", str(ticket)), "--broker", mosquitto, password="secret")
    for device, runtime in EMULATED.items():
        _start_emulated(root, processes, device, runtime, mosquitto)
    for device, runtime in NATIVE.items():
        processes.edge(device, mosquitto, "--runtime", runtime, password="secret")
    assert processes.wait("coordinator", 480) == 0, processes.log("coordinator")[-3000:]
    for device in EVERYONE:
        assert processes.wait(device, 60) == 0, processes.log(device)[-3000:]

    assert_every_mask_counted_once(processes, ROUNDS)
    counted = rows(processes.database, "SELECT number, device FROM mask")
    assert sorted(counted) == [(n, d) for n in range(1, ROUNDS + 1) for d in sorted(EVERYONE)]
    assert dict(rows(processes.database, "SELECT name, runtime FROM device")) == EVERYONE
    for device in EVERYONE:
        for number in range(1, ROUNDS + 1):
            assert f"round {number}: mask confirmed" in processes.log(device), device
            _assert_same_signs_here(processes, device, number)
    # Nothing that could be imported as torch is there, and so it was not.
    found = root.python("-c", "from importlib.util import find_spec; print(find_spec('numpy'), find_spec('torch'))")
    assert found.stdout.startswith("ModuleSpec(name='numpy'"), found.stderr
    assert found.stdout.endswith(" None\n")


def _start_emulated(root: Root, processes: Processes, device: str, runtime: str, broker: str) -> None:
    home = processes.home
    arguments = ["join", "--once", "--federation", "t", "--broker", broker, "--device", device, "--runtime", runtime]
    arguments += ["--data", str(home / "data" / device), "--state", str(home / "state" / device)]
    with (home / f"{device}.log").open("ab") as log:
        processes.running[device] = root.start(
            root.site[0] / "bin/hidenseek-edge",
            *arguments,
            inside={"HIDENSEEK_PASSWORD": "secret"},
            stdout=log,
            stderr=log,
        )


def _write_person(folder: Path, seed: int) -> None:
    """Pictures in which the rows of the class are bright, every device with most of the classes."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for name, samples in (("train", SAMPLES), ("test", 20)):
        x, y = exact_samples(LENET, samples, rng)
        y = (y % 7 + seed) % LENET.classes
        x += np.where(np.arange(28) // 3 == np.minimum(y, 9)[:, None], 1, 0).astype(np.float32)[:, None, :, None]
        np.savez(folder / f"{name}.npz", x=x, y=y)


def _assert_same_signs_here(processes: Processes, device: str, number: int) -> None:
    """Train as the device did in a round, with the same runtime on this machine, and compare with what it sent."""
    bundle = read_learned(processes.home / "state" / device).bundle
    assert bundle.runtime == EVERYONE[device]
    ((votes, signs),) = rows(
        processes.database,
        f"SELECT round.votes, mask.signs FROM round JOIN mask USING (number) "
        f"WHERE number = {number} AND device = '{device}'",
    )
    ((settings,),) = rows(processes.database, "SELECT settings FROM run")
    announced = mask.decode_votes(votes, bundle.ticket.ends)
    every = json.loads(settings)
    training = Training(**every["training"])
    seed = training_seed(every["schedule"]["seed"], number, device)
    samples = data.load(processes.home / "data" / device)
    steps = train(
        registry.open_runtime(bundle, training),
        samples.x_train,
        samples.y_train,
        prior=log_prior(samples.y_train, bundle.ticket.plan.classes),
        training=training,
        start=dither.start_scores(announced, training),
        seed=seed,
    )
    (here,) = [trained for trained in steps if trained is not None]
    known = dither.context(announced, training, seed)
    sent: Signs = mask.decode_signs(signs, known, bundle.ticket.ends)
    assert np.mean(sent != known.signs) > 0.005, "there is something to agree on"
    strays = float(np.mean(sent != dither.signs_of(here.scores, training, seed)))
    assert strays <= STRAY_SIGNS, f"{device}, round {number}: {strays:.2%} of its bits are not those trained here"
