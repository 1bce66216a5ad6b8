"""Dithered bits: what has not moved is not sent, what has is told without bias, and rounding loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import dithered
from coordinator.dithered import Scores
from tests.property.wire_strategies import QUICK
from wire import dither, mask
from wire.errors import ConfigError
from wire.mask import Votes
from wire.prng import mix
from wire.settings import Training

SIGNS = Training()
SEEDS = st.integers(0, 2**64 - 1)


@st.composite
def scores(draw: st.DrawFn) -> Votes:
    """Mean scores as they are announced, of 0 to 60 weights."""
    kept = draw(st.integers(0, 60))
    levels = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 16, kept)
    signs = levels > 7
    return Votes(signs=signs, dissent=np.where(signs, 15 - levels, levels).astype(np.uint16), voters=15)


def trainings() -> st.SearchStrategy[Training]:
    """Largest scores of all sizes."""
    return st.floats(1e-3, 1.0).map(lambda largest: Training(dither=largest))


@QUICK
@given(scores(), trainings(), SEEDS)
def test_a_device_that_has_not_trained_sends_what_is_expected(votes: Votes, training: Training, seed: int) -> None:
    """However scores are rounded on the way: thresholds lie half-way between what announced scores can be."""
    sent = dither.signs_of(dither.start_scores(votes, training), training, seed)
    assert np.array_equal(sent, dither.context(votes, training, seed).signs)


@QUICK
@given(scores(), trainings(), SEEDS, st.integers(0, 2**32))
def test_bits_come_back(votes: Votes, training: Training, seed: int, drawn: int) -> None:
    """Coded in the context of both sides' expectation, and never in more than raw bits."""
    moved = np.random.default_rng(drawn).normal(0, training.dither, votes.signs.size).astype(np.float32)
    sent = dither.signs_of(dither.start_scores(votes, training) + moved, training, seed)
    known, ends = dither.context(votes, training, seed), np.array([votes.signs.size])
    assert known.levels.dtype == np.uint8
    assert np.array_equal(known.levels > 7, known.signs)
    coded = mask.encode_signs(sent, known, ends)
    assert len(coded) <= 1 + -(-sent.size // 8)
    assert np.array_equal(mask.decode_signs(coded, known, ends), sent)


def test_the_difference_of_bits_is_how_far_a_score_has_moved() -> None:
    """On average over thresholds, from any score to any other, to the largest and beyond it."""
    training, count = Training(dither=0.25), 20_000
    for level, trained in ((0, -0.1), (3, -0.25), (7, 0.2), (12, 0.25), (15, 0.7), (15, -0.7)):
        sign = level > 7
        one = Votes(
            signs=np.full(count, sign), dissent=np.full(count, 15 - level if sign else level, np.uint16), voters=15
        )
        before = dither.start_scores(one, training)
        assert before == pytest.approx(np.full(count, (2 * level - 15) / 15 * 0.25), abs=1e-7)
        sent = dither.signs_of(np.full(count, trained, dtype=np.float32), training, level)
        told = 0.5 * np.mean(sent.astype(float) - dither.context(one, training, level).signs)
        expected = np.clip(trained, -0.25, 0.25) - before[0]
        assert told == pytest.approx(expected, abs=4 * 0.25 / np.sqrt(count) + 0.5 / 256)


def test_the_likeliest_to_differ_are_the_least_sure() -> None:
    """A score that moves a little passes the thresholds next to it: levels 7 and 8 of what is known."""
    training, rng = Training(dither=0.3), np.random.default_rng(1)
    kept = 30_000
    levels = rng.integers(0, 16, kept)
    votes = Votes(signs=levels > 7, dissent=np.where(levels > 7, 15 - levels, levels).astype(np.uint16), voters=15)
    start = dither.start_scores(votes, training)
    sent = dither.signs_of(start + rng.normal(0, 0.03, kept).astype(np.float32), training, 3)
    known = dither.context(votes, training, 3)
    flips = sent ^ known.signs
    shares = [flips[known.levels == level].mean() for level in range(16)]
    assert shares[:8] == sorted(shares[:8])
    assert shares[8:] == sorted(shares[8:], reverse=True)


@QUICK
@given(scores(), st.integers(1, 1000), st.integers(0, 2**32))
def test_next_scores_are_within_their_levels(votes: Votes, devices: int, seed: int) -> None:
    """And the same for the same masks; what nobody moved stays where it was, and so does what moved a little."""
    moved = np.random.default_rng(seed).integers(-devices, devices + 1, votes.signs.size).astype(np.int32)
    before = Scores(votes=votes, remainder=np.zeros(votes.signs.size, dtype=np.int16))
    after, again = (dithered.move(before, moved, devices, 1) for _ in range(2))
    assert after.votes.voters == 15
    assert after.votes.digest == again.votes.digest
    assert np.array_equal(after.remainder, again.remainder)
    exact = np.clip(votes.levels + moved * (15 / devices), 0, 15)
    assert np.allclose(after.votes.levels + after.remainder / dithered.UNITS, exact, atol=1 / dithered.UNITS)
    near = np.abs(exact - votes.levels) < dithered.RULE.hold - 1 / dithered.UNITS
    assert np.array_equal(after.votes.levels[near], votes.levels[near])


def test_rounding_loses_nothing() -> None:
    """One device of a hundred moves a weight by less than a sixth of a level; after many rounds it is all there."""
    votes = dither.announce(np.full(4, 8, dtype=np.uint8))
    scores = Scores(votes=votes, remainder=np.zeros(4, dtype=np.int16))
    for _ in range(20):
        scores = dithered.move(scores, np.ones(4, np.int32), 100, 1)
    now = scores.votes.levels + scores.remainder / dithered.UNITS
    assert now == pytest.approx(np.full(4, 8 + 20 * 15 / 100), abs=20 / 2 / dithered.UNITS)


def test_without_dither_all_is_as_it_was() -> None:
    """Signs are sent, in the context of votes."""
    votes = Votes(signs=np.array([True, False, True]), dissent=np.array([0, 1, 2], np.uint16), voters=5)
    trained = np.array([0.1, -0.2, 0.0], dtype=np.float32)
    assert dither.context(votes, SIGNS, 1) is votes
    assert dither.signs_of(trained, SIGNS, 1).tolist() == [True, False, True]
    assert np.array_equal(dither.start_scores(votes, SIGNS), votes.start_scores(SIGNS.start))
    assert dither.first_votes(3, SIGNS).digest == mask.unanimous(3).digest


def test_devices_have_thresholds_of_their_own() -> None:
    """What one device's noise hides another's does not."""
    one, other = (dither.thresholds(mix(7, 3, device), 8_000) for device in ("pi-1", "pi-2"))
    assert abs(float(np.corrcoef(one.astype(float), other.astype(float))[0, 1])) < 0.05
    assert np.bincount(one, minlength=256).max() < 80


@pytest.mark.parametrize(
    ("settings", "found"),
    [({"dither": -0.1}, "dither is -0.1"), ({"dither": 2.0}, "dither is 2.0"), ({"dither": 0.2, "clip": 0.1}, "0.2")],
)
def test_what_cannot_be_dithered_is_refused(settings: dict[str, float], found: str) -> None:
    """Scores are never larger than `clip`."""
    with pytest.raises(ConfigError, match=found):
        Training(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="privacy_epsilon"):
        Training(dither=0.2, privacy_epsilon=2.0)
