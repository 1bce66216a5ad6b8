"""Today's wire against its golden files: the same bytes are written, and the old ones are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.golden import make
from wire import mask, messages, personal
from wire.bundle import decode_bundle
from wire.channel import unseal
from wire.envelope import Joiner
from wire.errors import WireError
from wire.mask import Votes
from wire.signing import public_key
from wire.ticket import Ticket, decode_ticket


@pytest.mark.parametrize("name", make.RECIPES)
def test_the_encoder_writes_the_golden_bytes(name: str) -> None:
    """Every recipe gives exactly the bytes it gave when its version was fixed."""
    assert make.RECIPES[name]().hex() == make.load(name).hex()


def test_every_golden_file_has_a_recipe_and_is_small() -> None:
    """No file is left over from a recipe that is gone, and none is large."""
    files = {path.stem: path.stat().st_size for path in Path(make.FOLDER).glob("*.hex")}
    assert files.keys() == make.RECIPES.keys()
    assert max(files.values()) < 2000


def test_every_message_kind_has_a_golden_file() -> None:
    """A kind that is added needs a recipe."""
    assert {type(message) for message in make.MESSAGES.values()} == set(messages.KINDS.values())


@pytest.mark.parametrize("name", make.MESSAGES)
def test_golden_messages_decode(name: str) -> None:
    """Every golden message reads as the message of its recipe."""
    assert messages.decode(make.load(f"message-v2-{name}")) == make.MESSAGES[name]


@pytest.mark.parametrize(("name", "expected"), [("seeded", make.seeded_ticket()), ("explicit", make.explicit_ticket())])
def test_golden_tickets_decode(name: str, expected: Ticket) -> None:
    """Both kinds of ticket read as the ticket of their recipe."""
    assert decode_ticket(make.load(f"ticket-v1-{name}")) == expected


SEEDED_BLOCKS = [0, 3, 6, 7, 8]
SEEDED_INDICES = [0, 4, 10, 11, 20, 21, 22, 24, 29, 30, 35, 39, 41, 45, 47, 49, 52, 53, 60, 70]
SEEDED_SIGNS = "----++++---++-+--+--++-+-------++++-+++-"
EXPLICIT_WEIGHTS = [-2.013887882232666, -0.5690211653709412, -1.826441764831543]


def test_golden_tickets_unpack_to_the_same_network() -> None:
    """What a seed draws is part of the wire: kept positions, signs and magnitudes never change."""
    seeded = decode_ticket(make.load("ticket-v1-seeded"))
    assert seeded.kept == 5 * 4 + 20
    first, second = seeded.kept_layers
    assert first.blocks.tolist() == SEEDED_BLOCKS
    assert second.indices.tolist() == SEEDED_INDICES
    assert "".join("+" if sign else "-" for sign in np.concatenate([first.signs, second.signs])) == SEEDED_SIGNS
    explicit = decode_ticket(make.load("ticket-v1-explicit"))
    assert explicit.kept_layers[1].indices.tolist() == [7, 31, 55]
    assert explicit.kept_layers[1].weights.tolist() == pytest.approx(EXPLICIT_WEIGHTS, rel=1e-6)


def test_the_golden_bundle_decodes() -> None:
    """The bundle reads as the bundle of its recipe, under its announced hash."""
    expected = make.bundle()
    assert decode_bundle(make.load("bundle-v1"), expected_id=expected.id) == expected


@pytest.mark.parametrize(("name", "signs"), [("flips", make.few_flips()), ("raw", make.many_flips())])
def test_golden_signs_decode(name: str, signs: np.ndarray) -> None:
    """Coded and raw masks read as the signs of their recipes, and are of the kind that their name says."""
    data = make.load(f"signs-v2-{name}")
    assert data[0] == {"raw": mask.RAW, "flips": mask.FLIPS}[name]
    assert np.array_equal(mask.decode_signs(data, make.votes(), make.ENDS), signs)


@pytest.mark.parametrize(
    ("name", "expected", "known"),
    [
        ("first", make.votes(), None),
        ("later", make.later_votes(), make.votes()),
        ("crowd", make.crowd(), None),
    ],
)
def test_golden_votes_decode(name: str, expected: Votes, known: Votes | None) -> None:
    """Votes read as the votes of their recipe, in the context that it had."""
    votes = mask.decode_votes(make.load(f"votes-v2-{name}"), make.ENDS, known)
    assert votes.digest == expected.digest
    assert votes.voters == expected.voters
    assert np.array_equal(votes.signs, expected.signs)
    assert np.array_equal(votes.dissent, expected.dissent)


def test_the_golden_sealed_message_opens() -> None:
    """On its topic, for who trusts its key, and for nobody else."""
    data = make.load("sealed-v2")
    assert unseal(make.TOPIC, data, lambda topic, message: public_key(make.KEY)) == make.MESSAGES["mask-update"]
    for topic, key in ((make.TOPIC, bytes(32)), (make.TOPIC + "x", make.KEY)):
        with pytest.raises(WireError, match="not signed by"):
            unseal(topic, data, lambda topic, message, key=key: public_key(key))  # type: ignore[misc]


def test_the_golden_personal_network_decodes() -> None:
    """The file reads as the personal network of its recipe."""
    found, expected = personal.decode(make.load("personal-v2"), make.KEPT, 4), make.learned()
    assert (found.ticket, found.run, found.number) == (expected.ticket, expected.run, expected.number)
    assert np.array_equal(found.signs, expected.signs)
    assert np.array_equal(found.log_prior, expected.log_prior)


def test_golden_parts_join() -> None:
    """The parts of a cut message join, in reverse, to the message of the recipe."""
    data, payloads = make.load("envelope-v1"), []
    while data:
        size = int.from_bytes(data[:4], "little")
        payloads.append(data[4 : 4 + size])
        data = data[4 + size :]
    joiner, topic = Joiner(10_000), "hns/f/all/bundle/onnx"
    for number in reversed(range(len(payloads))):
        whole = joiner.add(f"{topic}/{number}", payloads[number])
    assert whole is not None
    found = unseal(whole.topic, whole.data, lambda topic, message: public_key(make.KEY))
    assert found == make.MESSAGES["bundle-bytes"]
