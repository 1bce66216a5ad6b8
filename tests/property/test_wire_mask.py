"""Sign masks and votes: what is said comes back, votes add up, any bytes decode or raise."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import QUICK, mutated
from wire import mask
from wire.errors import Mismatch, TooLarge, Truncated, WireError
from wire.mask import Votes


@st.composite
def ballots(draw: st.DrawFn) -> tuple[list[np.ndarray], np.ndarray]:
    """1 to 9 masks over 0 to 40 weights, and the signs before them."""
    kept, voters = draw(st.integers(0, 40)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return [rng.random(kept) < 0.5 for _ in range(voters)], rng.random(kept) < 0.5


@st.composite
def outcomes(draw: st.DrawFn, kept: int | None = None) -> Votes:
    """Votes of any number of voters, up to the largest."""
    voters = draw(st.sampled_from([1, 2, 3, 10, 15, 16, 17, 255, 256, 65_534, 65_535]) | st.integers(1, 65_535))
    kept = draw(st.integers(0, 60)) if kept is None else kept
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dissent = rng.integers(0, voters // 2 + 1, kept).astype(np.uint16)
    return Votes(signs=rng.random(kept) < 0.5, dissent=dissent, voters=voters)


def _same(one: Votes, other: Votes) -> bool:
    return (
        one.voters == other.voters
        and np.array_equal(one.signs, other.signs)
        and np.array_equal(one.dissent, other.dissent)
    )


@st.composite
def layers(draw: st.DrawFn, kept: int) -> np.ndarray:
    """Where the layers of a ticket that keeps so many weights end."""
    inner = draw(st.lists(st.integers(0, kept), max_size=3))
    return np.array([*sorted(inner), kept])


@QUICK
@given(outcomes(), st.integers(0, 2**32), st.floats(0, 1), st.data())
def test_signs_come_back(votes: Votes, seed: int, share: float, data: st.DataObject) -> None:
    """Signs coded in the context of any votes decode in it to the same signs, and never take more than raw."""
    ends = data.draw(layers(votes.signs.size))
    signs = votes.signs ^ (np.random.default_rng(seed).random(votes.signs.size) < share)
    coded = mask.encode_signs(signs, votes, ends)
    assert len(coded) <= 1 + -(-signs.size // 8)
    assert np.array_equal(mask.decode_signs(coded, votes, ends), signs)


@QUICK
@given(st.binary(max_size=60), outcomes())
def test_any_bytes_are_signs_or_raise(data: bytes, votes: Votes) -> None:
    """Arbitrary bytes are as many signs as the votes have, or a WireError."""
    with contextlib.suppress(WireError):
        assert mask.decode_signs(data, votes, np.array([votes.signs.size])).shape == votes.signs.shape


@QUICK
@given(st.integers(0, 400), st.integers(0, 400))
def test_a_raw_mask_of_another_length_is_refused(kept: int, other: int) -> None:
    """A raw mask for another number of weights is refused when its bytes do not fit."""
    signs = np.random.default_rng(1).random(kept) < 0.5
    coded = b"\x00" + np.packbits(signs, bitorder="little").tobytes()
    if -(-kept // 8) != -(-other // 8):
        with pytest.raises(WireError):
            mask.decode_signs(coded, mask.unanimous(other), np.array([other]))


def test_an_agreed_sign_costs_less_than_a_disputed_one() -> None:
    """Flips where voters disagreed take half of the bytes that as many anywhere take."""
    rng = np.random.default_rng(0)
    dissent = np.where(rng.random(20_000) < 0.1, 7, 0).astype(np.uint16)
    votes, ends = Votes(signs=rng.random(20_000) < 0.5, dissent=dissent, voters=15), np.array([20_000])
    disputed = rng.permutation(np.flatnonzero(dissent))[:800]
    anywhere = rng.permutation(20_000)[:800]
    sizes = []
    for chosen in (disputed, anywhere):
        signs = votes.signs.copy()
        signs[chosen] ^= True
        sizes.append(len(mask.encode_signs(signs, votes, ends)))
    assert sizes[0] < sizes[1] / 2


def test_masks_of_an_unknown_kind_or_too_long_are_refused() -> None:
    """And an empty one, and a code with bytes that nothing asks for."""
    votes, ends = mask.unanimous(80), np.array([80])
    with pytest.raises(Truncated):
        mask.decode_signs(b"", votes, ends)
    with pytest.raises(WireError, match="unknown kind 2"):
        mask.decode_signs(b"\x02\x01", votes, ends)
    with pytest.raises(TooLarge):
        mask.decode_signs(b"\x01" * 12, votes, ends)
    for rest in (b"\x01\x00", b"\x00" * 4 + b"\x01" + b"\x00" * 4 + b"\x01"):
        with pytest.raises(WireError, match="more than the code"):
            mask.decode_signs(b"\x01" + rest, votes, ends)


@QUICK
@given(ballots())
def test_votes_are_a_majority(ballot: tuple[list[np.ndarray], np.ndarray]) -> None:
    """The agreed sign is the majority's, dissent counts the rest, and a tie keeps the previous sign."""
    masks, previous = ballot
    votes = mask.count_votes(masks, previous)
    ayes = np.sum(masks, axis=0)
    noes = len(masks) - ayes
    assert np.array_equal(votes.signs[ayes > noes], np.ones((ayes > noes).sum(), dtype=bool))
    assert not votes.signs[ayes < noes].any()
    assert np.array_equal(votes.signs[ayes == noes], previous[ayes == noes])
    assert np.array_equal(votes.dissent, np.minimum(ayes, noes))
    assert np.allclose(votes.mean, (ayes - noes) / len(masks), atol=1e-6)


