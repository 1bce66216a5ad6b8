"""What a person does on the page: the same as with `hidenseek fleet`, in the database or at the broker."""

from __future__ import annotations

import time
from dataclasses import dataclass

from coordinator import orders
from coordinator.brokers import deployment as deployments
from coordinator.brokers import enroller, shut_out
from coordinator.fleet_actions import BROKER_TOO, TO_DEVICES, TO_RUNS
from coordinator.page.snapshot import Source
from wire.errors import ConfigError
from wire.topics import check_name

APPROVE = "approve"
STOP = "stop"  # the run
NAMES = frozenset({*TO_DEVICES, APPROVE})  # of what may be done to a device


@dataclass(frozen=True)
class Actions:
    """Carries out what was asked for.

    Args:
        source: where the run is kept.
    """

    source: Source

    def to_device(self, action: str, device: str) -> str:
        """Do something to a device; what to say of it.

        Raises:
            ConfigError: if the device cannot be called so, or has no card to approve.
            StateError: if it cannot be written.
        """
        check_name(device, "device id")
        if action == APPROVE:
            return self._approve(device)
        with self.source.writing() as store:
            said = f"{device} {TO_DEVICES[action].carry_out(store, device)}"
        if action not in BROKER_TOO:
            return said
        more = shut_out.follow(self.source.deploy, None, device, time.time(), out=BROKER_TOO[action])
        return f"{said}; {more}" if more else said

    def to_run(self, action: str) -> str:
        """Do something to the run; what to say of it. Raises StateError if it cannot be written."""
        with self.source.writing() as store:
            if action == STOP:
                return orders.stop(store)
            return TO_RUNS[action].carry_out(store)

    def _approve(self, device: str) -> str:
        folder = self.source.deploy
        if folder is None:
            raise ConfigError("no broker's folder is known here", hint="Start hidenseek serve with --deploy DIR")
        bound = enroller.approve(folder, deployments.load(folder), device, time.time())
        said = f"the card of {device} may claim its account once more"
        return f"{said}; who had it is out" if bound else said
