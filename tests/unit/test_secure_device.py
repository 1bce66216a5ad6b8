"""A device's part in secure aggregation: what it refuses, what it never does twice, and what a restart leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from coordinator import exchange as ex
from edge_client import secure as edge
from edge_client.secure import Exchange, read_exchange
from tests.secure_stage import RUN, Stage, ballot_of, refusal, seeded_bytes
from wire import mask, secure, signing
from wire.errors import WireError
from wire.messages import Message
from wire.secure_messages import Deliveries, Invitation, Reveal, Roster, RoundKeys, SealedShares, Survivors

DEVICES, KEPT = 5, 24
ME = "pi-000"
MASKS = np.random.default_rng(1).random((DEVICES, KEPT)) < 0.5


def stage(phases: int, hide_among: int = 0) -> Stage:
    """Five devices that have gone so far: 0 keys, 1 shares, 2 masked signs, 3 reveals."""
    found = Stage(MASKS, hide_among=hide_among)
    found.advertise()
    for _ in range(phases):
        found.go_on()
    return found


def asked(found: Stage) -> Message:
    """What the coordinator says to this device in its phase, after that phase was decided."""
    found.exchange = ex.decide(found.exchange)
    message = ex.ask(found.exchange, ME)
    assert message is not None
    return message


def said(found: Stage, message: Message) -> str:
    """Why this device does not accept a message; "" if it does. It is as it was then."""
    before = found.devices[ME]
    return refusal(lambda: edge.hear(before, message, found.random))  # type: ignore[arg-type]


def altered_member(roster: Roster, place: int, at: int, data: bytes) -> Roster:
    """A roster with other bytes for one member."""
    start = place * secure.MEMBER_BYTES + at
    members = roster.members[:start] + data + roster.members[start + len(data) :]
    return replace(roster, members=members)


def own_crowd(found: Stage) -> Roster:
    """The device among four made up by the coordinator, all signed as they should be."""
    keys = {ME: (signing.public_key(found.devices[ME].key), found.exchange.keys[ME][1])}
    for i in range(1, 5):
        key = bytes([i]) * 32
        made_up = secure.make_keys(secure.secrets(bytes([100 + i]) * 32), key, RUN, 1, 1)
        keys[f"sybil-{i}"] = (signing.public_key(key), made_up)
    return secure.make_roster(keys)


ROSTERS: dict[str, tuple[Callable[[Stage, Roster], Roster], str]] = {
    "of another round": (lambda _, r: replace(r, number=2), "has no mask to give"),
    "of another run": (lambda _, r: replace(r, run=b"run-0002"), "has no mask to give"),
    "of another attempt": (lambda _, r: replace(r, attempt=2), "is in attempt 1"),
    "of too few": (lambda _, r: replace(r, names=r.names[:2], members=r.members[:320]), "a roster of 2 devices"),
    "cut": (lambda _, r: replace(r, members=r.members[:-1]), "expected 800 bytes, got 799"),
    "without this device": (lambda _, r: replace(r, names=r.names[1:], members=r.members[160:]), "without this device"),
    "a replaced key": (lambda _, r: altered_member(r, 3, 32, secure.public(bytes(31) + b"\1")), "not signed by"),
    "a replaced device": (lambda _, r: altered_member(r, 3, 0, signing.public_key(bytes(32))), "not signed by"),
    "a device twice": (
        lambda _, r: replace(r, names=(*r.names[:4], r.names[3]), members=r.members[:640] + r.members[480:640]),
        "not ascending",
    ),
    "one key for two": (
        lambda _, r: replace(r, names=(*r.names[:4], "pi-009"), members=r.members[:640] + r.members[480:640]),
        "same key",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "text"), ROSTERS.values(), ids=ROSTERS)
def test_a_roster_that_is_not_right_is_refused(change: Callable[[Stage, Roster], Roster], text: str) -> None:
    """Keys nobody signed, a crowd too small, another round: this device gives no share away."""
    found = stage(0)
    roster = asked(found)
    assert isinstance(roster, Roster)
    assert text in said(found, change(found, roster))
    assert said(found, roster) == ""


def test_old_keys_of_another_device_are_no_keys() -> None:
    """What a device signed for another round or attempt does not pass for this one."""
    found = stage(0)
    other = found.devices["pi-003"]
    for number, attempt in ((2, 1), (1, 2)):
        old = secure.make_keys(secure.secrets(bytes(32)), other.key, RUN, number, attempt)
        keys = {**found.exchange.keys, "pi-003": (signing.public_key(other.key), replace(old, number=1, attempt=1))}
        assert "not signed by" in said(found, secure.make_roster(keys))


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_only_the_first_of_every_kind_is_accepted(phase: int) -> None:
    """Another roster, list of sharers or of survivors is refused, and the first one answered again with the same."""
    found = stage(phase)
    first = asked(found)
    found.tell(ME, first)
    answer = found.sent[-1]
    assert said(found, _another(first)).startswith(f"another {type(first).__name__}")
    found.tell(ME, first)
    assert found.sent[-1] == answer


def _another(message: Message) -> Message:
    """The same with one member fewer, at the end."""
    match message:
        case Roster():
            return replace(message, names=message.names[:-1], members=message.members[:-160])
        case Deliveries():
            return replace(message, members=message.members[:-1], shares=message.shares[:-80])
        case Survivors():
            return replace(message, members=message.members[:-1])
    raise AssertionError(message)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        (b"\0\1\2", "3 devices of 5 have shared, at least 4 expected"),
        (b"\1\2\3\4", "among which this device is not"),
        (b"\0\1\2\2", "not ascending"),
        (b"\0\1\2\x05", "not in it"),
    ],
)
def test_deliveries_that_are_not_right_are_refused(members: bytes, text: str) -> None:
    """Nothing is masked with too few, or without oneself."""
    found = stage(1)
    deliveries = asked(found)
    assert isinstance(deliveries, Deliveries)
    changed = replace(deliveries, members=members, shares=deliveries.shares[: 80 * (len(members) - 1)])
    assert text in said(found, changed)
    assert "expected 320 bytes" in said(found, replace(deliveries, shares=deliveries.shares[:-1]))


@pytest.mark.parametrize(
    ("members", "text"), [(b"\0\1\2", "3 devices of 5 are left"), (b"", "0 devices"), (b"\0\1\2\3\3", "not ascending")]
)
def test_survivors_that_are_too_few_are_refused(members: bytes, text: str) -> None:
    """No shares for a sum of fewer than the threshold."""
    found = stage(2)
    survivors = asked(found)
    assert isinstance(survivors, Survivors)
    assert text in said(found, replace(survivors, members=members))


def test_survivors_that_never_shared_are_refused() -> None:
    """A device that was not among the sharers is none of them."""
    found = Stage(MASKS)
    found.advertise()
    found.go_on(list(found.devices)[:4])
    found.go_on(list(found.devices)[:4])
    survivors = asked(found)
    assert isinstance(survivors, Survivors)
    assert "have not shared" in said(found, replace(survivors, members=b"\0\1\2\3\4"))


def test_steps_are_not_taken_before_their_time() -> None:
    """Deliveries before a roster, survivors before deliveries: refused, not remembered."""
    found = stage(0)
    early = Deliveries(run=RUN, number=1, attempt=1, members=b"\0\1\2\3", shares=bytes(240))
    assert "before the roster" in said(found, early)
    assert "before the deliveries" in said(found, Survivors(run=RUN, number=1, attempt=1, members=b"\0\1\2\3"))


def test_a_device_hides_among_as_many_as_its_owner_wants() -> None:
    """--hide-among counts in every phase, also above the threshold."""
    found = stage(0, hide_among=6)
    assert "it hides among 6" in said(found, asked(found))
    found = stage(1, hide_among=5)
    fewer = asked(found)
    assert isinstance(fewer, Deliveries)
    assert "it hides among 5" in said(found, replace(fewer, members=fewer.members[:-1], shares=fewer.shares[:-80]))
    found = stage(2, hide_among=5)
    left = asked(found)
    assert isinstance(left, Survivors)
    assert "it hides among 5" in said(found, replace(left, members=left.members[:-1]))


def test_invented_devices_are_not_noticed() -> None:
    """What the document says is not protected, is not: a crowd of the coordinator's own passes."""
    found = stage(0, hide_among=5)
    assert said(found, own_crowd(found)) == ""


