"""What every chaos test needs: a seed that is told, a machine that can do it, and an end in order."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator

import pytest

from tests.chaos import network

SEED = "HIDENSEEK_CHAOS_SEED"


@pytest.fixture(scope="session")
def seed() -> int:
    """Of everything drawn: that of the environment, or a new one."""
    return int(os.environ.get(SEED) or random.SystemRandom().randrange(1 << 32))


@pytest.fixture(scope="session", autouse=True)
def able() -> None:
    """Say what this machine lacks."""
    lacks = network.missing()
    if lacks is None:
        tools = {"ip": "iproute2", "gcc": "gcc", "mosquitto": "mosquitto"}
        found = {tool: shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") for tool in tools}
        lacks = ", ".join(f"apt-get install {tools[tool]}" for tool, path in found.items() if path is None) or None
    if lacks is not None:
        pytest.fail(f"the chaos tests cannot run here: {lacks}")


@pytest.fixture(scope="session", autouse=True)
def end_in_order() -> Iterator[None]:
    """SIGTERM ends a test as Ctrl-C does, so that its processes and namespaces go with it."""

    def stop(*_: object) -> None:
        pytest.exit("ended by SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)
