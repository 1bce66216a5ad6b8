"""The ExecuTorch programs and runtime: equal to torch autograd, small, and run without torch.

The formulas are checked without executorch. Tests that make or run programs need its wheel and a C++ compiler, and
are slow: executorch takes seconds to import, and seconds for a program.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.models import build_plan
from edge_client.executorch import build, library
from edge_client.executorch.optimise import make_optimiser
from edge_client.profiler import Profiler, random_data
from edge_client.runtimes import registry
from edge_client.runtimes.base import Floats, Labels, Runtime
from edge_client.runtimes.executorch import ExecutorchRuntime
from export import executorch_convolutions, executorch_program
from export.bundle import make_bundle, planned_bytes
from export.executorch_program import ARGUMENTS, CAPACITY_STEP, RESULTS, capacity_for, tensors, training_program
from export.torch_net import TorchReference
from export.verify import check
from tests.graph_plans import assert_gradients_close, graph_plans
from tests.helpers import TINY, TINY_TICKET, random_ticket, tiny_batch
from tests.unit.test_onnx_graph import KINKS, ODD_PLANS, kinked, model_ticket, odd_ticket
from wire.bundle import Bundle, decode_bundle
from wire.errors import DataError, ExportError, RuntimeMissing, TicketError
from wire.layers import Activation, Conv, Flatten, Hardswish, Linear, MaxPool, Relu, Relu6
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Ticket

torch.set_num_threads(1)

MISSING = next((name for name in ("executorch", "tabulate", "flatbuffers") if find_spec(name) is None), None)
needs_executorch = [
    pytest.mark.slow,
    pytest.mark.usefixtures("shim"),
    pytest.mark.skipif(MISSING is not None, reason=f"{MISSING} is not installed, so no program can be made"),
    pytest.mark.skipif(not any(map(shutil.which, build.COMPILER.programs)), reason="there is no C++ compiler"),
]
ODD_ON_DEVICE = (
    "strides that leave input over",
    "overlapping max pool after relu",
    "overlapping average pool",
    "groups, strided",
    "depthwise",
    "relu6",
    "hardswish",
    "gelu",
    "norms of rows and features",
    "shortcut of another shape",
    "concatenations",
    "a relu that a pool and another layer read",
)
TRAINING = Training(batch=4)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The shim built from the sources as they are, for this file only."""
    folder = tmp_path_factory.mktemp("shim")
    build.build(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "FOLDER", folder)
        library.load.cache_clear()
        yield folder
    library.load.cache_clear()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The exporter logs thousands of lines for every program, past `logging.disable`; pytest would keep them all."""
    loggers = [logging.getLogger(), logging.getLogger("torch.__trace")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    yield
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)


@cache
def tiny_bundle() -> Bundle:
    """The small network's bundle, made once."""
    return make_bundle(TINY_TICKET, "executorch", TRAINING)


def opened(bundle: Bundle, training: Training = TRAINING) -> Runtime:
    """The runtime of a bundle."""
    return registry.open_runtime(bundle, training)


def wrong_rows(bundle: Bundle, training: Training, **sizes: int) -> list[str]:
    """What `verify.check` finds wrong."""
    return [row.what for row in check(bundle, training, opened(bundle, training), **sizes) if not row.ok]


