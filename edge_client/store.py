"""What a device must not forget when the power goes: one small folder, every file replaced whole."""

from __future__ import annotations

import fcntl
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edge_client import files
from wire import messages, personal, signing
from wire.claim import TOKEN_FILE
from wire.errors import StateError, WireError
from wire.federation_messages import MaskUpdate
from wire.fields import MAX_INT, RUN_BYTES
from wire.state_folder import BUNDLE_SUFFIX, PERSONAL, bundle_name

PENDING = "pending.mask"
CONFIRMED = "confirmed"
EXCHANGE = "exchange"
STAGED_SUFFIX = ".next"  # of bundles for runs to come, see edge_client.staging
KEY = "device.key"
STARTS = "starts"
PASSWORD = "broker.password"  # noqa: S105  # a file's name
FEDERATION = "federation.pub"
ROUND = struct.Struct(f"<{RUN_BYTES}sQ")
KNOWN = struct.Struct(f"<{signing.KEY_BYTES}sQ")


def certificate_name(device: str) -> str:
    """File of a state folder: the key and certificate that a device shows to its broker."""
    return f"broker-{device}.pem"


@dataclass(frozen=True, kw_only=True)
class KnownFederation:
    """Whom a device trusts.

    Attributes:
        key: public key of the federation.
        issued: when the newest run it has heard of began, milliseconds since 1970.
    """

    key: bytes
    issued: int


