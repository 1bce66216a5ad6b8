"""The federation's key: made on first use, readable by its owner only, and what others know it by."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from wire import signing
from wire.errors import ConfigError, DataError, StateError

VARIABLE = "HIDENSEEK_KEY"  # names another file


def key_path() -> Path:
    """Where the private key is: $HIDENSEEK_KEY, or in the user's settings."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named)
    from platformdirs import user_config_path

    return user_config_path("hidenseek") / "federation.key"


def federation_key(*, make: bool = True) -> bytes:
    """The private key, 32 bytes; made if there is none.

    Args:
        make: make one; otherwise a missing one is an error.

    Raises:
        StateError: if the file is missing, cannot be read or made, holds no key, or others can read it.
    """
    path = key_path()
    try:
        if make and not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise StateError(
                f"others can read it (mode {path.stat().st_mode & 0o777:o}, 600 expected)",
                where=str(path),
                hint=f"Run: chmod 600 {path}; if somebody may have read it, delete it and distribute a new one",
            )
        return signing.from_text(path.read_text().strip(), where=str(path))
    except OSError as error:
        raise StateError(f"the federation's key cannot be read or made ({error.strerror})", where=str(path)) from error
    except ConfigError as error:
        raise StateError(error.what, where=str(path), hint="Restore it from a backup") from error


def recognise(public: bytes, *, trusted: str | None, where: str) -> str:
    """Who signed something whose signature is right, in words.

    Args:
        public: the signer's key.
        trusted: the only key to accept, as `as_text` writes it; None: any, but say whether it is our own.
        where: what was signed, for messages.

    Raises:
        ConfigError: if `trusted` is no key.
        DataError: if somebody else signed it.
    """
    name = signing.fingerprint(public)
    if trusted is not None:
        if public != signing.from_text(trusted, where="--trust"):
            raise DataError(f"signed by {name}, not by the key to trust", where=where, hint="Ask who exported it")
        return f"signed by {name}, which you trust"
    try:
        own = signing.public_key(federation_key(make=False))
    except StateError:
        own = b""
    return f"signed by {name}, " + ("this federation" if public == own else "which nobody here vouches for (--trust)")


def _make(path: Path) -> None:
    """Write a new key where none is; of two processes that try, both end with the same one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")  # 0600
    draft = Path(name)
    try:
        with os.fdopen(file, "w") as stream:
            stream.write(signing.as_text(signing.new_key()) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        with suppress(FileExistsError):  # one that has come into being since stays
            os.link(draft, path)
    finally:
        draft.unlink()
