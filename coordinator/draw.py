"""Large rounds: whoever has the lowest lots of those online (`wire.selection`), and knows it without being named."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import nsmallest

from wire.federation_messages import DRAW_BYTES
from wire.selection import lot

NAMED = 100  # devices a round that are named; of rounds of more, devices find out by themselves


@dataclass(frozen=True)
class Draw:
    """The lots of one run. Nobody knows those of a round before it is announced, nor can choose an id to suit them.

    Args:
        secret: the federation's private key.
        run: which run.
    """

    secret: bytes = field(repr=False)
    run: bytes

    def key(self, number: int) -> bytes:
        """What the lots of a round follow from; always the same, so that a restarted coordinator goes on."""
        about = b"hidenseek draw\0" + self.run + number.to_bytes(8, "big")
        return hmac.digest(self.secret, about, "sha256")[:DRAW_BYTES]

    def below(self, number: int, devices: Iterable[str]) -> int:
        """The limit under which all these devices are drawn."""
        key = self.key(number)
        return max((lot(key, device) + 1 for device in devices), default=0)

    def draws(self, number: int, device: str, below: int) -> bool:
        """Whether a device is drawn under a limit."""
        return lot(self.key(number), device) < below

    def first(self, number: int, devices: Iterable[str], count: int) -> list[str]:
        """Those of these devices that have the lowest lots, at most so many."""
        return nsmallest(count, devices, key=partial(lot, self.key(number)))
