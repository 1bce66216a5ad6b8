"""Cards that were flashed, and what became of each: kept as `claims.json` in a deployment's folder. No network here.

A card waits until its device claims the account, and is then bound to that device's key. Whoever comes with the same
token and another key has a copy of the card, is refused, and is written down.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coordinator.brokers.process import write_private
from wire import signing
from wire.errors import StateError

FILE, LOCK = "claims.json", "claims.lock"
GOOD_FOR_S = 30 * 86400.0
KEPT = 10  # refused attempts at each card


class Attempt(BaseModel):
    """Somebody who was refused: when, with which key, on which hardware as it says itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_s: float
    key: str
    hardware: str


class Certificate(BaseModel):
    """One that was signed: its serial number in hexadecimal, and when it ends, seconds since 1970."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    serial: str = Field(pattern=r"^[0-9a-f]{1,40}$")
    ends_s: float


class TakenBack(Certificate):
    """One that is good no more; since when, seconds since 1970."""

    since_s: float


class Card(BaseModel):
    """One device's card.

    Attributes:
        made_s: when it was flashed, seconds since 1970.
        key: public key of the device that it is bound to; None while it waits.
        claimed_s: since when.
        hardware: what that device said it is.
        refused: who else came with its token, the last few.
        certificates: what that device has got, in the order that it has.
        barred_s: since when the device is revoked, and its certificates good for nothing; None if it is not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    made_s: float
    key: str | None = None
    claimed_s: float | None = None
    hardware: str = ""
    refused: list[Attempt] = []
    certificates: list[Certificate] = []
    barred_s: float | None = None

    def certificate_in_words(self, now_s: float) -> str:
        """The newest one's end, for a list of devices; "" if there is none."""
        if not self.certificates:
            return ""
        if self.barred_s is not None:
            return "revoked"
        ends_s = self.certificates[-1].ends_s
        day = time.strftime("%Y-%m-%d", time.gmtime(ends_s))
        return f"until {day}" if now_s < ends_s else f"ended {day}"

    def in_words(self, now_s: float) -> str:
        """For a list of devices."""
        if self.key is None:
            return "flashed, waiting" if now_s < self.made_s + GOOD_FOR_S else "flashed, expired"
        return "used twice" if self.refused else "enrolled"


