"""A worker: takes some devices' masks in the coordinator's place, and hands on what they add up to.

The coordinator's own order keeps the promise here too: a mask is checked, committed, and only then acknowledged to the
broker and confirmed to its device. What is committed is told to the coordinator, in tallies that always name the
same masks, until it says that it has them; it alone decides which masks count.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from coordinator import outbox
from coordinator.intake import check_mask, refused
from coordinator.limits import Limits
from coordinator.outbox import Outbox
from coordinator.worker_batch import Opened, Opener, Opening, Source
from coordinator.worker_shift import Duty, read_shift
from coordinator.worker_store import WorkerStore
from coordinator.worker_tallies import Tallies
from wire import batch, signing
from wire.channel import Channel, Garbled, Happening, Received
from wire.errors import BrokerRefused, Forged, Mismatch, WireError
from wire.federation_messages import INSTANCE_BYTES, MaskUpdate, Receipt
from wire.messages import Message
from wire.ticket import decode_ticket
from wire.topics import Topics, speaker
from wire.transport import Connected, Disconnected, Event, Packet, monotonic_s
from wire.worker_messages import Report, Settled, Shift

TICK_S = 0.25
REPORT_S = 1.0


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
    _duty: Duty | None = None
    _listening: set[str] = field(default_factory=set)  # devices whose topics are subscribed to
    _strays: set[str] = field(default_factory=set)  # topics of masks that are subscribed to, and not of this shift
    _kept: set[str] = field(default_factory=set)  # devices whose mask for this shift's round is on disk
    _tallies: Tallies = field(init=False)
    _opener: Opener | None = None
    _opening: Opening | None = None  # masks whose turn comes in the next step
    _pool: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)
    _reported_s: float = 0.0

    def __post_init__(self) -> None:
        self._outbox = Outbox(self.channel, self.store)
        self._own = signing.public_key(self.channel.key)
        self._up, self._down = self.topics.work(self.name, "up"), self.topics.work(self.name, "down")
        self._tallies = Tallies(self._outbox, self._up)
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
                if isinstance(event, Packet) and self._duty and event.topic in self._duty.sources:
                    masks.append((self._duty.sources[event.topic], event))
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
            if self._duty is not None:
                self._tallies.tell(self._duty, complete=len(self._kept) == len(self._duty.devices), now_s=now_s)
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
        self._tallies.keep(opener, opened)
        self._kept.update(one.source.device for one in opened)

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
        try:
            device = self.topics.sender(topic)
        except WireError:
            return False
        return self._takes(device) is not None and self._limits.admit(speaker(topic), monotonic_s())[0]

    def _takes(self, device: str) -> Source | None:
        """A device of this shift; None if it is not of it."""
        return self._duty.devices.get(device) if self._duty else None

    def _trusted(self, topic: str, message: Message) -> bytes:
        if topic == self._down:
            return self._own
        device = self.topics.sender(topic)
        source = self._takes(device)
        if not isinstance(message, MaskUpdate) or source is None:
            raise WireError(f"'{device}' is none of this worker's devices")
        return source.key

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
        if self._duty is not None and shift.shift <= self._duty.shift.shift:
            return
        if shift.ticket:
            ticket = decode_ticket(shift.ticket, where="the coordinator's ticket")
        elif self._duty is not None:
            ticket = self._duty.ticket
        else:
            return  # told to a process before this one; the coordinator hears that this one has not got it
        duty = read_shift(shift, ticket, self.topics)
        self._begin(duty)
        devices = duty.devices.keys()
        self.store.keep_shift(replace(shift, ticket=ticket.encoded))
        for device in devices - self._listening:
            self.channel.subscribe(self.topics.up(device, "mask"))
        self._listening |= devices
        self._strays = {self.topics.up(device, "mask") for device in self._listening - devices}

    def _take_up(self) -> None:
        """Go on with the shift of the process before this one, until the coordinator says something else.

        The broker hands over at once what that one has not acknowledged. Nobody would know whose it is, and devices
        send their masks again only after a while.
        """
        try:
            shift = self.store.last_shift()
            if shift is None:
                return
            duty = read_shift(shift, decode_ticket(shift.ticket, where="the last shift's ticket"), self.topics)
        except WireError as error:
            self.remark(f"the last shift cannot be taken up ({error}); waiting for another")
            return
        self._begin(duty)
        self._listening |= duty.devices.keys()  # once connected, they are subscribed to

    def _begin(self, duty: Duty) -> None:
        before, self._duty, self._reported_s = self._duty, duty, 0.0
        shift = duty.shift
        if batch.able():
            self._opener = Opener(shift.run, shift.number, duty.votes, duty.ticket, self.channel.key)
        if before is None or not before.is_of(shift.run, shift.number):
            self._tallies.begin()
            self.store.forget(shift.run, shift.number)
            self._kept = self.store.devices(shift.run, shift.number)
            self.remark(f"round {shift.number}: {len(shift.devices)} devices")

    def _on_mask(self, device: str, update: MaskUpdate, payload_bytes: int) -> None:
        assert self._duty is not None
        duty, down = self._duty, self.topics.down(device)
        receipt = Receipt(run=update.run, number=update.number)
        if self.store.has(update.run, update.number, device):
            self._outbox.send(down, receipt)  # its first receipt was lost
            return
        if update.run != duty.shift.run or update.number > duty.shift.number:
            return  # not heard of yet; the device sends it again
        try:
            if update.number < duty.shift.number:
                raise Mismatch("mask for a round that is not open", expected=duty.shift.number, got=update.number)
            row = batch.pack(check_mask(update, duty.votes, duty.ticket))
        except WireError as error:
            self._outbox.send(down, refused(update, duty.devices[device].instance, error))
            raise
        self.store.add(device, update, payload_bytes, self._outbox.send(down, receipt))
        self._tallies.note(device, row)
        self._kept.add(device)

    def _on_settled(self, settled: Settled) -> None:
        taken = self._tallies.settle(settled)
        if settled.refused:
            self.remark(f"not counted, for they came late or are counted already: {', '.join(settled.refused[:10])}")
        elif taken:
            self.remark(f"{taken} masks are with the coordinator")

    def _report(self, now_s: float) -> None:
        self._reported_s = now_s
        self._outbox.send(self._up, Report(instance=self._instance, shift=self._duty.shift.shift if self._duty else 0))
