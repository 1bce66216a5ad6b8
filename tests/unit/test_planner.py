"""The planner: work counted from graphs, limits held, the runtime, batch and density that fit, `hidenseek plan`."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from coordinator import footprint, here, make_programs, profiles, rates, sparse_work  # noqa: E402
from coordinator.blocks import block_sizes  # noqa: E402
from coordinator.budgets import Budget  # noqa: E402
from coordinator.cli import main  # noqa: E402
from coordinator.config import load  # noqa: E402
from coordinator.hardware import Profile, Runtime  # noqa: E402
from coordinator.models import build_plan  # noqa: E402
from coordinator.planner import Load, Planner  # noqa: E402
from coordinator.prune import prune  # noqa: E402
from export import executorch_work, onnx_work  # noqa: E402
from export.work import Step, Work, most_alive  # noqa: E402
from wire.bundle import Bundle, decode_bundle  # noqa: E402
from wire.errors import ConfigError, OverBudget, UnknownName  # noqa: E402
from wire.layers import Conv, Flatten, Linear, Relu  # noqa: E402
from wire.plan import Plan  # noqa: E402
from wire.settings import Training  # noqa: E402
from wire.ticket import Ticket  # noqa: E402

SMALL = Plan(
    name="small",
    input_shape=(2, 6, 6),
    layers=(
        Conv(out_channels=8, kernel=(3, 3), stride=(1, 1), padding=(1, 1)),
        Relu(),
        Flatten(),
        Linear(out_features=4),
    ),
)
ZERO = profiles.built_in()["pi-zero-2w"]


@pytest.fixture(scope="module")
def ticket() -> Ticket:
    """Of a small network."""
    return prune(SMALL, density=0.5, seed=0, method="uniform")


@pytest.fixture(scope="module")
def planner(ticket: Ticket) -> Planner:
    """For it."""
    return Planner(ticket=ticket, load=Load(samples=100))


def test_alive_at_once() -> None:
    """Freed after the last reader; results stay; what is only read is somebody else's."""
    steps = [
        Step(kind="a", work=Work(), reads=("in",), makes={"x": 10}),
        Step(kind="a", work=Work(), reads=("x",), makes={"y": 5}),
        Step(kind="a", work=Work(), reads=("y",), makes={"z": 7}),
        Step(kind="a", work=Work(), reads=("z",), makes={"unused": 100}),
    ]
    assert most_alive(steps, ["y"]) == 5 + 7 + 100
    assert most_alive(steps[:3], []) == 15


def test_onnx_work_of_a_known_graph(ticket: Ticket) -> None:
    """A convolution's multiply-adds forward, the products of the linear layer, and no node that is a constant."""
    counted = onnx_work.count(ticket, Training(batch=4), 8)
    assert counted.work["convolution"].flops == 2 * 4 * 8 * 36 * 18  # the first layer has no input gradient
    linear = 2 * 4 * 4 * 288  # forward, weight gradient and input gradient of the linear layer
    weights = 2 * 4 * 8 * 36 * 18  # weight gradient of the convolution, as products
    assert counted.work["matmul"].flops == pytest.approx(3 * linear + weights, rel=0.02)
    assert counted.held > 0
    larger = onnx_work.count(ticket, Training(batch=8), 8)
    assert 1.5 < larger.alive / counted.alive < 2
    assert larger.infer_alive == counted.infer_alive
    assert sum(work.calls for work in larger.work.values()) == sum(work.calls for work in counted.work.values())


def test_executorch_work_is_that_of_onnx(ticket: Ticket) -> None:
    """The same multiplications, however each runtime does them."""
    counted = executorch_work.count(ticket.plan, ticket.kept, 4)
    assert counted.work["matmul"].flops == pytest.approx(2 * 2 * 4 * 8 * 36 * 18 + 3 * 2 * 4 * 4 * 288, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "har-cnn"])
def test_executorch_memory_is_that_of_the_program(name: str) -> None:
    """Without making it, its planned memory is found within 6 %, or 1 MB."""
    pytest.importorskip("executorch")
    from export.executorch_program import capacity_for, inference_program, planned_bytes, training_program

    plan = build_plan(name)
    kept = plan.weights // 10
    counted = executorch_work.count(plan, kept, 8)
    for found, program in ((counted.alive, training_program), (counted.infer_alive, inference_program)):
        assert found == pytest.approx(planned_bytes(program(plan, capacity_for(kept), 8)), rel=0.06, abs=1e6)


