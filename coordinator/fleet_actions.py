"""What a person may do to devices and to rounds: the same by `hidenseek fleet` and on the live page.

All of it is a row of the database, which a coordinator at work looks at once a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from coordinator.store import Store


@dataclass(frozen=True, kw_only=True)
class DeviceAction:
    """Something done to a device.

    Attributes:
        text: what it does, for help.
        change: does it; whether anything changed.
        done: said of the device if it did.
        nothing: said if it did not.
    """

    text: str
    change: Callable[[Store, str], bool]
    done: str
    nothing: str


@dataclass(frozen=True, kw_only=True)
class RunAction:
    """Something done to the rounds; as `DeviceAction`."""

    text: str
    change: Callable[[Store], bool]
    done: str
    nothing: str


TO_DEVICES: Mapping[str, DeviceAction] = {
    "revoke": DeviceAction(
        text="a device takes part no more, from the next round on",
        change=Store.revoke,
        done="is revoked",
        nothing="was revoked before",
    ),
    "restore": DeviceAction(
        text="a revoked device may take part again",
        change=Store.restore,
        done="may take part again",
        nothing="was not revoked",
    ),
    "forget": DeviceAction(
        text="forget a device's key: the next one under its id is it",
        change=Store.forget_device,
        done="is forgotten",
        nothing="was never seen",
    ),
}
TO_RUNS: Mapping[str, RunAction] = {
    "pause": RunAction(
        text="no round opens after the one that is open, until resumed",
        change=Store.pause,
        done="paused: no round opens until it is resumed",
        nothing="was paused before",
    ),
    "resume": RunAction(
        text="rounds open again",
        change=Store.resume,
        done="resumed: the next round opens when enough devices are there",
        nothing="was not paused",
    ),
}
