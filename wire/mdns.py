"""Brokers of this network, asked for by multicast: where one is that its own name no longer leads to.

An answer is a rumour: whoever is in the network may give one. It only says where to try, and TLS decides, with the
authority and the host name that were known before. The only file that imports dnslib, and only when it is asked.

Source: RFC 6762 (multicast DNS), 5.1 and 6.7: a one-shot query, answered to the port that it came from; RFC 6763
(service discovery), 4 and 6; `_secure-mqtt._tcp` is IANA's name for MQTT over TLS.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVICE = "_secure-mqtt._tcp.local."
GROUP, PORT = "224.0.0.251", 5353
PACKET_BYTES = 9000  # the most that RFC 6762, 17 allows
MOST_ANSWERS = 64  # of one question: more is somebody who floods
HOST = "host"  # in the TXT record: the name that the broker's certificate is for
CERTIFICATES = "certificates"  # in it, too: the port for clients that show theirs


@dataclass(frozen=True, kw_only=True)
class Found:
    """A broker that somebody says there is.

    Attributes:
        address: where.
        port: and at which port.
        host: the name that its certificate shall be for.
        certificates: port for clients that show certificates, too; 0: that one is not another.
    """

    address: str
    port: int
    host: str
    certificates: int = 0


@dataclass
class _Records:
    """What one packet says: by name, all in small letters."""

    instances: list[str] = field(default_factory=list)
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    addresses: dict[str, list[str]] = field(default_factory=dict)


def look(timeout_s: float = 2.0, *, port: int = PORT) -> Iterator[Found]:
    """Ask once on every interface, and yield brokers as they answer; none without dnslib.

    Args:
        timeout_s: how long to listen.
        port: where responders listen.
    """
    try:
        from dnslib import DNSRecord
    except ImportError:  # a client that was updated beside an older installed one
        return
    question = DNSRecord.question(SERVICE, "PTR").pack()
    seen: set[Found] = set()
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as out:
        out.bind(("", 0))
        out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
        for index in _interfaces():
            with suppress(OSError):  # it has no address, or is down
                request = struct.pack("=4s4si", bytes(4), bytes(4), index)  # struct ip_mreqn
                out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
                out.sendto(question, (GROUP, port))
        until_s = time.monotonic() + timeout_s
        for _ in range(MOST_ANSWERS):
            if (left_s := until_s - time.monotonic()) <= 0:
                return
            out.settimeout(left_s)
            try:
                packet = out.recv(PACKET_BYTES)
            except TimeoutError:
                return
            for one in parse(packet):
                if one not in seen:
                    seen.add(one)
                    yield one


def parse(packet: bytes) -> list[Found]:
    """Brokers that an answer tells of completely; nothing of one that makes no sense."""
    from dnslib import DNSRecord

    try:
        answer = DNSRecord.parse(packet)
        records = _read([*answer.rr, *answer.ar])
    except Exception:  # noqa: BLE001  # hostile bytes; dnslib raises more than its own errors on some of them
        return []
    found = []
    for name in records.instances:
        target, port = records.places.get(name, ("", 0))
        said = records.texts.get(name, {})
        host, other = said.get(HOST, ""), _port(said.get(CERTIFICATES, ""))
        addresses = records.addresses.get(target, []) if port else []
        found += [Found(address=one, port=port, host=host, certificates=other) for one in addresses]
    return found


def _port(text: str) -> int:
    """A port number that somebody has written; 0 if it is none."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    return number if number < 1 << 16 else 0


def _read(answers: list[Any]) -> _Records:
    from dnslib import QTYPE

    found = _Records()
    for one in answers:
        name, kind = str(one.rname).lower(), QTYPE.get(one.rtype)
        match kind:
            case "PTR" if name == SERVICE:
                found.instances.append(str(one.rdata.label).lower())
            case "SRV":
                found.places[name] = str(one.rdata.target).lower(), int(one.rdata.port)
            case "TXT":
                pairs = (bytes(text).decode(errors="replace").partition("=") for text in one.rdata.data)
                found.texts[name] = {key.lower(): value for key, _, value in pairs}
            case "A":
                found.addresses.setdefault(name, []).append(str(one.rdata))
            case _:
                pass
    return found


def _interfaces() -> list[int]:
    """Numbers of the network interfaces; read as files, for a service may not ask the kernel by netlink."""
    found = []
    for path in sorted(Path("/sys/class/net").glob("*/ifindex")):
        with suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return found or [0]
