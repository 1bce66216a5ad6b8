"""Pruning under a budget: both ceilings hold, the best blocks win, refusals name what works, bytes never change."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from coordinator import estimate
from coordinator.blocks import block_sizes
from coordinator.ceiling import Candidates, select
from coordinator.cli import main
from coordinator.config import load
from coordinator.models import build_plan
from coordinator.profiles import built_in
from coordinator.prune import METHODS, prune
from wire.errors import ConfigError, PruneError
from wire.ticket import Ticket, read_ticket

LENET = build_plan("lenet", input_shape=(1, 28, 28), classes=10)
HAR = build_plan("har-cnn", input_shape=(6, 128), classes=6)
ZERO = built_in()["pi-zero-2w"]


def macs(ticket: Ticket) -> int:
    """Kept multiply-adds of a sample."""
    return sum(layer.kept_macs for layer in ticket.kept_layers)


def candidates(seed: int, floor: int = 0) -> list[Candidates]:
    """Three layers of a few blocks: cheap, dear, and dear in blocks of one."""
    rng = np.random.default_rng(seed)
    kinds = ((6, 4, 4), (5, 4, 40), (5, 1, 9))
    return [Candidates(scores=rng.random(n), size=size, price=price, floor=floor) for n, size, price in kinds]


def worth(layers: list[Candidates], masks: list[np.ndarray]) -> tuple[float, int, int]:
    """Saliency, weights and units of a choice."""
    pairs = list(zip(layers, masks, strict=True))
    return (
        sum(float(layer.scores[mask].sum()) * layer.size for layer, mask in pairs),
        sum(int(mask.sum()) * layer.size for layer, mask in pairs),
        sum(int(mask.sum()) * layer.price for layer, mask in pairs),
    )


@pytest.mark.parametrize("seed", range(8))
def test_choice_is_within_two_blocks_of_the_best_there_is(seed: int) -> None:
    """Against every one of the 65,536 choices: what is lost is less than the best two blocks (two constraints)."""
    layers = candidates(seed)
    weights, units = 26, 110
    masks, _ = select(layers, weights=weights, units=units)
    saliency, size, price = worth(layers, masks)
    assert size <= weights
    assert price <= units
    values = np.concatenate([layer.scores * layer.size for layer in layers])
    sizes = np.concatenate([np.full(layer.scores.size, layer.size) for layer in layers])
    prices = np.concatenate([np.full(layer.scores.size, layer.price) for layer in layers])
    every = np.array(list(itertools.product([0, 1], repeat=values.size)), dtype=np.float64)
    allowed = every[(every @ sizes <= weights) & (every @ prices <= units)]
    assert saliency > (allowed @ values).max() - np.sort(values)[-2:].sum()


def test_the_binding_ceiling_is_named() -> None:
    """A wide ceiling does not bind; between the two extremes both do."""
    layers = candidates(1)
    assert select(layers, weights=12, units=10_000)[1] == "density"
    assert select(layers, weights=10_000, units=50)[1] == "budget"
    assert select(layers, weights=26, units=110)[1] == "density and budget"


def test_without_a_price_the_ranking_is_by_score_alone() -> None:
    """The old rule: the best mean scores of the whole network, equal ones by position."""
    layers = [Candidates(scores=np.array(s), size=1, price=0, floor=0) for s in ([0.5, 0.9, 0.5], [0.5, 0.7])]
    masks, binds = select(layers, weights=3, units=0)
    assert [mask.tolist() for mask in masks] == [[True, True, False], [False, True]]
    assert binds == "density"


def test_floors_are_kept_whatever_they_cost() -> None:
    """Every layer keeps its best blocks first."""
    layers = candidates(3, floor=1)
    masks, _ = select(layers, weights=9, units=53)  # exactly the floors
    assert [np.flatnonzero(mask).tolist() for mask in masks] == [[int(layer.scores.argmax())] for layer in layers]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_below_both_ceilings(method: str) -> None:
    """A budget in multiply-adds that the method alone would exceed holds, and so does the density."""
    alone = prune(LENET, density=0.2, seed=0, method=method, passes=5)
    limit = macs(alone) * 2 // 3
    ticket = prune(LENET, density=0.2, seed=0, method=method, passes=5, budget=estimate.macs_budget(limit))
    assert 0.97 * limit < macs(ticket) <= limit
    assert ticket.density <= 0.2005
    assert ticket.made["budget-macs"] == limit
    assert ticket.made["binds"] in ("budget", "density and budget")


@pytest.mark.slow
def test_half_the_work_at_the_same_density() -> None:
    """Both ceilings are met to a block: convolutions give way to the layer whose weights are used once."""
    alone = prune(HAR, density=0.1, seed=0, passes=20)
    ticket = prune(HAR, density=0.1, seed=0, passes=20, budget=estimate.macs_budget(macs(alone) // 2))
    assert ticket.density == pytest.approx(alone.density, abs=1e-4)
    assert macs(ticket) == pytest.approx(macs(alone) // 2, rel=2e-3)
    before, after = ([layer.kept for layer in t.kept_layers] for t in (alone, ticket))
    assert after[1] < 0.5 * before[1]
    assert after[2] > before[2]
    assert ticket.made["binds"] == "density and budget"


def test_a_wide_budget_changes_notes_only() -> None:
    """Where the density binds, the kept weights are those of pruning without a budget."""
    alone = prune(LENET, density=0.1, seed=7, passes=5)
    ticket = prune(LENET, density=0.1, seed=7, passes=5, budget=estimate.macs_budget(10**9))
    assert ticket.layers == alone.layers
    assert ticket.made["binds"] == "density"


def test_time_budget_is_met_as_estimated() -> None:
    """The estimate of the finished ticket is just below the budget in milliseconds."""
    budget = estimate.time_budget(HAR, 6.0, "pi-zero-2w", ZERO)
    ticket = prune(HAR, density=0.5, seed=0, passes=5, budget=budget)
    cost = estimate.step_seconds(HAR, [keep.block for keep in ticket.layers], ZERO)
    assert cost is not None
    assert 5.99 < cost.of(ticket) * 1e3 <= 6.0
    assert ticket.made["profile"] == "pi-zero-2w (1 GHz x 8 flop/cycle, 2.6 GB/s)"
    assert ticket.made["binds"] == "budget"


def test_memory_budget_is_met_as_estimated() -> None:
    """The estimate of the finished ticket is just below the budget in megabytes."""
    blocks = block_sizes(HAR, 4)
    ticket = prune(HAR, density=0.5, seed=0, passes=5, budget=estimate.memory_budget(HAR, 46.0, blocks))
    assert 45.99 < estimate.process_bytes(HAR, blocks).of(ticket) / 1e6 <= 46.0


@pytest.mark.parametrize("method", ["magnitude", "uniform"])
def test_too_low_a_budget_is_refused_with_the_least_that_works(method: str) -> None:
    """What the refusal names is what the floors take, and one less is refused too."""
    floors = r"budget of 1,000 multiply-adds is too low: at least 12,422 multiply-adds needed"
    with pytest.raises(PruneError, match=floors):
        prune(HAR, density=0.5, seed=0, method=method, budget=estimate.macs_budget(1_000))
    with pytest.raises(PruneError, match="too low"):
        prune(HAR, density=0.5, seed=0, method=method, budget=estimate.macs_budget(12_421))
    estimate.macs_budget(12_422).require(12_422)


def test_the_named_least_is_rounded_up() -> None:
    """A budget in milliseconds as the refusal spells it suffices."""
    with pytest.raises(PruneError, match="on pi-zero-2w is too low") as refused:
        prune(HAR, density=0.5, seed=0, budget=estimate.time_budget(HAR, 0.5, "pi-zero-2w", ZERO))
    named = re.search(r"at least (\d\.\d\d) ms on pi-zero-2w", str(refused.value))
    assert named
    floors = [-(-s.out_units // b) for s, b in zip(HAR.weight_layers(), block_sizes(HAR, 4), strict=True)]
    shapes = list(zip(HAR.weight_layers(), block_sizes(HAR, 4), floors, strict=True))

    def require(milliseconds: float) -> None:
        budget = estimate.time_budget(HAR, milliseconds, "pi-zero-2w", ZERO)
        budget.require(sum(budget.price(shape, block) * floor for shape, block, floor in shapes))

    require(float(named[1]))
    with pytest.raises(PruneError):
        require(float(named[1]) - 0.02)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_senseless_budgets_are_refused(value: float) -> None:
    """A budget is a number above 0."""
    with pytest.raises(ConfigError, match="above 0"):
        estimate.time_budget(HAR, value, "pi-zero-2w", ZERO)


def test_same_budget_gives_the_same_bytes_for_ever() -> None:
    """Pinned like the tickets without a budget: another machine or release makes the same bytes."""
    ticket = prune(LENET, density=0.1, seed=7, passes=20, logit_deviation=0, budget=estimate.macs_budget(60_000))
    assert ticket.id.hex() == "eebd7475dca9ace7a607961352feca687132bbce3c336733cfcb0790e9d6536b"


def test_command_line_takes_one_budget_and_records_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`prune --budget-macs` writes the ticket and shows what it is estimated to take."""
    path = tmp_path / "small.hns"
    options = ["prune", "--model", "lenet", "--method", "magnitude", "-o", str(path)]
    assert main([*options, "--budget-macs", "60000"]) == 0
    assert macs(read_ticket(path)) <= 60_000
    shown = capsys.readouterr().out
    assert "budget-macs 60000" in shown
    assert "not measured" in shown
    assert main([*options, "--budget-ms", "5"]) == ConfigError.exit_code
    assert "--profile" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*options, "--budget-ms", "5", "--budget-mb", "50"])


