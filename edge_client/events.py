"""What can happen to a device, and what `edge_client.agent` can ask of `edge_client.client`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from wire.errors import HidenseekError
from wire.federation_messages import CatchUp, Federation, MaskUpdate, Missed, Round
from wire.messages import Message

# What can happen, beside the messages themselves.


@dataclass(frozen=True, kw_only=True)
class Online:
    """The connection stands (again)."""


@dataclass(frozen=True, kw_only=True)
class BundleOpened:
    """The runtime is loaded and the data fits it."""

    digest: bytes


@dataclass(frozen=True, kw_only=True)
class BundleNeeded:
    """The bundle is not on this device yet, or what is there is damaged."""

    digest: bytes


@dataclass(frozen=True, kw_only=True)
class VotesTaken:
    """The votes announced with a round are decoded and as they should be."""

    run: bytes
    number: int


@dataclass(frozen=True, kw_only=True)
class VotesUnusable:
    """Announced votes did not come out as they should: what this device had is not what they build on."""

    base: int


@dataclass(frozen=True, kw_only=True)
class TrainingDone:
    """Local training is finished; the mask is ready to be sent."""

    update: MaskUpdate


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Time has passed."""


Event: TypeAlias = Online | BundleOpened | BundleNeeded | VotesTaken | VotesUnusable | TrainingDone | Tick | Message


# What can be asked of the client.


@dataclass(frozen=True, kw_only=True)
class Subscribe:
    """Subscribe to the federation's topics."""


@dataclass(frozen=True, kw_only=True)
class SayHello:
    """Introduce the device to the coordinator and mark it online."""


@dataclass(frozen=True, kw_only=True)
class OpenBundle:
    """Load the runtime from the stored bundle; answers `BundleOpened` or `BundleNeeded`."""

    federation: Federation


@dataclass(frozen=True, kw_only=True)
class Download:
    """Subscribe to the bundle topic."""


@dataclass(frozen=True, kw_only=True)
class KeepBundle:
    """Check and store downloaded bytes."""

    digest: bytes
    data: bytes


@dataclass(frozen=True, kw_only=True)
class TakeVotes:
    """Decode votes; answers `VotesTaken` or `VotesUnusable`."""

    announced: Round | CatchUp


@dataclass(frozen=True, kw_only=True)
class AskVotes:
    """Tell the coordinator that votes are missing."""

    missed: Missed


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Try the announced network on the test samples and report."""

    announced: Round


@dataclass(frozen=True, kw_only=True)
class Train:
    """Start local training for this round; replaces any training under way."""

    announced: Round


@dataclass(frozen=True, kw_only=True)
class StopTraining:
    """Forget the training under way: nobody wants its mask any more."""


@dataclass(frozen=True, kw_only=True)
class SendMask:
    """Write the mask down if it is new, then send it."""

    update: MaskUpdate
    new: bool


@dataclass(frozen=True, kw_only=True)
class DropPending:
    """The mask is confirmed, or nobody wants it any more.

    Attributes:
        confirmed: (run, number) of its round if it is confirmed, to be remembered for good; else None.
    """

    confirmed: tuple[bytes, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Log:
    """Tell the person who looks."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Leave, with an error or (None) because the run is over."""

    error: HidenseekError | None


Action: TypeAlias = (
    Subscribe
    | SayHello
    | OpenBundle
    | Download
    | KeepBundle
    | TakeVotes
    | AskVotes
    | Evaluate
    | Train
    | StopTraining
    | SendMask
    | DropPending
    | Log
    | Stop
)
