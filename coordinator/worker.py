"""A worker: takes some devices' masks in the coordinator's place, and hands on what they add up to.

The coordinator's own order keeps the promise here too: a mask is checked, committed, and only then acknowledged to the
broker and confirmed to its device. What is committed is told to the coordinator, in tallies that always name the
same masks, until it says that it has them; it alone decides which masks count.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.intake import check_mask, refused
from coordinator.limits import Limits
from coordinator.outbox import Outbox
from coordinator.worker_store import Held, WorkerStore
from wire import mask, signing
from wire.channel import Channel, Garbled, Happening, Received
from wire.errors import BrokerRefused, Mismatch, WireError
from wire.mask import Signs, Votes
from wire.messages import INSTANCE_BYTES, MaskUpdate, Message, Receipt
from wire.ticket import Ticket, decode_ticket
from wire.topics import Topics, speaker
from wire.transport import Connected, Disconnected, monotonic_s
from wire.worker_messages import Report, Settled, Shift, Tally

TICK_S = 0.25
REPORT_S = 1.0
TELL_AGAIN_S = 3.0  # a tally that is not settled
TALLY = 200  # masks of one, so that the coordinator takes it for a message (`coordinator.server.MAX_VALUES`)
TALLY_BYTES = 256 * 1024


@dataclass(kw_only=True)
class Worker:
    """One worker of one federation.

    Args:
        name: no other has.
        topics: of the federation.
        channel: a connected one that signs with the federation's key.
        store: where masks are until the coordinator has them.
        remark: told something for a person.
        watch: called a few times a second; may raise to end.
    """

    name: str
    topics: Topics
    channel: Channel
    store: WorkerStore
    remark: Callable[[str], None]
    watch: Callable[[], None] = lambda: None
    _outbox: Outbox[WorkerStore] = field(init=False)
    _limits: Limits = field(default_factory=Limits)
    _instance: bytes = field(default_factory=lambda: secrets.token_bytes(INSTANCE_BYTES))
    _shift: Shift | None = None
    _ticket: Ticket | None = None
    _votes: Votes | None = None
    _devices: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)  # key and instance of those of this shift
    _listening: set[str] = field(default_factory=set)  # devices whose topics are subscribed to
    _signs: dict[str, Signs] = field(default_factory=dict)  # of this shift's masks that no tally has told of yet
    _reported_s: float = 0.0
    _told: tuple[bytes, float] | None = None  # the tally that waits to be settled, and when it was last told

    def __post_init__(self) -> None:
        self._outbox = Outbox(self.channel, self.store)
        self._own = signing.public_key(self.channel.key)
        self._up, self._down = self.topics.work(self.name, "up"), self.topics.work(self.name, "down")
        self.channel.trust = self._trusted
        self.channel.admit = self._admit

    def serve(self) -> None:
        """Work until `watch` raises.

        Raises:
            BrokerRefused: if the broker no longer lets the worker in.
            StateError: if the database cannot be written.
        """
        while True:
            self.step(TICK_S)
            self.watch()

    def step(self, timeout_s: float) -> None:
        """Deal with what has arrived, wait for it so long at most; then say what is to be said."""
        with self._outbox.batch():
            for happened in self._outbox.arriving(timeout_s):
                self._heed(happened)
        now_s = monotonic_s()
        with self._outbox.batch():
            self._tell(now_s)
            if now_s - self._reported_s >= REPORT_S:
                self._report(now_s)

    def _heed(self, happened: Happening) -> None:
        match happened:
            case Connected():
                self.channel.subscribe(self._down)
                for device in self._listening:
                    self.channel.subscribe(self.topics.up(device, "mask"))
                self._reported_s = 0.0
            case Disconnected(refused=True):
                raise BrokerRefused(f"the broker no longer lets the worker in: {happened.reason}")
            case Disconnected():
                self.remark(f"connection to the broker lost ({happened.reason}); trying again")
            case Garbled():
                if self._limits.forged(speaker(happened.topic), monotonic_s()):
                    self.remark(f"ignored a message on {happened.topic}: {happened.error}")
            case Received():
                self._outbox.then(happened.acknowledge)
                try:
                    self._on_received(happened)
                except WireError as error:
                    self.remark(f"ignored a message on {happened.topic}: {error}")

    def _admit(self, topic: str) -> bool:
        """Whether what comes on a topic is looked at: the coordinator's word, and masks of this shift's devices."""
        if topic == self._down or topic.startswith(f"{self._down}/"):
            return True
        device = self.topics.sender(topic) if self._is_up(topic) else ""
        return device in self._devices and self._limits.admit(speaker(topic), monotonic_s())[0]

    def _is_up(self, topic: str) -> bool:
        try:
            self.topics.sender(topic)
        except WireError:
            return False
        return True

    def _trusted(self, topic: str, message: Message) -> bytes:
        if topic == self._down:
            return self._own
        device = self.topics.sender(topic)
        if not isinstance(message, MaskUpdate) or device not in self._devices:
            raise WireError(f"'{device}' is none of this worker's devices")
        return self._devices[device][0]

    def _on_received(self, received: Received) -> None:
        match received.message:
            case Shift() as shift if received.topic == self._down:
                self._on_shift(shift)
            case Settled() as settled if received.topic == self._down:
                self._on_settled(settled)
            case MaskUpdate() as update:
                if self._limits.proven(speaker(received.topic), monotonic_s()):
                    self._on_mask(self.topics.sender(received.topic), update, received.payload_bytes)
            case other:
                raise WireError(f"a worker is not told {type(other).__name__}")

    def _on_shift(self, shift: Shift) -> None:
        """Listen to these devices from now on, for this round."""
        if self._shift is not None and shift.shift <= self._shift.shift:
            return
        if shift.ticket:
            self._ticket = decode_ticket(shift.ticket, where="the coordinator's ticket")
        if self._ticket is None:
            return  # told to a process before this one; the coordinator hears that this one has not got it
        count = len(shift.devices)
        if (len(shift.keys), len(shift.instances)) != (count * signing.KEY_BYTES, count * INSTANCE_BYTES):
            raise WireError(f"{count} devices with {len(shift.keys)} bytes of keys")
        self._votes = mask.decode_votes(shift.votes, self._ticket.ends)
        before, self._shift, self._reported_s = self._shift, shift, 0.0
        self._devices = {
            device: (
                shift.keys[i * signing.KEY_BYTES : (i + 1) * signing.KEY_BYTES],
                shift.instances[i * INSTANCE_BYTES : (i + 1) * INSTANCE_BYTES],
            )
            for i, device in enumerate(shift.devices)
        }
        for device in self._devices.keys() - self._listening:
            self.channel.subscribe(self.topics.up(device, "mask"))
        self._listening |= self._devices.keys()
        if before is None or (before.run, before.number) != (shift.run, shift.number):
            self._signs = {}
            self.store.forget(shift.run, shift.number)
            self.remark(f"round {shift.number}: {count} devices")

    def _on_mask(self, device: str, update: MaskUpdate, payload_bytes: int) -> None:
        assert self._shift is not None
        assert self._ticket is not None
        assert self._votes is not None
        shift, down = self._shift, self.topics.down(device)
        receipt = Receipt(run=update.run, number=update.number)
        if self.store.has(update.run, update.number, device):
            self._outbox.send(down, receipt)  # its first receipt was lost
            return
        if update.run != shift.run or update.number > shift.number:
            return  # not heard of yet; the device sends it again
        try:
            if update.number < shift.number:
                raise Mismatch("mask for a round that is not open", expected=shift.number, got=update.number)
            self._signs[device] = check_mask(update, self._votes, self._ticket)
        except WireError as error:
            self._outbox.send(down, refused(update, self._devices[device][1], error))
            raise
        self.store.add(device, update, payload_bytes, self._outbox.send(down, receipt))

    def _on_settled(self, settled: Settled) -> None:
        taken = self.store.settle(settled.batch, settled.refused)
        if self._told is not None and self._told[0] == settled.batch:
            self._told = None
        if settled.refused:
            self.remark(f"not counted, for they came late or are counted already: {', '.join(settled.refused[:10])}")
        elif taken:
            self.remark(f"{taken} masks are with the coordinator")

    def _report(self, now_s: float) -> None:
        self._reported_s = now_s
        self._outbox.send(self._up, Report(instance=self._instance, shift=self._shift.shift if self._shift else 0))

    def _tell(self, now_s: float) -> None:
        """Tell of masks that are on disk, one tally after the other."""
        if self._shift is None or (self._told is not None and now_s - self._told[1] < TELL_AGAIN_S):
            return
        found = self.store.batch(TALLY, TALLY_BYTES)
        if found is None:
            return
        batch, held = found
        self._told = (batch, now_s)
        self._outbox.send(self._up, self._tally(batch, held))

    def _tally(self, batch: bytes, held: list[Held]) -> Tally:
        first, votes = held[0], b""
        assert self._shift is not None
        if self._shift.sums and (first.run, first.number) == (self._shift.run, self._shift.number):
            votes = self._added_up(held)
        return Tally(
            run=first.run,
            number=first.number,
            batch=batch,
            votes=votes,
            devices=tuple(one.device for one in held),
            updates=tuple(one.body if votes else one.whole for one in held),
            sizes=tuple(one.payload_bytes for one in held),
            receipt_bytes=first.receipt_bytes,
        )

    def _added_up(self, held: list[Held]) -> bytes:
        assert self._ticket is not None
        assert self._votes is not None
        announced, ends = self._votes, self._ticket.ends
        signs = (
            self._signs[one.device] if one.device in self._signs else mask.decode_signs(one.signs, announced, ends)
            for one in held
        )
        votes = mask.encode_votes(mask.count_votes(signs, announced.signs), ends, announced)
        for one in held:
            self._signs.pop(one.device, None)
        return votes
