"""Invitations: what is encoded comes back; any other text raises WireError and nothing else."""

from __future__ import annotations

import base64
import contextlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.wire_strategies import QUICK, mutated
from wire import invite
from wire.errors import ConfigError, WireError
from wire.invite import Invite
from wire.safecbor import dump_cbor

NAMES = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=64)
SOME = Invite(federation="f", broker="ws://h/mqtt", device="d", secret="s")
CODED = invite.encode(SOME).encode()


@st.composite
def invites(draw: st.DrawFn) -> Invite:
    """Any."""
    host = draw(st.sampled_from(["broker.example", "192.168.1.20", "[fd00::1]", "localhost"]))
    return Invite(
        federation=draw(NAMES),
        broker=f"{draw(st.sampled_from(['ws', 'wss']))}://{host}:{draw(st.integers(1, 65535))}/mqtt",
        device=draw(NAMES),
        secret=draw(st.text(min_size=1, max_size=128)),
        claim=draw(st.booleans()),
        key=draw(st.none() | st.binary(min_size=32, max_size=32)),
    )


@QUICK
@given(invites())
def test_invitations_come_back(one: Invite) -> None:
    """From the text behind the `#`, and from the whole link; it fits in a QR code and in an address as it is."""
    coded = invite.encode(one)
    assert invite.decode(coded) == one
    assert invite.decode(invite.link("https://h:8090/join/#old", one)) == one
    assert set(coded) <= set(string.ascii_letters + string.digits + "-_")
    assert len(coded) <= invite.MAX_CHARACTERS


@QUICK
@given(st.binary(max_size=200) | mutated(CODED) | mutated(base64.urlsafe_b64decode(CODED + b"=" * (-len(CODED) % 4))))
def test_any_other_text_is_refused_or_read(data: bytes) -> None:
    """As text, and as the bytes that a text stands for."""
    for text in (data.decode(errors="replace"), base64.urlsafe_b64encode(data).rstrip(b"=").decode()):
        with contextlib.suppress(WireError):
            assert isinstance(invite.decode(text), Invite)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("broker", "mqtts://h:8883", "no address of a broker's websocket"),
        ("broker", "wss://user:secret@h/mqtt", "no address of a broker's websocket"),
        ("broker", "wss://h:99999/mqtt", "no address of a broker's websocket"),
        ("federation", "a/b", "is not 1 to 64 letters"),
        ("device", "+", "is not 1 to 64 letters"),
        ("secret", "", "a secret of 0 characters"),
        ("secret", "x" * 129, "a secret of 129 characters"),
    ],
)
def test_what_does_not_hold_is_refused(field: str, value: str, words: str) -> None:
    """Where it is made with what is wrong, and where it is read."""
    numbers = {"federation": 1, "broker": 2, "device": 3, "secret": 4}
    values = {name: getattr(SOME, name) for name in numbers} | {field: value}
    with pytest.raises(ConfigError, match=words):
        Invite(**values)
    data = b"\1" + dump_cbor({numbers[name]: one for name, one in values.items()})
    with pytest.raises(WireError, match=words):
        invite.decode(base64.urlsafe_b64encode(data).rstrip(b"=").decode())


def test_another_version_is_named() -> None:
    """A page of today that is given tomorrow's link says which of the two is old."""
    with pytest.raises(WireError, match="version 2, this program reads version 1"):
        invite.decode(base64.urlsafe_b64encode(b"\2rest").decode().rstrip("="))
