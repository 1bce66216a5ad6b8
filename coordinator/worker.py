"""A worker: takes some devices' masks in the coordinator's place, and hands on what they add up to.

The coordinator's own order keeps the promise here too: a mask is checked, committed, and only then acknowledged to the
broker and confirmed to its device. What is committed is told to the coordinator, in tallies that always name the
same masks, until it says that it has them; it alone decides which masks count.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from coordinator import outbox
from coordinator.intake import check_mask, refused
from coordinator.limits import Limits
from coordinator.outbox import Outbox
from coordinator.worker_batch import Opened, Opener, Opening, Source
from coordinator.worker_store import Held, WorkerStore, fitting, new_batch
from wire import batch, mask, signing
from wire.batch import Row
from wire.channel import Channel, Garbled, Happening, Received
from wire.errors import BrokerRefused, Forged, Mismatch, WireError
from wire.mask import Votes
from wire.messages import INSTANCE_BYTES, MaskUpdate, Message, Receipt
from wire.ticket import Ticket, decode_ticket
from wire.topics import Topics, speaker
from wire.transport import Connected, Disconnected, Event, Packet, monotonic_s
from wire.worker_messages import Report, Settled, Shift, Tally

TICK_S = 0.25
REPORT_S = 1.0
TELL_AGAIN_S = 3.0  # a tally that is not settled
TALLY = 200  # masks of one, so that the coordinator takes it for a message (`coordinator.arrivals.MAX_VALUES`)
TALLIES = 32  # told before the first of them is settled: fewer, and a round ends with waiting for answers
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
    _sources: dict[str, Source] = field(default_factory=dict)  # those of this shift, by the topic of their masks
    _strays: set[str] = field(default_factory=set)  # topics of masks that are subscribed to, and not of this shift
    _kept: set[str] = field(default_factory=set)  # devices whose mask for this shift's round is on disk
    _rows: dict[str, Row] = field(default_factory=dict)  # signs of this shift's masks that no tally has told of yet
    _opener: Opener | None = None
    _opening: Opening | None = None  # masks whose turn comes in the next step
    _pool: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)
    _fresh: dict[bytes, list[Held]] = field(default_factory=dict)  # tallies that nobody was told of yet
    _reported_s: float = 0.0
    _told: dict[bytes, float] = field(default_factory=dict)  # tallies that wait to be settled: when they were last told

    def __post_init__(self) -> None:
        self._outbox = Outbox(self.channel, self.store)
        self._own = signing.public_key(self.channel.key)
        self._up, self._down = self.topics.work(self.name, "up"), self.topics.work(self.name, "down")
        self.channel.trust = self._trusted
        self.channel.admit = self._admit
        self._take_up()

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
        """Deal with what has arrived, wait for it so long at most; then say what is to be said.

        Where more waits than is dealt with at once, its masks are opened while the masks before them go to the disk.
        """
        with self._outbox.batch():
            masks: list[tuple[Source, Packet]] = []
            count = 0
            for event in self._outbox.events(0 if self._opening else timeout_s):
                count += 1
                if isinstance(event, Packet) and event.topic in self._sources:
                    masks.append((self._sources[event.topic], event))
                    continue
                if isinstance(event, Packet) and event.topic in self._strays:
                    event.acknowledge()  # not `_on_event`, before which all that was collected is dealt with
                    self.channel.received_bytes += len(event.payload)
                    continue
                self._on_masks(masks)
                masks = []
                self._on_event(event)
            self._on_masks(masks)
            if count < outbox.BATCH:
                self._finish_opening()
        now_s = monotonic_s()
        with self._outbox.batch():
            self._tell(now_s)
            if now_s - self._reported_s >= REPORT_S:
                self._report(now_s)

    def _on_event(self, event: Event) -> None:
        self._finish_opening()
        happened = self.channel.read(event) if isinstance(event, Packet) else event
        if happened is not None:
            self._heed(happened)

    def _on_masks(self, masks: list[tuple[Source, Packet]]) -> None:
        """Take what devices have sent: together as far as may be, and one by one what needs a closer look."""
        now_s, first, others = monotonic_s(), [], []
        seen = set(self._opening.devices) if self._opening else set()
        for source, packet in masks:
            known = self._opener is None or source.device in self._kept or source.device in seen
            if known or not self._limits.pays(source.speaker, now_s):
                others.append(packet)
            else:
                seen.add(source.device)
                first.append((source, packet))
        if first:
            assert self._opener is not None
            opening = self._opener.start(first, self._pool)
            self._finish_opening()
            self._opening = opening
        for packet in others:
            self._on_event(packet)

    def _finish_opening(self) -> None:
        """Keep the masks that are being opened, before anything else is heeded that came after them."""
        if self._opening is None:
            return
        opening, self._opening = self._opening, None
        result = opening.result()
        self._keep(opening.opener, result.opened)
        self.channel.received_bytes += sum(len(one.packet.payload) for one in result.opened)
        for packet in result.forged:
            packet.acknowledge()
            self._heed(Garbled(topic=packet.topic, error=Forged("not signed by its device, or altered since")))
        for packet in result.others:
            self._on_event(packet)

    def _keep(self, opener: Opener, opened: list[Opened]) -> None:
        """Write masks down; then acknowledge and confirm them."""
        held = [
            Held(
                run=opener.run,
                number=opener.number,
                device=one.source.device,
                body=one.body,
                signs=one.signs,
                payload_bytes=len(one.packet.payload),
                receipt_bytes=len(one.receipt),
            )
            for one in opened
        ]
        while len(held) >= TALLY:  # a tally by itself, which need not be put together from the database
            size, name = fitting(held, TALLY, TALLY_BYTES), new_batch()
            self.store.add_all(held[:size], name)
            self._fresh[name] = sorted(held[:size], key=lambda one: one.device)
            del held[:size]
        self.store.add_all(held)
        for one in opened:
            self._kept.add(one.source.device)
            self._rows[one.source.device] = one.row

        def confirm() -> None:
            for one in opened:
                one.packet.acknowledge()
                # At most once: a device that does not hear of its mask sends it again.
                self.channel.post([(one.source.down.decode(), one.receipt)], qos=0)

        self._outbox.then(confirm)

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
        self._begin(shift, self._ticket)
        self.store.keep_shift(replace(shift, ticket=self._ticket.encoded))
        for device in self._devices.keys() - self._listening:
            self.channel.subscribe(self.topics.up(device, "mask"))
        self._listening |= self._devices.keys()
        self._strays = {self.topics.up(device, "mask") for device in self._listening - self._devices.keys()}

    def _take_up(self) -> None:
        """Go on with the shift of the process before this one, until the coordinator says something else.

        The broker hands over at once what that one has not acknowledged. Nobody would know whose it is, and devices
        send their masks again only after a while.
        """
        try:
            shift = self.store.last_shift()
            if shift is None:
                return
            self._ticket = decode_ticket(shift.ticket, where="the last shift's ticket")
            self._begin(shift, self._ticket)
        except WireError as error:
            self.remark(f"the last shift cannot be taken up ({error}); waiting for another")
            return
        self._listening |= self._devices.keys()  # once connected, they are subscribed to

    def _begin(self, shift: Shift, ticket: Ticket) -> None:
        count = len(shift.devices)
        if (len(shift.keys), len(shift.instances)) != (count * signing.KEY_BYTES, count * INSTANCE_BYTES):
            raise WireError(f"{count} devices with {len(shift.keys)} bytes of keys")
        self._votes = mask.decode_votes(shift.votes, ticket.ends)
        before, self._shift, self._reported_s = self._shift, shift, 0.0
        self._devices = {
            device: (
                shift.keys[i * signing.KEY_BYTES : (i + 1) * signing.KEY_BYTES],
                shift.instances[i * INSTANCE_BYTES : (i + 1) * INSTANCE_BYTES],
            )
            for i, device in enumerate(shift.devices)
        }
        self._sources = {source.topic.decode(): source for source in map(self._source, self._devices)}
        if batch.able():
            self._opener = Opener(shift.run, shift.number, self._votes, ticket, self.channel.key)
        if before is None or (before.run, before.number) != (shift.run, shift.number):
            self._rows = {}
            self.store.forget(shift.run, shift.number)
            self._kept = self.store.devices(shift.run, shift.number)
            self.remark(f"round {shift.number}: {count} devices")

    def _source(self, device: str) -> Source:
        topic = self.topics.up(device, "mask")
        key, _ = self._devices[device]
        return Source(device, speaker(topic), key, topic.encode(), self.topics.down(device).encode())

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
            self._rows[device] = batch.pack(check_mask(update, self._votes, self._ticket))
        except WireError as error:
            self._outbox.send(down, refused(update, self._devices[device][1], error))
            raise
        self.store.add(device, update, payload_bytes, self._outbox.send(down, receipt))
        self._kept.add(device)

    def _on_settled(self, settled: Settled) -> None:
        taken = self.store.settle(settled.batch, settled.refused)
        self._told.pop(settled.batch, None)
        if settled.refused:
            self.remark(f"not counted, for they came late or are counted already: {', '.join(settled.refused[:10])}")
        elif taken:
            self.remark(f"{taken} masks are with the coordinator")

    def _report(self, now_s: float) -> None:
        self._reported_s = now_s
        self._outbox.send(self._up, Report(instance=self._instance, shift=self._shift.shift if self._shift else 0))

    def _tell(self, now_s: float) -> None:
        """Tell of masks that are on disk; of more before those are settled, if they are many."""
        if self._shift is None:
            return
        complete = len(self._kept) == len(self._devices)  # no more masks of this round will come
        waiting = sorted(self.store.told(), key=lambda name: name not in self._told)
        for name in waiting[:TALLIES]:
            if now_s - self._told.get(name, -math.inf) >= TELL_AGAIN_S:
                self._say(name, self._fresh.pop(name, []) or self.store.masks_of(name), now_s)
        for count in range(len(waiting), TALLIES):
            found = self.store.batch(TALLY if count and not complete else 1, TALLY, TALLY_BYTES)
            if found is None:
                return
            self._say(*found, now_s)

    def _say(self, name: bytes, held: list[Held], now_s: float) -> None:
        self._told[name] = now_s
        self._outbox.send(self._up, self._tally(name, held))

    def _tally(self, name: bytes, held: list[Held]) -> Tally:
        first, votes = held[0], b""
        assert self._shift is not None
        if self._shift.sums and (first.run, first.number) == (self._shift.run, self._shift.number):
            votes = self._added_up(held)
        return Tally(
            run=first.run,
            number=first.number,
            batch=name,
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
