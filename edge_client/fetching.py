"""A file that the federation has announced, on its way: part by part from the broker or the web, off and on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from wire import update as rules
from wire.channel import Channel
from wire.errors import FetchError, StateError
from wire.topics import DEVICE_QOS, Topics
from wire.transport import monotonic_s
from wire.update import PART_BYTES, FilePart

log = logging.getLogger("hidenseek.edge")
PAUSE_S = 0.5  # between parts: 128 kB a second at most, so that a fleet does not take all of a broker's time
ASK_AGAIN_S = 60.0


@dataclass
class Download:
    """A file on its way.

    Attributes:
        name: for people.
        digest: SHA-256 of it.
        size: its bytes.
        url: where it lies on the web; "" if at the broker.
        path: what there is of it.
        got: parts in that.
        asked_s: when the next part was asked for; None if it was not.
        due_s: when it may be.
    """

    name: str
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

    def add(self, part: FilePart) -> bool:
        """Keep a part if it is the next one.

        Raises:
            StateError: if it cannot be written.
        """
        length = min(PART_BYTES, self.size - self.got * PART_BYTES)
        if part.file != self.digest or part.number != self.got or len(part.data) != length or self.complete:
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

    def check(self) -> None:
        """See that all of it is what was announced.

        Raises:
            StateError: if it is not: half written when the power went, the next announcement fetches it again.
        """
        try:
            digest = sha256(self.path.read_bytes()).digest()
        except OSError as error:
            raise StateError(f"cannot be read ({error.strerror})", where=str(self.path)) from error
        if digest != self.digest:
            raise StateError("its SHA-256 is not the announced one", where=str(self.path))


class Fetcher:
    """Fetches one file of a kind at a time.

    Args:
        folder: where it is put.
        suffix: of its name, and of no other file there.
        channel: a connected channel.
        topics: the federation's.

    Attributes:
        current: what is on its way; None if nothing is.
    """

    def __init__(self, folder: Path, suffix: str, channel: Channel, topics: Topics) -> None:
        self._folder, self._suffix, self._channel, self._topics = folder, suffix, channel, topics
        self.current: Download | None = None

    def connected(self) -> None:
        """Ask again, for this connection knows nothing of what was asked before."""
        if self.current is not None:
            self.current.asked_s = None

    def want(self, name: str, digest: bytes, size: int, url: str = "") -> None:
        """Start, or go on with what there is of it; what there is of others goes."""
        if self.current is not None and (self.current.digest, self.current.url) == (digest, url):
            return
        path = self._folder / f"{digest.hex()[:16]}{self._suffix}"
        for other in self._folder.glob(f"*{self._suffix}"):
            if other != path:
                other.unlink()
        # A last part that is shorter is fetched again: all of it may be there, or not.
        got = min(path.stat().st_size // PART_BYTES, rules.part_count(size) - 1) if path.exists() else 0
        log.info("fetching %s, %d kB, part %d of %d", name, size // 1000, got + 1, rules.part_count(size))
        self.current = Download(name=name, digest=digest, size=size, url=url, path=path, got=got)

    def stop(self) -> None:
        """Nothing is wanted any more; what there is stays, for it may be again."""
        self.current = None

    def hear(self, part: FilePart) -> Download | None:
        """A part of some file.

        Returns:
            the file, once all of it is there; its hash is not checked yet.

        Raises:
            StateError: if it cannot be written; it is given up.
        """
        download = self.current
        if download is None:
            return None
        try:
            if download.add(part):
                download.asked_s, download.due_s = None, monotonic_s() + PAUSE_S
        except StateError:
            self.current = None
            raise
        if not download.complete:
            return None
        self.current = None
        return download

    def tick(self) -> Download | None:
        """Ask for the next part, if it is time; as `hear`."""
        now_s, download = monotonic_s(), self.current
        if download is None or now_s < download.due_s:
            return None
        if download.url:
            return self._fetch(download)
        if download.asked_s is None or now_s - download.asked_s > ASK_AGAIN_S:
            download.asked_s = now_s
            self._channel.subscribe(self._topics.file_part(download.digest, download.got), qos=DEVICE_QOS)
        return None

    def _fetch(self, download: Download) -> Download | None:
        """The next part from the web; if it cannot be had, again later."""
        from edge_client import web_source  # with all it imports it is 3 MB of a Pi Zero's memory

        try:
            data = web_source.fetch(download.url, download.got, download.size)
        except FetchError as error:
            log.warning("%s: %s; trying again in a minute", download.name, error)
            download.due_s = monotonic_s() + ASK_AGAIN_S
            return None
        return self.hear(FilePart(file=download.digest, number=download.got, data=data))
