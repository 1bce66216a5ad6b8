"""Personal networks: what is saved comes back; a cut, altered or foreign file raises WireError."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import QUICK, bit_arrays, mutated
from wire import personal
from wire.errors import Mismatch, TooLarge, Truncated, WireError
from wire.personal import Personal

SOME = Personal(
    ticket=bytes(range(32)),
    run=b"runrunru",
    number=7,
    log_prior=np.array([-0.5, 2.0], np.float32),
    signs=np.arange(50) % 3 > 0,
)
FILE = personal.encode(SOME)
HEADER = FILE[: personal.HEADER.size]


def _sealed(head: bytes) -> bytes:
    """A file with the right hash at its end."""
    return head + sha256(head).digest()


@st.composite
def personal_networks(draw: st.DrawFn) -> Personal:
    """Any."""
    signs = draw(bit_arrays())
    prior = draw(st.lists(st.floats(-100, 100, width=32), max_size=12))
    return Personal(
        ticket=draw(st.binary(min_size=32, max_size=32)),
        run=draw(st.binary(min_size=8, max_size=8)),
        number=draw(st.integers(0, 2**64 - 1)),
        log_prior=np.array(prior, np.float32),
        signs=signs,
    )


@QUICK
@given(personal_networks())
def test_personal_networks_come_back(own: Personal) -> None:
    """A file decodes to the ticket, run, round, prior and signs it was made of."""
    data = personal.encode(own)
    back = personal.decode(data, own.signs.size, own.log_prior.size)
    assert (back.ticket, back.run, back.number) == (own.ticket, own.run, own.number)
    assert np.array_equal(back.signs, own.signs)
    assert np.array_equal(back.log_prior, own.log_prior)
    assert personal.ticket_of(data) == own.ticket
    assert len(data) <= 55 + 4 * own.log_prior.size + 1 + -(-own.signs.size // 8) + 32


@QUICK
@given(mutated(FILE))
def test_altered_files_are_refused(data: bytes) -> None:
    """A file with any byte changed, lost or added is noticed."""
    if data == FILE:
        return
    with pytest.raises(WireError):
        personal.decode(data, 50, 2)


@pytest.mark.parametrize("size", range(len(FILE)))
def test_cut_files_are_refused(size: int) -> None:
    """Whatever part of it a power cut left."""
    with pytest.raises(WireError):
        personal.decode(FILE[:size], 50, 2)
    with pytest.raises(WireError):
        personal.ticket_of(FILE[:size])


@settings(QUICK, max_examples=50)
@given(st.binary(max_size=120), st.sampled_from([b"", b"HNSP\x02", HEADER]), st.integers(0, 200))
def test_any_bytes_decode_or_raise(data: bytes, start: bytes, kept: int) -> None:
    """Arbitrary bytes behind any start, with a true hash or without, are `kept` signs or a WireError."""
    for file in (start + data, _sealed(start + data)):
        with contextlib.suppress(WireError):
            assert personal.decode(file, kept, 2).signs.shape == (kept,)


def test_each_fault_has_its_error() -> None:
    """Another format, a newer version, too few bytes, too many, a wrong hash and another mask length are told apart."""
    with pytest.raises(WireError, match="starts with b'HNST'"):
        personal.ticket_of(b"HNST" + FILE[4:])
    with pytest.raises(WireError, match="version 3, this program reads version 2"):
        personal.decode(_sealed(b"HNSP\x03" + FILE[5:-32]), 50, 2)
    with pytest.raises(Truncated):
        personal.ticket_of(HEADER)
    with pytest.raises(TooLarge):
        personal.decode(FILE + b"\x00" * 50, 50, 2)
    body = FILE[len(HEADER) :]
    with pytest.raises(Mismatch, match="SHA-256"):
        personal.decode(HEADER + body[:-33] + b"\xff" + FILE[-32:], 50, 2)
    with pytest.raises(Mismatch, match="60 packed bits"):
        personal.decode(personal.encode(replace(SOME, signs=np.arange(50) % 2 == 0)), 60, 2)
    with pytest.raises(Mismatch, match="classes of a personal network: expected 3, got 2"):
        personal.decode(FILE, 50, 3)
    with pytest.raises(Truncated):
        personal.decode(_sealed(HEADER + body[:4]), 50, 2)
    with pytest.raises(WireError, match="not finite"):
        personal.decode(_sealed(HEADER + b"\xff" * 8 + body[8:-32]), 50, 2)


def test_what_could_not_be_read_again_is_a_mistake() -> None:
    """Identities of another length and numbers beyond 64 bits are ValueErrors of the caller."""
    for wrong in (
        {"ticket": b"short"},
        {"run": b"longer than eight"},
        {"number": 2**64},
        {"number": -1},
        {"log_prior": np.array([np.inf])},
    ):
        with pytest.raises(ValueError, match=r"bytes|64-bit|finite"):
            replace(SOME, **wrong)
