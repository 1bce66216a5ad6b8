"""The adaptive coder: symbols come back, C and Python write the same bytes, any bytes decode or raise, few are used."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import QUICK
from wire import adaptive, adaptive_python
from wire.errors import WireError
from wire.native.library import native

CODERS = [pytest.param(adaptive_python, id="python"), pytest.param(native(), id="c")]


@st.composite
def coded_things(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Symbols, contexts, ends of layers and bits of a symbol; from all alike to all random."""
    bits = draw(st.integers(1, adaptive.MAX_BITS))
    n = draw(st.integers(0, 300))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.0, 0.001, 0.05, 0.3, 0.5, 1.0]))
    symbols = np.where(rng.random(n) < share, rng.integers(0, 1 << bits, n), draw(st.integers(0, (1 << bits) - 1)))
    contexts = rng.integers(0, draw(st.integers(1, adaptive.CONTEXTS)), n)
    ends = sorted(draw(st.lists(st.integers(0, n), max_size=4)))
    return symbols.astype(np.uint8), contexts.astype(np.uint8), np.array([*ends, n]), bits


@settings(QUICK, max_examples=60)
@given(coded_things())
def test_c_and_python_are_one_coder(things: tuple[np.ndarray, np.ndarray, np.ndarray, int]) -> None:
    """Both write the same bytes, both read them, and neither writes more than it may."""
    symbols, contexts, ends, bits = things
    library = native()
    assert library is not None
    data = adaptive_python.encode(symbols, contexts, ends, bits, 8 * symbols.size + 8)
    assert data is not None
    for coder in (library, adaptive_python):
        assert coder.encode(symbols, contexts, ends, bits, len(data)) == data
        assert len(data) == 0 or coder.encode(symbols, contexts, ends, bits, len(data) - 1) is None
        found = coder.decode(data, contexts, ends, bits)
        assert found is not None
        assert np.array_equal(found, symbols)
    assert np.array_equal(adaptive.decode(data, contexts, ends, bits), symbols)


@settings(QUICK, max_examples=60)
@given(st.binary(max_size=60), coded_things())
def test_any_bytes_decode_alike(data: bytes, things: tuple[np.ndarray, np.ndarray, np.ndarray, int]) -> None:
    """C and Python make the same of any bytes; what decodes is what encodes to it, or to fewer."""
    _, contexts, ends, bits = things
    library = native()
    assert library is not None
    ours, theirs = adaptive_python.decode(data, contexts, ends, bits), library.decode(data, contexts, ends, bits)
    assert (ours is None) == (theirs is None)
    if ours is None or theirs is None:
        return
    assert np.array_equal(ours, theirs)
    with contextlib.suppress(WireError):
        symbols = adaptive.decode(data, contexts, ends, bits)
        again = adaptive.encode(symbols, contexts, ends, bits, room=8 * symbols.size + 8)
        assert again is not None
        assert len(again) <= len(data)


@pytest.mark.parametrize("coder", CODERS)
def test_a_carry_goes_through_the_bytes_before(coder: object) -> None:
    """After many unlikely symbols at the top of the interval, bytes that are written already still change."""
    rng = np.random.default_rng(3)
    for _ in range(200):
        symbols = (rng.random(400) < 0.9).astype(np.uint8)
        symbols[rng.integers(0, 400, 3)] = 0
        contexts, ends = np.zeros(400, dtype=np.uint8), np.array([400])
        data = coder.encode(symbols, contexts, ends, 1, 1000)  # type: ignore[attr-defined]
        assert np.array_equal(coder.decode(data, contexts, ends, 1), symbols)  # type: ignore[attr-defined]


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.2, 0.5])
def test_it_comes_close_to_the_entropy(share: float) -> None:
    """Of independent flips whose share differs by context: at most 3 % and what learning 32 probabilities takes."""
    rng = np.random.default_rng(0)
    n = 60_000
    contexts = rng.integers(0, 16, n).astype(np.uint8)
    chance = share * (0.2 + contexts / 10)
    flips = (rng.random(n) < chance).astype(np.uint8)
    entropy = sum(-p * math.log2(p) - (1 - p) * math.log2(1 - p) for p in chance) / 8
    data = adaptive.encode(flips, contexts, np.array([n]), 1, room=n)
    assert data is not None
    assert len(data) < 1.03 * entropy + 40


def test_what_is_not_of_its_form_is_a_mistake_of_the_caller() -> None:
    """Wrong types, contexts, symbols, ends and bits are ValueErrors before C sees them."""
    ok, ends = np.zeros(4, dtype=np.uint8), np.array([4])
    for symbols, contexts, layers, bits in (
        (ok.astype(np.int64), ok, ends, 1),
        (ok[:3], ok, ends, 1),
        (ok + np.uint8(2), ok, ends, 1),
        (ok, ok + np.uint8(16), ends, 1),
        (ok, ok.astype(np.int32), ends, 1),
        (ok, ok, np.array([3]), 1),
        (ok, ok, np.array([5, 4]), 1),
        (ok, ok, np.array([-1, 4]), 1),
        (ok, ok, ends.astype(np.int32), 1),
        (ok, ok, ends[:0], 1),
        (ok, ok, ends, 0),
        (ok, ok, ends, 5),
    ):
        with pytest.raises(ValueError, match=r"expected|contexts"):
            adaptive.encode(symbols, contexts, layers, bits, room=10)


def test_without_the_library_python_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where C was not built, masks are coded all the same, to the same bytes."""
    rng = np.random.default_rng(0)
    symbols, contexts, ends = (rng.random(500) < 0.1).astype(np.uint8), rng.integers(0, 16, 500).astype(np.uint8), None
    ends = np.array([200, 500])
    fast = adaptive.encode(symbols, contexts, ends, 1, room=500)
    monkeypatch.setattr(adaptive, "native", lambda: None)
    assert adaptive.encode(symbols, contexts, ends, 1, room=500) == fast
    assert fast is not None
    assert np.array_equal(adaptive.decode(fast, contexts, ends, 1), symbols)
