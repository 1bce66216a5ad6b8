"""Many masks at once say what each says alone, and what is not in the plain form is left to others."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_wire_mask import layers, outcomes
from tests.property.wire_strategies import QUICK, messages_of, mutated
from wire import batch, mask, messages, signing
from wire.channel import PURPOSE, seal, unseal
from wire.errors import WireError
from wire.federation_messages import MaskUpdate, Receipt
from wire.mask import Votes

pytestmark = pytest.mark.skipif(not batch.able(), reason="no native coder")
TOPIC = "hns/t/up/pi/mask"
KEY = b"k" * 32


def read(bodies: list[bytes]) -> tuple[np.ndarray, bytes]:
    """What is found in messages, and the data that its places are in."""
    data = b"".join(bodies)
    return batch.read(data, batch.spans_of(bodies)), data


def check(found: np.void, data: bytes, update: MaskUpdate) -> None:
    """What was found is what the message says."""
    for one in fields(update):
        if one.name == "run":
            assert data[found["run"] : found["run"] + 8] == update.run
        elif one.name == "signs":
            assert data[found["signs"] : found["signs_end"]] == update.signs
        else:
            assert found[one.name] == getattr(update, one.name)


@QUICK
@given(st.lists(messages_of(MaskUpdate), max_size=5))
def test_what_devices_write_is_read_as_it_is_alone(updates: list[MaskUpdate]) -> None:
    """Every message of theirs has the plain form."""
    found, data = read([messages.encode(update) for update in updates])
    for one, update in zip(found, updates, strict=True):
        assert one["plain"] == 1
        check(one, data, update)


@QUICK
@given(st.data())
def test_what_has_the_plain_form_decodes_to_the_same(data: st.DataObject) -> None:
    """Whatever the bytes are: if they are taken for plain, they are a message, and say what it says."""
    good = messages.encode(data.draw(messages_of(MaskUpdate)))
    bodies = data.draw(st.lists(mutated(good) | st.binary(max_size=80), max_size=5))
    found, joined = read(bodies)
    for one, body in zip(found, bodies, strict=True):
        if one["plain"]:
            update = messages.decode(body)
            assert isinstance(update, MaskUpdate)
            check(one, joined, update)
    try:
        alone = [messages.decode(body) for body in bodies]
    except WireError:
        with pytest.raises(WireError):
            batch.decode_updates(bodies)
        return
    if all(isinstance(one, MaskUpdate) for one in alone):
        assert batch.decode_updates(bodies) == alone


def test_other_messages_are_no_updates() -> None:
    """Nor are they read as some."""
    receipt = messages.encode(Receipt(run=bytes(8), number=1))
    with pytest.raises(WireError, match="a MaskUpdate expected, got Receipt"):
        batch.decode_updates([messages.encode(_update()), receipt])


@pytest.mark.parametrize("number", [0.0, 0.5, -2.0, 6e-8, 65504.0, 1e-3, 3.25, 1 / 3, 1e300, -0.0])
def test_floats_of_every_width(number: float) -> None:
    """CBOR has three, and the shortest that holds it is written."""
    update = _update(loss=number)
    found, _ = read([messages.encode(update)])
    assert found[0]["plain"]
    assert found[0]["loss"] == number
    assert math.copysign(1, found[0]["loss"]) == math.copysign(1, number)


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_what_is_no_number_is_not_plain(number: float) -> None:
    """As alone, where it is refused."""
    body = messages.encode(_update(loss=number))
    assert not read([body])[0][0]["plain"]
    with pytest.raises(WireError, match="finite"):
        messages.decode(body)


@QUICK
@given(outcomes(), st.integers(0, 2**32), st.lists(st.floats(0, 1), max_size=6), st.data())
def test_masks_come_back_and_count(votes: Votes, seed: int, shares: list[float], data: st.DataObject) -> None:
    """Row by row as one by one, in whichever coding; and the rows add up to what the masks do."""
    # Few are decoded one after the other, more side by side (wire/native/lanes.c).
    shares *= data.draw(st.sampled_from([1, 4, 9]))
    ends, random = data.draw(layers(votes.signs.size)), np.random.default_rng(seed)
    masks = [votes.signs ^ (random.random(votes.signs.size) < share) for share in shares]
    coded = [mask.encode_signs(one, votes, ends) for one in masks]
    rows, good = _decode(coded, votes, ends)
    assert good.tolist() == [one[0] == mask.FLIPS for one in coded]
    assert all(np.array_equal(rows[i], batch.pack(masks[i])) for i in np.flatnonzero(good))
    if good.any():
        expected = mask.count_votes([one for one, fine in zip(masks, good, strict=True) if fine], votes.signs)
        assert batch.count(rows[good], votes.signs).digest == expected.digest


@QUICK
@given(outcomes(), st.lists(st.binary(max_size=60), max_size=6), st.data())
def test_any_bytes_are_a_mask_or_not_good(votes: Votes, coded: list[bytes], data: st.DataObject) -> None:
    """What is good decodes alone too, to the same signs; what is not, is refused alone, or is raw."""
    ends = data.draw(layers(votes.signs.size))
    coded = [bytes([mask.FLIPS]) + one for one in coded] + coded
    coded *= data.draw(st.sampled_from([1, 3]))
    _assert_as_alone(coded, votes, ends)


@pytest.mark.parametrize("count", [1, 4, 5, 16, 17, 37])
@pytest.mark.parametrize("kept", [1, 63, 64, 65, 5000])
def test_as_many_masks_as_there_are_lanes_and_others(count: int, kept: int) -> None:
    """Of every length and likelihood of a flip; one code among them is cut off, and one has bytes left over."""
    random = np.random.default_rng(count * kept)
    ends = np.array([kept // 3, kept // 2, kept])
    votes = mask.count_votes([random.random(kept) < 0.8 for _ in range(9)], np.ones(kept, dtype=np.bool_))
    masks = [votes.signs ^ (random.random(kept) < share) for share in np.linspace(0, 0.4, count)]
    coded = [mask.encode_signs(one, votes, ends) for one in masks]
    coded[count // 2] = coded[count // 2][:-1]
    coded[-1] += b"\x01" * 9
    _assert_as_alone(coded, votes, ends)


def _assert_as_alone(coded: list[bytes], votes: Votes, ends: np.ndarray) -> None:
    """What is good decodes alone, too, to the same signs; what is not is refused alone, or is raw."""
    rows, good = _decode(coded, votes, ends)
    for row, one, fine in zip(rows, coded, good.tolist(), strict=True):
        try:
            alone = mask.decode_signs(one, votes, ends)
        except WireError:
            assert not fine
            continue
        assert fine == (one[0] == mask.FLIPS)
        assert not fine or np.array_equal(row, batch.pack(alone))


def test_signatures_are_those_of_one_message_alone() -> None:
    """Made and checked together, and one that was altered is found among others."""
    bodies = [messages.encode(_update(number=number)) for number in range(1, 6)]
    before = TOPIC.encode() + b"\0"
    signatures = batch.sign(KEY, PURPOSE, [before + body for body in bodies])
    sealed = [body + signature for body, signature in zip(bodies, signatures, strict=True)]
    assert sealed == [seal(KEY, TOPIC, messages.decode(body)) for body in bodies]
    public = signing.public_key(KEY)
    unseal(TOPIC, sealed[0], lambda topic, message: public)
    sealed[2] = sealed[2][:-65] + bytes([sealed[2][-65] ^ 1]) + sealed[2][-64:]
    keys = [public] * 4 + [signing.public_key(bytes(32))]
    found = batch.check(PURPOSE, keys, [(before, message) for message in sealed])
    assert found.tolist() == [True, True, False, True, False]


def test_nothing_at_once_is_nothing() -> None:
    """No masks, no signatures."""
    assert len(batch.read(b"", batch.spans_of([]))) == 0
    assert batch.sign(KEY, PURPOSE, []) == []
    assert batch.check(PURPOSE, [], []).size == 0


def _update(number: int = 1, loss: float = 1.0) -> MaskUpdate:
    return MaskUpdate(
        run=b"r" * 8, number=number, signs=b"\x01ab", train_samples=10, loss=loss, correct=1, test_samples=2,
        train_s=1.5, step_ms=0.1, peak_memory_kb=70_000,
    )  # fmt: skip


def _decode(coded: list[bytes], votes: Votes, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return batch.decode_signs(b"".join(coded), batch.spans_of(coded), votes, batch.pack(votes.signs), ends)
