"""What a device does with its network, as its client asks for it: here (`edge_client.workshop`) or apart.

The client waits most of the time, and nothing that it waits with needs numpy: all that does is behind this.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_client.events import VotesTaken, VotesUnusable
from wire.federation_messages import CatchUp, Evaluation, Federation, MaskUpdate, Round
from wire.settings import Training
from wire.telemetry import RoundTelemetry


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What the training of a round has come to.

    Attributes:
        update: the mask to send.
        personal: the file of the personal network (`wire.personal`).
        spent: what the round has cost, but for what was sent and written; None if nobody wants to know.
    """

    update: MaskUpdate
    personal: bytes
    spent: RoundTelemetry | None


class Work(Protocol):
    """One device's data, network and training.

    All but `step` answer when they are done. Whatever a bundle, a runtime or the data is refused for is raised as the
    `HidenseekError` that it is.
    """

    @property
    def training(self) -> bool:
        """Whether a round's training is under way."""

    @property
    def pause_s(self) -> float:
        """How long the client may wait for messages before the next `step`, while training is under way."""

    def counts(self) -> tuple[int, int]:
        """Read and check the device's data: samples to train on, and to test with.

        Raises:
            DataError: naming the file, what was found and what was expected.
        """

    def open(self, path: Path, digest: bytes, federation: Federation) -> None:
        """Load a bundle for a run.

        Args:
            path: its file.
            digest: its SHA-256.
            federation: the run, as announced.

        Raises:
            WireError: if the file is damaged.
            DataError: if the data does not fit its network.
        """

    def take_votes(self, announced: Round | CatchUp) -> VotesTaken | VotesUnusable:
        """Decode announced votes and keep them, if they come out as announced."""

    def evaluate(self, announced: Round) -> Evaluation:
        """Try the network of the votes taken last on the test samples."""

    def start(self, announced: Round) -> None:
        """Begin a round's training, in the place of any that is under way."""

    def stop(self) -> None:
        """Forget the training under way."""

    def step(self) -> Finished | None:
        """Go on with the training; what it has come to, once it is over."""

    def try_out(self) -> None:
        """See that this program trains here, in the memory that it may take: `edge_client.trial`.

        Raises:
            HidenseekError: if it does not.
        """

    def try_bundle(self, path: Path, digest: bytes, training: Training) -> None:
        """As `try_out`, of a bundle for a run to come; that of this run is opened again afterwards.

        Raises:
            HidenseekError: if it does not fit, or does not train here.
        """

    def rest(self, now_s: float) -> None:
        """Nothing is to be done at the moment, `now_s` by a monotonic clock."""

    def close(self) -> None:
        """Give back what it takes; nothing is asked of it any more."""
