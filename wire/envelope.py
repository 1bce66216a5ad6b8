"""Messages larger than one packet: cut into parts and put together again.

    b"HP"  version u8  SHA-256 of the whole, first 16 bytes  part u16  parts u16  data

A message that fits travels as it is. Otherwise part i goes to `<topic>/<i>`, so that retained
messages keep all their parts. Brokers differ in what they accept (mosquitto 2.1: 2 MB, NATS: as
configured, AWS IoT: 128 kB), hence a modest default.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from wire.errors import Mismatch, TooLarge, Truncated, WireError
from wire.topics import speaker

MAGIC = b"HP"
VERSION = 1
HEADER = struct.Struct("<2sB16sHH")
DEFAULT_PACKET_BYTES = 256 * 1024
MAX_PARTS = 4096


def split(topic: str, data: bytes, packet_bytes: int = DEFAULT_PACKET_BYTES) -> list[tuple[str, bytes]]:
    """Cut `data` for `topic` into (topic, payload) packets of at most `packet_bytes` each.

    Raises:
        TooLarge: if it would take more than 4096 parts.
    """
    if len(data) <= packet_bytes:
        return [(topic, data)]
    room = packet_bytes - HEADER.size
    count = -(-len(data) // room)
    if count > MAX_PARTS:
        raise TooLarge(f"message for {topic}", limit=MAX_PARTS * room, got=len(data))
    digest = sha256(data).digest()[:16]
    return [
        (f"{topic}/{i}", HEADER.pack(MAGIC, VERSION, digest, i, count) + data[i * room : (i + 1) * room])
        for i in range(count)
    ]


@dataclass(frozen=True)
class Whole:
    """A message put together. `payload_bytes` counts every packet it took, headers and repeats included."""

    topic: str
    data: bytes
    payload_bytes: int


@dataclass
class _Pending:
    count: int
    parts: dict[int, bytes] = field(default_factory=dict)
    size: int = 0  # bytes of `parts`
    payload_bytes: int = 0


@dataclass
class Joiner:
    """Puts parts together again, within bounds whatever is sent.

    Unfinished messages hold at most twice `max_bytes` together. For a new one the oldest is dropped of whoever has
    begun the most, so that nobody can crowd out the others' messages.

    Args:
        max_bytes: largest whole message accepted.
        max_pending: unfinished messages remembered.
    """

    max_bytes: int
    max_pending: int = 64
    _pending: dict[tuple[str, bytes], _Pending] = field(default_factory=dict)  # oldest first

    def add(self, topic: str, payload: bytes) -> Whole | None:
        """Take one packet; return the whole message when it completes one, else None.

        Raises:
            WireError: if the packet is malformed; what was pending stays.
        """
        if payload[:2] != MAGIC:
            if len(payload) > self.max_bytes:
                raise TooLarge(f"message on {topic}", limit=self.max_bytes, got=len(payload))
            return Whole(topic, payload, len(payload))
        if len(payload) <= HEADER.size:
            raise Truncated(f"part on {topic}", expected_bytes=HEADER.size + 1, got_bytes=len(payload))
        _, version, digest, part, count = HEADER.unpack_from(payload)
        base, _, number = topic.rpartition("/")
        if version != VERSION or not 2 <= count <= MAX_PARTS or part >= count or number != str(part):
            raise WireError(f"part {part} of {count}, version {version}, on {topic} makes no sense")
        key = (base, digest)
        pending = self._pending.get(key) or self._start(key, count)
        if pending.count != count:
            raise Mismatch(f"parts on {topic}", expected=pending.count, got=count)
        data = payload[HEADER.size :]
        pending.size += len(data) - len(pending.parts.get(part, b""))
        pending.payload_bytes += len(payload)
        pending.parts[part] = data
        if pending.size > self.max_bytes:
            del self._pending[key]
            raise TooLarge(f"message on {base}", limit=self.max_bytes, got=pending.size)
        if len(pending.parts) < count:
            self._shrink()
            return None
        del self._pending[key]
        whole = b"".join(pending.parts[i] for i in range(count))
        if sha256(whole).digest()[:16] != digest:
            raise WireError(f"the {count} parts on {base} do not have the SHA-256 they announce")
        return Whole(base, whole, pending.payload_bytes)

    def _start(self, key: tuple[str, bytes], count: int) -> _Pending:
        while len(self._pending) >= self.max_pending:
            self._drop(lambda pending: 1)
        self._pending[key] = _Pending(count)
        return self._pending[key]

    def _shrink(self) -> None:
        while sum(pending.size for pending in self._pending.values()) > 2 * self.max_bytes:
            self._drop(lambda pending: pending.size)

    def _drop(self, weight: Callable[[_Pending], int]) -> None:
        """Forget the oldest message of the speaker with the most, weighed so; of equal ones, the oldest of all."""
        shares: dict[str, int] = {}
        for (topic, _), pending in self._pending.items():
            shares[speaker(topic)] = shares.get(speaker(topic), 0) + weight(pending)
        greediest = max(shares, key=lambda name: shares[name])
        del self._pending[next(key for key in self._pending if speaker(key[0]) == greediest)]