def formula(ticket: Ticket, scores: Floats, log_prior: Floats, seen: tuple[Any, ...]) -> list[np.ndarray]:
    """Loss, hits and gradient by the program's own formulas, executed by torch."""
    capacity = capacity_for(ticket.kept)
    initial, indices = np.zeros(capacity, np.float32), np.full(capacity, ticket.plan.weights)
    start = 0
    for layer in ticket.kept_layers:
        initial[layer.slice], indices[layer.slice] = layer.weights, layer.indices + start
        start += layer.shape.weights
    padded = np.concatenate([scores, np.zeros(capacity - ticket.kept, np.float32)])
    inputs = (padded, initial, indices, log_prior, *seen)
    found = executorch_program.TrainingStep(ticket.plan)(*map(torch.from_numpy, inputs))
    assert not found[2][ticket.kept :].any()
    return [found[0].numpy(), found[1].numpy(), found[2][: ticket.kept].numpy()]


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "channels in parts"])
@pytest.mark.parametrize("name", [*ODD_PLANS, "lenet", "har-cnn", "mlp", "har-resnet", "ds-cnn"])
def test_formulas_equal_autograd(name: str, parts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every layer's hand-written gradient is autograd's, whether or not windows are gathered all at once."""
    if parts:
        monkeypatch.setattr(executorch_convolutions, "MAX_WINDOWS", 500)
    ticket = odd_ticket(name) if name in ODD_PLANS else replace(model_ticket(name), magnitudes="normal")
    rng = np.random.default_rng(1)
    scores = rng.uniform(-1, 1, ticket.kept).astype(np.float32)
    scores[:3] = 0, -0.0, 0
    prior = rng.standard_normal(ticket.plan.classes).astype(np.float32)
    x = rng.standard_normal((3, *ticket.plan.input_shape), dtype=np.float32)
    y, weights = rng.integers(0, ticket.plan.classes, 3), np.array([0.5, 2, 0], dtype=np.float32)
    reference = TorchReference(ticket, Training(), dtype=torch.float64)
    reference.set_scores(scores)
    reference.set_log_prior(prior)
    for found, expected in zip(
        formula(ticket, scores, prior, (x, y, weights)), reference.gradient(x, y, weights), strict=True
    ):
        np.testing.assert_allclose(np.squeeze(found), expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max())


# Derandomised for the same reason as the test of the ONNX graphs is.
@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(plan=graph_plans(), density=st.floats(0.05, 1), seed=st.integers(0, 1000), parts=st.booleans())
def test_formulas_of_a_graph_equal_autograd(plan: Plan, density: float, seed: int, parts: bool) -> None:
    """Branches, joints, groups, norms and every activation."""
    ticket = random_ticket(plan, density, seed, block=1, magnitudes="normal")
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal(ticket.kept).astype(np.float32)
    x = rng.standard_normal((3, *plan.input_shape), dtype=np.float32)
    y, weights = rng.integers(0, plan.classes, 3), rng.uniform(0, 1, 3).astype(np.float32)
    exact, single = (TorchReference(ticket, Training(), dtype=dtype) for dtype in (torch.float64, torch.float32))
    for reference in (exact, single):
        reference.set_scores(scores)
    loss, correct, expected = exact.gradient(x, y, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executorch_convolutions, "MAX_WINDOWS", 200 if parts else 1 << 21)
        found = formula(ticket, scores, np.zeros(plan.classes, np.float32), (x, y, weights))
    np.testing.assert_allclose([found[0].item(), found[1].item()], [loss, correct], rtol=1e-5, atol=1e-6)
    assert_gradients_close(ticket, found[2], expected, single.gradient(x, y, weights)[2])


@pytest.mark.parametrize("activation", [Relu(), Relu6(), Hardswish()])
def test_kinks_have_the_derivative_of_torch(activation: Activation) -> None:
    """At 0, 6, 3 and -3, which are met exactly, every activation's gradient is the one torch chooses."""
    ticket = kinked(activation)
    reference = TorchReference(ticket, Training())
    y, weights = np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.float32)
    for value in KINKS:
        expected = reference.gradient(value.reshape(1, 1), y, weights)[2]
        found = formula(ticket, reference.scores(), np.zeros(3, np.float32), (value.reshape(1, 1), y, weights))[2]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7, err_msg=str(value))


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2)])
def test_equal_maxima_give_their_gradient_to_the_first(kernel: int, stride: int) -> None:
    """Where a window has several maxima the first one takes the gradient, as in torch; windows may overlap."""
    pool = MaxPool(kernel=(kernel,) * 2, stride=(stride,) * 2)
    conv = Conv(out_channels=2, kernel=(2, 1), stride=(1, 1), padding=(0, 0))
    layers = (conv, Relu(), pool, Flatten(), Linear(out_features=3))
    ticket = random_ticket(Plan(name="ties", input_shape=(1, 10, 9), layers=layers), 1.0, seed=4)
    rng = np.random.default_rng(0)
    # Sums of two values out of 0, 1, 2 with equal weights: exact in float32, and equal again and again.
    x = rng.integers(0, 3, (4, 1, 10, 9)).astype(np.float32)
    y, weights = rng.integers(0, 3, 4), np.ones(4, dtype=np.float32)
    reference = TorchReference(ticket, Training())
    expected = reference.gradient(x, y, weights)[2]
    scores = np.full(ticket.kept, 0.1, dtype=np.float32)
    found = formula(ticket, scores, np.zeros(3, np.float32), (x, y, weights))[2]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * abs(expected).max())


