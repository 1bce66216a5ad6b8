"""Tickets: the same bytes for ever, and no altered, hostile or enormous one gets past decoding."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc
from hashlib import sha256
from pathlib import Path

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import random_ticket
from tests.property.wire_strategies import ODD_VALUES, QUICK, mutated, tickets
from wire import bits, plan
from wire.errors import PlanError, TicketError, WireError
from wire.layers import Linear
from wire.plan import Plan, plan_to_data
from wire.ticket import MAGIC, VERSION, Keep, Ticket, decode_ticket, read_ticket

PLAN = Plan(name="tiny", input_shape=(6,), layers=(Linear(out_features=4),))
TICKET = random_ticket(PLAN, 0.5, seed=3, block=2)


def sealed(body: object) -> bytes:
    """A ticket file with any body and the right SHA-256."""
    head = MAGIC + bytes([VERSION]) + cbor2.dumps(body, canonical=True)
    return head + sha256(head).digest()


def _body(**changed: object) -> list[object]:
    body = {
        "plan": plan_to_data(PLAN),
        "seed": 3,
        "magnitudes": "constant",
        "layers": [[2, 6, 0.5]],
        "made": {},
    }
    return list((body | changed).values())


@QUICK
@given(tickets())
def test_tickets_come_back(ticket: Ticket) -> None:
    """A ticket encoded and decoded is equal, has the same bytes, and unpacks to the same network."""
    back = decode_ticket(ticket.encoded)
    assert back == ticket
    assert back.encoded == ticket.encoded
    assert back.id == sha256(ticket.encoded[:-32]).digest()
    for one, other in zip(ticket.kept_layers, back.kept_layers, strict=True):
        assert np.array_equal(one.indices, other.indices)
        assert np.array_equal(one.weights, other.weights)


@QUICK
@given(tickets())
def test_unpacked_layers_are_what_the_ticket_says(ticket: Ticket) -> None:
    """Kept weights are distinct, within their layer, of finite size, and adjoin in the score vector."""
    start = 0
    for layer in ticket.kept_layers:
        assert layer.start == start
        assert layer.indices.size == np.unique(layer.indices).size == layer.kept == layer.signs.size
        assert layer.kept == 0 or 0 <= layer.indices.min() <= layer.indices.max() < layer.shape.weights
        assert np.isfinite(layer.weights).all()
        start = layer.slice.stop
    assert start == ticket.kept
    assert 0 <= ticket.density <= 1
    assert 0 <= ticket.mac_density <= 1


def test_every_truncation_is_refused() -> None:
    """A ticket cut at any length is a TicketError."""
    whole = TICKET.encoded
    for length in range(len(whole)):
        with pytest.raises(TicketError):
            decode_ticket(whole[:length])


def test_every_flipped_bit_is_refused() -> None:
    """A ticket with any one bit flipped is a TicketError."""
    whole = TICKET.encoded
    for position in range(len(whole) * 8):
        altered = bytearray(whole)
        altered[position // 8] ^= 1 << position % 8
        with pytest.raises(TicketError):
            decode_ticket(bytes(altered))


@settings(QUICK, max_examples=30)
@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_are_refused(data: bytes, magic: bool) -> None:
    """Arbitrary bytes, with or without a ticket's beginning, are a TicketError."""
    with pytest.raises(TicketError):
        decode_ticket(MAGIC + data if magic else data)


def _decodes_or_raises(data: bytes) -> None:
    try:
        ticket = decode_ticket(data)
    except TicketError:
        return
    assert ticket.encoded == data


@settings(QUICK, max_examples=30)
@given(st.data())
def test_altered_bodies_with_the_right_hash_decode_or_raise(data: st.DataObject) -> None:
    """A forger who also fixes the hash gets a TicketError, or a ticket of exactly those bytes."""
    body = data.draw(mutated(data.draw(tickets()).encoded[5:-32]))
    head = MAGIC + bytes([VERSION]) + body
    _decodes_or_raises(head + sha256(head).digest())


