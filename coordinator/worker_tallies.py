"""A worker's tallies: what its masks add up to, told to the coordinator again and again until it has answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from coordinator.outbox import Outbox
from coordinator.worker_batch import Opened, Opener
from coordinator.worker_shift import Duty
from coordinator.worker_store import Held, WorkerStore, fitting, new_batch
from wire import batch, mask
from wire.batch import Row
from wire.worker_messages import Settled, Tally

TELL_AGAIN_S = 3.0  # a tally that is not settled
TALLY = 200  # masks of one, so that the coordinator takes it for a message (`coordinator.arrivals.MAX_VALUES`)
TALLIES = 32  # told before the first of them is settled: fewer, and a round ends with waiting for answers
TALLY_BYTES = 256 * 1024


@dataclass
class Tallies:
    """Those of one worker. All that changes the database or speaks does so within a batch of the outbox.

    Args:
        outbox: where masks are kept, and tallies told.
        topic: that the coordinator hears.
    """

    outbox: Outbox[WorkerStore]
    topic: str
    _rows: dict[str, Row] = field(default_factory=dict)  # signs of the round's masks that no tally has told of yet
    _fresh: dict[bytes, list[Held]] = field(default_factory=dict)  # tallies that nobody was told of yet
    _told: dict[bytes, float] = field(default_factory=dict)  # tallies that wait to be settled: when they were last told

    def begin(self) -> None:
        """Masks are of another round from now on."""
        self._rows = {}

    def keep(self, opener: Opener, opened: Sequence[Opened]) -> None:
        """Write masks down that have come together."""
        left, store = [_held(opener, one) for one in opened], self.outbox.store
        while len(left) >= TALLY:  # a tally by itself, which need not be put together from the database
            size, name = fitting(left, TALLY, TALLY_BYTES), new_batch()
            store.add_all(left[:size], name)
            self._fresh[name] = sorted(left[:size], key=lambda one: one.device)
            del left[:size]
        store.add_all(left)
        for one in opened:
            self.note(one.source.device, one.row)

    def note(self, device: str, row: Row) -> None:
        """The signs of a mask that is written down, so that they need not be decoded again."""
        self._rows[device] = row

    def settle(self, settled: Settled) -> int:
        """The coordinator has answered a tally; how many masks it has taken, 0 if that was known."""
        self._told.pop(settled.batch, None)
        return self.outbox.store.settle(settled.batch, settled.refused)

    def tell(self, duty: Duty, *, complete: bool, now_s: float) -> None:
        """Tell of masks that are on disk; of more before those are settled, if they are many.

        Args:
            duty: the worker's.
            complete: no more masks of its round will come.
            now_s: any monotonic clock, seconds.
        """
        store = self.outbox.store
        waiting = sorted(store.told(), key=lambda name: name not in self._told)
        for name in waiting[:TALLIES]:
            if now_s - self._told.get(name, -math.inf) >= TELL_AGAIN_S:
                self._say(duty, name, self._fresh.pop(name, []) or store.masks_of(name), now_s)
        for count in range(len(waiting), TALLIES):
            found = store.batch(TALLY if count and not complete else 1, TALLY, TALLY_BYTES)
            if found is None:
                return
            self._say(duty, *found, now_s)

    def _say(self, duty: Duty, name: bytes, held: list[Held], now_s: float) -> None:
        self._told[name] = now_s
        first = held[0]
        votes = self._added_up(duty, held) if duty.shift.sums and duty.is_of(first.run, first.number) else b""
        tally = Tally(
            run=first.run,
            number=first.number,
            batch=name,
            votes=votes,
            devices=tuple(one.device for one in held),
            updates=tuple(one.body if votes else one.whole for one in held),
            sizes=tuple(one.payload_bytes for one in held),
            receipt_bytes=first.receipt_bytes,
        )
        self.outbox.send(self.topic, tally)

    def _added_up(self, duty: Duty, held: list[Held]) -> bytes:
        announced, ends = duty.votes, duty.ticket.ends
        rows = np.stack(
            [
                self._rows[one.device]
                if one.device in self._rows
                else batch.pack(mask.decode_signs(one.signs, announced, ends))
                for one in held
            ]
        )
        votes = mask.encode_votes(batch.count(rows, announced.signs), ends, announced)
        for one in held:
            self._rows.pop(one.device, None)
        return votes


def _held(opener: Opener, one: Opened) -> Held:
    return Held(
        run=opener.run,
        number=opener.number,
        device=one.source.device,
        body=one.body,
        signs=one.signs,
        payload_bytes=len(one.packet.payload),
        receipt_bytes=len(one.receipt),
    )
