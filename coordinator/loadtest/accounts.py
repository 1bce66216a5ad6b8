"""Accounts of a broker, as `hidenseek broker init` and `hidenseek serve --listen` write them down."""

from __future__ import annotations

import json
import re
from pathlib import Path

from coordinator.brokers.access import COORDINATOR
from coordinator.brokers.deployment import CHECKERS
from wire.errors import ConfigError

NO_DEVICE = re.compile(r"worker-\d+|site-.*")


def read_accounts(path: Path) -> dict[str, str]:
    """Passwords of the devices, by id; those of others are left out.

    Raises:
        ConfigError: if it is no such file, or names no device.
    """
    hint = 'It holds {"DEVICE": "PASSWORD", ...}'
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"no accounts can be read ({error})", where=str(path), hint=hint) from error
    if not isinstance(found, dict) or not all(isinstance(password, str) for password in found.values()):
        raise ConfigError("not an object of passwords by device", where=str(path), hint=hint)
    others = {COORDINATOR, *CHECKERS}
    devices = {name: found[name] for name in found if name not in others and not NO_DEVICE.fullmatch(name)}
    if not devices:
        raise ConfigError("names no device", where=str(path), hint=hint)
    return devices
