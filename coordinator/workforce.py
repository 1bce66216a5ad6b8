"""The workers of a round: who is there, whose masks each takes, and what they hand on.

A device's mask may reach a worker, another one after it, and the coordinator. The coordinator's table of masks says
which counts: a tally is taken as a whole, in the transaction that notes every device of it, or not at all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from zlib import crc32

from coordinator.announced import Announced
from coordinator.fleet import Fleet
from coordinator.intake import Place, check_mask
from coordinator.observer import Observer
from coordinator.outbox import Outbox
from coordinator.steps import Asynchrony
from coordinator.store import Store
from wire import batch, mask
from wire.errors import ConfigError, Mismatch, WireError
from wire.federation_messages import MaskUpdate
from wire.ticket import Ticket
from wire.topics import Topics
from wire.worker_messages import Report, Settled, Shift, Tally

LEASE_S = 5.0  # without a report: a worker is gone, and its devices are dealt to others
SAY_AGAIN_S = 3.0  # a shift that a worker does not have


def check(asynchrony: Asynchrony | None, *, secure_aggregation: bool, dither: bool) -> None:
    """Accept settings for workers.

    Raises:
        ConfigError: if masks are not counted in the round that they are for, or nobody sees them.
    """
    others = {"secure_aggregation: true": secure_aggregation, "mode: async": asynchrony is not None, "dither": dither}
    setting = next((name for name, on in others.items() if on), None)
    if setting is None:
        return
    raise ConfigError(
        f"workers take the masks of rounds, and not with {setting}",
        where="--workers",
        hint="Leave out --workers, or set it back in devices.yaml",
    )


@dataclass
class Crew:
    """One worker that is there.

    Attributes:
        instance: its process.
        heard_s: when it last reported.
        shift: what it was told last, and when; None: nothing yet.
        has_ticket: it has had a shift, and so the ticket.
        listening: devices whose masks it is known to be listening for.
    """

    instance: bytes
    heard_s: float
    shift: Shift | None = None
    said_s: float = 0.0
    has_ticket: bool = False
    listening: set[str] = field(default_factory=set)


@dataclass
class Workforce:
    """Deals the devices of a round out to workers. Those that nobody listens for yet, the coordinator hears itself.

    Args:
        run: which run.
        ticket: its network.
        announced: its votes.
        fleet: the devices.
        outbox: where tallies are written down, and shifts sent.
        topics: of the federation.
        observer: told of masks and of workers.
        sums: workers hand on sums; otherwise masks, for somebody has to look at each beside the others.
    """

    run: bytes
    ticket: Ticket
    announced: Announced
    fleet: Fleet
    outbox: Outbox[Store]
    topics: Topics
    observer: Observer
    sums: bool
    _crews: dict[str, Crew] = field(default_factory=dict)
    _number: int = 0
    _asked: set[str] = field(default_factory=set)
    _dealt: dict[str, str] = field(default_factory=dict)  # worker by device
    _dirty: bool = False
    _hears_all: bool = False
    _last_shift: int = 0

    def connected(self) -> None:
        """The coordinator subscribes anew: to what workers say, and to all masks until workers listen."""
        self._hears_all = False
        self.outbox.channel.subscribe(self.topics.all_work)
        self._listen()

    def open(self, number: int, asked: tuple[str, ...]) -> None:
        """A round is about to be announced, or again with more devices."""
        self._number, self._asked = number, set(asked)
        self._deal()

    def asks(self, device: str) -> None:
        """The open round wants this device's mask too, or its process is another."""
        self._asked.add(device)
        self._dirty = True

    def report(self, worker: str, report: Report, now_s: float) -> None:
        """A worker says that it is there."""
        crew = self._crews.get(worker)
        if crew is None or crew.instance != report.instance:
            crew = self._crews[worker] = Crew(report.instance, now_s)
            self.observer.remark(f"worker {worker} is here: {len(self._crews)} in all")
            self._dirty = True
        crew.heard_s = now_s
        if crew.shift is None:
            return
        if report.shift == crew.shift.shift:
            crew.has_ticket = True
            crew.listening.update(crew.shift.devices)
            self._listen()
        elif now_s - crew.said_s > SAY_AGAIN_S:
            self._say(worker, crew, crew.shift)

    def tick(self, now_s: float) -> None:
        """Time has passed: who is silent is gone."""
        for worker in [name for name, crew in self._crews.items() if now_s - crew.heard_s > LEASE_S]:
            del self._crews[worker]
            self.observer.remark(f"worker {worker} is gone: its devices are dealt to {len(self._crews) or 'nobody'}")
            self._dirty = True
        if self._dirty:
            self._deal()

    def covers(self, device: str) -> bool:
        """Whether a worker listens for this device's mask, so that the coordinator need not."""
        crew = self._crews.get(self._dealt.get(device, ""))
        return crew is not None and device in crew.listening

    def take(self, worker: str, tally: Tally, payload_bytes: int, place: Place) -> tuple[str, ...]:
        """Write a tally down, or refuse it; the devices that are counted by it and were not before.

        Args:
            worker: who tells.
            tally: the masks.
            payload_bytes: of its message.
            place: raises `WireError` for a device whose mask is not wanted.

        Raises:
            WireError: if it is not what it should be.
        """
        store, down = self.outbox.store, self.topics.work(worker, "down")
        if tally.run == self.run and store.has_partial(self.run, worker, tally.batch):
            self.outbox.send(down, Settled(batch=tally.batch, refused=()))  # the first answer was lost
            return ()
        refused = self._unwanted(tally, place)
        self.outbox.send(down, Settled(batch=tally.batch, refused=refused))
        if refused:
            self.observer.remark(
                f"round {tally.number}: worker {worker} has masks that came late or are counted already: "
                f"{', '.join(refused[:10])}{', ...' if len(refused) > 10 else ''}"
            )
            return ()
        updates = self._read(tally)
        store.add_partial(self.run, tally.number, worker, tally.batch, tally.votes, payload_bytes)
        masks = list(zip(tally.devices, updates, tally.sizes, strict=True))
        store.add_masks(masks, tally.receipt_bytes)

        def tell() -> None:
            for device, update, size in masks:
                self.observer.mask(device, update, size)

        self.outbox.then(tell)
        return tally.devices

    def _unwanted(self, tally: Tally, place: Place) -> tuple[str, ...]:
        if tally.run != self.run:
            return tally.devices
        known = self.outbox.store.have_masks(self.run, tally.number, tally.devices)
        return tuple(device for device in tally.devices if device in known or not _placed(device, tally.number, place))

    def _read(self, tally: Tally) -> list[MaskUpdate]:
        """What every device has sent, checked against the tally.

        Raises:
            WireError: if it does not add up.
        """
        count = len(set(tally.devices))
        if not count == len(tally.devices) == len(tally.updates) == len(tally.sizes):
            raise WireError(f"a tally of {count} devices with {len(tally.updates)} masks and {len(tally.sizes)} sizes")
        announced, updates = self.announced[tally.number], batch.decode_updates(tally.updates)
        for update in updates:
            if (update.run, update.number) != (tally.run, tally.number):
                raise WireError("a tally of something other than its round's masks")
            if bool(tally.votes) == bool(update.signs):
                raise WireError("a tally with both sums and signs, or neither")
            if update.signs:
                check_mask(update, announced, self.ticket)
        if tally.votes:
            voters = mask.decode_votes(tally.votes, self.ticket.ends, announced).voters
            if voters != count:
                raise Mismatch("voters of a tally", expected=count, got=voters)
        return updates

    def _deal(self) -> None:
        """Give every asked device to the worker who hashes highest with it: others keep theirs if one comes or goes."""
        self._dirty = False
        self._dealt = {}
        if not self._asked:
            return
        shares: dict[str, list[str]] = {worker: [] for worker in self._crews}
        for device in sorted(self._asked & self.fleet.members.keys()) if shares else ():
            worker = max(shares, key=lambda name: (crc32(f"{name}/{device}".encode()), name))
            shares[worker].append(device)
            self._dealt[device] = worker
        votes = mask.encode_votes(self.announced[self._number], self.ticket.ends) if shares else b""
        for worker, devices in shares.items():
            hellos = [self.fleet.members[device].hello for device in devices]
            self._last_shift = max(self._last_shift + 1, time.time_ns() // 1_000_000)  # larger than a process before's
            shift = Shift(
                run=self.run,
                number=self._number,
                shift=self._last_shift,
                sums=self.sums,
                votes=votes,
                ticket=b"",
                devices=tuple(devices),
                keys=b"".join(hello.key for hello in hellos),
                instances=b"".join(hello.instance for hello in hellos),
            )
            self._say(worker, self._crews[worker], shift)
        self._listen()

    def _say(self, worker: str, crew: Crew, shift: Shift) -> None:
        crew.shift, crew.said_s = shift, time.monotonic()
        told = shift if crew.has_ticket else replace(shift, ticket=self.ticket.encoded)
        self.outbox.send(self.topics.work(worker, "down"), told)

    def _listen(self) -> None:
        """Hear all masks as long as a device is asked whom no worker hears; of no use is what they hear already."""
        wanted = not self._asked or not all(map(self.covers, self._asked))
        if wanted != self._hears_all:
            channel = self.outbox.channel
            (channel.subscribe if wanted else channel.unsubscribe)(self.topics.every("mask"))
            self._hears_all = wanted


def _placed(device: str, number: int, place: Place) -> bool:
    """Whether a mask that was trained for a round is wanted as one."""
    try:
        return place(device, number) == number
    except WireError:
        return False
