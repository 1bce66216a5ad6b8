"""How often a device is listened to: a token bucket for each. No I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class _Bucket:
    tokens: float
    filled_s: float
    dry: bool = False


@dataclass
class Limits:
    """Token buckets by device (the oldest is forgotten when there are too many).

    A device at work sends a few packets a round; parts of a large mask count one each.
    """

    per_s: ClassVar[float] = 20.0
    burst: ClassVar[int] = 200
    devices: ClassVar[int] = 100_000
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def admit(self, device: str, now_s: float) -> tuple[bool, bool]:
        """Whether a packet of this device is looked at, and whether it is the first that is not.

        Args:
            device: whose packet came.
            now_s: any monotonic clock, seconds.
        """
        bucket = self._buckets.get(device)
        if bucket is None:
            if len(self._buckets) >= self.devices:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[device] = _Bucket(tokens=self.burst, filled_s=now_s)
        bucket.tokens = min(self.burst, bucket.tokens + (now_s - bucket.filled_s) * self.per_s)
        bucket.filled_s = now_s
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            bucket.dry = bucket.dry and bucket.tokens < self.burst / 2
            return True, False
        first, bucket.dry = not bucket.dry, True
        return False, first