def test_invented_devices_do_not_count_where_real_ones_are_known() -> None:
    """With --peers a crowd of the coordinator's own is no crowd; the device's own fleet is."""
    found = Stage(MASKS, hide_among=5, know_each_other=True)
    found.advertise()
    assert "only 1 devices that this one knows are in the roster, and it hides among 5" in said(found, own_crowd(found))
    for _ in range(3):
        found.go_on()
    assert np.array_equal(found.count(), found.plain(found.devices))


def test_no_member_s_two_secrets_are_ever_revealed() -> None:
    """Of survivors the seed, of others the key: what a device reveals never holds both shares of anyone."""
    found = Stage(MASKS)
    found.advertise()
    found.go_on()
    names = list(found.devices)
    found.go_on(names[:4])
    found.go_on(names[:4])
    for name, answer in found.sent:
        if isinstance(answer, Reveal):
            assert list(answer.members) == [0, 1, 2, 3, 4]
            exchange = found.devices[name].exchange
            assert exchange is not None
            for place, member in enumerate(names):
                share = answer.shares[place * 32 : place * 32 + 32]
                dealer = found.devices[member].exchange
                assert dealer is not None
                both = secure.own_shares(dealer.secrets, DEVICES)[names.index(name)]
                assert share == (both[:32] if place == 4 else both[32:])


