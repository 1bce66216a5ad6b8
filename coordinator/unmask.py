"""The end of an attempt to add masks up unseen: secrets put together from shares, and masks taken off the sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import chain, combinations, islice

from coordinator.exchange import Exchange, Phase
from wire import secure, sharing
from wire.errors import WireError
from wire.secure import Counts

TRIES = 300  # sets of shares that a secret is put together from, should some be wrong


def count(exchange: Exchange) -> Counts | None:
    """How many survivors have +1 for every weight, uint8 (kept,); None while shares are missing, or too many wrong.

    Raises:
        WireError: if what comes out is no count of that many signs: somebody's input was none.
    """
    if exchange.phase != Phase.REVEAL or len(exchange.reveals) < exchange.needed:
        return None
    found: dict[int, bytes] = {}
    for place in exchange.sharers:
        secret = _put_together(exchange, place)
        if secret is None:
            return None
        found[place] = secret
    masked = {
        place: secure.read_masked(exchange.masked[place].signs, exchange.kept, len(exchange.sharers))[1]
        for place in exchange.survivors
    }
    counts = secure.unmask(
        masked,
        {place: found[place] for place in exchange.survivors},
        {place: found[place] for place in exchange.sharers if place not in exchange.survivors},
        exchange.members,
        exchange.context,
    )
    if counts.size and int(counts.max()) > len(exchange.survivors):
        raise WireError(
            f"the sum of {len(exchange.survivors)} masks says {int(counts.max())} for a weight: "
            "one of them was no mask, and it cannot be told whose"
        )
    return counts


def _put_together(exchange: Exchange, place: int) -> bytes | None:
    """A survivor's seed or another one's masking key, checked against what it has said before; None if it cannot."""
    keys = exchange.keys[exchange.names[place]][1]
    shares = {holder + 1: told[place] for holder, told in exchange.reveals.items() if place in told}
    for chosen in islice(_sets(shares, exchange.needed), TRIES):
        secret = sharing.combine(chosen)
        if place in exchange.survivors:
            right = sha256(secret).digest() == keys.commitment
        else:
            right = secure.public(secret) == keys.masking
        if right:
            return secret
    return None


def _sets(shares: Mapping[int, bytes], size: int) -> Iterator[dict[int, bytes]]:
    """So many of the shares: neighbours first, which a wrong one is not always among, then all sets."""
    numbers = list(shares)
    around = (tuple((numbers[i:] + numbers[:i])[:size]) for i in range(len(numbers)))
    for chosen in chain(around, combinations(numbers, size)):
        if len(chosen) == size:
            yield {number: shares[number] for number in chosen}