@pytest.mark.parametrize("training", [Training(), Training(optimiser="sgd", learning_rate=0.3), Training(clip=0.12)])
def test_optimisers_equal_torch(training: Training) -> None:
    """Twenty steps on the same gradients end at the same scores, clip included."""
    rng = np.random.default_rng(3)
    scores = np.full(500, training.start, dtype=np.float32)
    reference = TorchReference(TINY_TICKET, training)
    reference.set_scores(scores)
    optimiser = make_optimiser(training, scores.size)
    for _ in range(20):
        gradient = (rng.standard_normal(500) * 10.0 ** rng.integers(-6, 1, 500)).astype(np.float32)
        optimiser.step(scores, gradient)
        reference.apply(gradient)
    np.testing.assert_allclose(scores, reference.scores(), rtol=0, atol=2e-6 * np.abs(scores).max())
    assert scores.dtype == np.float32
    assert np.abs(scores).max() <= np.float32(training.clip)


def test_capacity_is_rounded_up() -> None:
    """Counts that differ by little share a program; a multiple stays what it is."""
    assert [capacity_for(kept) for kept in (0, 1, CAPACITY_STEP, CAPACITY_STEP + 1)] == [0, 64, 64, 128]


def test_ticket_without_kept_weights_is_refused() -> None:
    """Nothing to train is an error, not an empty program."""
    with pytest.raises(ExportError, match="keeps no weight"):
        training_program(TINY, capacity_for(0), 4)


def test_missing_exporter_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without executorch, making a bundle names the pip command."""
    for name in [name for name in sys.modules if name.startswith("executorch.exir")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "executorch.exir", None)
    with pytest.raises(ExportError, match=r"pip install --no-deps executorch==1\.5\.1"):
        make_bundle(TINY_TICKET, "executorch", TRAINING)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("package_folder", r"pip install --no-deps executorch==1\.5\.1"),
        ("shim_path", r"edge_client\.executorch\.build"),
    ],
)
def test_missing_parts_say_how_to_get_them(name: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel or the shim the runtime is not offered, and opening it names the command."""
    monkeypatch.setattr(library, name, lambda: None)
    monkeypatch.setattr(library, "shim_path" if name == "package_folder" else "package_folder", lambda: Path("x"))
    assert "executorch" not in registry.available()
    library.load.cache_clear()
    with pytest.raises(RuntimeMissing, match=hint):
        ExecutorchRuntime(Bundle(runtime="executorch", ticket=TINY_TICKET), TRAINING)


