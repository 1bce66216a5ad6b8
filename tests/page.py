"""A live page as tests see it: a made-up fleet on a real port, and somebody who asks it over HTTP."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from benchmarks.report import RUN, fill
from coordinator.cli import main
from coordinator.monitoring.figures import Figures
from coordinator.page.options import NO_EXTENT, PageExtent, PageSettings
from coordinator.page.server import PageServer, bound
from coordinator.page.snapshot import Source
from coordinator.place import Place
from coordinator.rounds import Schedule
from coordinator.store import Store

PROFILES = ("pi-4", "pi-zero-2w", "pi-5", "phone")


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    text: str


@dataclass
class Visitor:
    """Asks a page, and keeps its cookie as a browser does.

    Args:
        server: whose page.
        bearer: a token to send with every request.
    """

    server: PageServer
    bearer: str | None = None
    cookie: str | None = None

    def get(self, path: str, **headers: str) -> Answer:
        """GET."""
        return self._ask("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        """POST a form."""
        return self._ask("POST", path, urlencode(fields), headers)

    def log_in(self) -> Visitor:
        """With the right token."""
        assert self.post("/login", {"token": self.server.token}).status == 303
        assert self.cookie is not None
        return self

    def form_key(self) -> str:
        """What the forms of our pages carry for this visitor."""
        keys = set(re.findall(r'name="form_key" value="(\w+)"', self.get("/").text))
        assert len(keys) == 1
        return keys.pop()

    def connect(self) -> http.client.HTTPConnection:
        """A connection of its own; to a page over HTTPS, whoever has signed its certificate."""
        where = urlsplit(self.server.url)
        assert where.hostname is not None
        if where.scheme == "https":
            context = ssl._create_unverified_context()
            return http.client.HTTPSConnection(where.hostname, where.port, timeout=10, context=context)
        return http.client.HTTPConnection(where.hostname, where.port, timeout=10)

    def headers(self) -> dict[str, str]:
        """Sent with every request."""
        found = {"Accept": "text/html"}
        if self.bearer is not None:
            found["Authorization"] = f"Bearer {self.bearer}"
        if self.cookie is not None:
            found["Cookie"] = self.cookie
        return found

    def _ask(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        connection = self.connect()
        connection.request(method, path, body, self.headers() | headers)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        if said := answer.headers["set-cookie"]:
            self.cookie = said.split(";")[0]
        return Answer(answer.status, answer.headers, text)


@contextmanager
def listening(visitor: Visitor) -> Iterator[Iterator[tuple[str, Any]]]:
    """Server-sent events as they come: kind and data."""
    connection = visitor.connect()
    connection.request("GET", "/events", headers=visitor.headers())
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")

    def events() -> Iterator[tuple[str, Any]]:
        kind = ""
        while line := answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(":")
            if name == "event":
                kind = value.strip()
            elif name == "data":
                yield kind, json.loads(value) if value.strip() else None

    yield events()
    answer.close()
    connection.close()


@dataclass
class Made:
    """A made-up fleet with its page.

    Args:
        folder: of its database and token.
        devices, rounds: how many.
        ahead: rounds that are still to come.
        place: of its database, if it is not in the folder.
    """

    folder: Path
    devices: int = 6
    rounds: int = 3
    ahead: int = 5
    deploy: Path | None = None
    extent: PageExtent = NO_EXTENT
    place: Place | None = None
    store: Store = field(init=False)
    figures: Figures = field(default_factory=Figures)
    source: Source = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.place or self.folder / "coordinator.db")
        schedule = Schedule(rounds=self.rounds + self.ahead, per_round=2, quorum=1, deadline_s=60, start_devices=1)
        settings = {"schedule": asdict(schedule), "asynchrony": None, "memory": 0.0, "defend": True}
        fill(self.store, self.devices, self.rounds, PROFILES, settings=json.dumps(settings), finished=False)
        self.figures.recall(self.store, RUN)
        self.figures.broker(True)
        for number, device in enumerate(self.figures.devices.values()):
            device.online = number % 7 != 3
            self.figures.online += device.online
        self.figures.announced(self.rounds + 1, tuple(list(self.figures.devices)[:2]))
        self.source = Source(
            name="made-up",
            run=RUN,
            database=self.store.place,
            schedule=schedule,
            asynchronous=False,
            figures=self.figures,
            deploy=self.deploy,
            extent=self.extent,
        )

    @contextmanager
    def shown(self, **settings: Any) -> Iterator[PageServer]:
        """Its page, on a free port."""
        wanted = {"host": "127.0.0.1", "port": 0, "token_file": self.folder / "page.token", "deploy": self.deploy}
        with bound(PageSettings(**(wanted | settings))) as server:
            server.show(self.source)
            yield server
        self.store.close()


def deployment(folder: Path, *devices: str, kind: str = "mosquitto") -> Path:
    """What `hidenseek broker init` writes for the made-up federation with these devices; the folder."""
    listed = folder / "devices.yaml"
    listed.write_text(f"federation: {{name: made-up}}\ndevices: {{{', '.join(f'{name}: {{}}' for name in devices)}}}\n")
    options = ["--kind", kind, "--hosts", "127.0.0.1", "-o", str(folder / "deploy"), "--devices", str(listed)]
    assert main(["broker", "init", *options]) == 0
    return folder / "deploy"


def until(events: Iterator[tuple[str, Any]], device: str, within_s: float = 10.0) -> Any:
    """The row of a device in the first event that speaks of it."""
    end_s = time.monotonic() + within_s
    for kind, data in events:
        if kind == "fleet" and device in data["devices"]:
            return data["devices"][device]
        assert time.monotonic() < end_s, f"nobody speaks of {device}"
    raise AssertionError("the events have ended")
