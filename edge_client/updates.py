"""An update of the client, from its announcement to a wheel that is installed: fetched part by part, off and on."""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from edge_client.releases import WORK_WITHIN_S, Releases
from wire import __version__
from wire import update as rules
from wire.channel import Channel
from wire.errors import FetchError, StateError, WireError
from wire.topics import DEVICE_QOS, Topics
from wire.transport import monotonic_s
from wire.update import PART_BYTES, Update, WheelPart

log = logging.getLogger("hidenseek.edge")
PAUSE_S = 0.5  # between parts: 128 kB a second at most, so that a fleet does not take all of a broker's time
ASK_AGAIN_S = 60.0


@dataclass
class Download:
    """A wheel on its way.

    Attributes:
        version: of the client in it.
        digest: SHA-256 of it.
        size: its bytes.
        url: where it lies on the web; "" if at the broker.
        path: what there is of it.
        got: parts in that.
        asked_s: when the next part was asked for; None if it was not.
        due_s: when it may be.
    """

    version: str
    digest: bytes
    size: int
    url: str
    path: Path
    got: int
    asked_s: float | None = None
    due_s: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether all parts are there."""
        return self.got == rules.part_count(self.size)

    def add(self, part: WheelPart) -> bool:
        """Keep a part if it is the next one.

        Raises:
            StateError: if it cannot be written.
        """
        length = min(PART_BYTES, self.size - self.got * PART_BYTES)
        if part.wheel != self.digest or part.number != self.got or len(part.data) != length or self.complete:
            return False
        try:
            with self.path.open("r+b" if self.path.exists() else "xb") as file:
                file.truncate(self.got * PART_BYTES)
                file.seek(0, 2)
                file.write(part.data)
        except OSError as error:
            raise StateError(f"cannot be written ({error.strerror})", where=str(self.path)) from error
        self.got += 1
        return True


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
        self._download: Download | None = None
        self.restart = False

    def subscribe(self) -> None:
        """Ask for what is announced, with every connection anew."""
        self._channel.subscribe(self._topics.update, qos=DEVICE_QOS)
        if self._download is not None:
            self._download.asked_s = None

    def hear(self, said: Update | WheelPart) -> None:
        """An announcement, or a part of a wheel, from the federation.

        Raises:
            WireError: if it makes no sense.
        """
        if isinstance(said, Update):
            self._announced(said)
            return
        download = self._download
        if download is None:
            return
        try:
            if download.add(said):
                download.asked_s, download.due_s = None, monotonic_s() + PAUSE_S
            if download.complete:
                self._download = None
                self._install(download)
        except StateError as error:
            self._download = None
            log.warning("update to %s given up: %s", download.version, error)

    @property
    def software(self) -> str:
        """How this client is called in a hello; says if it is on trial, or which version has failed here."""
        return self._releases.software

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
        now_s, download = monotonic_s(), self._download
        if self.on_trial and now_s - self._began_s > WORK_WITHIN_S:
            self.take_back(f"it has not joined and trained within {WORK_WITHIN_S / 60:.0f} minutes")
        if download is None or now_s < download.due_s:
            return
        if download.url:
            self._fetch(download)
            return
        if download.asked_s is None or now_s - download.asked_s > ASK_AGAIN_S:
            download.asked_s = now_s
            self._channel.subscribe(self._topics.wheel_part(download.digest, download.got), qos=DEVICE_QOS)

    def _fetch(self, download: Download) -> None:
        """The next part from the web; if it cannot be had, again later."""
        from edge_client import web_source  # with all it imports it is 3 MB of a Pi Zero's memory

        try:
            data = web_source.fetch(download.url, download.got, download.size)
        except FetchError as error:
            log.warning("client %s: %s; trying again in a minute", download.version, error)
            download.due_s = monotonic_s() + ASK_AGAIN_S
            return
        self.hear(WheelPart(wheel=download.digest, number=download.got, data=data))

    def _announced(self, update: Update) -> None:
        record = self._releases.record
        if update.issued < record.issued:
            raise WireError("an update that is older than the last one")
        wanted = rules.is_wanted(update, __version__) and rules.is_meant(update, self._device)
        digest = update.wheels.get(self._machine)
        if digest is None or not wanted or self._releases.on_trial or self.restart:
            self._releases.note_issued(update.issued)
            self._download = None
            return
        size, url = rules.size_of(update, self._machine), rules.url_of(update, self._machine)
        self._releases.note_issued(update.issued)
        if self._releases.has_failed(digest):
            log.info("client %s has failed here within the last day; not tried again yet", update.version)
        elif self._download is None or (self._download.digest, self._download.url) != (digest, url):
            self._download = self._begin(update.version, digest, size, url)

    def _begin(self, version: str, digest: bytes, size: int, url: str) -> Download:
        """Start, or go on with what there is of it; what there is of others goes."""
        folder = self._releases.folder
        path = folder / f"{digest.hex()[:16]}.wheel"
        for other in folder.glob("*.wheel"):
            if other != path:
                other.unlink()
        # A last part that is shorter is fetched again: all of it may be there, or not.
        got = min(path.stat().st_size // PART_BYTES, rules.part_count(size) - 1) if path.exists() else 0
        log.info("fetching client %s, %d kB, part %d of %d", version, size // 1000, got + 1, rules.part_count(size))
        return Download(version=version, digest=digest, size=size, url=url, path=path, got=got)

    def _install(self, download: Download) -> None:
        """Check a wheel and put it in use.

        Raises:
            StateError: if it is not what was announced, or does not start here.
        """
        try:
            with download.path.open("rb") as file:
                digest = sha256(file.read()).digest()
            if digest != download.digest:  # half written when the power went; the next announcement fetches it again
                raise StateError("its SHA-256 is not the announced one", where=str(download.path))
            self._releases.install(download.path, download.digest, download.version)
        except OSError as error:
            raise StateError(f"cannot be read ({error.strerror})", where=str(download.path)) from error
        finally:
            download.path.unlink(missing_ok=True)
        log.info("client %s is installed; starting it", download.version)
        self.restart = True
