"""A minute of fuzzing: golden bytes altered in many ways, longer than the property tests beside this one."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable
from hashlib import sha256

import numpy as np
import pytest

from tests.golden import make
from wire import bits, mask, messages, personal
from wire.bundle import decode_bundle
from wire.channel import unseal
from wire.envelope import Joiner
from wire.errors import PlanError, TicketError, WireError
from wire.safecbor import load_cbor
from wire.signing import public_key
from wire.ticket import decode_ticket

SECONDS_EACH = 7
SLOWEST_S = 2.0  # of one decode, of at most a few kB
MEMORY_GROWTH_KB = 400_000
INTERESTING = (0, 1, 23, 24, 0x3B, 0x5B, 0x7F, 0x80, 0x9B, 0xBB, 0xC2, 0xD8, 0xF7, 0xFB, 0xFF)


def _altered(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """`data` after 1 to 6 random edits: bytes set, bits flipped, pieces cut, repeated, or taken from `others`."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at, size = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 8, 40))
        match rng.randrange(6):
            case 0:
                out[at : at + 1] = bytes([rng.choice(INTERESTING)])
            case 1 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[at : at + size] * rng.randint(1, 4)
            case 4:
                other = rng.choice(others)
                start = rng.randrange(len(other))
                out[at:at] = other[start : start + size]
            case _:
                out[at : at + size] = rng.randbytes(size)
    return bytes(out)


def _bundle(data: bytes) -> object:
    return decode_bundle(data, expected_id=sha256(data).digest())


def _ticket(data: bytes) -> object:
    """Decode with the hash put right, so that what lies behind it is reached."""
    head = data[:-32]
    return decode_ticket(head + sha256(head).digest())


def _personal(data: bytes) -> object:
    """Decode with the hash put right, so that what lies behind it is reached."""
    head = data[:-32]
    return personal.decode(head + sha256(head).digest(), make.KEPT, 4)


def _parts(data: bytes) -> None:
    """Give a joiner parts with right headers around altered bytes, for three messages at once."""
    joiner = Joiner(2000, max_pending=3)
    for i in range(0, len(data), 60):
        joiner.add(
            f"t/{data[i] % 4}", b"HP\x01" + data[i : i + 1] * 16 + bytes([data[i] % 4, 0, 4, 0]) + data[i : i + 60]
        )
        joiner.add("t/0", data[i : i + 60])


VOTES = make.votes()
TARGETS: dict[str, tuple[Callable[[bytes], object], str]] = {
    "cbor": (load_cbor, ""),
    "message": (messages.decode, "message"),
    "ticket": (_ticket, "ticket"),
    "bundle": (_bundle, "bundle"),
    "sealed": (lambda data: unseal(make.TOPIC, data, lambda topic, message: public_key(make.KEY)), "sealed"),
    "signs": (lambda data: mask.decode_signs(data, VOTES, make.ENDS), "signs"),
    "votes": (lambda data: mask.decode_votes(data, make.ENDS), "votes"),
    "later votes": (lambda data: mask.decode_votes(data, make.ENDS, VOTES), "votes"),
    "bits": (lambda data: bits.decode(data, len(data) * 3), "signs"),
    "personal": (_personal, "personal"),
    "parts": (_parts, "envelope"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_altered_golden_bytes_decode_or_raise(name: str) -> None:
    """Any alteration decodes or raises WireError, TicketError or PlanError, quickly and in little memory."""
    decode, prefix = TARGETS[name]
    everything = [make.load(recipe) for recipe in make.RECIPES]
    seeds = [make.load(recipe) for recipe in make.RECIPES if recipe.startswith(prefix)]
    rng = random.Random(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    end, tried, decoded = time.monotonic() + SECONDS_EACH, 0, 0
    pool = list(seeds)
    while time.monotonic() < end:
        data = _altered(rng.choice(pool), everything, rng)[:5000]
        started = time.process_time()
        try:
            decode(data)
            decoded += 1
            if len(data) > 8 and len(pool) < 500:
                pool.append(data)  # what decodes is a better place to go on from
        except (WireError, TicketError, PlanError) as error:
            text = str(error)
            assert len(text) < 2000
        except Exception as error:  # noqa: BLE001  # the very thing that is looked for
            pytest.fail(f"{type(error).__name__}: {error} from {data.hex()}")
        assert time.process_time() - started < SLOWEST_S, data.hex()
        tried += 1
    assert tried > 100
    assert decoded > 0 or name == "sealed"  # forging one would be news
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_GROWTH_KB


@pytest.mark.slow
def test_large_masks_of_every_density_come_back() -> None:
    """A million bits of any density survive, and never take more than a byte over raw."""
    rng = np.random.default_rng(0)
    for density in (0.0, 1e-6, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.999, 1.0):
        array = rng.random(1_000_003) < density
        coded = bits.encode(array)
        assert len(coded) <= 1 + 125_001
        assert np.array_equal(bits.decode(coded, array.size), array)