@dataclass
class Store:
    """A device's state folder.

    It holds the device's private key, whom it trusts, bundles by their SHA-256, the mask that has no
    receipt yet, and the signs the device ended its last training with (its personal network). Others
    read those last without a lock, see `wire.state_folder`.

    Raises:
        StateError: if the folder cannot be used, or another process uses it.
    """

    folder: Path
    _lock: IO[bytes] | None = None
    _federation: KnownFederation | None = None

    def __post_init__(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (self.folder / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise StateError(
                "another hidenseek-edge uses this state folder",
                where=str(self.folder),
                hint="Stop it, or give this one its own with --state DIR",
            ) from error
        except OSError as error:
            raise StateError(f"cannot be used ({error.strerror})", where=str(self.folder)) from error

    def key(self) -> bytes:
        """The device's private key, made when first asked for.

        Raises:
            StateError: if it is damaged, cannot be read or written, or others can read it.
        """
        path = self.folder / KEY
        try:
            if not path.exists():
                self._replace(KEY, signing.new_key())
            if path.stat().st_mode & 0o077:
                raise StateError("others can read this device's key", where=str(path), hint=f"Run: chmod 600 {path}")
            key = path.read_bytes()
        except OSError as error:
            raise StateError(f"cannot be used ({error.strerror})", where=str(path)) from error
        if len(key) != signing.KEY_BYTES:
            raise StateError(
                f"{len(key)} bytes are no key",
                where=str(path),
                hint="Delete it; the coordinator must then forget the device: hidenseek fleet forget ID",
            )
        return key

    def count_start(self) -> int:
        """How often this device has started, this time included.

        Raises:
            StateError: if the count is damaged, or cannot be written.
        """
        path = self.folder / STARTS
        try:
            starts = int(path.read_text()) + 1 if path.exists() else 1
            if not 1 <= starts <= MAX_INT:
                raise ValueError("out of range")
            self._replace(STARTS, str(starts).encode())
        except ValueError as error:
            hint = "Delete it; the coordinator must then forget the device: hidenseek fleet forget ID"
            raise StateError(f"no whole number ({error})", where=str(path), hint=hint) from error
        except OSError as error:
            raise StateError(f"cannot be written ({error.strerror})", where=str(path)) from error
        return starts

    def federation(self) -> KnownFederation | None:
        """Whom this device trusts; None before it has met any.

        Raises:
            StateError: if the file is damaged; trusting anybody instead would be wrong.
        """
        if self._federation is None and (self.folder / FEDERATION).exists():
            data = (self.folder / FEDERATION).read_bytes()
            if len(data) != KNOWN.size:
                raise StateError(
                    f"{len(data)} bytes, {KNOWN.size} expected",
                    where=str(self.folder / FEDERATION),
                    hint="Join with --trust KEY, as hidenseek key shows it",
                )
            key, issued = KNOWN.unpack(data)
            self._federation = KnownFederation(key=key, issued=issued)
        return self._federation

    def trust(self, key: bytes) -> None:
        """Trust the federation with this public key, whatever was known before, or damaged."""
        try:
            known = self.federation()
        except StateError:
            known = None
        if known is None or known.key != key:
            self.save_federation(KnownFederation(key=key, issued=0))

    def save_federation(self, known: KnownFederation) -> None:
        """Trust this federation, and no other."""
        self._replace(FEDERATION, KNOWN.pack(known.key, known.issued))
        self._federation = known

    def bundle_file(self, digest: bytes) -> Path | None:
        """The file of the bundle with this SHA-256 if it was downloaded before; what is in it is not checked here."""
        path = self.folder / bundle_name(digest)
        staged = path.with_suffix(STAGED_SUFFIX)
        if not path.exists() and staged.exists():  # the run that it was fetched for has come
            staged.replace(path)
            self._forget_bundles(newest=path.name)
        return path if path.exists() else None

    def has_bundle(self, digest: bytes) -> bool:
        """Whether the bundle with this SHA-256 is that of a run."""
        return (self.folder / bundle_name(digest)).exists()

    def stage_bundle(self, digest: bytes, data: bytes) -> None:
        """Keep a bundle for a run to come, in the place of any that was kept for one."""
        name = Path(bundle_name(digest)).with_suffix(STAGED_SUFFIX).name
        self._replace(name, data)
        for other in self.folder.glob("*" + STAGED_SUFFIX):
            if other.name != name:
                other.unlink()

    def is_staged(self, digest: bytes) -> bool:
        """Whether the bundle with this SHA-256 is kept for a run to come."""
        return self.staged_file(digest).exists()

    def staged_file(self, digest: bytes) -> Path:
        """Where the bundle with this SHA-256 is, if it is kept for a run to come."""
        return (self.folder / bundle_name(digest)).with_suffix(STAGED_SUFFIX)

    def drop_staged(self) -> None:
        """Keep none for a run to come."""
        for path in self.folder.glob("*" + STAGED_SUFFIX):
            path.unlink()

    def save_bundle(self, digest: bytes, data: bytes) -> None:
        """Keep a bundle and forget the others: a card is small. The personal network's stays, whatever came."""
        self._replace(bundle_name(digest), data)
        self._forget_bundles(newest=bundle_name(digest))

    def load_pending(self) -> MaskUpdate | None:
        """The mask sent, or about to be, that the coordinator has not confirmed."""
        path = self.folder / PENDING
        try:
            message = messages.decode(path.read_bytes())
        except (FileNotFoundError, WireError):
            return None
        return message if isinstance(message, MaskUpdate) else None

    def keep_account(self, password: str) -> None:
        """Keep the password of the device's account, and let go the token that it came by."""
        self._replace(PASSWORD, f"{password}\n".encode())
        (self.folder / TOKEN_FILE).unlink(missing_ok=True)

    def keep_certificate(self, device: str, pem: bytes, check: Callable[[Path], None]) -> None:
        """Keep key and certificate as one file, in the place of any earlier ones; they never come apart.

        Args:
            device: whom they are for.
            pem: both.
            check: whether a file with them is good; raises OSError if not, and the earlier ones stay.
        """
        name = certificate_name(device)
        self._replace(name, pem, check)
        for other in self.folder.glob(certificate_name("*")):
            if other.name != name:  # the device was called otherwise
                other.unlink()

    def save_pending(self, update: MaskUpdate) -> None:
        """Write the mask down before it is first sent."""
        self._replace(PENDING, messages.encode(update))

    def load_confirmed(self) -> tuple[bytes, int] | None:
        """Run and number of the newest round whose mask the coordinator has; None if that is not known."""
        try:
            run, number = ROUND.unpack((self.folder / CONFIRMED).read_bytes())
        except (FileNotFoundError, struct.error):
            return None
        return run, number

    def save_confirmed(self, run: bytes, number: int) -> None:
        """The coordinator has the mask of this round: it need not be trained for again after a restart."""
        self._replace(CONFIRMED, ROUND.pack(run, number))

    def drop_pending(self) -> None:
        """The coordinator has it, or does not want it."""
        (self.folder / PENDING).unlink(missing_ok=True)

    def load_exchange(self) -> bytes | None:
        """How far secure aggregation of the pending mask has come (`edge_client.secure`); not checked here."""
        path = self.folder / EXCHANGE
        return path.read_bytes() if path.exists() else None

    def save_exchange(self, data: bytes) -> None:
        """Write down what was accepted before it is answered."""
        self._replace(EXCHANGE, data)

    def save_personal(self, learned: bytes) -> None:
        """Keep what the device has learned (`wire.personal`), in the place of what it had learned before."""
        self._replace(PERSONAL, learned)
        self._forget_bundles()

    def close(self) -> None:
        """Let another process use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _replace(self, name: str, data: bytes, check: Callable[[Path], None] = lambda path: None) -> None:
        """Write a file so that after a power cut it holds either the old or the new bytes.

        Raises:
            StateError: if it cannot be written; then it holds the old bytes.
        """
        try:
            files.replace(self.folder / name, data, check)
        except OSError as error:
            why = f"cannot be written ({error.strerror})"
            hint = "Make room there, then start again: nothing that the coordinator confirmed is lost"
            raise StateError(why, where=str(self.folder / name), hint=hint) from error

    def _forget_bundles(self, newest: str | None = None) -> None:
        """Remove all bundles but the newest, if one just came, and one that the personal network needs."""
        files = sorted(self.folder.glob("*" + BUNDLE_SUFFIX), key=lambda file: file.name != newest)
        if len(files) < 2:
            return
        needed = self._personal_ticket()
        for file in files:
            # A bundle holds its ticket's bytes, and those end with their SHA-256: no need to decode any.
            has_it = needed is not None and needed in file.read_bytes()
            if file.name != newest and not has_it:
                file.unlink(missing_ok=True)
            if has_it:
                needed = None  # one is enough

    def _personal_ticket(self) -> bytes | None:
        try:
            return personal.ticket_of((self.folder / PERSONAL).read_bytes())
        except (FileNotFoundError, WireError):
            return None
