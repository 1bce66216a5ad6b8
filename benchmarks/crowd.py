"""A whole fleet on one connection, in as few instructions as it takes: the sender of `benchmarks.ingest`.

What is sent is what devices send: every one has a key of its own, says hello with it, and signs its mask with it. The
masks of a round are made and signed before the clock starts, and then leave in large writes; what comes back is taken
apart just far enough to know whose receipt it is.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from coordinator import mqtt_packets as packets
from tests.helpers import introduce
from wire import mask, messages, prng, signing
from wire.channel import seal
from wire.envelope import Joiner
from wire.federation_messages import MaskUpdate, Receipt, Round
from wire.mask import Votes
from wire.messages import Message
from wire.selection import asked
from wire.ticket import Ticket
from wire.topics import Topics

FLIPPED = 0.05
WAIT_S = 300.0
CHUNK = 1 << 18
LAST_NUMBER = 65_535


@dataclass(frozen=True, kw_only=True)
class Played:
    """One round.

    Attributes:
        masks: sent.
        receipts_s: from the first mask to the last receipt.
        round_s: from the first mask to the next announcement, with all receipts there.
    """

    masks: int
    receipts_s: float
    round_s: float


@dataclass
class Crowd:
    """Devices that say what they must.

    Args:
        port: of the broker on this machine.
        federation: its name.
        ticket: its network.
        names: of the devices.
        key: the federation's public key, which receipts must be signed with.
    """

    port: int
    federation: str
    ticket: Ticket
    names: Sequence[str]
    key: bytes
    _votes: dict[int, Votes] = field(default_factory=dict)
    _round: Round | None = None
    _announced_s: float = 0.0
    _receipts: dict[bytes, bytes] = field(default_factory=dict)  # by topic: the last one
    _receipt_s: float = 0.0
    _listened: bool = False  # by a coordinator
    _unacknowledged: int = 0
    _number: int = 0

    def __post_init__(self) -> None:
        self._topics = Topics(self.federation)
        self._down = f"hns/{self.federation}/down/".encode()
        self._keys = {name: prng.mix(self.federation, name).to_bytes(8, "little") * 4 for name in self.names}
        self._reader, self._joiner = packets.Reader(), Joiner(1 << 24)
        self._socket = socket.create_connection(("127.0.0.1", self.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        hello = packets.connect(packets.Login(client_id="crowd"), None, keepalive_s=0, clean=True)
        patterns = (self._topics.announcement, f"{self._topics.round}/#", f"hns/{self.federation}/down/+")
        asked_for = [packets.subscribe(pattern, i + 1, 0) for i, pattern in enumerate(patterns)]
        self._write([hello, *asked_for])

    def introduce(self) -> float:
        """Everybody says hello; seconds until the first round is announced."""
        self._wait(lambda: self._listened)
        hellos = []
        for name in self.names:
            hello = replace(introduce(name[-8:], "sparse", self._keys[name]), draws=True)
            hellos.append(self._publish(name, "hello", hello))
        began_s = time.monotonic()
        self._write(hellos)
        self._wait(lambda: self._round is not None)
        return self._announced_s - began_s

    def prepare(self) -> list[bytes]:
        """The packets with everybody's mask for the round that is announced."""
        announced = self._round
        assert announced is not None
        number, base = announced.number, announced.base
        self._votes[number] = mask.decode_votes(announced.votes, self.ticket.ends, self._votes[base] if base else None)
        return [self._mask(name, announced) for name in self.names if asked(announced, name)]

    def play(self, prepared: Sequence[bytes]) -> Played:
        """Send the masks of a round, and wait until all are confirmed and the next round is there."""
        assert self._round is not None
        number, run = self._round.number, self._round.run
        self._receipts.clear()
        began_s = time.monotonic()
        self._write(prepared)
        self._wait(lambda: self._round is not None and self._round.number > number)
        self._wait(lambda: len(self._receipts) >= len(prepared) and not self._unacknowledged)
        self._check(Receipt(run=run, number=number))
        return Played(
            masks=len(prepared),
            receipts_s=self._receipt_s - began_s,
            round_s=max(self._announced_s, self._receipt_s) - began_s,
        )

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _check(self, expected: Receipt) -> None:
        """Every receipt is what it should be; the signatures of some are checked, which takes long."""
        body = messages.encode(expected)
        for at, (topic, payload) in enumerate(self._receipts.items()):
            if payload[: -signing.SIGNATURE_BYTES] != body:
                raise RuntimeError(f"{topic.decode()}: not the receipt of round {expected.number}")
            if at % 100 == 0:
                signing.check(self.key, "message", topic + b"\0" + body, payload[-signing.SIGNATURE_BYTES :])

    def _mask(self, name: str, announced: Round) -> bytes:
        votes = self._votes[announced.number]
        flips = prng.generator((announced.number, name)).random(votes.signs.size) < FLIPPED
        update = MaskUpdate(
            run=announced.run, number=announced.number,
            signs=mask.encode_signs(votes.signs ^ flips, votes, self.ticket.ends),
            train_samples=100, loss=1.0, correct=6, test_samples=10, train_s=1.0, step_ms=1.0, peak_memory_kb=50_000,
        )  # fmt: skip
        return self._publish(name, "mask", update)

    def _publish(self, name: str, kind: str, message: Message) -> bytes:
        topic = self._topics.up(name, kind)
        self._number = self._number % LAST_NUMBER + 1
        return packets.publish(topic, seal(self._keys[name], topic, message), number=self._number)

    def _write(self, chunks: Iterable[bytes]) -> None:
        """Send everything, and hear meanwhile."""
        chunks = list(chunks)
        self._unacknowledged += sum(chunk[0] >> 4 == packets.PUBLISH for chunk in chunks)
        data = memoryview(b"".join(chunks))
        while data:
            readable, writable, _ = select.select([self._socket], [self._socket], [], 1.0)
            if readable:
                self._hear()
            if writable:
                data = data[self._socket.send(data[:CHUNK]) :]

    def _wait(self, until: Callable[[], bool]) -> None:
        give_up_s = time.monotonic() + WAIT_S
        while not until():
            if select.select([self._socket], [], [], 1.0)[0]:
                self._hear()
                time.sleep(0.002)  # so that many come at once, and cost little
            elif time.monotonic() > give_up_s:
                raise TimeoutError(f"{len(self._receipts)} receipts, then silence")

    def _hear(self) -> None:
        data = self._socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the broker hung up")
        now_s = time.monotonic()
        for first, body in self._reader.feed(data):
            kind = first >> 4
            if kind == packets.PUBACK:
                self._unacknowledged -= 1
            elif kind == packets.PUBLISH:
                end = 2 + int.from_bytes(body[:2], "big")
                if body.startswith(self._down, 2):
                    if body[end + 3] == 10:  # a receipt's kind; a welcome has another
                        self._receipts[body[2:end]] = body[end:]
                        self._receipt_s = now_s
                else:
                    self._on_announced(body[2:end].decode(), body[end:], now_s)

    def _on_announced(self, topic: str, payload: bytes, now_s: float) -> None:
        if topic == self._topics.announcement:
            self._listened = True
            return
        whole = self._joiner.add(topic, payload)
        if whole is not None:
            message = messages.decode(whole.data[: -signing.SIGNATURE_BYTES])
            assert isinstance(message, Round)
            self._round, self._announced_s = message, now_s