class Claims(BaseModel):
    """All cards, by device."""

    model_config = ConfigDict(extra="forbid")

    cards: dict[str, Card] = Field(default={})
    ended: list[TakenBack] = []  # certificates of earlier cards

    @property
    def keys(self) -> dict[str, bytes]:
        """Public keys of the devices that have claimed their accounts."""
        return {name: signing.from_text(card.key, where=FILE) for name, card in self.cards.items() if card.key}

    def rename(self, old: str, new: str) -> None:
        """Call a device's card otherwise, if it has one."""
        if old in self.cards:
            self.cards[new] = self.cards.pop(old)

    def decide(self, device: str, public: bytes, hardware: str, now_s: float) -> str:
        """Bind a card to the key of whoever claims with its token, or say why not.

        Args:
            device: whose card.
            public: the key.
            hardware: what the claimant says it is.
            now_s: seconds since 1970.

        Returns:
            why it is refused; "" if the card is this device's.
        """
        card, key = self.cards.get(device), signing.as_text(public)
        if card is None:
            return f"no card was flashed for '{device}'"
        if card.key in (None, key) and card.barred_s is not None:
            return f"'{device}' is revoked; if it was found again: hidenseek fleet restore {device}"
        if card.key == key:
            return ""  # its answer was lost on the way, or it asks for the next certificate
        if card.key is not None:
            attempt = Attempt(at_s=now_s, key=key, hardware=hardware)
            others = [one for one in card.refused if one.key != key]
            self.cards[device] = card.model_copy(update={"refused": [*others, attempt][-KEPT:]})
            return (
                f"the card of '{device}' was used before, by a device with the key {_short(card.key)}; "
                f"if that was this board, with another card: hidenseek fleet approve {device}"
            )
        if now_s > card.made_s + GOOD_FOR_S:
            return f"the card of '{device}' was flashed more than {GOOD_FOR_S / 86400:.0f} days ago"
        self.cards[device] = card.model_copy(update={"key": key, "claimed_s": now_s, "hardware": hardware})
        return ""

    def await_card(self, device: str, now_s: float) -> None:
        """Have a device's card waited for, by whatever key; the certificates that it has had are good no more."""
        self.end_certificates(device, now_s)
        self.cards[device] = Card(made_s=now_s)

    def end_certificates(self, device: str, now_s: float) -> None:
        """Have the certificates that a device has had be good no more."""
        card = self.cards.get(device)
        if card is not None:
            ended = [TakenBack(**one.model_dump(), since_s=now_s) for one in card.certificates]
            self.ended = [one for one in (*self.ended, *ended) if one.ends_s > now_s]
            self.cards[device] = card.model_copy(update={"certificates": []})

    def certify(self, device: str, certificate: Certificate, now_s: float) -> str:
        """Write down a certificate that was signed for a device, or say why it must not have it.

        Args:
            device: whose card is bound to whoever has asked.
            certificate: it.
            now_s: seconds since 1970.

        Returns:
            why not; "" if it is written down.
        """
        card = self.cards[device]
        good = [one for one in card.certificates if one.ends_s > now_s]
        if len(good) >= KEPT:
            return (
                f"'{device}' has {len(good)} certificates that are still good; to end them: "
                f"hidenseek fleet approve {device}"
            )
        self.cards[device] = card.model_copy(update={"certificates": [*good, certificate]})
        return ""

    def taken_back(self, now_s: float) -> dict[str, float]:
        """Serial numbers of certificates that have not ended yet and are good no more, and since when."""
        barred = {
            one.serial: card.barred_s
            for card in self.cards.values()
            if card.barred_s is not None
            for one in card.certificates
            if one.ends_s > now_s
        }
        return barred | {one.serial: one.since_s for one in self.ended if one.ends_s > now_s}


class Watched:
    """A deployment's cards, read again when their file is another.

    Args:
        folder: the deployment's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: tuple[tuple[int, ...], Claims] | None = None

    def now(self) -> Claims:
        """The cards; the same object as long as nothing changes.

        Raises:
            StateError: if they cannot be read.
        """
        stamp = self._stamp()
        if self._read is None or self._read[0] != stamp:
            self._read = stamp, load(self._folder)
        return self._read[1]

    def _stamp(self) -> tuple[int, ...]:
        """Another one whenever the file is another; it is always replaced whole."""
        try:
            found = (self._folder / FILE).stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size


class Enrolled:
    """Keys of the devices that have claimed their accounts: whoever answers claims writes them down before it answers.

    Args:
        folder: the deployment's.

    Raises:
        StateError: if its cards cannot be read. Later on, what was read last counts until they can be again.
    """

    def __init__(self, folder: Path) -> None:
        self._watched = Watched(folder)
        self._claims = self._watched.now()
        self._keys = self._claims.keys

    def __call__(self) -> Mapping[str, bytes]:
        """Public keys by device, as they are now; the same object as long as nothing changes."""
        with suppress(StateError):
            found = self._watched.now()
            if found is not self._claims:
                self._claims, self._keys = found, found.keys
        return self._keys


def load(folder: Path) -> Claims:
    """Read a deployment's cards; none if there are none yet.

    Raises:
        StateError: if the file is damaged.
    """
    path = folder / FILE
    try:
        return Claims.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Claims()
    except (OSError, ValidationError) as error:
        first = str(error).replace("\n", " ")
        raise StateError(f"damaged ({first:.120})", where=str(path), hint="Restore it from a backup") from error


@contextmanager
def changing(folder: Path) -> Iterator[Claims]:
    """Read cards, and write what was changed of them, whole; nobody else changes accounts meanwhile.

    Raises:
        StateError: if the file is damaged or cannot be written.
    """
    with (folder / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        claims = load(folder)
        before = claims.model_dump_json(indent=1)
        yield claims
        after = claims.model_dump_json(indent=1)
        if after != before:
            write_private(folder / FILE, after + "\n")


def _short(key: str) -> str:
    return signing.fingerprint(signing.from_text(key, where=FILE))
