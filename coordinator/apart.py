"""Work in a process of its own: what it takes is given back when it is done, and Ctrl-C is its parent's to handle."""

from __future__ import annotations

import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar, cast

from wire.errors import HidenseekError, StateError

T = TypeVar("T")


def start(process: BaseProcess) -> None:
    """Start a child that Ctrl-C does not reach, not even while it still imports; whoever starts it ends it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a child inherits
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, before)


def run(work: Callable[[], T]) -> T:
    """What some work comes to that is done in another process, both of which can be pickled.

    Raises:
        HidenseekError: as the work does.
        StateError: if the process ends without a word, killed for its memory for one.
    """
    context = get_context("spawn")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(work, theirs), daemon=True)
    try:
        start(process)
        theirs.close()
        came = mine.recv()
    except EOFError as error:
        process.join(5)
        raise StateError(
            f"a process that should have made something ended with exit code {process.exitcode}",
            hint="With -9 the system had too little memory for it",
        ) from error
    finally:
        mine.close()
        process.terminate()
        process.join()
    if isinstance(came, HidenseekError):
        raise came
    return cast(T, came)


def _work(work: Callable[[], T], pipe: Connection) -> None:
    try:
        came: object = work()
    except HidenseekError as error:
        came = error
    pipe.send(came)