@QUICK
@given(ballots(), st.randoms(use_true_random=False))
def test_votes_do_not_depend_on_the_order(ballot: tuple[list[np.ndarray], np.ndarray], random: object) -> None:
    """Masks may arrive in any order: the votes are the same."""
    masks, previous = ballot
    shuffled = list(masks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert _same(mask.count_votes(masks, previous), mask.count_votes(shuffled, previous))


@QUICK
@given(outcomes(), st.floats(1e-12, 1e6))
def test_scores_start_with_the_agreed_signs(votes: Votes, start: float) -> None:
    """Start scores are finite, never zero, at most `start` large, and have exactly the agreed signs."""
    scores = votes.start_scores(start)
    assert scores.dtype == np.float32
    assert np.array_equal(scores > 0, votes.signs)
    assert (scores != 0).all()
    assert (np.abs(scores) <= np.float32(start)).all()


@QUICK
@given(outcomes())
def test_the_mean_leans_to_the_agreed_sign(votes: Votes) -> None:
    """The mean vote is in [-1, 1], has the agreed sign, and is 0 exactly where voters tied."""
    tied = 2 * votes.dissent.astype(int) == votes.voters
    assert np.array_equal(votes.mean == 0, tied)
    assert np.array_equal((votes.mean > 0)[~tied], votes.signs[~tied])
    assert (np.abs(votes.mean) <= 1).all()


@QUICK
@given(outcomes(), st.data())
def test_votes_come_back(votes: Votes, data: st.DataObject) -> None:
    """Votes decode to the same signs, dissent and voters, whatever votes they are coded in the context of."""
    kept = votes.signs.size
    ends = data.draw(layers(kept))
    known = data.draw(st.none() | outcomes(kept))
    assert _same(mask.decode_votes(mask.encode_votes(votes, ends, known), ends, known), votes)


def _check_votes_or_raise(data: bytes, kept: int) -> None:
    ends = np.array([kept])
    try:
        votes = mask.decode_votes(data, ends)
    except WireError:
        return
    assert votes.signs.shape == votes.dissent.shape == (kept,)
    assert 1 <= votes.voters <= mask.MAX_VOTERS
    assert (votes.dissent <= votes.voters // 2).all()
    assert _same(mask.decode_votes(mask.encode_votes(votes, ends), ends), votes)


@settings(QUICK, max_examples=30)
@given(st.data())
def test_altered_votes_decode_or_raise(data: st.DataObject) -> None:
    """Votes with a few bytes changed, for this or another number of weights, decode or raise."""
    votes = data.draw(outcomes())
    kept = data.draw(st.sampled_from([votes.signs.size, 0, 1, 100]))
    _check_votes_or_raise(data.draw(mutated(mask.encode_votes(votes, np.array([votes.signs.size])))), kept)


@QUICK
@given(st.binary(max_size=80), st.integers(0, 100))
def test_any_bytes_are_votes_or_raise(data: bytes, kept: int) -> None:
    """Arbitrary bytes are votes on `kept` weights or a WireError."""
    _check_votes_or_raise(data, kept)


def test_impossible_votes_are_refused() -> None:
    """No voters, levels that so few voters cannot make, a plane cut short and bytes left over."""
    ends = np.array([9])
    good = mask.encode_votes(
        Votes(signs=np.ones(9, dtype=bool), dissent=np.full(9, 2, dtype=np.uint16), voters=4), ends
    )
    uneven = mask.encode_votes(
        Votes(signs=np.ones(9, dtype=bool), dissent=np.full(9, 1, dtype=np.uint16), voters=15), ends
    )
    with pytest.raises(Truncated):
        mask.decode_votes(b"\x04", ends)
    with pytest.raises(WireError, match="no voters"):
        mask.decode_votes(b"\x00\x00" + good[2:], ends)
    with pytest.raises(WireError, match="levels that so many cannot make"):
        mask.decode_votes(struct.pack("<H", 4) + uneven[2:], ends)
    with pytest.raises(Mismatch, match="at most 1"):
        mask.decode_votes(struct.pack("<H", 3) + good[2:], ends)
    with pytest.raises(Truncated):
        mask.decode_votes(struct.pack("<H", 100) + b"\x01\x00", ends)
    with pytest.raises(WireError, match="more than the code"):
        mask.decode_votes(good + b"\x00", ends)


def test_the_digest_tells_votes_apart() -> None:
    """The same votes have the same; another sign, dissent or number of voters another."""
    votes = Votes(signs=np.ones(9, dtype=bool), dissent=np.full(9, 2, dtype=np.uint16), voters=5)
    others = [replace(votes, signs=~votes.signs), replace(votes, dissent=votes.dissent - 1), replace(votes, voters=6)]
    assert replace(votes, signs=votes.signs.copy()).digest == votes.digest
    assert len({one.digest for one in [votes, *others]}) == 4


@QUICK
@given(st.integers(1, 200), st.integers(0, 300), st.integers(0, 2**32))
def test_counting_in_c_is_counting(voters: int, kept: int, seed: int) -> None:
    """However many masks and weights: packed and counted they come to what adding them up does."""
    masks = list(np.random.default_rng(seed).random((voters, kept)) < 0.5)
    ayes = np.sum(masks, axis=0)
    votes = mask.count_votes(masks, np.ones(kept, dtype=bool))
    assert np.array_equal(votes.dissent, np.minimum(ayes, voters - ayes))


def test_counting_nothing_or_the_wrong_length_is_a_mistake() -> None:
    """No masks, too many masks, and a mask that would broadcast are ValueErrors of the caller."""
    previous = np.ones(3, dtype=bool)
    with pytest.raises(ValueError, match="got 0"):
        mask.count_votes([], previous)
    with pytest.raises(ValueError, match="got 65536"):
        mask.count_votes([previous] * 65_536, previous)
    with pytest.raises(ValueError, match="shape"):
        mask.count_votes([np.ones(1, dtype=bool)], previous)


def test_before_the_first_round_every_sign_is_plus() -> None:
    """`unanimous` leaves the random network as it is, with scores at exactly `start`."""
    votes = mask.unanimous(5)
    assert votes.signs.all()
    assert (votes.start_scores(0.1) == np.float32(0.1)).all()
