"""The kernels in WebAssembly: the same schedules, and the same numbers as natively, in node and in a real browser."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from coordinator.models import MODELS, build_plan
from edge_client.kernels import library
from edge_client.runtimes.sparse import SparseRuntime
from edge_client.web.build import TARGET
from tests.golden import vectors
from tests.helpers import random_ticket
from tests.integration import web
from tests.integration.kotlin import Program
from tests.integration.web import needs_chromium, needs_web
from wire.arena import plan_workspace
from wire.bundle import Bundle
from wire.lowering import make_schedule
from wire.settings import Training
from wire.ticket import Ticket

pytestmark = [pytest.mark.slow, needs_web]
STEPS = 20


@pytest.fixture(scope="module")
def node() -> Iterator[Program]:
    """The kernels in node."""
    with web.started("kernels") as program:
        yield program


def test_web_client_agrees_with_the_vectors() -> None:
    """Tickets, votes, order, gradients, scores, masks, codes, signatures, messages, parts, invitation and claim."""
    command = ["node", str(web.CHECKS / "vectors.js"), str(vectors.PATH)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stdout + found.stderr
    assert int(found.stdout.split()[0]) >= 133


def test_the_check_of_the_vectors_notices_a_difference(tmp_path: Any) -> None:
    """Vectors in which one bit of a mask and one gradient are others do not pass."""
    every = json.loads(vectors.PATH.read_text())
    every["mask"] = "00" + every["mask"][2:]
    every["steps"][2]["gradient"][7] += 0.01
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps(every))
    command = ["node", str(web.CHECKS / "vectors.js"), str(path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 1
    assert {"differs: mask", "differs: step 2 gradient 0"} <= set(found.stdout.splitlines())


@pytest.mark.parametrize("model", MODELS)
def test_schedules_are_those_of_python(node: Program, model: str) -> None:
    """Operations, tensors and where they lie, for every micro-batch."""
    plan = build_plan(model)
    ticket = random_ticket(plan, 0.02, seed=1)
    for lanes in (1, 4, 8):
        schedule = make_schedule(plan, lanes=lanes, width=4)
        space = plan_workspace(schedule)
        expected = {
            "operations": [
                [int(o.kind), o.input, o.second, o.output, o.relu, o.weights, o.flat] for o in schedule.operations
            ],
            "tensors": [
                [g.channels, g.height, g.width, g.pad_h, g.pad_w, g.pitch, t.view_of, t.learns, t.cut]
                for t in schedule.tensors
                for g in [t.geometry]
            ],
            "logits": schedule.logits,
            "inputRelu": schedule.input_relu,
            "offsets": [
                [None if buffer is None else buffer.offset for buffer in buffers]
                for buffers in (space.values, space.gradients, space.extras)
            ],
            "nbytes": space.nbytes,
        }
        assert web.ask(node, ask="schedule", ticket=ticket.encoded.hex(), lanes=lanes) == expected


@pytest.mark.parametrize("model", ["har-cnn", "lenet", "resnet8", "ds-cnn", "har-resnet"])
@pytest.mark.parametrize(("block", "magnitudes", "optimiser"), [(4, "constant", "adam"), (1, "normal", "sgd")])
def test_node_trains_as_the_native_kernels(
    node: Program, monkeypatch: pytest.MonkeyPatch, model: str, block: int, magnitudes: str, optimiser: str
) -> None:
    """Twenty steps: the same gradients, losses, scores and signs, bit for bit where the vectors are as wide."""
    ticket = random_ticket(build_plan(model), 0.05, seed=2, block=block, magnitudes=magnitudes)
    training = Training(batch=16 if block == 4 else 3, optimiser=optimiser)
    native, answer = both(ticket, training, lambda request: web.ask(node, **request), monkeypatch)
    assert_same(native, answer)


@needs_chromium
def test_chromium_trains_as_the_native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a worker of a real page, too."""
    ticket = random_ticket(build_plan("har-cnn"), 0.1, seed=5)
    with web.started("chromium") as program:
        native, answer = both(ticket, Training(), lambda request: web.ask(program, **request), monkeypatch)
    assert_same(native, answer)


def test_kernels_are_small_enough_to_download() -> None:
    """Under 60 kB compressed."""
    assert len(gzip.compress(TARGET.read_bytes())) < 60_000


def both(
    ticket: Ticket, training: Training, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the native kernels and those asked make of the same samples and scores."""
    if (library.FOLDER / "sparse-v1.so").exists():
        monkeypatch.setenv("HIDENSEEK_KERNELS", "v1")  # without fused multiply-adds, which WebAssembly has not
    library.load.cache_clear()
    rng = np.random.default_rng(3)
    count = 2 * training.batch
    x = rng.normal(size=(count, *ticket.plan.input_shape)).astype(np.float32)
    y = rng.integers(0, ticket.plan.classes, count)
    start = (0.05 * rng.normal(size=ticket.kept)).astype(np.float32)
    weights = np.ones(training.batch, dtype=np.float32)
    runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), training)
    runtime.set_scores(start)
    gradient = runtime.gradient(x[: training.batch], y[: training.batch], weights)[1]
    losses = []
    for step in range(STEPS):
        chosen = (step * training.batch + np.arange(training.batch)) % count
        losses.append(runtime.step(x[chosen], y[chosen], weights).loss)
    signs = runtime.scores() >= 0
    runtime.set_multipliers(np.where(signs, np.float32(1), np.float32(-1)))
    native = {
        "losses": losses,
        "correct": int((runtime.logits(x).argmax(axis=1) == y).sum()),
        "signs": np.packbits(signs, bitorder="little").tobytes().hex(),
        "scores": runtime.scores(),
        "gradient": gradient,
    }
    library.load.cache_clear()
    answer = ask(
        {
            "ask": "train", "ticket": ticket.encoded.hex(), "training": web.as_javascript(training),
            "x": x.tobytes().hex(), "y": y.tolist(), "start": start.tobytes().hex(), "steps": STEPS,
        }
    )  # fmt: skip
    for name in ("scores", "gradient"):
        answer[name] = np.frombuffer(bytes.fromhex(answer[name]), "<f4")
    return native, answer


def assert_same(native: dict[str, Any], answer: dict[str, Any]) -> None:
    """Signs and hits are equal; other numbers to the last bits: the C libraries' exponentials may differ."""
    assert answer["signs"] == native["signs"]
    assert answer["correct"] == native["correct"]
    np.testing.assert_allclose(answer["losses"], native["losses"], rtol=1e-6)
    for name in ("scores", "gradient"):
        largest = np.abs(native[name]).max()
        np.testing.assert_allclose(answer[name], native[name], rtol=0, atol=1e-5 * largest)
