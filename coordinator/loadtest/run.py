"""A load test from beginning to end: processes full of devices, and what they tell."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from coordinator import apart
from coordinator.loadtest.result import Result
from coordinator.loadtest.tally import Tally, merged
from coordinator.loadtest.usage import Watched
from coordinator.loadtest.view import View
from coordinator.loadtest.worker import Share, work
from wire.broker import Broker
from wire.errors import BrokerRefused, BrokerUnreachable, RoundFailed
from wire.transport import monotonic_s

LOOK_S = 0.25
LEAVE_S = 180.0  # for all devices to say goodbye


@dataclass
class _Process:
    """One process of devices, as its parent sees it."""

    process: BaseProcess
    pipe: Connection
    tally: Tally
    ended: bool = False


def reach(broker: Broker, timeout_s: float) -> None:
    """Find out whether anybody listens there, before processes are started.

    Raises:
        BrokerUnreachable: if nobody does.
    """
    host, port = broker.nodes[0]
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError as error:
        raise BrokerUnreachable(
            f"no broker at {broker}: {error.strerror or error}",
            hint="Start it, or let hidenseek loadtest --self mosquitto start one here",
        ) from error


def share_out(share: Share, names: tuple[str, ...], processes: int) -> list[Share]:
    """What every process is to do, of what all are to do together."""
    size = -(-len(names) // processes)
    parts = [names[at : at + size] for at in range(0, len(names), size)]
    return [
        replace(
            share,
            names=part,
            first=index * size,
            per_s=share.per_s / len(parts),
            passwords={name: share.passwords[name] for name in part if name in share.passwords},
        )
        for index, part in enumerate(parts)
    ]


def run(
    shares: list[Share],
    result: Result,
    view: View,
    *,
    for_s: float | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Run all devices until the federation's run is over, or for a time; `result` grows meanwhile.

    Args:
        shares: of the processes.
        result: what is filled in.
        view: told when it has changed.
        for_s: seconds from when all are connected; None: until the run is over.
        check: called a few times a second; may raise to end the test.

    Raises:
        BrokerRefused: if the broker lets no device in.
        RoundFailed: if a process gives up.
    """
    began_s = monotonic_s()
    looked_s = 0.0
    with _processes(shares, result) as crew:
        try:
            while True:
                _listen(crew)
                now_s = monotonic_s()
                result.tally, result.seconds = merged([one.tally for one in crew]), now_s - began_s
                check()
                _judge(crew, result)
                if now_s - looked_s >= 1:
                    looked_s = now_s
                    result.idle.look(result.tally, now_s)
                    for one in result.watched:
                        one.look()
                view.phase = _phase(result)
                view.look()
                if _over(result, for_s):
                    break
        except KeyboardInterrupt:
            result.interrupted = True
        _leave(crew, result, view)


def _judge(crew: list[_Process], result: Result) -> None:
    tally = result.tally
    if tally.fault:
        raise RoundFailed(tally.fault)
    for one in crew:
        if one.ended:
            raise RoundFailed(f"a process of devices has ended with exit code {one.process.exitcode}")
    if tally.counts["refused by the broker"] and not tally.connected and not tally.welcomed:
        raise BrokerRefused(
            tally.remarks[0],
            hint="Check user and password: mqtt://USER@HOST with HIDENSEEK_PASSWORD set, or --accounts FILE",
        )
    if result.connected_s is None and tally.connected == tally.devices > 0:
        result.connected_s = result.seconds
    if result.welcomed_s is None and tally.welcomed == tally.devices > 0:
        result.welcomed_s = result.seconds


def _phase(result: Result) -> str:
    tally = result.tally
    if result.connected_s is None:
        return "connecting"
    if not tally.federation:
        return "waiting for a federation to be announced"
    if not tally.rounds:
        return "waiting for the first round"
    return f"round {min(max(tally.rounds), tally.federation[2])} of {tally.federation[2]}"


def _over(result: Result, for_s: float | None) -> bool:
    tally = result.tally
    if tally.devices and tally.done == tally.devices:
        return True
    return for_s is not None and result.connected_s is not None and result.seconds - result.connected_s >= for_s


def _listen(crew: list[_Process]) -> None:
    """Take what the processes have told, waiting a moment for it."""
    pipes = {one.pipe: one for one in crew if not one.ended}
    for pipe in wait(list(pipes), LOOK_S):
        assert isinstance(pipe, Connection)
        one = pipes[pipe]
        try:
            told: Tally = pipe.recv()
            one.tally = replace(one.tally, counts=told.counts, fault=told.fault) if told.leaving else told
        except (EOFError, OSError):
            one.ended = True
            one.process.join(5)


def _leave(crew: list[_Process], result: Result, view: View) -> None:
    """Tell all to say goodbye, and wait until they have; a second Ctrl-C ends them at once."""
    view.phase = "leaving"
    for one in crew:
        with suppress(OSError):
            one.pipe.send(None)
    deadline_s = monotonic_s() + LEAVE_S
    while not all(one.ended for one in crew) and monotonic_s() < deadline_s:
        _listen(crew)
        view.look()
    result.tally = merged([one.tally for one in crew])


@contextmanager
def _processes(shares: list[Share], result: Result) -> Iterator[list[_Process]]:
    context = multiprocessing.get_context("spawn")
    crew: list[_Process] = []
    try:
        for share in shares:
            mine, theirs = context.Pipe()
            process = context.Process(target=work, args=(share, theirs), daemon=True)
            apart.start(process)
            theirs.close()
            assert process.pid is not None
            tally = Tally(devices=len(share.names))
            crew.append(_Process(process=process, pipe=mine, tally=tally))
            result.watched.append(Watched(f"devices {len(crew)}", process.pid))
        yield crew
    finally:
        for one in crew:
            one.pipe.close()
            one.process.join(1)
            if one.process.is_alive():
                one.process.terminate()
                one.process.join(5)
