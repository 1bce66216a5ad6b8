"""Topic names: what is built is parsed, nothing escapes its level, and addresses parse or raise ConfigError."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.wire_strategies import NAMES, QUICK
from wire.broker import parse_url
from wire.errors import ConfigError, WireError
from wire.topics import UP_KINDS, Topics, check_name
from wire.transport import matches


@QUICK
@given(NAMES, NAMES, st.sampled_from(UP_KINDS), st.none() | st.integers(0, 4095))
def test_senders_are_known_by_their_topic(federation: str, device: str, kind: str, part: int | None) -> None:
    """The device of an uplink topic, whole or a part, is read back; the coordinator's filter covers both."""
    topics = Topics(federation)
    topic = topics.up(device, kind) + ("" if part is None else f"/{part}")
    assert topics.sender(topic) == device
    assert matches(topics.all_up, topic)


@settings(QUICK, max_examples=30)
@given(st.text(max_size=30) | st.lists(st.sampled_from(["hns", "f", "up", "pi", "mask", "", "#", "+"])).map("/".join))
def test_any_topic_has_a_sender_or_raises(topic: str) -> None:
    """Any topic is a device's or a WireError; the error is short."""
    try:
        device = Topics("f").sender(topic)
    except WireError as error:
        told = str(error)
    else:
        told = ""
        assert check_name(device, "device") == device
    assert len(told) < 200


@pytest.mark.parametrize(
    "topic",
    [
        "hns/other/up/pi/mask",
        "hns/f/down/pi",
        "hns/f/up/pi",
        "hns/f/up/pi/vote",
        "hns/f/up/pi/mask/0/0",
        "hns/f/up//mask",
        "hns/f/up/p i/mask",
        "hns/f/up/#/mask",
        "/hns/f/up/pi/mask",
        "hns/f/up/pi\n/mask",
    ],
)
def test_other_topics_have_no_sender(topic: str) -> None:
    """Another federation's, the coordinator's own and malformed topics are refused."""
    with pytest.raises(WireError):
        Topics("f").sender(topic)


@settings(QUICK, max_examples=30)
@given(st.text(max_size=70))
def test_names_are_safe_on_every_broker(name: str) -> None:
    """A name is 1 to 64 of letters, digits, - and _; everything else is a ConfigError."""
    safe = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    if 1 <= len(name) <= 64 and set(name) <= safe:
        assert check_name(name, "device id") == name
    else:
        with pytest.raises(ConfigError):
            check_name(name, "device id")


@pytest.mark.parametrize("bad", ["", "a/b", "#", "+", "a b", "é", "a\n", "x" * 65, "$SYS", "a.b", "a\0"])
def test_bad_names_cannot_become_topics(bad: str) -> None:
    """No topic is built from a name that could leave its level."""
    topics = Topics("f")
    for build in (
        lambda: Topics(bad),
        lambda: topics.bundle(bad),
        lambda: topics.down(bad),
        lambda: topics.up(bad, "mask"),
    ):
        with pytest.raises(ConfigError):
            build()


@pytest.mark.parametrize(
    ("pattern", "topic", "covered"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "b/c", False),
        ("a/b", "a/b/c", False),
        ("#", "anything/at/all", True),
    ],
)
def test_patterns_cover_as_mqtt_says(pattern: str, topic: str, covered: bool) -> None:
    """+ is one level, # is the rest and the level above it (MQTT 3.1.1, section 4.7)."""
    assert matches(pattern, topic) is covered


@settings(QUICK, max_examples=30)
@given(st.text(max_size=40) | st.text("mqts:/@[]%.0a#?", max_size=20).map("mqtt://".__add__))
def test_any_address_parses_or_raises(url: str) -> None:
    """Any text is a broker's address or a ConfigError that shows how to write one."""
    try:
        broker = parse_url(url)
    except ConfigError as error:
        found = error.hint
    else:
        found = repr(broker)
        assert 0 < broker.port < 65536
    assert "mqtt://" in found or found.startswith(("mqtts://", "ws://", "wss://"))


def test_addresses_are_read_and_passwords_hidden() -> None:
    """User, password, host, port and path are taken from an address; the password is never shown."""
    broker = parse_url("wss://pi:s%40cret@hub.example.org/broker")
    assert (broker.user, broker.password, broker.host, broker.port, broker.path) == (
        "pi", "s@cret", "hub.example.org", 443, "/broker",
    )  # fmt: skip
    assert "cret" not in repr(broker)
    assert parse_url("mqtt://h", password="p").password == "p"
    assert parse_url("mqtt://h:1").port == 1