def test_sparse_work_is_a_constant_and_a_price_per_block(ticket: Ticket) -> None:
    """What a whole ticket takes, by hand: every kept weight is used in two walks, or three behind the first layer."""
    counted = sparse_work.count(ticket, 16)
    first, second = ticket.kept_layers
    assert counted.work["convolution"].flops == 2 * 2 * first.kept * 36 * 16
    assert counted.work["linear"].flops == 2 * 3 * second.kept * 16
    assert counted.work["update"].moved == 32 * ticket.kept


def test_seconds_scale_with_the_core() -> None:
    """Operations with its peak, bytes with its bandwidth, calls with its clock; every kind has a rate."""
    work = {
        "convolution": Work(flops=1e9),
        "stream": Work(moved=1e9),
        "max pool": Work(values=1e9),
        "step": Work(calls=1e3),
    }
    one = rates.seconds(work, "sparse", rates.REFERENCE)
    half = rates.Core(
        flops=rates.REFERENCE.flops / 2, bandwidth=rates.REFERENCE.bandwidth / 2, clock=rates.REFERENCE.clock / 2
    )
    assert rates.seconds(work, "sparse", half) == pytest.approx(2 * one)
    assert set(onnx_work.KINDS.values()) <= set(rates.RATES["onnx"])
    assert set(sparse_work.LOOPS.values()) <= set(rates.RATES["sparse"])


@pytest.mark.parametrize("name", ["ds-cnn", "mobilenet-v2-tiny"])
def test_every_kind_of_work_has_a_rate(name: str) -> None:
    """Of the networks with the most kinds of layers, on all runtimes."""
    plan = build_plan(name)
    ticket = prune(plan, density=0.1, seed=0, method="uniform")
    counted = {
        "sparse": sparse_work.count(ticket, 16),
        "onnx": onnx_work.count(ticket, Training(), 16),
        "executorch": executorch_work.count(plan, ticket.kept, 16),
    }
    for runtime, found in counted.items():
        assert set(found.work) <= set(rates.RATES[runtime])
        assert all(rates.seconds({kind: work}, runtime, rates.REFERENCE) > 0 for kind, work in found.work.items())


def test_what_depthwise_and_strided_layers_cost() -> None:
    """Rows that are copied one by one, products of one row, phases: they are cheap in operations and bytes."""
    plan = build_plan("ds-cnn")
    ticket = prune(plan, density=0.1, seed=0, method="uniform")
    depthwise = 4 * 2 * 16 * 64 * 9 * 25  # layers, forward and input gradient, samples, channels, taps, rows
    assert onnx_work.count(ticket, Training(), 16).work["grouped convolution"].values == depthwise
    products = executorch_work.count(plan, ticket.kept, 16).work
    assert products["batched matmul"].flops < products["matmul"].flops
    strided = build_plan("mobilenet-v2-tiny")
    fixed = sparse_work.plan_work(strided, (4,) * len(strided.weight_layers()), 16).fixed
    assert fixed["phases"].values == 16 * (48 * 32 * 32 + 96 * 16 * 16 + 144 * 8 * 8)


def test_limits_are_held_and_named(planner: Planner) -> None:
    """Which are not kept, and by how much; memory of the board counts without a budget."""
    free = planner.cost(ZERO, "sparse", Budget(), 16)
    assert free.fits
    assert free.step_ms is not None
    assert free.round_s == pytest.approx(free.step_ms / 1e3 * 6 * 7)
    assert free.round_j == pytest.approx(free.round_s * 2.1)
    tight = planner.cost(ZERO, "sparse", Budget(step_ms=free.step_ms / 2, peak_mb=1000), 16)
    (excess,) = tight.excess
    assert (excess.limit, excess.share) == ("step_ms", pytest.approx(1.0))
    tiny = ZERO.model_copy(update={"usable_ram_mb": 20})
    assert [one.limit for one in planner.cost(tiny, "sparse", Budget(), 16).excess] == ["memory of the board"]


