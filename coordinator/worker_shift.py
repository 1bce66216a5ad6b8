"""A worker's shift, read: whose masks it takes, for which round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coordinator.worker_batch import Source
from wire import mask, signing
from wire.errors import WireError
from wire.federation_messages import INSTANCE_BYTES
from wire.mask import Votes
from wire.ticket import Ticket
from wire.topics import Topics, speaker
from wire.worker_messages import Shift


@dataclass(frozen=True, kw_only=True)
class Duty:
    """What a worker has to do.

    Attributes:
        shift: as it was told.
        ticket: the network.
        votes: announced with the round.
        devices: those whose masks it takes, by id.
        sources: the same, by the topic of their masks.
    """

    shift: Shift
    ticket: Ticket
    votes: Votes
    devices: Mapping[str, Source]
    sources: Mapping[str, Source]

    def is_of(self, run: bytes, number: int) -> bool:
        """Whether it is for this round of this run."""
        return (self.shift.run, self.shift.number) == (run, number)


def read_shift(shift: Shift, ticket: Ticket, topics: Topics) -> Duty:
    """What a shift says.

    Args:
        shift: as it was told.
        ticket: the network, which a shift need not hold.
        topics: of the federation.

    Raises:
        WireError: if it does not add up.
    """
    count = len(shift.devices)
    if (len(shift.keys), len(shift.instances)) != (count * signing.KEY_BYTES, count * INSTANCE_BYTES):
        raise WireError(f"{count} devices with {len(shift.keys)} bytes of keys")
    votes = mask.decode_votes(shift.votes, ticket.ends)
    devices, sources = {}, {}
    for i, device in enumerate(shift.devices):
        topic = topics.up(device, "mask")
        devices[device] = sources[topic] = Source(
            device=device,
            instance=shift.instances[i * INSTANCE_BYTES : (i + 1) * INSTANCE_BYTES],
            speaker=speaker(topic),
            key=shift.keys[i * signing.KEY_BYTES : (i + 1) * signing.KEY_BYTES],
            topic=topic.encode(),
            down=topics.down(device).encode(),
        )
    return Duty(shift=shift, ticket=ticket, votes=votes, devices=devices, sources=sources)
