"""What a service manager is told: that this process is ready, and again and again that it lives.

Source: sd_notify(3), the socket's protocol. Without a manager that asks for it nothing is sent.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"
EVERY_S = 10.0


class Supervisor:
    """The service manager, if there is one."""

    def __init__(self) -> None:
        address = os.environ.get(VARIABLE, "")
        # A leading @ stands for Linux's abstract names.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._said_s = float("-inf")

    def ready(self) -> None:
        """It works now."""
        self._say("READY=1")

    def alive(self) -> None:
        """It has not hung; to be called at any rate. Without it the manager starts the process again."""
        if time.monotonic() - self._said_s >= EVERY_S:
            self._said_s = time.monotonic()
            self._say("WATCHDOG=1")

    def _say(self, message: str) -> None:
        if not self._address:
            return
        # A manager that does not listen is no reason to stop training.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto(message.encode(), self._address)
