"""What all devices of a process hear: the same bytes come to each, and are checked and decoded once for all.

A real fleet has a processor for each device; here thousands share one with the broker and the coordinator. So what is
said to all costs this process once, and what is said to one device, or by it, costs what it costs any.
"""

from __future__ import annotations

from collections import OrderedDict
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wire import dither, mask, signing
from wire.bundle import Bundle, decode_bundle
from wire.channel import Garbled, unseal
from wire.errors import WireError
from wire.federation_messages import BundleBytes, CatchUp, Federation, Round
from wire.mask import Context, Votes
from wire.messages import Message
from wire.prng import generator, training_seed

Chances = NDArray[np.float32]
K = TypeVar("K")
V = TypeVar("V")
REMEMBERED = 64
FIRST_FLIPS, FEWEST_FLIPS = 0.25, 0.03  # share of the weights whose sign local training turns: docs/method.md
FEWEST_CHANGES = 0.005  # of bits of scores; with the share of those that are unsure about as many as devices change


class Audience:
    """The common knowledge of a process's devices.

    Args:
        trust: the federation's public key; None: that of the first one announced, as devices do.
        seed: of the masks and of chance.

    Attributes:
        random: chance.
    """

    def __init__(self, trust: bytes | None, seed: int) -> None:
        self._key, self._seed = trust, seed
        self.random = Random(seed)
        self._issued = 0
        self._opened: OrderedDict[tuple[str, bytes], Message | Garbled] = OrderedDict()
        self._bundle: tuple[bytes, Bundle] | None = None
        self._votes: OrderedDict[tuple[bytes, int], Votes] = OrderedDict()
        self._chances: OrderedDict[bytes, Chances] = OrderedDict()

    @property
    def acquainted(self) -> bool:
        """Whether it is known whose word counts."""
        return self._key is not None

    def open(self, topic: str, data: bytes, *, everyone: bool) -> Message:
        """Check and decode a whole message.

        Args:
            topic: where it came.
            data: its bytes.
            everyone: it comes to every device, so that it pays to remember what it says.

        Raises:
            WireError: if it is none, or not of whom it should be.
        """
        if not everyone:
            return unseal(topic, data, self._trusted)
        key = (topic, data)
        found = self._opened.get(key)
        if found is None:
            try:
                found = unseal(topic, data, self._trusted)
            except WireError as error:
                found = Garbled(topic=topic, error=error)
            _keep(self._opened, key, found)
        if isinstance(found, Garbled):
            raise found.error
        if isinstance(found, Federation):
            self._key, self._issued = found.key, max(found.issued, self._issued)
        return found

    def _trusted(self, topic: str, message: Message) -> bytes:
        if isinstance(message, Federation):
            if self._key not in (None, message.key):
                raise WireError(f"of a federation with another key, {signing.fingerprint(message.key)}")
            if message.issued < self._issued:
                raise WireError("of a run that is over")
            return message.key
        if self._key is None:
            raise WireError("said before the federation has introduced itself")
        return self._key

    def knows_bundle(self, digest: bytes) -> bool:
        """Whether these bytes were read already."""
        return self._bundle is not None and self._bundle[0] == digest

    def read_bundle(self, digest: bytes, bundle: BundleBytes) -> None:
        """Read the network that is trained.

        Raises:
            WireError, TicketError: if the bytes are not that bundle.
        """
        if not self.knows_bundle(digest):
            self._bundle = digest, decode_bundle(bundle.data, expected_id=digest)
            self._votes.clear()
            self._chances.clear()

    def take_votes(self, announced: Round | CatchUp) -> bool:
        """Decode votes; whether they are as they should be. The device has those they build on."""
        key = (announced.run, announced.number)
        known = self._votes.get(key)
        if known is not None:
            return known.digest == announced.digest
        assert self._bundle is not None
        base = self._votes.get((announced.run, announced.base)) if announced.base else None
        if announced.base and base is None:
            return False  # of a round that is too long ago to be remembered
        try:
            votes = mask.decode_votes(announced.votes, self._bundle[1].ticket.ends, base)
        except WireError:
            return False
        if votes.digest != announced.digest:
            return False
        _keep(self._votes, key, votes)
        return True

    def train(self, federation: Federation, run: bytes, number: int, device: str) -> bytes:
        """A coded mask such as training would come to.

        What a device would send without training changes the more often the less sure it is, so that masks grow
        shorter from round to round as those of devices do.
        """
        assert self._bundle is not None
        ends, votes = self._bundle[1].ticket.ends, self._votes[run, number]
        known = dither.context(votes, federation.training, training_seed(federation.seed, number, device))
        chance = self._dithered(known) if federation.training.dither else self._chance(votes)
        draw = generator((self._seed, "mask", number, device)).random(votes.signs.size, dtype=np.float32)
        return mask.encode_signs(known.signs ^ (draw < chance), known, ends)

    def _dithered(self, known: Context) -> Chances:
        unsure = np.minimum(known.levels, mask.LEVELS - 1 - known.levels).astype(np.float32) / np.float32(mask.LEVELS)
        chance: Chances = np.maximum(unsure * np.float32(0.3), np.float32(FEWEST_CHANGES))
        return chance

    def _chance(self, votes: Votes) -> Chances:
        chance = self._chances.get(votes.digest)
        if chance is None:
            share = votes.dissent.astype(np.float32) / np.float32(votes.voters)
            chance = np.full_like(share, FIRST_FLIPS) if votes.voters == 1 else np.maximum(share * 0.6, FEWEST_FLIPS)
            _keep(self._chances, votes.digest, chance)
        return chance


def _keep(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    if len(kept) > REMEMBERED:
        kept.popitem(last=False)
