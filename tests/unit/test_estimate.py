"""Estimates of step time and memory: the arena as the runtime plans it, time by hand, profiles found and shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from coordinator import estimate, footprint, profiles, rates
from coordinator.blocks import block_sizes
from coordinator.hardware import Profile
from coordinator.models import MODELS, build_plan
from coordinator.prune import prune
from coordinator.ticket_table import render
from edge_client.runtimes.sparse import SparseRuntime
from wire.bundle import Bundle
from wire.errors import ConfigError, RuntimeMissing, UnknownName
from wire.layers import AvgPool, Conv, Flatten, Linear, MaxPool, Relu
from wire.plan import Plan
from wire.settings import Training
from wire.ticket import Keep, Ticket

ROOT = Path(__file__).parents[2]
ODD = Plan(
    name="odd",
    input_shape=(3, 17, 13),
    layers=(
        Relu(), Conv(out_channels=8, kernel=(5, 3), stride=(2, 3), padding=(2, 1)), Relu(),
        AvgPool(kernel=(2, 2), stride=(2, 1)), Conv(out_channels=16, kernel=(3, 3), stride=(1, 1), padding=(1, 1)),
        Relu(), MaxPool(kernel=(2, 2), stride=(1, 1)), Flatten(), Linear(out_features=12), Relu(),
        Linear(out_features=5),
    ),
)  # fmt: skip
CHAIN = Plan(name="chain", input_shape=(10,), layers=(Linear(out_features=8), Relu(), Linear(out_features=4)))


def seeded(plan: Plan, density: float) -> Ticket:
    """A ticket of one density everywhere, its paths unchecked."""
    keeps = [
        Keep(block=block, mask=max(1, round(density * shape.weights / block)), scale=1.0)
        for shape, block in zip(plan.weight_layers(), block_sizes(plan, 4), strict=True)
    ]
    return Ticket(plan=plan, seed=0, magnitudes="constant", layers=tuple(keeps))


def planned(ticket: Ticket, batch: int) -> int:
    """Bytes of the sparse runtime's arena, from itself."""
    try:
        runtime = SparseRuntime(Bundle(runtime="sparse", ticket=ticket), Training(batch=batch))
    except RuntimeMissing:
        pytest.skip("the kernels are not built")
    return sum(runtime.memory_plan().values())


@pytest.mark.parametrize("name", MODELS)
def test_arena_is_that_of_the_runtime(name: str) -> None:
    """Within 5 % of `memory_plan()` for every model, sparse and dense, small batches and large."""
    plan = build_plan(name)
    for density in (0.02, 0.2):
        ticket = seeded(plan, density)
        for batch in (1, 4, 16):
            blocks = [keep.block for keep in ticket.layers]
            estimated = estimate.arena_bytes(plan, blocks, batch=batch).of(ticket)
            assert estimated == pytest.approx(planned(ticket, batch), rel=0.05), (density, batch)


@pytest.mark.parametrize("magnitudes", ["constant", "normal"])
def test_arena_of_strides_pools_and_stored_magnitudes(magnitudes: str) -> None:
    """Layers no model of ours has: strides, average pools, a ReLU on the input."""
    ticket = prune(ODD, density=0.5, seed=0, magnitudes=magnitudes, passes=2)
    estimated = estimate.arena_bytes(ODD, [keep.block for keep in ticket.layers], magnitudes).of(ticket)
    assert estimated == pytest.approx(planned(ticket, 16), rel=0.05)


