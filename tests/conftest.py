"""What holds for every test."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background of a shell; programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A federation key for the tests, also those in other processes, so that nobody's own is used or made."""
    before = os.environ.get("HIDENSEEK_KEY")
    os.environ["HIDENSEEK_KEY"] = str(tmp_path_factory.mktemp("key") / "federation.key")
    yield
    os.environ.pop("HIDENSEEK_KEY")
    if before is not None:
        os.environ["HIDENSEEK_KEY"] = before
