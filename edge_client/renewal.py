"""When a device asks for its next certificate: told by a line of the file that has this one (`wire.pkcs10`).

Whether a certificate is good is the broker's to say, by its clock: a board may have none before the network tells it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from wire import pkcs10
from wire.transport import monotonic_s

log = logging.getLogger("hidenseek.edge")
DAY_S = 86400.0
HEAD_BYTES = 100  # hold that line


def is_due(path: Path, now_s: float) -> bool:
    """Whether it is time, and a day has gone by since the last one: a clock that is ahead must not make a loop of it.

    Args:
        path: of the certificate.
        now_s: seconds since 1970.
    """
    try:
        with path.open("rb") as file:
            renew_s = pkcs10.renew_after_s(file.read(HEAD_BYTES))
        got_s = path.stat().st_mtime
    except OSError:
        return False
    return renew_s is not None and now_s >= renew_s and not 0 <= now_s - got_s < DAY_S


def watch(path: Path | None) -> Callable[[], bool]:
    """What tells a device at work to end, so that its service asks for the next certificate when it starts again.

    It looks once a day: where that one was not to be had, the device goes on with this one for so long.

    Args:
        path: of the certificate; None if there is none.
    """
    looked_s, due = monotonic_s(), False

    def leave() -> bool:
        nonlocal looked_s, due
        if path is not None and monotonic_s() - looked_s >= DAY_S:
            looked_s, due = monotonic_s(), is_due(path, time.time())
            if due:
                log.info("it is time for the next certificate: ending, to ask for it when started again")
        return due

    return leave