def test_time_of_a_step_by_hand() -> None:
    """Two linear layers, all kept: 2 and 3 walks over weights and activations, updates, samples, the step itself."""
    profile = Profile(title="x", cores=1, ram_mb=1, clock_ghz=2.0, flops_per_cycle=4, memory_gb_s=1.0)
    ticket = prune(CHAIN, density=1.0, seed=0, method="uniform")
    cost = estimate.step_seconds(CHAIN, [4, 4], profile)
    assert cost is not None
    reference, linear = rates.REFERENCE, rates.RATES["sparse"]["linear"]
    memory, clock = reference.bandwidth / 1e9, reference.clock / 2e9
    compute = 32 * reference.clock / 8e9  # the reference core's vectors of 512 bits count for 256
    operations = 2 * 16 * (2 * 80 + 3 * 32)
    # an index and its signs of a block, for two micro-batches; what a walk reads and writes of 10, 8 and 4 positions
    walked = 2 * 5 * (2 * 20 + 3 * 8) + 4 * 16 * (2 * (10 + 8) + 3 * (8 + 4))
    seconds = operations * linear.flop * compute + walked * linear.byte * memory
    seconds += 32 * 112 * rates.RATES["sparse"]["update"].byte * memory
    seconds += 2 * 5 * (2 * 20 + 3 * 8) / 5 * linear.call * clock
    # 4 operations of a cycle are an eighth of a vector of 8 lanes
    seconds += 16 * 10 * rates.RATES["sparse"]["input"].value * clock * 8
    seconds += rates.RATES["sparse"]["step"].call * clock
    assert cost.of(ticket) == pytest.approx(seconds, rel=1e-9)
    twice = estimate.step_seconds(CHAIN, [4, 4], profile.model_copy(update={"calibration": {"sparse": 2.0}}))
    assert twice is not None
    assert twice.of(ticket) == pytest.approx(2 * seconds)


def test_less_work_takes_less_time_and_memory() -> None:
    """A sparser ticket is estimated faster and smaller on every kind of hardware."""
    plan = build_plan("lenet", input_shape=(1, 28, 28), classes=10)
    tickets = [prune(plan, density=density, seed=0, method="erk") for density in (0.1, 0.3)]
    blocks = [keep.block for keep in tickets[0].layers]
    for profile in profiles.built_in().values():
        cost = estimate.step_seconds(plan, blocks, profile)
        assert cost is not None
        assert cost.of(tickets[0]) < cost.of(tickets[1])
    memory = estimate.process_bytes(plan, blocks)
    assert footprint.PROCESS["sparse"] < memory.of(tickets[0]) < memory.of(tickets[1])


def test_profiles_of_a_file_come_with_those_we_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's own figures win, missing ones come from the profile we know by that name; tables show what it names."""
    monkeypatch.chdir(tmp_path)
    assert profiles.known(None) == profiles.of_fleet(None) == profiles.built_in()
    lines = ["profiles:", "  pi-zero-2w: {title: Mine, clock_ghz: 1.2}"]
    lines += ["  toaster: {title: Toaster, cores: 1, ram_mb: 64}", "devices: {a: {profile: pi-400}}"]
    (tmp_path / "devices.yaml").write_text("\n".join(lines))
    found = profiles.known(None)
    assert list(found) == [*profiles.built_in(), "toaster"]
    assert list(profiles.of_fleet(None)) == ["pi-zero-2w", "pi-400", "toaster"]
    assert (found["pi-zero-2w"].title, found["pi-zero-2w"].clock_ghz) == ("Mine", 1.2)
    assert found["pi-zero-2w"].flops_per_cycle == 8
    assert profiles.named("pi-5-8gb", None) == profiles.built_in()["pi-5-8gb"]
    with pytest.raises(ConfigError, match=r"'toaster' lacks clock_ghz"):
        profiles.named("toaster", None)
    with pytest.raises(UnknownName, match="Did you mean 'toaster'"):
        profiles.named("toster", tmp_path / "devices.yaml")


def test_table_shows_every_profile_and_that_it_is_estimated() -> None:
    """One row per profile; without figures the time stays open and the memory is there."""
    ticket = prune(CHAIN, density=1.0, seed=0, method="uniform")
    console = Console(width=150)
    with console.capture() as captured:
        console.print(render(ticket, {**profiles.built_in(), "toaster": Profile(title="Toaster", cores=1, ram_mb=64)}))
    shown = captured.get()
    assert "estimated, not measured: training on the sparse runtime, batch 16, one core" in shown
    for name in profiles.built_in():
        assert name in shown
    (toaster,) = [line for line in shown.splitlines() if line.startswith("toaster")]
    assert toaster.split()[2:] == ["–", "41.9", "no", "figures"]
