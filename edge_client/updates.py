"""An update of the client, from its announcement to a wheel that is installed."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable

from edge_client.fetching import Download, Fetcher
from edge_client.releases import WORK_WITHIN_S, Releases
from wire import __version__
from wire import update as rules
from wire.channel import Channel
from wire.errors import StateError, WireError
from wire.topics import DEVICE_QOS, Topics
from wire.transport import monotonic_s
from wire.update import FilePart, Update

log = logging.getLogger("hidenseek.edge")
SUFFIX = ".wheel"


class Updater:
    """Follows what the federation says of the client.

    Args:
        device: this device's id.
        releases: its clients.
        channel: a connected channel.
        topics: the federation's.
        machine: what this is, as `uname -m` calls it.

    Attributes:
        restart: this process is to start from the beginning as soon as nothing is lost by that.
    """

    def __init__(
        self, device: str, releases: Releases, channel: Channel, topics: Topics, machine: str = platform.machine()
    ) -> None:
        self._device, self._releases, self._channel, self._topics = device, releases, channel, topics
        self._machine, self._began_s = machine, monotonic_s()
        self._fetcher = Fetcher(releases.folder, SUFFIX, channel, topics)
        self._version = ""  # of what is fetched
        self.restart = False

    def subscribe(self) -> None:
        """Ask for what is announced, with every connection anew."""
        self._channel.subscribe(self._topics.update, qos=DEVICE_QOS)
        self._fetcher.connected()

    def hear(self, said: Update | FilePart) -> None:
        """An announcement, or a part of a file, from the federation.

        Raises:
            WireError: if it makes no sense.
        """
        if isinstance(said, Update):
            self._announced(said)
        else:
            self._go_on(lambda: self._fetcher.hear(said))

    @property
    def note(self) -> str:
        """What a hello says of it: that it is on trial, or which version has failed here; or ""."""
        return self._releases.note

    @property
    def on_trial(self) -> bool:
        """Whether this process is a new client that has yet to show that it works."""
        return self._releases.on_trial and not self.restart

    def keep(self) -> None:
        """The client on trial works: it stays."""
        self._releases.confirm()

    def take_back(self, why: str) -> None:
        """The client on trial does not work: what was before it is started instead."""
        self._releases.roll_back(why)
        self.restart = True

    def tick(self) -> None:
        """Ask for the next part; and take back a client on trial that has not shown in time that it works."""
        if self.on_trial and monotonic_s() - self._began_s > WORK_WITHIN_S:
            self.take_back(f"it has not joined and trained within {WORK_WITHIN_S / 60:.0f} minutes")
        self._go_on(self._fetcher.tick)

    def _announced(self, update: Update) -> None:
        record = self._releases.record
        if update.issued < record.issued:
            raise WireError("an update that is older than the last one")
        wanted = rules.is_wanted(update, __version__) and rules.is_meant(update, self._device)
        digest = update.wheels.get(self._machine)
        if digest is None or not wanted or self._releases.on_trial or self.restart:
            self._releases.note_issued(update.issued)
            self._fetcher.stop()
            return
        size, url = rules.size_of(update, self._machine), rules.url_of(update, self._machine)
        self._releases.note_issued(update.issued)
        if self._releases.has_failed(digest):
            log.info("client %s has failed here within the last day; not tried again yet", update.version)
        else:
            self._version = update.version
            self._fetcher.want(f"client {update.version}", digest, size, url)

    def _go_on(self, step: Callable[[], Download | None]) -> None:
        """Fetch, and check and put in use what is complete."""
        try:
            download = step()
            if download is not None:
                self._install(download)
        except StateError as error:
            log.warning("update to %s given up: %s", self._version, error)

    def _install(self, download: Download) -> None:
        """Check a wheel and put it in use.

        Raises:
            StateError: if it is not what was announced, or does not start here.
        """
        try:
            download.check()
            self._releases.install(download.path, download.digest, self._version)
        finally:
            download.path.unlink(missing_ok=True)
        log.info("client %s is installed; starting it", self._version)
        self.restart = True
