"""What coordinator and workers say to each other: a worker takes some devices' masks and hands on what they add up to.

Both sides sign with the federation's key: a worker confirms masks to devices, who trust no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from wire.fields import RUN_BYTES, at

INSTANCE_BYTES = 8
BATCH_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Report:
    """Worker -> coordinator, every second: I am here.

    Attributes:
        instance: 8 random bytes made when the process started.
        shift: the `Shift.shift` whose devices it listens to; 0: none.
    """

    instance: bytes = at(1, INSTANCE_BYTES)
    shift: int = at(2)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Coordinator -> worker, before a round is announced: take these devices' masks, and no others.

    Attributes:
        run: which run.
        number: which round.
        shift: identity of this message, larger than those before.
        sums: hand on what masks add up to; otherwise the masks themselves.
        votes: announced with the round, coded in the context of none.
        ticket: the network; empty where the worker has it.
        devices: whose masks, ascending.
        keys: their public keys, 32 bytes each.
        instances: of the processes that speak for them, 8 bytes each.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    shift: int = at(3)
    sums: bool = at(4)
    votes: bytes = at(5)
    ticket: bytes = at(6)
    devices: tuple[str, ...] = at(7)
    keys: bytes = at(8)
    instances: bytes = at(9)


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Worker -> coordinator: masks that are on its disk, all of one round; said again until it is settled.

    Attributes:
        run: which run.
        number: which round.
        batch: identity of this tally; it always names the same masks.
        votes: what they add up to, coded as votes in the context of the round's; empty where updates have their signs.
        devices: whose masks.
        updates: for each of them its `MaskUpdate`, encoded; with `votes`, without signs.
        sizes: payload bytes of each.
        receipt_bytes: of what confirmed one to its device.
    """

    run: bytes = at(1, RUN_BYTES)
    number: int = at(2)
    batch: bytes = at(3, BATCH_BYTES)
    votes: bytes = at(4)
    devices: tuple[str, ...] = at(5)
    updates: tuple[bytes, ...] = at(6)
    sizes: tuple[int, ...] = at(7)
    receipt_bytes: int = at(8)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Coordinator -> worker: a tally is on its disk; or, if any device is refused, none of it is counted.

    Attributes:
        batch: which tally.
        refused: devices that are counted already, or came too late; the worker tells of the others again.
    """

    batch: bytes = at(1, BATCH_BYTES)
    refused: tuple[str, ...] = at(2)
