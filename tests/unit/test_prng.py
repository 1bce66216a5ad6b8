"""Random numbers that are part of the wire format: fixed values, and fair ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wire import prng


def test_words_are_fixed_for_ever() -> None:
    """The raw words of a seed, stream and index are numpy's Philox, whose stream is promised never to change."""
    assert [hex(word) for word in prng.words(1, 2, 3, 4)] == [
        "0xbea79639b610637e",
        "0x5b3de47b40e7aede",
        "0xa2f8c26e8df4885e",
        "0xc85fd7a3eff84cbf",
    ]
    assert [hex(word) for word in prng.words(2**64 - 1, 3, 2**32 - 1, 2)] == [
        "0xbf38204b47936d63",
        "0x65755224f694387b",
    ]


def test_signs_are_fixed_for_ever() -> None:
    """Signs are the words' little-endian bytes, highest bit of each byte first."""
    expected = "0101000100111010010111000100101101001010100011101100000011000111101011"
    assert "".join("1" if sign else "0" for sign in prng.signs(42, 0, 70)) == expected
    first = int(prng.words(42, prng.STREAM_SIGN, 0, 1)[0]).to_bytes(8, "little")
    assert "".join(f"{byte:08b}" for byte in first) == expected[:64]


def test_magnitudes_are_fixed_for_ever() -> None:
    """Magnitudes are Box-Muller on the words of stream 2, equal to within a rounding of log and cos."""
    expected = [0.6317302083776315, 0.09483018268153105, 0.9833743562082937, 0.8514455849618755]
    assert prng.normals(42, 1, 4).tolist() == pytest.approx(expected, rel=1e-12)
    raw = [(int(word >> np.uint64(11)) + 0.5) / 2**53 for word in prng.words(42, 2, 1, 8)]
    by_hand = [abs(np.sqrt(-2 * np.log(raw[i])) * np.cos(2 * np.pi * raw[i + 4])) for i in range(4)]
    assert by_hand == pytest.approx(expected, rel=1e-12)


def test_choices_are_fixed_for_ever() -> None:
    """Chosen positions are those of the smallest words."""
    assert prng.choose(42, prng.STREAM_KEEP, 0, 20, 6).tolist() == [0, 3, 7, 8, 10, 14]


def test_mixed_seeds_are_fixed_for_ever() -> None:
    """A mixed seed is the first 8 bytes of a SHA-256 over its tagged parts."""
    assert prng.mix("a", 1, b"x") == 3587378972984624949
    assert prng.mix() == 1449310910991872227


def test_mixing_tells_parts_order_and_types_apart() -> None:
    """No two different lists of parts run together into one seed."""
    seeds = [
        prng.mix(*parts) for parts in ([], ["ab"], ["a", "b"], ["b", "a"], ["1"], [1], [b"1"], ["a", ""], [11], [1, 1])
    ]
    assert len(set(seeds)) == len(seeds)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(0, 300), st.data())
def test_choices_are_the_smallest_words(seed: int, total: int, data: st.DataObject) -> None:
    """Choosing gives distinct ascending positions: those a stable sort of the words puts first."""
    count = data.draw(st.integers(0, total))
    chosen = prng.choose(seed, prng.STREAM_KEEP, 1, total, count)
    order = np.argsort(prng.words(seed, prng.STREAM_KEEP, 1, total), kind="stable")
    assert chosen.dtype == np.int64
    assert chosen.tolist() == sorted(order[:count].tolist())


def test_equal_words_go_to_the_lower_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draw is settled by position, so that every machine chooses the same."""
    monkeypatch.setattr(prng, "words", lambda *_: np.array([5, 1, 5, 5, 9, 1], dtype=np.uint64))
    assert prng.choose(0, 3, 0, 6, 3).tolist() == [0, 1, 5]
    assert prng.choose(0, 3, 0, 6, 4).tolist() == [0, 1, 2, 5]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**64 - 1), st.integers(1, 400), st.data())
def test_some_magnitudes_are_those_of_all(seed: int, count: int, data: st.DataObject) -> None:
    """Asking for a few positions gives the numbers that the whole array has there."""
    at = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=20))), dtype=np.int32)
    assert np.array_equal(prng.normals(seed, 3, count, at=at), prng.normals(seed, 3, count)[at])


def test_numbers_look_random() -> None:
    """Means, spreads and correlations are within five standard errors of what chance gives."""
    n = 40_000
    signs = prng.signs(7, 0, n).astype(float)
    assert abs(signs.mean() - 0.5) < 5 * 0.5 / n**0.5
    assert abs(np.corrcoef(signs[:-1], signs[1:])[0, 1]) < 5 / n**0.5
    assert abs(np.corrcoef(signs, prng.signs(7, 1, n))[0, 1]) < 5 / n**0.5
    assert abs(np.corrcoef(signs, prng.signs(8, 0, n))[0, 1]) < 5 / n**0.5
    magnitudes = prng.normals(7, 0, n)
    assert magnitudes.min() >= 0
    assert abs(magnitudes.mean() - (2 / np.pi) ** 0.5) < 5 * 0.603 / n**0.5
    assert abs((magnitudes**2).mean() - 1) < 5 * 2**0.5 / n**0.5
    hits = np.bincount(np.concatenate([prng.choose(seed, 3, 0, 50, 10) for seed in range(1000)]), minlength=50)
    assert abs(hits - 200).max() < 5 * (1000 * 0.2 * 0.8) ** 0.5


def test_generators_follow_their_parts() -> None:
    """The same parts give the same generator, others another."""
    draws = [prng.generator(parts).integers(2**60) for parts in (["a", 1], ["a", 1], ["a", 2])]
    assert draws[0] == draws[1] != draws[2]


def test_words_are_numpys_philox() -> None:
    """Our Philox is numpy's, word for word, across chunks and for extreme keys."""
    for seed, index, count in ((0, 0, 1), (5, 3, 1000), (2**64 - 1, 7, 4 * prng.CHUNK + 5)):
        for stream in (prng.STREAM_SIGN, prng.STREAM_MAGNITUDE, prng.STREAM_KEEP):
            key = np.array([seed, (stream << 32) | index], dtype=np.uint64)
            assert np.array_equal(prng.words(seed, stream, index, count), np.random.Philox(key=key).random_raw(count))


def test_permutations_are_permutations_and_differ_by_epoch() -> None:
    """Every sample once an epoch, in another order the next."""
    first, second = prng.permutation(7, 0, 100), prng.permutation(7, 1, 100)
    assert sorted(first) == sorted(second) == list(range(100))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, prng.permutation(7, 0, 100))


@given(st.integers(0, 2**64 - 1), st.integers(1, 4), st.integers(0, 2**32 - 1), st.integers(0, 5 * prng.CHUNK))
@settings(max_examples=50, deadline=None)
def test_words_are_the_same_in_python(seed: int, stream: int, index: int, count: int) -> None:
    """A machine without the native library draws what all others do."""
    np.testing.assert_array_equal(
        prng.words(seed, stream, index, count), prng._words((seed, stream << 32 | index), count)
    )