def test_revealing_is_done_once_a_round() -> None:
    """After its shares are out a device makes no keys for another attempt, and gives no other mask for the round."""
    found = stage(3)
    again = Invitation(run=RUN, number=1, attempt=2)
    assert "does so once" in said(found, again)
    me = edge.forget(found.devices[ME])
    other = ballot_of(~found.signs(ME))
    for ballot in (other, ballot_of(found.signs(ME))):
        assert "gives one, once" in refusal(lambda ballot=ballot: edge.vote(me, ballot, found.random))
    restarted = replace(me, exchange=read_exchange(me.exchange.encoded))  # type: ignore[union-attr]
    assert "gives one, once" in refusal(lambda: edge.vote(restarted, other, found.random))
    later, answer = edge.vote(restarted, ballot_of(found.signs(ME), number=2), found.random)
    assert isinstance(answer, RoundKeys)
    assert "gives one, once" in refusal(lambda: edge.vote(later, other, found.random))


def test_another_attempt_has_other_secrets() -> None:
    """An invitation makes new keys of new randomness; the same one again, or an older one, does not."""
    found = stage(2)
    me, before = found.devices[ME], found.devices[ME].exchange
    me, answer = edge.hear(me, Invitation(run=RUN, number=1, attempt=3), found.random)
    assert isinstance(answer, RoundKeys)
    assert before is not None
    assert me.exchange is not None
    assert answer.attempt == me.exchange.attempt == 3
    assert me.exchange.root != before.root
    for attempt in (3, 2):
        same, again = edge.hear(me, Invitation(run=RUN, number=1, attempt=attempt), found.random)
        assert (same, again) == (me, answer)
    assert "attempt 1001" in refusal(lambda: edge.hear(me, Invitation(run=RUN, number=1, attempt=1001), found.random))


@pytest.mark.parametrize("phase", [0, 1, 2, 3])
def test_a_restarted_device_says_the_same_again(phase: int) -> None:
    """From its file and its mask, without new randomness, byte by byte."""
    found = stage(phase)
    me = found.devices[ME]
    assert me.exchange is not None
    fresh = replace(me, ballot=None, exchange=read_exchange(me.exchange.encoded))

    def no_more(size: int) -> bytes:
        raise AssertionError("no randomness is needed")

    restarted, answer = edge.vote(fresh, ballot_of(found.signs(ME)), no_more)
    assert restarted == me
    assert answer == edge.answer(me)