def test_the_fastest_that_fits_is_chosen(planner: Planner) -> None:
    """Of the runtimes that a board has; on a phone only ExecuTorch, whose process is the app's."""
    choice = planner.choose(ZERO, Budget())
    assert choice is not None
    assert [cost.runtime for cost in choice.costs] == ["sparse", "onnx", "executorch"]
    assert choice.pick is min(choice.costs, key=lambda cost: cost.step_ms or 0)
    phone = planner.choose(profiles.built_in()["iphone-13"], Budget())
    assert phone is not None
    assert phone.pick.runtime == "executorch"
    assert phone.pick.peak_mb < footprint.PROCESS["executorch"] / 1e6
    assert phone.density is None
    bare = ZERO.model_copy(update={"runtimes": []})
    assert planner.choose(bare, Budget()) is None


def test_a_smaller_batch_where_only_that_fits(ticket: Ticket) -> None:
    """The largest half of the federation's batch that keeps the limits; the federation's if none does."""
    planner = Planner(ticket=ticket, load=Load(samples=64), runtimes=("executorch",))
    whole = planner.cost(ZERO, "executorch", Budget(), 16)
    quarter = planner.cost(ZERO, "executorch", Budget(), 4)
    assert whole.step_ms is not None
    assert quarter.step_ms is not None
    choice = planner.choose(ZERO, Budget(step_ms=quarter.step_ms * 1.01))
    assert choice is not None
    assert (choice.batch, choice.pick.fits) == (4, True)
    never = planner.choose(ZERO, Budget(step_ms=1e-6))
    assert never is not None
    assert (never.batch, never.pick.fits) == (16, False)


def test_the_density_named_fits_and_more_does_not() -> None:
    """A ticket of that density meets the budget; of a tenth more it does not."""
    plan = build_plan("lenet")
    budget = Budget(step_ms=3.0)

    def planned(density: float) -> Planner:
        return Planner(ticket=prune(plan, density=density, seed=0, method="uniform"), load=Load(), runtimes=("sparse",))

    choice = planned(0.2).choose(ZERO, budget)
    assert choice is not None
    assert choice.density is not None
    assert 0.05 < choice.density < 0.5
    assert planned(choice.density * 0.97).cost(ZERO, "sparse", budget, 16).fits
    assert not planned(choice.density * 1.1).cost(ZERO, "sparse", budget, 16).fits


