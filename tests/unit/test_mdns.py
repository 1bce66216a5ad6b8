"""Where a broker is, as its network says: answers read, nonsense ignored, and only what its name allows is tried."""

from __future__ import annotations

import importlib
import os
import random
import socket
import sys
import threading
from contextlib import closing
from typing import Any

import pytest

from wire import mdns, routes
from wire.broker import discovering, parse_url
from wire.errors import ConfigError
from wire.mdns import Found
from wire.routes import Routes

dnslib = pytest.importorskip("dnslib")
NAME = f"Hidenseek har hub.{mdns.SERVICE}"
HUB = Found(address="192.0.2.7", port=8883, host="hub.example.org")


def answer(*more: str, host: str = "hub.example.org", target: str = "box.local", name: str = NAME) -> bytes:
    """A responder's packet, with what it was not asked for in its additional records."""
    made = dnslib.DNSRecord(dnslib.DNSHeader(qr=1, aa=1))
    made.add_answer(dnslib.RR(mdns.SERVICE, dnslib.QTYPE.PTR, rdata=dnslib.PTR(name)))
    for kind, what, data in (
        ("SRV", name, dnslib.SRV(0, 0, 8883, "Box.local")),
        ("TXT", name, dnslib.TXT([f"host={host}", "federation=har", *more])),
        ("A", target, dnslib.A("192.0.2.7")),
    ):
        made.add_ar(dnslib.RR(what, getattr(dnslib.QTYPE, kind), rdata=data))
    return bytes(made.pack())


def test_a_broker_is_found_by_all_that_is_said_of_it() -> None:
    """Names whatever their case; one of another service, or without an address, is none."""
    assert mdns.parse(answer()) == [HUB]
    assert mdns.parse(answer(target="other.local")) == []
    assert mdns.parse(answer(name="x._http._tcp.local.").replace(b"_secure-mqtt", b"_secure-http")) == []


def test_a_port_for_certificates_is_found_beside_it() -> None:
    """If it is one; those who show none go where they always have."""
    found = Found(address="192.0.2.7", port=8883, host="hub.example.org", certificates=8893)
    assert mdns.parse(answer("certificates=8893")) == [found]
    for odd in ("", "0", "-1", "65536", "8893x", "9" * 200, "\u0663"):
        assert mdns.parse(answer(f"certificates={odd}")) == [HUB]
    for certified, port in ((True, 8893), (False, 8883)):
        look = looking(found, asked=[])
        way = Routes([("hub.example.org", 1)], discover=True, certified=certified, look=look)
        way.advance(failed=True)
        assert way.here == ("192.0.2.7", port)


def test_no_bytes_are_more_than_no_answer() -> None:
    """Cut short, altered, random: nothing is found, and nothing is raised."""
    rng = random.Random(1)
    whole = answer()
    for number in range(300):
        data = bytearray(whole[: rng.randrange(len(whole))] if number % 3 == 0 else whole)
        for _ in range(rng.randrange(1, 6)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        for found in mdns.parse(bytes(data) if number % 3 else os.urandom(rng.randrange(200))):
            assert isinstance(found, Found)


def test_it_is_asked_and_answered_over_multicast() -> None:
    """By a responder that listens as they all do, on another port than theirs."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as responder:
        responder.bind(("", 0))
        try:
            member = socket.inet_aton(mdns.GROUP) + socket.inet_aton("127.0.0.1")
            responder.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        except OSError:
            pytest.skip("no multicast here")
        responder.settimeout(2)

        def respond() -> None:
            asked, who = responder.recvfrom(1000)
            assert str(dnslib.DNSRecord.parse(asked).q.qname) == mdns.SERVICE
            for packet in (b"nonsense", answer(), answer()):
                responder.sendto(packet, who)

        thread = threading.Thread(target=respond)
        thread.start()
        assert list(mdns.look(0.2, port=responder.getsockname()[1])) == [HUB]
        thread.join()


def looking(*found: Found, asked: list[int]) -> Any:
    """A network that says this."""

    def look() -> tuple[Found, ...]:
        asked.append(1)
        return found

    return look


def test_the_network_is_asked_when_nothing_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before every address was tried, not again at once, and only who claims the same name is tried."""
    asked: list[int] = []
    stranger = Found(address="192.0.2.66", port=1, host="elsewhere.example.org")
    look = looking(stranger, HUB, asked=asked)
    way = Routes([("hub.example.org", 8883), ("b", 1)], discover=True, look=look)
    way.advance(failed=True)
    assert not asked
    way.advance(failed=True)
    assert (len(asked), way.here, way.is_hearsay) == (1, ("192.0.2.7", 8883), True)
    for _ in range(5):
        way.advance(failed=True)
    assert len(asked) == 1
    monkeypatch.setattr(routes, "ASK_AGAIN_S", 0.0)
    way.advance(failed=True)
    assert len(asked) == 2


def test_a_connection_that_ends_is_made_again_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that starts anew is no reason to ask; and who was not told to ask never does."""
    asked: list[int] = []
    way = Routes([("a", 1)], discover=True, look=looking(HUB, asked=asked))
    way.advance(failed=False)
    assert (way.here, asked) == (("a", 1), [])
    assert not Routes([("a", 1)], discover=False).several
    quiet = Routes([("a", 1)], discover=False, look=looking(HUB, asked=asked))
    quiet.advance(failed=True)
    assert (quiet.here, asked) == (("a", 1), [])


def test_only_a_certificate_makes_it_safe_to_ask(tmp_path: Any) -> None:
    """Without TLS, or with everybody's authorities, whoever answers first would be the broker."""
    for url, ca in (("mqtt://hub", tmp_path / "ca.crt"), ("mqtts://hub", None)):
        with pytest.raises(ConfigError, match="a broker with TLS and its own certificate authority expected"):
            discovering(parse_url(url, ca=ca))
    assert discovering(parse_url("mqtts://hub", ca=tmp_path / "ca.crt")).discover


def test_without_dnslib_nobody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a client that was updated beside one that did not need it yet."""
    monkeypatch.setitem(sys.modules, "dnslib", None)
    assert list(importlib.reload(mdns).look(0.1)) == []
