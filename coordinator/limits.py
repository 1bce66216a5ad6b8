"""How often a device is listened to: token buckets. No I/O, no clock.

A device's own bucket is for what it has signed. What others say in its name must not empty it, or a neighbour on a
broker without access rules could silence it; and whose word a packet is, is known only after its signature was
checked. So a device in whose name something was said that did not prove its own is *doubted* for a while: packets on
its topics are looked at from one bucket for all doubted devices together, which bounds what forgers cost, and its own
bucket pays for what turns out to be genuine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class _Bucket:
    burst: float
    per_s: float
    filled_s: float = 0.0
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now_s: float) -> bool:
        self.tokens = min(self.burst, self.tokens + max(now_s - self.filled_s, 0) * self.per_s)
        self.filled_s = now_s
        taken = self.tokens >= 1
        self.tokens -= taken
        return taken

    def give_back(self) -> None:
        self.tokens = min(self.burst, self.tokens + 1)


@dataclass
class _Speaker:
    bucket: _Bucket
    unproven: int = 0  # packets in a row that no whole, genuine message came of
    doubted_until_s: float = -math.inf
    forged: int = 0  # packets, since it is doubted
    told: bool = False  # that it sends too much, since its bucket was half full

    def takes(self, now_s: float) -> bool:
        taken = self.bucket.take(now_s)
        self.told = self.told and self.bucket.tokens < self.bucket.burst / 2
        return taken


@dataclass
class Limits:
    """Token buckets by device (the oldest is forgotten when there are too many).

    A device at work sends a few packets a round; parts of a large mask count one each. `checks` are packets of doubted
    devices, all together: half a thousand signatures take about 7 % of a core (docs/security.md).
    """

    per_s: ClassVar[float] = 20.0
    burst: ClassVar[int] = 200
    checks_per_s: ClassVar[float] = 500.0
    checks_burst: ClassVar[int] = 1000
    parts: ClassVar[int] = 50  # in a row without a genuine message: doubted
    doubt_s: ClassVar[float] = 60.0
    remarks: ClassVar[int] = 10  # on what is said in the name of one device while it is doubted
    devices: ClassVar[int] = 100_000
    _speakers: dict[str, _Speaker] = field(default_factory=dict)
    _checks: _Bucket = field(init=False)

    def __post_init__(self) -> None:
        self._checks = _Bucket(self.checks_burst, self.checks_per_s)

    def admit(self, device: str, now_s: float) -> tuple[bool, bool]:
        """Whether a packet of this device is looked at, and whether the device sends too much and nobody was told yet.

        Args:
            device: whose packet came.
            now_s: any monotonic clock, seconds.
        """
        speaker = self._speaker(device)
        if now_s < speaker.doubted_until_s:
            return self._checks.take(now_s), False
        if not speaker.takes(now_s):
            first, speaker.told = not speaker.told, True
            return False, first
        speaker.unproven += 1
        if speaker.unproven > self.parts:
            self.forged(device, now_s)
        return True, False

    def pays(self, device: str, now_s: float) -> bool:
        """Whether a device that nobody doubts pays for a packet that is whole; it need not be `proven` afterwards."""
        speaker = self._speaker(device)
        return now_s >= speaker.doubted_until_s and speaker.takes(now_s)

    def proven(self, device: str, now_s: float) -> bool:
        """Note that an admitted packet completed a genuine message; whether the device may say it."""
        speaker = self._speaker(device)
        speaker.unproven = 0
        if now_s >= speaker.doubted_until_s:
            return True  # paid for when it was admitted
        self._checks.give_back()
        return speaker.takes(now_s)

    def forged(self, device: str, now_s: float) -> bool:
        """Note that an admitted packet was nobody's word; whether that is worth telling, as the hundredth is not."""
        speaker = self._speaker(device)
        if now_s >= speaker.doubted_until_s:
            speaker.forged = 0
        speaker.forged += 1
        speaker.doubted_until_s = now_s + self.doubt_s
        return speaker.forged <= self.remarks

    def _speaker(self, device: str) -> _Speaker:
        speaker = self._speakers.get(device)
        if speaker is None:
            if len(self._speakers) >= self.devices:
                del self._speakers[next(iter(self._speakers))]
            speaker = self._speakers[device] = _Speaker(_Bucket(self.burst, self.per_s))
        return speaker
