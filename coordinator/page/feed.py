"""What browsers are told as it happens: server-sent events. Whoever is slow gets less often, and nothing waits for it.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from starlette.concurrency import run_in_threadpool

from coordinator.page.snapshot import Row, RunState, Snapshot, Source
from wire.errors import StateError


@dataclass
class Feed:
    """Takes a snapshot a second while anybody listens, and tells each what has changed since it was told last.

    Args:
        source: of the snapshots.
    """

    EVERY_S: ClassVar[float] = 1.0
    ALIVE_S: ClassVar[float] = 5.0  # something is said at least so often
    LISTENERS: ClassVar[int] = 100

    source: Source
    _version: int = 0  # of the newest snapshot
    _run: RunState | None = None
    _rows: dict[str, tuple[int, Row | None]] = field(default_factory=dict)  # since which version each is so; None: gone
    _listeners: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)  # replaced at every snapshot
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _loop: asyncio.AbstractEventLoop | None = None  # while `run` does
    _over: bool = False

    @property
    def full(self) -> bool:
        """Whether nobody more may listen."""
        return self._listeners >= self.LISTENERS

    async def run(self) -> None:
        """Until cancelled."""
        self._loop = asyncio.get_running_loop()
        while True:
            if self._listeners:
                with suppress(StateError):  # the database is being replaced, or its disk is gone: later, maybe
                    await self._look()
            await asyncio.sleep(self.EVERY_S)

    def end(self, within_s: float) -> None:
        """Tell all how it ended, and have their streams end: the server stops. From any other thread."""
        if self._loop is not None and not self._loop.is_closed():
            with suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(within_s)

    async def _end(self) -> None:
        if self._listeners:
            with suppress(StateError):
                await self._look()
        self._over = True
        self._news.set()

    async def events(self) -> AsyncIterator[str]:
        """One listener's events: first all, then what changes."""
        self._listeners += 1
        try:
            await self._look()
            told = -1
            while not self._over or told < self._version:
                if told < self._version:
                    text, told = self._since(told), self._version
                    yield f"event: fleet\ndata: {text}\n\n"
                else:
                    yield "event: alive\ndata:\n\n"
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self.ALIVE_S)
        finally:
            self._listeners -= 1

    async def _look(self) -> None:
        async with self._looking:
            self._take_in(await run_in_threadpool(self.source.take))

    def _take_in(self, found: Snapshot) -> None:
        version = self._version + 1
        for name in self._rows.keys() - found.devices.keys():
            if self._rows[name][1] is not None:
                self._rows[name] = version, None
        for name, row in found.devices.items():
            if name not in self._rows or self._rows[name][1] != row:
                self._rows[name] = version, row
        self._run, self._version = found.run, version
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _since(self, told: int) -> str:
        assert self._run is not None
        changed = {name: row for name, (version, row) in self._rows.items() if version > told}
        return json.dumps({"all": told < 0, "run": asdict(self._run), "devices": changed}, separators=(",", ":"))
