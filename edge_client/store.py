"""What a device must not forget when the power goes: one small folder, every file replaced whole."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from edge_client.runtimes.base import Floats
from wire import messages
from wire.errors import StateError, WireError
from wire.messages import MaskUpdate

PENDING = "pending.mask"
SCORES = "scores.npy"


@dataclass
class Store:
    """A device's state folder.

    It holds bundles by their SHA-256, the mask that has no receipt yet, and the scores the device
    ended its last training with (its personalised network).

    Raises:
        StateError: if the folder cannot be used, or another process uses it.
    """

    folder: Path
    _lock: IO[bytes] | None = None

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

    def load_bundle(self, digest: bytes) -> bytes | None:
        """The bundle with this SHA-256 if it was downloaded before; its bytes are not checked here."""
        path = self.folder / _bundle_name(digest)
        return path.read_bytes() if path.exists() else None

    def save_bundle(self, digest: bytes, data: bytes) -> None:
        """Keep a bundle and forget the others: a card is small."""
        self._replace(_bundle_name(digest), data)
        for old in self.folder.glob("*.hnsb"):
            if old.name != _bundle_name(digest):
                old.unlink(missing_ok=True)

    def load_pending(self) -> MaskUpdate | None:
        """The mask sent, or about to be, that the coordinator has not confirmed."""
        path = self.folder / PENDING
        try:
            message = messages.decode(path.read_bytes())
        except (FileNotFoundError, WireError):
            return None
        return message if isinstance(message, MaskUpdate) else None

    def save_pending(self, update: MaskUpdate) -> None:
        """Write the mask down before it is first sent."""
        self._replace(PENDING, messages.encode(update))

    def drop_pending(self) -> None:
        """The coordinator has it."""
        (self.folder / PENDING).unlink(missing_ok=True)

    def save_scores(self, scores: Floats) -> None:
        """Keep the device's own scores, float32 (kept,)."""
        temporary = self.folder / (SCORES + ".part")
        with temporary.open("wb") as file:
            np.save(file, scores)
        temporary.replace(self.folder / SCORES)

    def close(self) -> None:
        """Let another process use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _replace(self, name: str, data: bytes) -> None:
        """Write a file so that after a power cut it holds either the old or the new bytes."""
        temporary = self.folder / (name + ".part")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / name)


def _bundle_name(digest: bytes) -> str:
    return f"{digest.hex()}.hnsb"
