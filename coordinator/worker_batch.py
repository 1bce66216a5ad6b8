"""Masks that a worker has received together: checked, decoded and answered for, in a few calls on several threads."""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from wire import batch, messages, signing
from wire.batch import Row
from wire.channel import PURPOSE
from wire.federation_messages import Receipt
from wire.mask import Votes
from wire.ticket import Ticket
from wire.transport import Packet

SHARE = 32  # masks that are worth a thread


@dataclass(frozen=True, slots=True)
class Source:
    """A device of a worker's.

    Attributes:
        device: its id.
        instance: its process.
        speaker: as `wire.topics.speaker` calls it.
        key: its public key.
        topic: of its masks.
        down: of what it is told.
    """

    device: str
    instance: bytes
    speaker: str
    key: bytes
    topic: bytes
    down: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A mask that is signed by its device, for this round, and decodes.

    Attributes:
        source: whose.
        packet: in which it came.
        body: its `MaskUpdate`, encoded, without signs.
        signs: coded.
        row: its signs.
        receipt: signed, for its device.
    """

    source: Source
    packet: Packet
    body: bytes
    signs: bytes
    row: Row
    receipt: bytes


@dataclass(frozen=True)
class Result:
    """What came of packets: masks; packets that are signed by somebody else; and those to be looked at one by one."""

    opened: list[Opened]
    forged: list[Packet]
    others: list[Packet]


@dataclass(frozen=True)
class Opener:
    """Opens the masks of one round.

    Args:
        run: which run.
        number: which round.
        votes: announced with it.
        ticket: the network.
        key: private key that receipts are signed with.
    """

    run: bytes
    number: int
    votes: Votes
    ticket: Ticket
    key: bytes

    def start(self, packets: Sequence[tuple[Source, Packet]], pool: ThreadPoolExecutor) -> Opening:
        """Begin to open packets, some on each thread."""
        shares = min(-(-len(packets) // SHARE), os.cpu_count() or 1)
        size = -(-len(packets) // max(shares, 1))
        parts = [packets[at : at + size] for at in range(0, len(packets), size)]
        return Opening(
            self, {source.device for source, _ in packets}, [pool.submit(self._open, part) for part in parts]
        )

    def _open(self, packets: Sequence[tuple[Source, Packet]]) -> Result:
        payloads = [packet.payload for _, packet in packets]
        data, spans = b"".join(payloads), batch.spans_of(payloads)
        found = batch.read(data, spans - np.array([0, signing.SIGNATURE_BYTES]))
        usable = (found["plain"] != 0) & (found["number"] == self.number) & (found["train_samples"] > 0)
        usable &= found["correct"] <= found["test_samples"]
        at = [i for i in np.flatnonzero(usable).tolist() if data.startswith(self.run, found["run"][i])]
        signed = [(packets[i][0].topic + b"\0", payloads[i]) for i in at]
        genuine = batch.check(PURPOSE, [packets[i][0].key for i in at], signed).tolist()
        forged = {i for i, fine in zip(at, genuine, strict=True) if not fine}
        at = [i for i in at if i not in forged]
        coded = np.stack([found["signs"][at], found["signs_end"][at]], axis=1)
        rows, good = batch.decode_signs(data, coded, self.votes, self._reference, self.ticket.ends)
        signatures = batch.sign(self.key, PURPOSE, [packets[i][0].down + b"\0" + self._receipt for i in at])
        opened, done = [], set(forged)
        for i, row, fine, signature in zip(at, rows, good.tolist(), signatures, strict=True):
            if not fine:
                continue
            (begin, end), (head, start, stop) = spans[i].tolist(), found[["head", "signs", "signs_end"]][i].tolist()
            body = data[begin:head] + batch.NO_SIGNS + data[stop : end - signing.SIGNATURE_BYTES]
            opened.append(Opened(*packets[i], body, data[start:stop], row, self._receipt + signature))
            done.add(i)
        others = [packet for i, (_, packet) in enumerate(packets) if i not in done]
        return Result(opened, [packets[i][1] for i in forged], others)

    @cached_property
    def _reference(self) -> Row:
        return batch.pack(self.votes.signs)

    @cached_property
    def _receipt(self) -> bytes:
        return messages.encode(Receipt(run=self.run, number=self.number))


@dataclass(frozen=True)
class Opening:
    """Packets that are being opened.

    Attributes:
        opener: by it.
        devices: whose they are.
    """

    opener: Opener
    devices: Set[str]
    _parts: list[Future[Result]]

    def result(self) -> Result:
        """What came of them; waits for it."""
        found = [part.result() for part in self._parts]
        return Result(
            [one for part in found for one in part.opened],
            [one for part in found for one in part.forged],
            [one for part in found for one in part.others],
        )
