"""A run in figures, as it stands now: what metrics and home automation show."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from coordinator.fleet import Fleet
from coordinator.observer import Observer
from coordinator.store import Store
from wire.federation_messages import Evaluation, MaskUpdate, Telemetry

_LAST_MASKS = (
    "SELECT device, number, arrived_s, correct, test_samples FROM mask JOIN "
    "(SELECT device, max(number) AS number FROM mask WHERE run = ? GROUP BY device) AS newest USING (device, number) "
    "WHERE run = ?"
)
_LAST_SAID = (
    "SELECT device, {0} FROM telemetry JOIN (SELECT device, max(number) AS number FROM telemetry "
    "WHERE run = ? AND {0} IS NOT NULL GROUP BY device) AS newest USING (device, number) WHERE run = ?"
)


@dataclass
class DeviceFigures:
    """One device. None: not known, or not yet.

    Attributes:
        online: whether it is.
        round: the newest round that it sent a mask for.
        mask_s: when its last mask was stored, seconds since 1970.
        accuracy: of its own signs on its own test samples, 0 to 1.
        temperature_c: of its processor when it was last read, after training, degrees Celsius.
        memory_bytes: resident memory of its process then.
        profile: kind of hardware, in the device's words.
        software: what runs there, in the device's words.
    """

    online: bool = False
    round: int | None = None
    mask_s: float | None = None
    accuracy: float | None = None
    temperature_c: float | None = None
    memory_bytes: int | None = None
    profile: str = ""
    software: str = ""


@dataclass
class Tally:
    """A mean that is being added up."""

    total: float = 0.0
    count: int = 0

    def add(self, value: float, count: int = 1) -> None:
        """Add so many values that come to `value` together."""
        self.total += value
        self.count += count

    @property
    def mean(self) -> float | None:
        """Of what was added; None if nothing was."""
        return self.total / self.count if self.count else None


@dataclass
class Figures(Observer):
    """Kept by what an `Observer` hears. Other threads may read it.

    Attributes:
        round: the one that is open, or was last; 0 before the first.
        opened_s: when it was announced, seconds since 1970.
        asked_s: when it was announced last, to more devices maybe.
        asked: devices that it asks.
        masks: that it has.
        held_out: accuracy on the coordinator's held-out samples, 0 to 1.
        own: accuracy of devices' own signs on their own test samples, mean over the masks of the round closed last.
        seen: of the global network on test samples of the devices, by what has been reported of the newest network
            that anybody has reported.
        devices: every one that was ever seen, by id.
        revoked_devices: who takes part no more.
        online: how many devices are.
        connected: the connection to the broker stands.
    """

    round: int = 0
    opened_s: float | None = None
    asked_s: float | None = None
    asked: frozenset[str] = frozenset()
    masks: int = 0
    held_out: float | None = None
    own: float | None = None
    devices: dict[str, DeviceFigures] = field(default_factory=dict)
    revoked_devices: set[str] = field(default_factory=set)
    online: int = 0
    connected: bool = False
    _own: dict[int, Tally] = field(default_factory=dict)
    _seen: tuple[int, Tally] = field(default_factory=lambda: (0, Tally()))

    @property
    def selected(self) -> int:
        """How many devices the round asks."""
        return len(self.asked)

    @property
    def known(self) -> int:
        """Devices that were ever seen, and may take part."""
        return len(self.devices.keys() - self.revoked_devices.copy())

    @property
    def seen(self) -> float | None:
        """See above."""
        return self._seen[1].mean

    def know(self, fleet: Fleet) -> None:
        """Take over a fleet as it was found: the devices of an earlier start, and who is revoked."""
        for name in fleet.members:
            self._device(name, fleet)
        self.revoked_devices.update(fleet.revoked)

    def recall(self, store: Store, run: bytes) -> None:
        """Take over what devices did and said in a run before this start."""
        for row in store.query(_LAST_MASKS, run, run):
            device = self.devices.setdefault(row["device"], DeviceFigures())
            device.round, device.mask_s = row["number"], row["arrived_s"]
            device.accuracy = row["correct"] / row["test_samples"] if row["test_samples"] else None
        for column in ("temperature_c", "rss_kib"):
            for name, value in store.query(_LAST_SAID.format(column), run, run):
                device = self.devices.setdefault(name, DeviceFigures())
                if column == "rss_kib":
                    device.memory_bytes = 1024 * value
                else:
                    device.temperature_c = value

    def device(self, name: str, online: bool, fleet: Fleet) -> None:
        """See `Observer.device`."""
        device = self._device(name, fleet)
        self.online += online - device.online
        device.online = online
        if online:
            self.revoked_devices.discard(name)

    def revoked(self, name: str) -> None:
        """See `Observer.revoked`."""
        self.revoked_devices.add(name)

    def announced(self, number: int, selected: tuple[str, ...]) -> None:
        """See `Observer.announced`."""
        self.asked_s = time.time()
        if number != self.round:
            self.round, self.opened_s, self.masks = number, self.asked_s, 0
        self.asked = frozenset(selected)

    def mask(self, name: str, update: MaskUpdate, payload_bytes: int) -> None:
        """See `Observer.mask`."""
        device = self.devices.setdefault(name, DeviceFigures())
        device.round, device.mask_s = update.number, time.time()
        self.masks += update.number == self.round
        if update.test_samples:
            device.accuracy = update.correct / update.test_samples
            self._own.setdefault(update.number, Tally()).add(device.accuracy)

    def evaluation(self, name: str, evaluation: Evaluation) -> None:
        """See `Observer.evaluation`."""
        number, tally = self._seen
        if evaluation.number > number:
            tally = Tally()
            self._seen = evaluation.number, tally
        if evaluation.number >= number:
            tally.add(evaluation.correct, evaluation.test_samples)

    def telemetry(self, name: str, telemetry: Telemetry) -> None:
        """See `Observer.telemetry`."""
        device = self.devices.setdefault(name, DeviceFigures())
        for spent in telemetry.rounds:  # what is slow to read is not in every round's: the last that was read stands
            if spent.temperature_c is not None:
                device.temperature_c = spent.temperature_c
            if spent.rss_kib is not None:
                device.memory_bytes = 1024 * spent.rss_kib

    def broker(self, connected: bool) -> None:
        """See `Observer.broker`."""
        self.connected = connected

    def closed(self, number: int, voters: int, held_out: float | None) -> None:
        """See `Observer.closed`."""
        own = self._own.pop(number, Tally()).mean
        self._own = {later: tally for later, tally in self._own.items() if later > number}
        self.own = self.own if own is None else own
        self.held_out = self.held_out if held_out is None else held_out

    def _device(self, name: str, fleet: Fleet) -> DeviceFigures:
        device = self.devices.setdefault(name, DeviceFigures())
        member = fleet.members.get(name)
        if member is not None:
            device.profile, device.software = member.hello.profile, member.hello.software
        return device
