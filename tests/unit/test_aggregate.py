"""Counting a round's masks, and remembering the rounds before."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.aggregate import LEVELS, next_votes
from wire import mask
from wire.mask import Votes


def votes(mean: list[float]) -> Votes:
    """Votes with about this mean, on the announced levels."""
    value = np.array(mean)
    dissent = np.rint((1 - np.abs(value)) / 2 * LEVELS).astype(np.uint16)
    return Votes(signs=value > 0, dissent=dissent, voters=LEVELS)


def test_without_memory_the_masks_alone_count() -> None:
    """Two of three said +1 about the first weight, one about the second."""
    masks = [np.array(one, bool) for one in ([1, 0], [1, 0], [0, 1])]
    after = next_votes(votes([-1.0, -1.0]), masks, 0.0)
    assert after.voters == 3
    assert after.mean.tolist() == pytest.approx([1 / 3, -1 / 3])


def test_memory_keeps_a_share_of_the_mean_before() -> None:
    """Half of -1 and half of +1 tie and keep the old sign; half of -0.2 and half of +1 turn."""
    masks = [np.array([1, 1, 1], bool)] * 4
    after = next_votes(votes([-1.0, -0.2, 1.0]), masks, 0.5)
    assert after.signs.tolist() == [False, True, True]
    assert after.mean.tolist() == pytest.approx([-0.07, 0.4, 1.0], abs=0.5 / LEVELS + 0.04)


def test_blended_votes_survive_the_wire() -> None:
    """What is announced decodes to the same votes, so devices and a restarted coordinator agree."""
    rng = np.random.default_rng(0)
    before, ends = mask.unanimous(1000), np.array([400, 1000])
    for _ in range(5):
        masks = [rng.random(1000) < rng.random(1000) for _ in range(10)]
        after = next_votes(before, masks, 0.5)
        decoded = mask.decode_votes(mask.encode_votes(after, ends, before), ends, before)
        assert np.array_equal(decoded.signs, after.signs)
        assert np.array_equal(decoded.dissent, after.dissent)
        assert decoded.voters == after.voters == LEVELS
        before = decoded


def test_rounding_moves_a_mean_by_less_than_a_level() -> None:
    """The announced mean is the blended one to half a level."""
    rng = np.random.default_rng(1)
    before = votes(list(rng.uniform(-1, 1, 500)))
    masks = [rng.random(500) < 0.5 for _ in range(7)]
    exact = 0.5 * before.mean + 0.5 * mask.count_votes(masks, before.signs).mean
    assert np.abs(next_votes(before, masks, 0.5).mean - exact).max() <= 1 / LEVELS + 1e-6
