"""Messages larger than one packet: cut into parts and put together again.

    b"HP"  version u8  SHA-256 of the whole, first 16 bytes  part u16  parts u16  data

A message that fits travels as it is. Otherwise part i goes to `<topic>/<i>`, so that retained
messages keep all their parts. Brokers differ in what they accept (mosquitto 2.1: 2 MB, NATS: as
configured, AWS IoT: 128 kB), hence a modest default.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from hashlib import sha256

from wire.errors import Mismatch, TooLarge, Truncated, WireError

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


@dataclass
class _Pending:
    digest: bytes
    parts: dict[int, bytes]
    count: int


@dataclass
class Joiner:
    """Puts parts together again, within bounds whatever is sent.

    Args:
        max_bytes: largest whole message accepted.
        max_pending: unfinished messages remembered; the oldest is dropped for a new one.
    """

    max_bytes: int
    max_pending: int = 64
    _pending: dict[str, list[_Pending]] = field(default_factory=dict)

    def add(self, topic: str, payload: bytes) -> tuple[str, bytes] | None:
        """Take one packet; return (topic, whole message) when it completes one, else None.

        Raises:
            WireError: if the packet is malformed; what was pending stays.
        """
        if payload[:2] != MAGIC:
            if len(payload) > self.max_bytes:
                raise TooLarge(f"message on {topic}", limit=self.max_bytes, got=len(payload))
            return topic, payload
        if len(payload) <= HEADER.size:
            raise Truncated(f"part on {topic}", expected_bytes=HEADER.size + 1, got_bytes=len(payload))
        _, version, digest, part, count = HEADER.unpack_from(payload)
        base, _, number = topic.rpartition("/")
        if version != VERSION or not 2 <= count <= MAX_PARTS or part >= count or number != str(part):
            raise WireError(f"part {part} of {count}, version {version}, on {topic} makes no sense")
        pending = self._find(base, digest, count)
        if pending.count != count:
            raise Mismatch(f"parts on {topic}", expected=pending.count, got=count)
        pending.parts[part] = payload[HEADER.size :]
        size = sum(map(len, pending.parts.values()))
        if size > self.max_bytes:
            self._drop(base, pending)
            raise TooLarge(f"message on {base}", limit=self.max_bytes, got=size)
        if len(pending.parts) < count:
            return None
        self._drop(base, pending)
        whole = b"".join(pending.parts[i] for i in range(count))
        if sha256(whole).digest()[:16] != digest:
            raise WireError(f"the {count} parts on {base} do not have the SHA-256 they announce")
        return base, whole

    def _find(self, base: str, digest: bytes, count: int) -> _Pending:
        for pending in self._pending.get(base, ()):
            if pending.digest == digest:
                return pending
        while sum(map(len, self._pending.values())) >= self.max_pending:
            oldest = next(iter(self._pending))
            self._drop(oldest, self._pending[oldest][0])
        made = _Pending(digest, {}, count)
        self._pending.setdefault(base, []).append(made)
        return made

    def _drop(self, base: str, pending: _Pending) -> None:
        self._pending[base].remove(pending)
        if not self._pending[base]:
            del self._pending[base]