def test_plan_of_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str], ticket: Ticket) -> None:
    """Devices that are alike share a line; budgets are held; --strict fails for CI; JSON has every figure."""
    (tmp_path / "t.hns").write_bytes(ticket.encoded)
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(
        "federation: {training: {batch: 8, epochs: 2}, per_round: 2, quorum: 2}\n"
        "budget: {peak_mb: 60}\n"
        "devices: {a: {profile: pi-zero-2w}, b: {profile: pi-zero-2w},\n"
        "  c: {profile: pi-400, budget: {step_ms: 0.001}}, d: {}}\n"
    )
    options = ["plan", str(tmp_path / "t.hns"), "--fleet", str(fleet), "--samples", "80"]
    assert main([*options, "--json", str(tmp_path / "p.json")]) == 0
    shown = capsys.readouterr().out
    assert "2 x pi-zero-2w" in shown
    assert "c (pi-400)" in shown
    assert "2 of 3 can train it within their limits" in shown
    assert f"Left out, for they have no profile in {fleet}: d" in " ".join(shown.split())
    told = json.loads((tmp_path / "p.json").read_text())
    assert (told["steps_per_round"], told["estimated"]) == (20, True)
    zero, four = told["boards"]
    assert (zero["devices"], zero["pick"]["runtime"], zero["pick"]["fits"]) == (["a", "b"], "sparse", True)
    assert [cost["fits"] for cost in zero["costs"]] == [True, False, True]  # onnxruntime alone takes more than 60 MB
    assert four["pick"]["fits"] is False
    assert main([*options, "--strict"]) == OverBudget.exit_code
    assert "1 cannot keep their limits: c" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        ([], ConfigError, "a ticket or --model is needed"),
        (["--model", "lenet", "--profile", "pi-zero"], UnknownName, "Did you mean 'pi-zero-2w'"),
        (["--model", "lenet", "--runtime", "onx"], UnknownName, "Did you mean 'onnx'"),
        (["--model", "lenet", "--samples", "0"], ConfigError, "--samples"),
        (["--model", "lenet", "--save", "x"], ConfigError, "--save goes with --here"),
        (["--model", "lenet", "--batch", "0"], ConfigError, "batch is 0"),
    ],
)
def test_what_does_not_go_is_said(
    options: list[str],
    code: type[ConfigError],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One line, with the nearest name."""
    monkeypatch.chdir(tmp_path)
    assert main(["plan", *options]) == code.exit_code
    assert said in capsys.readouterr().err


def test_a_measured_profile_is_saved_beside_what_was_there(tmp_path: Path) -> None:
    """Comments stay, the file is still right, and the profile is found again."""
    path = tmp_path / "devices.yaml"
    path.write_text("# ours\nfederation: {name: t}  # of the greenhouse\nprofiles: {}\n")
    found = Profile(
        title="A board", cores=4, ram_mb=512, clock_ghz=1.0 / 3, calibration={"sparse": 1.25}, process_mb={"onnx": 80.5}
    )
    here.save(path, "mine", found)
    text = path.read_text()
    assert "# ours" in text
    assert "# of the greenhouse" in text
    again = load(path).hardware["mine"]
    assert again == found.model_copy(update={"clock_ghz": 0.3333})
    here.save(path, "mine2", found)
    assert list(load(path).hardware) == ["mine", "mine2"]
    with pytest.raises(UnknownName, match="comes with hidenseek"):
        here.save(path, "pi-400", found)


@pytest.mark.slow
def test_this_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of a core, and what processes here take: the peak of a fresh one is then found within 10 %."""
    from edge_client.runtimes import registry

    if "sparse" not in registry.available():
        pytest.skip("the kernels are not built")
    found = here.measure(lambda _: None)
    assert found.has_figures
    assert set(found.calibration) == set(found.process_mb) == set(registry.available()) & set(here.CALIBRATED)
    assert all(0.1 < factor < 10 for factor in found.calibration.values())
    ticket = prune(build_plan("resnet8"), density=0.1, seed=0, method="uniform")
    cost = Planner(ticket=ticket, load=Load(samples=50)).cost(found, "sparse", Budget(), 16)
    tried = here.try_bundle(ticket, "sparse", batch=16, steps=3, samples=60)
    assert cost.peak_mb * 1e6 == pytest.approx(tried["peaks"]["tried"], rel=0.1)
    assert len(tried["seconds"]) == len(tried["cpu_seconds"]) == 3


@pytest.mark.parametrize("runtime", here.GRAPHS)
@pytest.mark.parametrize("plan", here.NETS, ids=lambda plan: plan.name)
def test_the_programs_are_of_the_networks(plan: Plan, runtime: Runtime) -> None:
    """And their work is what is counted now; else `python -m coordinator.make_programs`."""
    encoded = (here.PROGRAMS / f"{plan.name}-{runtime}.hnsb").read_bytes()
    bundle = decode_bundle(encoded, expected_id=sha256(encoded).digest())
    assert (bundle.runtime, bundle.ticket.id) == (runtime, here.ticket_of(plan).id)
    kept = json.loads((here.PROGRAMS / "work.json").read_text())[runtime][plan.name]
    assert kept == make_programs.said(make_programs.planner(plan), runtime)


def test_what_a_worker_lacks_is_said(tmp_path: Path, ticket: Ticket) -> None:
    """What a runtime does not load is left out of a measurement; a bundle that is damaged ends it."""
    path = tmp_path / "small"
    empty = Bundle(runtime="onnx", ticket=ticket, files={})
    path.write_bytes(empty.encoded)
    path.with_name("small.id").write_bytes(empty.id)
    assert here.worker("turns", str(path), "16", "16", "0")["missing"]
    path.write_bytes(empty.encoded[:-1])
    with pytest.raises(ConfigError, match="the measuring process failed"):
        here.worker("turns", str(path), "16", "16", "0")


def test_blocks_share_indices() -> None:
    """Four rows share one; those of a depthwise layer do not."""
    plan = build_plan("ds-cnn")
    for shape, block in zip(plan.weight_layers(), block_sizes(plan, 4), strict=True):
        assert sparse_work.codes(shape, block) == (1 if block == 4 else block)
    assert np.isfinite(rates.seconds(sparse_work.plan_work(plan, (4,) * 10, 16).fixed, "sparse", rates.REFERENCE))
