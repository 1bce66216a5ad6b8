"""Updates of the client from a web server: ranges over real TLS, gone on with after an interrupt, checked by hash."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from coordinator import client_update, offers
from coordinator.brokers import certificates
from coordinator.client_update import Offer
from edge_client import fetching, releases, web_source
from edge_client.releases import Releases
from tests.unit.test_updates import KEY, TOPICS, WHEEL, updater
from wire.channel import Channel
from wire.errors import ConfigError, FetchError, WireError
from wire.transport import MemoryBus
from wire.update import PART_BYTES, Update, url_of

NAME = "hidenseek-9.0-py3-none-linux_cray.whl"
OFFER = Offer(version="9.0", wheels={"cray": WHEEL}, names={"cray": NAME})


class Server(BaseHTTPRequestHandler):
    """A wheel in ranges; or, if it is told so, as a server that knows none, or with other bytes."""

    asked: ClassVar[list[str]] = []
    ranges: ClassVar[bool] = True
    data: ClassVar[bytes] = WHEEL

    def do_GET(self) -> None:
        """Answer."""
        self.asked.append(self.headers["Range"])
        if self.path != f"/files/{NAME}":
            self.send_error(404)
            return
        first, last = (int(one) for one in self.headers["Range"].removeprefix("bytes=").split("-"))
        data = self.data[first : last + 1] if self.ranges else self.data
        self.send_response(206 if self.ranges else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A web server with a certificate that this process believes; the address of its folder."""
    monkeypatch.setattr(Server, "asked", [])
    certificates.make_authority(folder, "test")
    certificates.issue(folder, ["127.0.0.1"], folder)
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.crt"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}/files/"
        finally:
            server.shutdown()
            thread.join()


def announced(url: str) -> Update:
    """As `fleet update --url` does."""
    return client_update.announcement(OFFER, key=KEY, percent=100, downgrade=False, url=url)


def test_a_wheel_is_fetched_in_parts_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is at the broker; another process asks for what is missing; it is checked before it is used."""
    installed: list[bytes] = []
    monkeypatch.setattr(Releases, "install", lambda self, path, digest, version: installed.append(path.read_bytes()))
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)
    with serving(tmp_path, monkeypatch) as url:
        said = announced(url)
        offers.check_served(OFFER.wheels, said)
        bus = MemoryBus()
        offers.publish(Channel(bus.connect(), KEY), TOPICS, tmp_path, OFFER.wheels, said, lambda done, total: None)
        assert list(bus.retained) == [TOPICS.update]
        Server.asked.clear()
        first = updater(tmp_path)
        first.hear(said)
        first.tick()
        second = updater(tmp_path)
        second.hear(said)
        for _ in range(3):
            second.tick()
    assert installed == [WHEEL]
    assert second.restart
    assert Server.asked == [
        f"bytes={at}-{min(at + PART_BYTES, len(WHEEL)) - 1}" for at in range(0, len(WHEEL), PART_BYTES)
    ]


def test_another_file_is_not_used_and_not_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the server can give what he likes; the hash is the federation's."""
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)
    monkeypatch.setattr(Server, "data", WHEEL[:-1] + bytes([WHEEL[-1] ^ 1]))
    with serving(tmp_path, monkeypatch) as url:
        with pytest.raises(FetchError, match="not the wheel that is offered"):
            offers.check_served(OFFER.wheels, announced(url))
        one = updater(tmp_path)
        one.hear(announced(url))
        for _ in range(3):
            one.tick()
    assert not one.restart
    assert not list((tmp_path / releases.FOLDER).glob("*.wheel"))


def test_a_server_that_fails_is_asked_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without ranges, one without the file, one with another certificate: training goes on meanwhile."""
    with serving(tmp_path, monkeypatch) as url:
        monkeypatch.setattr(Server, "ranges", False)
        with pytest.raises(FetchError, match=r"status 200 .*206 and 65536 expected.*ranges of bytes"):
            web_source.fetch(f"{url}{NAME}", 0, len(WHEEL))
        with pytest.raises(FetchError, match="404"):
            web_source.fetch(f"{url}other", 0, len(WHEEL))
        one = updater(tmp_path)
        one.hear(announced(url))
        for _ in range(5):
            one.tick()
        assert len(Server.asked) == 3
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(FetchError, match=r"(?i)certificate"):
            web_source.fetch(f"{url}{NAME}", 0, len(WHEEL))


def test_only_https_is_announced_and_followed() -> None:
    """And an address for every machine."""
    with pytest.raises(ConfigError, match="https:// expected"):
        announced("http://files.example.org")
    said = announced("https://files.example.org/a")
    assert url_of(said, "cray") == f"https://files.example.org/a/{NAME}"
    for urls in (("http://a",), ("file:///etc/passwd",)):
        with pytest.raises(WireError, match="https:// expected"):
            url_of(replace(said, urls=urls), "cray")
    assert url_of(replace(said, urls=()), "cray") == ""
    assert sha256(WHEEL).digest() == said.wheels["cray"]