@settings(QUICK, max_examples=30)
@given(st.sampled_from(["plan", "seed", "magnitudes", "layers", "made"]), st.data())
def test_any_value_in_any_place_decodes_or_raises(name: str, data: st.DataObject) -> None:
    """Any CBOR in the place of a part is a TicketError, or a ticket of exactly those bytes."""
    value = data.draw(ODD_VALUES)
    if name == "layers" and data.draw(st.booleans()):
        value = [[data.draw(ODD_VALUES) for _ in range(3)]]
    _decodes_or_raises(sealed(_body(**{name: value})))


HOSTILE = {
    "more blocks than there are": _body(layers=[[2, 13, 0.5]]),
    "2**63 blocks": _body(layers=[[2, 2**63, 0.5]]),
    "negative blocks": _body(layers=[[2, -1, 0.5]]),
    "true for blocks": _body(layers=[[2, True, 0.5]]),
    "true for a block size": _body(layers=[[True, 6, 0.5]]),
    "a block size of zero": _body(layers=[[0, 6, 0.5]]),
    "a negative block size": _body(layers=[[-2, 6, 0.5]]),
    "a block size that does not divide": _body(layers=[[3, 4, 0.5]]),
    "a NaN scale": _body(layers=[[2, 6, float("nan")]]),
    "an infinite scale": _body(layers=[[2, 6, float("inf")]]),
    "a negative scale": _body(layers=[[2, 6, -0.5]]),
    "a scale of zero": _body(layers=[[2, 6, 0.0]]),
    "a scale that makes infinite weights": _body(layers=[[2, 6, 2.0**127]], magnitudes="normal"),
    "a scale beyond float32": _body(layers=[[2, 6, 1e300]]),
    "a scale that is no float32": _body(layers=[[2, 6, 0.1]]),
    "a whole number for a scale": _body(layers=[[2, 6, 1]]),
    "a mask that does not decode": _body(layers=[[2, b"\xff", 0.5]]),
    "a mask of another length": _body(layers=[[2, b"\x00\x01", 0.5]]),
    "a text for a mask": _body(layers=[[2, "6", 0.5]]),
    "no layers": _body(layers=[]),
    "two layers for one": _body(layers=[[2, 6, 0.5]] * 2),
    "true for a seed": _body(seed=True),
    "a negative seed": _body(seed=-1),
    "a seed of 65 bits": _body(seed=2**64),
    "unknown magnitudes": _body(magnitudes="uniform"),
    "too many notes": _body(made={str(i): i for i in range(33)}),
    "a list as a note": _body(made={"a": [1]}),
    "true as a note": _body(made={"a": True}),
    "NaN as a note": _body(made={"a": float("nan")}),
    "a number as a note's name": _body(made={1: 1}),
    "a megabyte as a note": _body(made={"a": "x" * (1 << 20)}),
    "a missing part": _body()[:-1],
    "a map": {},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tickets_are_refused(name: str) -> None:
    """A body that breaks one rule is a TicketError although its hash is right."""
    decode_ticket(sealed(_body()))  # the body before it was changed is fine
    with pytest.raises(TicketError) as caught:
        decode_ticket(sealed(HOSTILE[name]), where="ticket.hns")
    assert str(caught.value).startswith("ticket.hns: ")
    assert len(str(caught.value)) < 500


def test_a_ticket_in_another_form_is_refused() -> None:
    """The same content written in other bytes would have another identity: it is refused."""
    head = MAGIC + bytes([VERSION]) + cbor2.dumps(_body(seed=3)).replace(b"\x03\x68constant", b"\x18\x03\x68constant")
    with pytest.raises(TicketError, match="canonical"):
        decode_ticket(head + sha256(head).digest())


@pytest.mark.parametrize(
    ("shape", "width"), [([1 << 24], 1 << 24), ([1 << 20], 1 << 12), ([4096], 4097)], ids=["2**48", "2**32", "2**24+"]
)
@pytest.mark.parametrize("mask", [1, b"\x01\x00\x00\x00\x00"], ids=["seeded", "coded"])
def test_enormous_plans_cost_nothing(shape: list[int], width: int, mask: int | bytes) -> None:
    """A hundred bytes that announce a network of gigabytes are refused before memory is taken."""
    data = sealed(_body(plan=["p", shape, [["linear", width]]], layers=[[1, mask, 0.5]]))
    tracemalloc.start()
    with pytest.raises(TicketError):
        decode_ticket(data)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


def test_the_largest_plans_stay_within_20_bytes_a_weight() -> None:
    """Unpacking takes memory in proportion to the weights, with a small known factor."""
    size = Plan(name="p", input_shape=(1024,), layers=(Linear(out_features=256),))
    started = time.process_time()
    for magnitudes in ("constant", "normal"):
        layers = (Keep(block=1, mask=1000, scale=1.0),)
        data = Ticket(plan=size, seed=1, magnitudes=magnitudes, layers=layers).encoded
        tracemalloc.start()
        decode_ticket(data)
        assert tracemalloc.get_traced_memory()[1] < 20 * size.weights + 200_000
        tracemalloc.stop()
    assert plan.MAX_WEIGHTS * 20 <= 400 << 20
    assert time.process_time() - started < 5


def test_other_versions_and_sizes_are_named() -> None:
    """A newer version and a file of the wrong kind or size each say so."""
    head = MAGIC + bytes([9])
    with pytest.raises(TicketError, match="version 9"):
        decode_ticket(head + sha256(head).digest())
    with pytest.raises(TicketError, match="starts with"):
        decode_ticket(b"PK\x03\x04")
    with pytest.raises(TicketError, match="at most"):
        decode_ticket(MAGIC + bytes(64 << 20))


def test_files_are_read_and_named_in_errors(tmp_path: Path) -> None:
    """A ticket file reads back; a missing or cut one is a TicketError with its path."""
    path = tmp_path / "t.hns"
    with pytest.raises(TicketError, match=r"t\.hns: cannot be read"):
        read_ticket(path)
    path.write_bytes(TICKET.encoded)
    assert read_ticket(path) == TICKET
    path.write_bytes(TICKET.encoded[:-1])
    with pytest.raises(TicketError, match=r"t\.hns: corrupt or truncated"):
        read_ticket(path)


def test_parts_that_do_not_fit_are_refused_when_made() -> None:
    """What could not be read again cannot be made: the checks are the ticket's own."""
    for change in (
        {"layers": ()},
        {"magnitudes": "uniform"},
        {"seed": 1 << 64},
        {"layers": (Keep(block=3, mask=1, scale=0.5),)},
        {"layers": (Keep(block=1, mask=25, scale=0.5),)},
        {"layers": (Keep(block=1, mask=1, scale=0.1),)},
        {"made": {"big": 1 << 70}},
    ):
        with pytest.raises(TicketError):
            dataclasses.replace(TICKET, **change)  # type: ignore[arg-type]


@QUICK
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 4]))
def test_coded_and_seeded_masks_of_the_same_blocks_agree(seed: int, block: int) -> None:
    """Spelling out a drawn mask changes the ticket's bytes but none of its weights."""
    seeded = random_ticket(PLAN, 0.4, seed=seed, block=block)
    keep, layer = seeded.layers[0], seeded.kept_layers[0]
    mask = np.zeros(layer.shape.weights // block, dtype=np.bool_)
    mask[layer.blocks] = True
    coded = dataclasses.replace(seeded, layers=(dataclasses.replace(keep, mask=bits.encode(mask)),))
    assert np.array_equal(coded.kept_layers[0].indices, layer.indices)
    assert np.array_equal(coded.kept_layers[0].weights, layer.weights)
    assert coded.id != seeded.id


def test_decoding_raises_one_kind_of_error() -> None:
    """Faults of the CBOR, of the plan and of the mask all arrive as TicketError, with their cause."""
    causes = {
        type(_cause(sealed(_body(**change))))
        for change in ({"plan": 7}, {"plan": ["p", [1, 2], [["linear", 2]]]}, {"layers": [[2, 99, 0.5]]})
    }
    assert causes == {WireError, PlanError, TicketError}


def _cause(data: bytes) -> BaseException | None:
    with pytest.raises(TicketError) as caught:
        decode_ticket(data)
    return caught.value.__cause__
