"""The arithmetic of an asynchronous step, and its settings in devices.yaml."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from coordinator.aggregate import LEVELS, next_votes
from coordinator.asynchronous import Group, close_step
from coordinator.config import load
from wire import mask
from wire.errors import ConfigError
from wire.mask import Signs, Votes

KEPT = 4000
RNG = np.random.default_rng(5)
OLD, NEW = (
    Votes(signs=RNG.random(KEPT) < 0.5, dissent=RNG.integers(0, 8, KEPT).astype(np.uint16), voters=LEVELS)
    for _ in range(2)
)


def honest(votes: Votes, seed: int) -> Signs:
    """A mask that has some of the uncertain signs otherwise, of its own."""
    doubt = votes.dissent / LEVELS * 0.6
    return votes.signs ^ (np.random.default_rng(seed).random(KEPT) < doubt)


def group(staleness: int, votes: Votes, **masks: Signs) -> Group:
    """Masks by device."""
    return Group(staleness=staleness, began=votes, masks=masks.items())


def same(one: Votes, other: Votes) -> bool:
    """To the byte."""
    return one.digest == other.digest


@pytest.mark.parametrize("chance", [0.0, 0.2])
@pytest.mark.parametrize("defend", [True, False])
def test_without_late_masks_a_step_is_a_round(chance: float, defend: bool) -> None:
    """The same votes as `aggregate` makes of them, to the byte."""
    masks = {f"d{i}": honest(NEW, i) for i in range(7)}
    votes, remarks = close_step(NEW, [group(0, NEW, **masks)], decay=0.5, memory=0.5, flip_chance=chance, defend=defend)
    assert same(votes, next_votes(NEW, masks.values(), 0.5, chance))
    assert not remarks


def test_late_masks_count_less() -> None:
    """Two steps late, a mask has a quarter of a vote; equal weights against each other are a tie."""
    up, down = np.ones(KEPT, bool), np.zeros(KEPT, bool)
    before = mask.unanimous(KEPT)
    votes, _ = close_step(before, [group(0, before, a=up), group(2, before, b=down)], decay=0.5, memory=0.0)
    assert np.allclose(votes.mean, (1 - 0.25) / 1.25, atol=1 / LEVELS + 1e-6)
    late = [group(0, before, a=up), group(1, before, b=down, c=down)]
    assert close_step(before, late, decay=0.5, memory=0.0)[0].signs.all(), "a tie keeps the sign before"
    votes, _ = close_step(before, late, decay=1.0, memory=0.0)
    assert not votes.signs.any()


def test_it_is_the_blended_weighted_mean() -> None:
    """Within the rounding, for any decay and memory; and in any order of groups and devices to the same byte."""
    masks = [(s, f"d{s}{i}", honest(OLD, 10 * s + i)) for s, count in ((0, 3), (1, 2), (3, 4)) for i in range(count)]
    groups = [group(s, OLD, **{name: one for at, name, one in masks if at == s}) for s in (0, 1, 3)]
    votes, _ = close_step(NEW, groups, decay=0.7, memory=0.4)
    weights = np.array([0.7**s for s, _, _ in masks])
    signs = np.array([mask.as_multipliers(one) for _, _, one in masks], dtype=np.float64)
    exact = 0.4 * NEW.mean + 0.6 * (weights @ signs) / weights.sum()
    assert np.abs(votes.mean - exact).max() <= 1 / LEVELS + 1e-6
    assert np.array_equal(votes.signs, exact > 0)
    for order in permutations(groups):
        backwards = [Group(staleness=one.staleness, began=one.began, masks=list(one.masks)[::-1]) for one in order]
        assert same(close_step(NEW, backwards, decay=0.7, memory=0.4)[0], votes)


def test_turned_signs_are_taken_out_of_late_masks_too() -> None:
    """Randomised response: in expectation the votes are what they would have been."""
    rng, chance = np.random.default_rng(1), 0.3
    plain = {f"d{i}": np.ones(KEPT, bool) for i in range(40)}
    sent = {name: one ^ (rng.random(KEPT) < chance) for name, one in plain.items()}
    first, second = (dict(list(sent.items())[half::2]) for half in (0, 1))
    before = mask.unanimous(KEPT)
    groups = [group(0, before, **first), group(1, before, **second)]
    biased = close_step(before, groups, decay=0.5, memory=0.0)[0].mean.mean()
    undone = close_step(before, groups, decay=0.5, memory=0.0, flip_chance=chance)[0].mean.mean()
    assert abs(biased - (1 - 2 * chance)) < 0.05
    assert undone > 0.8


def test_late_masks_are_judged_by_the_votes_they_began_with() -> None:
    """By the newest votes every mask of unrelated older ones would turn half of what is agreed."""
    late, hostile = {f"d{i}": honest(OLD, i) for i in range(3)}, ~honest(OLD, 9)
    groups = [group(2, OLD, **late, evil=hostile), group(0, NEW, x=honest(NEW, 20))]
    votes, remarks = close_step(NEW, groups, decay=0.5, memory=0.5, defend=True)
    assert len(remarks) == 1
    assert remarks[0].startswith("evil is not counted: its mask turns")
    without = [group(2, OLD, **late), group(0, NEW, x=honest(NEW, 20))]
    assert same(votes, close_step(NEW, without, decay=0.5, memory=0.5)[0])


def test_if_nothing_is_left_the_votes_stay() -> None:
    """Every mask is hostile."""
    votes, remarks = close_step(NEW, [group(1, OLD, a=~OLD.signs)], decay=0.5, memory=0.5, defend=True)
    assert same(votes, NEW)
    assert "none of 1 masks was counted" in remarks[-1]


@pytest.mark.parametrize("defend", [True, False])
def test_no_masks_at_all_are_an_error(defend: bool) -> None:
    """Nobody closes an empty step."""
    with pytest.raises(ValueError, match="no masks"):
        close_step(NEW, [], decay=0.5, memory=0.5, defend=defend)


def write(folder: Path, text: str) -> Path:
    """A devices.yaml whose third line is the setting in question."""
    path = folder / "devices.yaml"
    path.write_text(f"federation:\n  mode: async\n  {text}\n")
    return path


def test_settings_are_read_with_their_defaults(tmp_path: Path) -> None:
    """The buffer is the quorum, if nothing else is said; in rounds there are no such rules."""
    rules = load(write(tmp_path, "quorum: 5")).federation.asynchrony()
    assert rules is not None
    assert (rules.buffer, rules.staleness, rules.decay) == (5, 4, 0.5)
    rules = load(write(tmp_path, "buffer: 3")).federation.asynchrony()
    assert rules is not None
    assert rules.buffer == 3
    (tmp_path / "devices.yaml").write_text("federation:\n  buffer: 3\n")
    assert load(tmp_path / "devices.yaml").federation.asynchrony() is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("buffer: 0", "buffer"),
        ("buffer: 2.5", "buffer"),
        ("staleness: -1", "staleness is -1, 0..100 expected"),
        ("staleness: 1.5", "staleness"),
        ("decay: 0", "decay is 0.0"),
        ("decay: 2", "decay is 2.0"),
        ("decay: .nan", "decay: nan found"),
        ("buffer: 3\ndevices: {a: {}, b: {}}", "buffer is 3, but 2 devices are listed"),
    ],
)
def test_wrong_settings_are_refused_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    """File, line, what was found and what was expected."""
    with pytest.raises(ConfigError, match=said) as caught:
        load(write(tmp_path, text))
    assert caught.value.where == f"{tmp_path / 'devices.yaml'}:3"


def test_an_unknown_mode_names_the_known_ones(tmp_path: Path) -> None:
    """With its line."""
    (tmp_path / "devices.yaml").write_text("federation:\n  mode: sometimes\n")
    with pytest.raises(ConfigError, match="'rounds' or 'async'") as caught:
        load(tmp_path / "devices.yaml")
    assert caught.value.where.endswith(":2")