def test_missing_compiler_and_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Building the shim says what is not there."""
    with pytest.raises(RuntimeMissing, match="no program 'no-such-compiler'"):
        build.COMPILER.find("no-such-compiler")
    monkeypatch.setattr(library, "package_folder", lambda: None)
    with pytest.raises(RuntimeMissing, match="pip install"):
        build.build(tmp_path)
    assert build.main(["--folder", str(tmp_path)]) == RuntimeMissing.exit_code


class TestOnDevice:
    """Programs that are made and run."""

    pytestmark = needs_executorch

    @pytest.mark.parametrize("name", ["har-cnn", "lenet"])
    def test_model_equals_torch(self, name: str) -> None:
        """Gradients twice on one loaded program, padded batches and ten optimiser steps equal torch's."""
        bundle = make_bundle(model_ticket(name), "executorch", Training())
        assert wrong_rows(bundle, Training()) == []
        training = Training(optimiser="sgd")
        assert wrong_rows(bundle, training) == []
        ceiling = {"har-cnn": 40_000, "lenet": 75_000}[name]  # executorch 1.5.1, 2026-11-22: 34.6 and 67.8 kB
        assert len(bundle.files["train.pte"]) < ceiling

    @pytest.mark.parametrize("name", ODD_ON_DEVICE)
    def test_odd_plan_equals_torch(self, name: str) -> None:
        """Strides, paddings and overlapping windows survive the exporter and its memory plan."""
        bundle = make_bundle(odd_ticket(name), "executorch", TRAINING)
        assert wrong_rows(bundle, TRAINING, steps=3) == []

    @pytest.mark.parametrize(("name", "windows"), [("1x1 kernels", 300), ("depthwise", 4000)])
    def test_convolution_in_parts_equals_torch(self, name: str, windows: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Convolutions too large to gather at once do, too."""
        monkeypatch.setattr(executorch_convolutions, "MAX_WINDOWS", windows)
        assert wrong_rows(make_bundle(odd_ticket(name), "executorch", TRAINING), TRAINING, steps=3) == []

    def test_one_program_serves_every_seed(self) -> None:
        """Tickets of one plan and size have the same bytes, even if they keep other numbers in a layer."""
        other = random_ticket(TINY, 0.4, seed=3)
        assert make_bundle(other, "executorch", TRAINING).files == tiny_bundle().files
        first, last = TINY_TICKET.layers
        moved = replace(
            TINY_TICKET, seed=4, layers=(replace(first, mask=first.mask + 2), replace(last, mask=last.mask - 3))
        )
        assert capacity_for(moved.kept) == capacity_for(TINY_TICKET.kept)
        for ticket in (TINY_TICKET, other, moved):
            assert wrong_rows(replace(tiny_bundle(), ticket=ticket), TRAINING, steps=3) == []

    def test_planned_memory_is_known_before_and_after_loading(self) -> None:
        """The exporter and the device agree on what the activations take."""
        runtime = ExecutorchRuntime(tiny_bundle(), TRAINING)
        assert runtime.planned_bytes == planned_bytes(tiny_bundle()) > 0
        assert planned_bytes(Bundle(runtime="sparse", ticket=TINY_TICKET)) is None

    def test_a_profile_has_its_instructions_and_its_arena(self) -> None:
        """Kernel by kernel, of a program that was opened to be timed; planned buffers are the program's."""
        x, y = random_data(tiny_bundle(), TRAINING)
        report = Profiler(bundle=tiny_bundle(), training=TRAINING, x=x, y=y, data="random", seconds=0.02).measure()
        assert {one.kind for one in report.operators} & {"mm.out", "linear.out", "bmm.out", "DELEGATE_CALL"}
        assert sum(one.us for one in report.operators) > 0
        assert all(one.calls == 1 for one in report.operators)
        assert report.memory.arena_planned_bytes == planned_bytes(tiny_bundle())
        assert report.memory.arena_used_bytes is not None
        untimed = ExecutorchRuntime(tiny_bundle(), TRAINING)
        untimed.step(x, y, np.ones(TRAINING.batch, np.float32))
        assert untimed.operators() == []

    def test_programs_say_what_they_take_and_give(self) -> None:
        """Every input and output has the name, type and shape that the module describes."""
        capacity = capacity_for(TINY_TICKET.kept)
        inputs, outputs = tensors(tiny_bundle().files["train.pte"])
        found = dict(zip(ARGUMENTS["train.pte"], inputs, strict=True))
        assert found["scores"] == ("float32", (capacity,))
        assert found["indices"] == ("int64", (capacity,))
        assert found["x"] == ("float32", (4, 2, 12))
        assert dict(zip(RESULTS["train.pte"], outputs, strict=True))["gradient"] == ("float32", (capacity,))
        inputs, outputs = tensors(tiny_bundle().files["infer.pte"])
        assert len(ARGUMENTS["infer.pte"]) == len(inputs)
        assert dict(zip(RESULTS["infer.pte"], outputs, strict=True)) == {"logits": ("float32", (4, 4))}

    def test_any_number_of_samples_is_inferred(self) -> None:
        """Logits do not depend on how samples are cut into batches; none gives none."""
        runtime = opened(tiny_bundle())
        x = tiny_batch(11)[0]
        logits = runtime.logits(x)
        np.testing.assert_allclose(np.concatenate([runtime.logits(row[None]) for row in x]), logits, rtol=1e-6)
        assert runtime.logits(x[:0]).shape == (0, 4)
        inference = registry.open_inference(tiny_bundle())  # whose default settings want larger batches
        np.testing.assert_array_equal(inference.logits(x), logits)

    def test_setting_scores_clears_the_optimiser_and_copies(self) -> None:
        """After set_scores a runtime does what a fresh one does, and shares no memory with the caller."""
        used, fresh = opened(tiny_bundle()), opened(tiny_bundle())
        start = fresh.scores()
        used.step(*tiny_batch(4))
        used.set_scores(start)
        start[:] = -1
        assert used.step(*tiny_batch(3)) == fresh.step(*tiny_batch(3))
        assert np.array_equal(used.scores(), fresh.scores())

    def test_wrong_inputs_are_refused(self) -> None:
        """Every shape and value is checked before the program sees it."""
        runtime = opened(tiny_bundle())
        x, y, weights = tiny_batch(4)
        wrong: list[tuple[Any, ...]] = [
            (x[:, :1], y, weights),
            (x, y[:3], weights),
            (x, y, weights[:3]),
            (x[:0], y[:0], weights[:0]),
            tuple(np.concatenate([part, part]) for part in (x, y, weights)),
            (x, y + 1 + (y == y.max()) * 4, weights),
            (x, -y - 1, weights),
            (x, y, 0 * weights),
            (x, y, -weights),
            (x, y, weights * np.float32(np.nan)),
        ]
        for arrays in wrong:
            with pytest.raises(DataError):
                runtime.step(*arrays)
        short = np.zeros(3, dtype=np.float32)
        for call in (runtime.set_scores, runtime.set_multipliers, runtime.set_log_prior, runtime.logits):
            with pytest.raises(DataError, match=r"\(3,\)"):
                call(short)

    @pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "other", "swapped"])
    def test_unusable_program_is_refused(self, damage: str) -> None:
        """A missing, damaged or foreign file is a TicketError that names it, not a crash."""
        program = tiny_bundle().files["train.pte"]
        flipped = bytearray(program)
        flipped[len(program) // 2] ^= 1
        noise = b"not a program" * 20
        files = {
            "missing": {},
            "empty": {"train.pte": b""},
            "cut": {"train.pte": program[:-100]},
            "flipped": {"train.pte": bytes(flipped)},
            "other": {"train.pte": noise + sha256(noise).digest()},
            "swapped": {"train.pte": tiny_bundle().files["infer.pte"]},
        }[damage]
        with pytest.raises(TicketError, match=r"train\.pte"):
            opened(replace(tiny_bundle(), files=files))

    def test_bundle_for_other_sizes_is_refused(self) -> None:
        """Larger batches and more kept weights than the program was made for are named."""
        with pytest.raises(TicketError, match="takes 4 samples, the settings want 5"):
            opened(tiny_bundle(), Training(batch=5))
        larger = random_ticket(TINY, 1.0, seed=2)
        with pytest.raises(TicketError, match=f"the ticket has {larger.kept}"):
            opened(replace(tiny_bundle(), ticket=larger))
        assert opened(tiny_bundle(), Training(batch=2)).step(*tiny_batch(2)).loss > 0

    def test_shim_of_another_version_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """After an upgrade of the wheel the shim has to be built again."""
        library.load.cache_clear()
        monkeypatch.setattr(library, "package_version", lambda: "9.9")
        with pytest.raises(RuntimeMissing, match=r"9\.9 is installed.*Build it again"):
            library.load()
        library.load.cache_clear()

    def test_devices_run_it_without_torch(self, shim: Path, tmp_path: Path) -> None:
        """A process that trains and infers imports neither torch nor a module of executorch, and stays small."""
        ticket = random_ticket(build_plan("har-cnn", input_shape=(6, 128), classes=6), 0.1, seed=1)
        bundle = make_bundle(ticket, "executorch", Training())
        (tmp_path / "bundle").write_bytes(bundle.encoded)
        code = f"""
import json, sys
from pathlib import Path
import numpy as np
from edge_client.executorch import library
from edge_client.readings import peak_memory_kb
from edge_client.runtimes.registry import available, open_runtime
from wire.bundle import decode_bundle
from wire.settings import Training
library.FOLDER = Path({str(shim)!r})
assert "executorch" in available()
data = Path({str(tmp_path / "bundle")!r}).read_bytes()
bundle = decode_bundle(data, expected_id=bytes.fromhex({bundle.id.hex()!r}))
runtime = open_runtime(bundle, Training(learning_rate=0.05))
x = np.random.default_rng(0).standard_normal((16, 6, 128), dtype=np.float32)
losses = [runtime.step(x, np.arange(16) % 6, np.ones(16, np.float32)).loss for _ in range(10)]
runtime.logits(x)
tops = sorted({{name.partition(".")[0] for name in sys.modules}})
print(json.dumps([losses, tops, peak_memory_kb() / 1024]))
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        losses, tops, peak_mb = json.loads(done.stdout)
        assert losses[-1] < losses[0]
        assert not {"torch", "executorch"} & set(tops)
        assert peak_mb < 90  # 2026-11-22: 56 MB, of which Python, numpy and the runtime's libraries take about 45
        again = decode_bundle(bundle.encoded, expected_id=bundle.id)
        assert opened(again, Training()).step(*_motion()).loss == losses[0]


def _motion() -> tuple[Floats, Labels, Floats]:
    x = np.random.default_rng(0).standard_normal((16, 6, 128), dtype=np.float32)
    return x, np.arange(16) % 6, np.ones(16, np.float32)
