"""The page on a port of this machine: in a thread of its own, from which the rounds notice nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import uvicorn

from coordinator.brokers.deployment import bracketed, is_loopback
from coordinator.monitoring.figures import Figures
from coordinator.page.app import Page
from coordinator.page.login import Login, read_token
from coordinator.page.options import CERTIFICATE, NO_EXTENT, PageExtent, PageSettings
from coordinator.page.snapshot import Source
from coordinator.server import Coordinator
from wire import signing
from wire.errors import ConfigError
from wire.https import server_context

START_S = 10.0
END_S = 2


@dataclass
class PageServer:
    """A port that is taken at once, and served when there is something to show.

    Args:
        settings: where.

    Attributes:
        token: what lets in.
        url: of the page.

    Raises:
        ConfigError: if the port cannot be had, or the certificate or the token cannot be read.
        StateError: if the token cannot be written.
    """

    settings: PageSettings
    token: str = field(init=False, repr=False)
    url: str = field(init=False)
    _socket: socket.socket = field(init=False)
    _page: Page | None = None  # from when there is something to show
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        settings = self.settings
        server_context(settings.certificate, settings.certificate_key, options=CERTIFICATE)
        self.token = read_token(settings.token_file)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        try:
            self._socket = socket.create_server((settings.host, settings.port), family=family)
        except OSError as error:
            raise ConfigError(
                f"{settings.host}:{settings.port} cannot be listened on ({error.strerror or error})",
                where="--page",
                hint="Name another address: --page 127.0.0.1:8471",
            ) from error
        scheme = "https" if settings.certificate else "http"
        host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host  # noqa: S104  # every address: name one
        self.url = f"{scheme}://{bracketed(host)}:{self._socket.getsockname()[1]}/"

    @property
    def login_url(self) -> str:
        """The page's address with what lets in, behind a #: no server is sent it, and none writes it into a log."""
        return f"{self.url}login#{self.token}"

    @property
    def warning(self) -> str:
        """What is wrong with showing it there; empty if nothing is."""
        if self.settings.certificate is not None or is_loopback(self.settings.host):
            return ""
        return "the page is not encrypted: whoever is on its network can read its token; give it a --page-cert FILE"

    def close(self) -> None:
        """Tell browsers how it stands now, show nothing any more, and give the port back."""
        if self._page and self._server and self._thread:
            self._page.feed.end(END_S)
            self._server.should_exit = True
            self._thread.join(END_S + 5)
        self._socket.close()

    def show_run(self, coordinator: Coordinator, figures: Figures, extent: PageExtent = NO_EXTENT) -> None:
        """Show a run from now on, also when it is over, until there is another.

        Args:
            coordinator: whose run; nothing of it is touched from here but its database.
            figures: that its observer keeps.
            extent: what can be done.
        """
        source = Source(
            name=coordinator.name,
            run=coordinator.run,
            database=coordinator.store.place,
            schedule=coordinator.schedule,
            asynchronous=coordinator.asynchrony is not None,
            figures=figures,
            deploy=self.settings.deploy,
            allowed=coordinator.fleet.allowed,
            key=signing.public_key(coordinator.channel.key),
            extent=extent,
        )
        self.show(source)

    def show(self, source: Source) -> None:
        """As `show_run`, of any source."""
        if self._page:
            self._page.show(source)
            return
        self._page = Page(source, Login(self.token), secure=self.settings.certificate is not None)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._page.app(),
                log_config=None,
                access_log=False,
                server_header=False,
                ssl_certfile=self.settings.certificate,
                ssl_keyfile=self.settings.certificate_key,
                timeout_graceful_shutdown=END_S,
                limit_concurrency=500,
                ws="none",
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="page", daemon=True)
        self._thread.start()
        deadline_s = time.monotonic() + START_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline_s:
            time.sleep(0.01)

    def complain(self, problem: str) -> None:
        """Say what is wrong with the run that was to be started; nothing with an empty text."""
        if self._page:
            self._page.source.problem = problem


@contextmanager
def bound(settings: PageSettings) -> Iterator[PageServer]:
    """The port, held for as long as this is open.

    Raises:
        ConfigError, StateError: as `PageServer`.
    """
    with closing(PageServer(settings)) as server:
        yield server
