"""What `hidenseek flash` wrote on this device's card for it, as options of `hidenseek-edge join`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from edge_client.store import PASSWORD, certificate_name
from wire.claim import TOKEN_FILE
from wire.errors import ConfigError, StateError

STATE_VARIABLE = "STATE_DIRECTORY"  # set by systemd
TEXTS = ("device", "federation", "broker", "data")
MAYBE = ("ca", "trust", "profile", "certificates")
AGAIN_HINT = "Write its card again: hidenseek flash"


def state_folder() -> Path:
    """Where the service keeps what must not be lost: what systemd says, or what it would say."""
    return Path(os.environ.get(STATE_VARIABLE, "/var/lib/hidenseek").partition(":")[0])


def token_of(state: Path) -> str | None:
    """The card's token, if this device has not used it yet.

    Raises:
        StateError: if it cannot be read.
    """
    path = state / TOKEN_FILE
    try:
        return path.read_text().strip() if path.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"cannot be read ({error})", where=str(path), hint=AGAIN_HINT) from error


def password_of(state: Path) -> str:
    """The password that the device has got for its card's token.

    Raises:
        StateError: if it cannot be read.
    """
    path = state / PASSWORD
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StateError(f"cannot be read ({error})", where=str(path), hint=AGAIN_HINT) from error


def read(path: Path) -> dict[str, str | float]:
    """The card's settings.

    Raises:
        ConfigError: if the file is missing, damaged, or lacks something.
    """
    hint = AGAIN_HINT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path), hint=hint) from error
    if not isinstance(found, dict):
        raise ConfigError("no settings of a card", where=str(path), hint=hint)
    for name in (*TEXTS, *MAYBE):
        value = found.get(name, "")
        if not isinstance(value, str) or (name in TEXTS and not value):
            raise ConfigError(f"{name}: {value!r:.60} found, text expected", where=str(path), hint=hint)
    threads = found.get("threads", 1)
    if type(threads) is not int or threads < 1:
        raise ConfigError(f"threads: {threads!r:.60} found, 1 or more expected", where=str(path), hint=hint)
    peak_mb = found.get("peak_mb", 0)
    if type(peak_mb) not in (int, float) or not peak_mb >= 0:
        raise ConfigError(f"peak_mb: {peak_mb!r:.60} found, 0 or more expected", where=str(path), hint=hint)
    return {name: found.get(name, "") for name in (*TEXTS, *MAYBE)} | {"threads": threads, "peak_mb": peak_mb}


def join_options(card: dict[str, str | float], state: Path) -> list[str]:
    """The same as options of `join`, with the certificate or the password that the device has got, if it has one."""
    options = ["join", "--state", str(state)]
    card = dict(card)
    if is_certified(card, state):
        options += ["--cert", str(state / certificate_name(str(card["device"])))]
        card["broker"] = card["certificates"]
    elif (state / PASSWORD).exists():
        options += ["--password-file", str(state / PASSWORD)]
        card["broker"] = with_user(str(card["broker"]), str(card["device"]))
    for name in ("device", "federation", "broker", "data", "ca", "trust", "profile", "threads", "peak_mb"):
        if card.get(name):
            options += [f"--{name.replace('_', '-')}", str(card[name])]
    return [*options, "--discover"] if may_discover(card) else options


def is_certified(card: dict[str, str | float], state: Path) -> bool:
    """Whether the device shows its broker a certificate: it has got one for its card's token, under whatever name."""
    return bool(card.get("certificates")) and any(state.glob(certificate_name("*")))


def may_discover(card: dict[str, str | float]) -> bool:
    """Whether the broker's certificate tells it from whoever says to be it."""
    return str(card["broker"]).startswith("mqtts://") and bool(card["ca"])


def with_user(addresses: str, user: str) -> str:
    """Brokers' addresses, with commas, of one account."""
    parts = (one.strip().partition("://") for one in addresses.split(","))
    return ",".join(f"{scheme}://{user}@{rest.rpartition('@')[2]}" for scheme, _, rest in parts)
