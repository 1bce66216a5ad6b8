"""Resident memory of a booted device's service: of its main process, and of the one that trains, if it is there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

SHOW = """
main=$(systemctl show hidenseek -P MainPID)
for one in $main $(cat /proc/$main/task/*/children); do cat /proc/$one/status /proc/$one/smaps_rollup; done
"""


@dataclass(frozen=True, kw_only=True)
class Resident:
    """1e6 bytes; 0 of what does not run.

    Attributes:
        client: the main process, now.
        trainer: the one that trains, at most.
        both: together at most, pages that they share counted once.
    """

    client: float = 0.0
    trainer: float = 0.0
    both: float = 0.0


def resident(inside: Callable[..., str]) -> Resident:
    """What the kernel says; `inside` runs a command on the device and returns what it prints."""
    shown = inside("sh", "-c", SHOW).split("\nName:")
    found = [
        {name: int(kib) * 1024 / 1e6 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB", one, re.MULTILINE)}
        for one in shown
    ]
    if "VmRSS" not in found[0]:
        return Resident()
    client, trainer = found[0], max((one.get("VmHWM", 0.0) for one in found[1:]), default=0.0)
    own = client.get("Private_Clean", 0.0) + client.get("Private_Dirty", 0.0)
    both = max(client["VmHWM"], trainer + own if trainer else 0.0)
    return Resident(client=round(client["VmRSS"], 1), trainer=round(trainer, 1), both=round(both, 1))
