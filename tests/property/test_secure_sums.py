"""Secure aggregation: every sum is exactly the plain one, and only with enough devices; shares and masks as bytes."""

from __future__ import annotations

from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.wire_strategies import QUICK
from tests.secure_stage import Stage
from wire import mask, secure, sharing
from wire.errors import WireError

DEVICES = 4
PATTERNS = list(combinations_with_replacement(range(5), DEVICES))  # how many phases each device lives through


def random_masks(devices: int, kept: int, seed: int) -> np.ndarray:
    """Signs of so many devices."""
    return np.random.default_rng(seed).random((devices, kept)) < 0.5


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_the_sum_is_the_plain_one_whoever_drops_out_when(pattern: tuple[int, ...]) -> None:
    """Down to the threshold the sum is exact; below it there is none, and nothing more is asked of anybody."""
    seed = sum(lives * 5**i for i, lives in enumerate(pattern))
    stage = Stage(random_masks(DEVICES, 40, seed), seed=seed)
    lives = dict(zip(stage.devices, np.random.default_rng(seed).permutation(pattern), strict=True))
    through = [[name for name, phases in lives.items() if phases >= phase] for phase in range(1, 5)]
    stage.advertise(through[0])
    if len(through[0]) < secure.LEAST:
        return  # the coordinator opens no smaller round, and devices refuse such a roster
    needed = secure.threshold(len(through[0]))
    for phase in (1, 2, 3):
        stage.go_on(through[phase])
        if len(stage.exchange.answered) < needed:
            break
    if all(len(names) >= needed for names in through):
        assert np.array_equal(stage.count(), stage.plain(through[2]))
    else:
        assert stage.count() is None


@QUICK
@given(st.integers(3, 12), st.integers(0, 70), st.integers(0, 2**32))
def test_any_number_of_devices_and_weights(devices: int, kept: int, seed: int) -> None:
    """The sum of any crowd of any size of network is exact."""
    stage = Stage(random_masks(devices, kept, seed), seed=seed)
    stage.advertise()
    for _ in range(3):
        stage.go_on()
    assert np.array_equal(stage.count(), stage.plain(stage.devices))


@pytest.mark.parametrize("devices", [3, 7, 8, 15, 16])
def test_sums_fill_their_bits(devices: int) -> None:
    """All signs the same, where sums are at both ends of what their bits hold."""
    masks = np.zeros((devices, 16), dtype=np.bool_)
    masks[:, ::2] = True
    stage = Stage(masks)
    stage.advertise()
    for _ in range(3):
        stage.go_on()
    assert stage.count().tolist() == [devices, 0] * 8


@QUICK
@given(st.binary(min_size=1, max_size=64), st.integers(1, 9), st.integers(0, 4), st.integers(0, 2**32))
def test_shares_come_together(secret: bytes, needed: int, more: int, seed: int) -> None:
    """Any `needed` shares are the secret, in any order; one fewer are something else."""
    numbers = range(1, needed + more + 1)
    random = np.random.default_rng(seed).bytes((needed - 1) * len(secret))
    shares = dict(zip(numbers, sharing.split(secret, numbers, needed, random), strict=True))
    for chosen in combinations(numbers, needed):
        assert sharing.combine({number: shares[number] for number in reversed(chosen)}) == secret


@pytest.mark.parametrize("secret", [0, 1, 42, 255])
def test_fewer_shares_say_nothing(secret: int) -> None:
    """Of t = 2, whatever the secret byte, each value of one share comes from one polynomial: all are as likely."""
    for number in (1, 2, 255):
        (share,) = sharing.split(bytes([secret]) * 256, [number], 2, bytes(range(256)))
        assert sorted(share) == list(range(256))


def test_shares_of_all_255_members() -> None:
    """The largest crowd."""
    needed = secure.threshold(255)
    secret, random = bytes(range(64)), np.random.default_rng(0).bytes((needed - 1) * 64)
    shares = sharing.split(secret, range(1, 256), needed, random)
    assert sharing.combine({i + 1: shares[i] for i in range(255 - needed, 255)}) == secret


@QUICK
@given(st.integers(1, 8), st.integers(0, 100), st.integers(0, 2**32))
def test_numbers_come_back_from_their_bits(bits: int, kept: int, seed: int) -> None:
    """Packed numbers take ceil(kept x bits / 8) bytes and come back."""
    counts = np.random.default_rng(seed).integers(0, 1 << bits, kept).astype(np.uint8)
    data = secure.pack(counts, bits)
    assert len(data) == -(-kept * bits // 8)
    present = (1 << bits) - 1
    attempt, back = secure.read_masked(bytes([mask.MASKED, 7, 0]) + data, kept, present)
    assert attempt == 7
    assert np.array_equal(back, counts)


@QUICK
@given(st.binary(max_size=40))
def test_any_bytes_are_masked_signs_or_refused(data: bytes) -> None:
    """A reader of masked signs, and one of ballots, accept nothing of another length or kind."""
    for read in (lambda: secure.read_masked(data, 50, 7), lambda: mask.read_ballot(data)):
        try:
            read()
        except WireError:
            continue
        assert data[:1] in (bytes([mask.MASKED]), bytes([mask.BALLOT]))


@QUICK
@given(st.integers(0, 99), st.integers(0, 2**32))
def test_ballots_come_back(kept: int, seed: int) -> None:
    """What a device keeps is what it trained."""
    signs = random_masks(1, kept, seed)[0]
    assert np.array_equal(mask.read_ballot(mask.ballot(signs)), signs)


def test_masked_signs_look_like_noise() -> None:
    """What is sent is spread over all values and shares no more with the signs than chance."""
    masks = np.ones((7, 20_000), dtype=np.bool_)
    stage = Stage(masks)
    stage.advertise()
    stage.go_on()
    stage.go_on()
    for update in stage.exchange.masked.values():
        _, numbers = secure.read_masked(update.signs, 20_000, 7)
        share = np.bincount(numbers, minlength=8) / numbers.size
        assert abs(share - 1 / 8).max() < 0.012  # five deviations