def test_secrets_never_cover_another_mask() -> None:
    """A device that has lost its mask and trained again makes new secrets, and what was agreed before is void."""
    found = stage(2)
    me = found.devices[ME]
    changed, answer = edge.vote(replace(me, ballot=None), ballot_of(~found.signs(ME)), found.random)
    assert isinstance(answer, RoundKeys)
    assert changed.exchange is not None
    assert me.exchange is not None
    assert changed.exchange.root != me.exchange.root
    assert changed.exchange.roster is None
    assert "other keys in this device's place" in refusal(
        lambda: edge.hear(changed, ex.decide(found.exchange) and me.exchange.roster, found.random)  # type: ignore[arg-type, union-attr]
    )


def test_what_is_kept_after_a_round_has_no_secrets() -> None:
    """Nothing that would unmask what was sent."""
    me = edge.forget(stage(3).devices[ME])
    assert me.exchange is not None
    assert me.exchange.root == bytes(32)
    assert me.exchange.revealed
    assert (me.exchange.roster, me.exchange.deliveries, me.exchange.survivors) == (None, None, None)


def test_a_share_that_does_not_open_keeps_back_nothing_else() -> None:
    """One hostile member's nonsense costs the others nothing but its own secrets."""
    found = stage(1)
    place = 3
    found.exchange = replace(found.exchange, sealed={**found.exchange.sealed, place: bytes(320)})
    found.go_on()
    found.go_on()
    (mine,) = (answer for name, answer in found.sent if name == ME and isinstance(answer, Reveal))
    assert list(mine.members) == [0, 1, 2, 4]
    assert found.count() is None  # and who dealt it so is in the sum: it cannot be made


def test_devices_shown_different_rosters_cannot_open_each_other_s_shares() -> None:
    """All keys depend on the whole roster."""
    found = stage(0)
    whole = asked(found)
    assert isinstance(whole, Roster)
    other = _another(whole)
    assert isinstance(other, Roster)
    members = secure.read_roster(whole)
    mine = found.devices[ME].exchange
    theirs = found.devices["pi-001"].exchange
    assert mine is not None
    assert theirs is not None
    shares = secure.deal(theirs.secrets, secure.read_roster(other), 1, secure.digest(other))
    with pytest.raises(WireError, match="cannot be opened"):
        secure.open_share(shares[:80], mine.secrets, members, 1, 0, secure.digest(whole))


def test_keys_that_make_no_secret_are_refused() -> None:
    """A public key of small order would make every common secret the same."""
    with pytest.raises(WireError, match="makes no secret"):
        secure._pair(bytes(31) + b"\1", bytes(32), b"mask", b"")


@pytest.mark.parametrize("cut", [0, 1, 40, 90])
def test_a_damaged_file_is_refused(cut: int) -> None:
    """And whatever else is no exchange."""
    exchange = stage(2).devices[ME].exchange
    assert exchange is not None
    assert read_exchange(exchange.encoded) == exchange
    with pytest.raises(WireError):
        read_exchange(exchange.encoded[: len(exchange.encoded) - 1 - cut])
    with pytest.raises(WireError):
        read_exchange(replace(exchange, root=bytes(31)).encoded)
    with pytest.raises(WireError):
        read_exchange(replace(exchange, survivors=exchange.deliveries).encoded)  # type: ignore[arg-type]


def test_a_ballot_is_refused_by_who_reads_masks() -> None:
    """Should a device's own copy ever get out, or hidden signs meet a coordinator that reads masks: no mask."""
    votes, ends = mask.unanimous(KEPT), np.array([KEPT])
    for data in (mask.ballot(MASKS[0]), bytes([mask.MASKED]) + bytes(3)):
        with pytest.raises(WireError, match=r"unknown kind|at most"):
            mask.decode_signs(data, votes, ends)


def test_an_exchange_of_nothing_is_small() -> None:
    """What lies on a card between rounds."""
    assert len(Exchange(run=RUN, number=1, ballot=bytes(32), root=seeded_bytes(0)(32)).encoded) < 100


def test_shares_are_sealed_shares() -> None:
    """Of one device for four others."""
    found = stage(1)
    (mine,) = (answer for name, answer in found.sent if name == ME and isinstance(answer, SealedShares))
    assert len(mine.shares) == 4 * secure.SEALED_BYTES
