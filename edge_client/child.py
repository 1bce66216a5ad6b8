"""The process that works for a client: starting it, asking it, seeing that it lives; and what it does itself.

It is forked from the client, so what both have is there once, and is asked over a pair of sockets, one thing at a time.
"""

from __future__ import annotations

import gc
import logging
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from wire.errors import HidenseekError, StateError, WireError

if TYPE_CHECKING:
    from edge_client.workshop import Workshop

log = logging.getLogger("hidenseek.edge")
HUNG_S = 300.0  # a step, an answer; no board that can train at all needs as long
END_S = 2.0  # to finish a step; nothing is lost if it does not
LENGTH = struct.Struct("<Q")
DONE, FAILED, TRAINED = "done", "failed", "trained"  # what it says


@dataclass
class Child:
    """The other process, as this one sees it."""

    pid: int
    pipe: socket.socket
    signs: mmap.mmap  # of life: a number that goes up with every step
    dead: bool = False
    _seen: bytes = b""
    _seen_s: float = field(default_factory=time.monotonic)

    @classmethod
    def fork(cls, make: Callable[[], Workshop]) -> Child:
        """Start it. A thread that connects to the broker may run meanwhile; the child has it not, nor its sockets."""
        mine, theirs = socket.socketpair()
        signs = mmap.mmap(-1, 8)
        gc.collect()
        gc.freeze()  # else looking for garbage, in either of them, would copy all that is shared
        pid = os.fork()
        if pid == 0:
            _live(make, theirs, signs)
        theirs.close()
        return cls(pid, mine, signs)

    def ask(self, what: str, *arguments: object) -> None:
        """Send a request."""
        self._seen_s = time.monotonic()
        try:
            _send(self.pipe, what, arguments)
        except OSError:
            self._gone()

    def has_spoken(self, timeout_s: float) -> bool:
        """Whether there is something to hear; waits for it so long."""
        return bool(select.select([self.pipe], [], [], timeout_s)[0])

    def hear(self) -> tuple[str, Any]:
        """What it has said.

        Raises:
            StateError: if it has ended.
        """
        try:
            return _receive(self.pipe)
        except (OSError, EOFError):
            self._gone()

    def check(self) -> None:
        """See that it lives.

        Raises:
            StateError: if it has shown no sign of life for too long.
        """
        now_s, sign = time.monotonic(), self.signs[:]
        if sign != self._seen:
            self._seen, self._seen_s = sign, now_s
        if now_s - self._seen_s > HUNG_S:
            self._kill()
            raise StateError(f"training has hung for {HUNG_S:.0f} s", hint="It can be started again")

    def end(self) -> None:
        """Have it end, and wait for that; not for ever."""
        if self.dead:
            return
        gc.unfreeze()
        self.pipe.close()
        deadline_s = time.monotonic() + END_S
        while time.monotonic() < deadline_s:
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                return
            time.sleep(0.01)
        self._kill()

    def _kill(self) -> None:
        self.dead = True
        self.pipe.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _gone(self) -> NoReturn:
        self.dead = True
        self.pipe.close()
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        raise StateError(
            f"the process that trains ended with exit code {code}",
            hint="With -9 the system had too little memory for it",
        )


def _live(make: Callable[[], Workshop], pipe: socket.socket, signs: mmap.mmap) -> NoReturn:
    """What the other process does, to its end."""
    code = 1
    try:
        # It ends with its client, who has that told by the end of the pipe and closes its connection by itself.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(3, pipe.fileno())
        os.closerange(pipe.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        _work(make(), pipe, signs)
        code = 0
    except (BrokenPipeError, ConnectionResetError):
        code = 0  # nobody is there any more
    except BaseException:
        log.exception("the process that trains has failed")
    finally:
        os._exit(code)


def _work(workshop: Workshop, pipe: socket.socket, signs: mmap.mmap) -> None:
    """Answer, and train meanwhile, until nobody asks any more."""
    steps = 0
    while True:
        if workshop.training and not select.select([pipe], [], [], 0)[0]:
            steps += 1
            signs[:] = steps.to_bytes(8, "little")
            try:
                finished: object = workshop.step()
            except (HidenseekError, MemoryError) as error:
                workshop.stop()
                finished = _sendable(error)
            if finished is not None:
                _send(pipe, TRAINED, finished)
            continue
        try:
            what, arguments = _receive(pipe)
        except EOFError:
            return
        try:
            _send(pipe, DONE, _answer(workshop, what, arguments))
        except (HidenseekError, MemoryError) as error:
            _send(pipe, FAILED, _sendable(error))


def _send(pipe: socket.socket, what: str, value: object) -> None:
    data = pickle.dumps((what, value))
    pipe.sendall(LENGTH.pack(len(data)) + data)


def _receive(pipe: socket.socket) -> tuple[str, Any]:
    """No more than one of what was sent: whether more is there, only the socket is asked.

    Raises:
        EOFError: if nothing more comes.
    """
    (length,) = LENGTH.unpack(_exactly(pipe, LENGTH.size))
    said: tuple[str, Any] = pickle.loads(_exactly(pipe, length))  # noqa: S301, TID251  # our own process's
    return said


def _exactly(pipe: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = pipe.recv(length - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def _sendable(error: HidenseekError | MemoryError) -> BaseException:
    """As it can be pickled: those below `WireError` are made of what pickle does not know."""
    return WireError(error.what) if isinstance(error, WireError) else error


def _answer(workshop: Workshop, what: str, arguments: tuple[Any, ...]) -> object:
    if what == "votes":
        return workshop.votes
    if what == "keep_votes":
        (workshop.votes,) = arguments
        return None
    return getattr(workshop, what)(*arguments)