def test_a_profile_alone_means_its_budget(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both its limits are kept, whichever binds; without limits, or with another budget, it is refused."""
    monkeypatch.chdir(tmp_path)
    options = [
        "prune",
        "--model",
        "lenet",
        "--method",
        "magnitude",
        "--density",
        "0.9",
        "-o",
        "t.hns",
        "--profile",
        "ours",
    ]
    lenet = build_plan("lenet")
    peaks = []
    for density in (0.3, 0.85):
        part = prune(lenet, density=density, seed=0, method="magnitude")
        memory = estimate.process_bytes(lenet, [keep.block for keep in part.layers])
        peaks.append(memory.of(part) / 1e6)
    low, high = peaks
    assert low < high
    for budget in (
        f"step_ms: 1.5, peak_mb: {high:.2f}",
        "step_ms: 1.5, peak_mb: 90",
        f"step_ms: 900, peak_mb: {low:.2f}",
    ):
        Path("devices.yaml").write_text(f"profiles: {{ours: {{extends: pi-zero-2w, budget: {{{budget}}}}}}}\n")
        assert main(options) == 0, capsys.readouterr().err
        ticket = read_ticket(Path("t.hns"))
        assert 0.2 < ticket.density < 0.9
        limits = load(Path("devices.yaml")).budget_of("", "ours")
        cost = estimate.step_seconds(ticket.plan, [keep.block for keep in ticket.layers], ZERO)
        memory = estimate.process_bytes(ticket.plan, [keep.block for keep in ticket.layers])
        assert cost is not None
        assert limits.step_ms is not None
        assert limits.peak_mb is not None
        assert cost.of(ticket) * 1e3 <= limits.step_ms
        assert memory.of(ticket) / 1e6 <= limits.peak_mb
    Path("devices.yaml").write_text("profiles: {ours: {extends: pi-zero-2w}}\n")
    assert main(options) == ConfigError.exit_code
    assert "no step_ms or peak_mb" in capsys.readouterr().err
    assert main([*options, "--budget-macs", "9999999"]) == ConfigError.exit_code
    assert "not with --budget-macs" in capsys.readouterr().err
