"""The bundle of a run to come: fetched ahead of it, tried on this device, and kept until that run is announced.

::

    HASH.fetched    what there is of one that is on its way
    HASH.next       one that is all there
    next.json       which it is, whether it was tried, which ones have failed

What the device trains is what the federation's run says, before and after; so one that does not work here is only
forgotten, and the coordinator is told in time.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from edge_client import files
from edge_client.fetching import Download, Fetcher
from edge_client.store import Store
from wire import update as rules
from wire.channel import Channel
from wire.errors import StateError, WireError
from wire.settings import Training
from wire.topics import DEVICE_QOS, Topics
from wire.update import FilePart, Staged

log = logging.getLogger("hidenseek.edge")
RECORD, PART_SUFFIX = "next.json", ".fetched"
TRIES = 3  # a trial that ends the process, or the power, this often has failed
AGAIN_AFTER_S = 86400.0
KEPT = 8  # of those that have failed


@dataclass
class Record:
    """What must not be forgotten when the power goes.

    Attributes:
        issued: when the newest announcement was made that was heard of, milliseconds since 1970.
        bundle: SHA-256 of the newest one wanted, hexadecimal; "" for none.
        ready: it was tried, and works here.
        tries: how often a trial of it was begun.
        failed: when bundles failed, seconds since 1970, by SHA-256.
    """

    issued: int = 0
    bundle: str = ""
    ready: bool = False
    tries: int = 0
    failed: dict[str, float] = field(default_factory=dict)


class Stager:
    """Follows what the federation wants devices to have ready.

    Args:
        device: this device's id.
        runtime: what it trains with.
        store: its state folder.
        channel: a connected channel.
        topics: the federation's.

    Attributes:
        waits: a bundle is there that was not tried yet.
    """

    def __init__(self, device: str, runtime: str, store: Store, channel: Channel, topics: Topics) -> None:
        self._device, self._runtime, self._store = device, runtime, store
        self._channel, self._topics = channel, topics
        self._fetcher = Fetcher(store.folder, PART_SUFFIX, channel, topics)
        self._said: Staged | None = None
        self.waits = False
        self.record = self._read()

    @property
    def note(self) -> str:
        """What a hello says of it; "" if nothing is wanted, or it is not known yet what comes of it."""
        record = self.record
        if record.bundle in record.failed:
            return rules.bundle_note(bytes.fromhex(record.bundle), works=False)
        return rules.bundle_note(bytes.fromhex(record.bundle), works=True) if record.bundle and record.ready else ""

    def subscribe(self) -> None:
        """Ask for what is announced, with every connection anew."""
        self._channel.subscribe(self._topics.staged, qos=DEVICE_QOS)
        self._fetcher.connected()

    def hear(self, said: Staged | FilePart) -> None:
        """An announcement, or a part of a file, from the federation.

        Raises:
            WireError: if it makes no sense.
        """
        if isinstance(said, Staged):
            self._announced(said)
        else:
            self._go_on(lambda: self._fetcher.hear(said))

    def tick(self) -> None:
        """Ask for the next part."""
        self._go_on(self._fetcher.tick)

    def begin(self, current: bytes | None) -> tuple[bytes, Training] | None:
        """Take the one that waits, for a trial.

        Args:
            current: SHA-256 of the bundle that the device trains with now.

        Returns:
            the bundle's SHA-256 and the settings to try it with; None if there is nothing to try after all.

        Raises:
            StateError: if it cannot be written down.
        """
        assert self._said is not None
        self.waits = False
        digest = bytes.fromhex(self.record.bundle)
        if digest == current:  # its run has come before its turn
            self.passed()
            return None
        if self.record.tries >= TRIES:
            self.failed(f"its trial has ended this program {TRIES} times")
            return None
        self.record.tries += 1
        self._write()
        return digest, self._said.training

    def passed(self) -> None:
        """It works here: it stays until a run needs it."""
        self.waits = False
        log.info("bundle %s works here, and waits for its run", rules.short(bytes.fromhex(self.record.bundle)))
        self.record.ready = True
        self._write()

    def failed(self, why: str) -> None:
        """It does not work here, and goes; what is trained now is not touched."""
        digest = self.record.bundle
        log.warning("bundle %s does not work here and goes: %s", rules.short(bytes.fromhex(digest)), why)
        kept = sorted(self.record.failed.items(), key=lambda item: item[1])[-KEPT + 1 :]
        self.record.failed = {**dict(kept), digest: time.time()}
        self._write()
        self._store.drop_staged()

    def _announced(self, said: Staged) -> None:
        record = self.record
        if said.issued < record.issued:
            raise WireError("bundles that are older than the last ones")
        digest = said.bundles.get(self._runtime)
        self._said, self.waits = said, False
        if digest is None or not rules.is_meant(said, self._device):
            self._fetcher.stop()
            self._note(said.issued, record.bundle)  # what is ready stays so
            return
        size = rules.size_of(said, self._runtime)
        if digest.hex() in record.failed and time.time() - record.failed[digest.hex()] >= AGAIN_AFTER_S:
            del record.failed[digest.hex()]
        self._note(said.issued, digest.hex())
        if digest.hex() in record.failed:
            self._fetcher.stop()
            log.info("bundle %s has failed here within the last day; not tried again yet", rules.short(digest))
        elif self._store.has_bundle(digest):
            if not record.ready:  # a run has brought it in the meantime
                self.passed()
        elif self._store.is_staged(digest):
            self.waits = not record.ready
        else:
            self._fetcher.want(f"bundle {rules.short(digest)}", digest, size)

    def _note(self, issued: int, bundle: str) -> None:
        record = self.record
        if (issued, bundle) != (record.issued, record.bundle):
            if bundle != record.bundle:
                record.ready, record.tries = False, 0
            record.issued, record.bundle = issued, bundle
            self._write()

    def _go_on(self, step: Callable[[], Download | None]) -> None:
        """Fetch, and keep for a trial what is complete."""
        try:
            download = step()
            if download is None:
                return
            try:
                download.check()
                self._store.stage_bundle(download.digest, download.path.read_bytes())
            finally:
                with suppress(OSError):
                    download.path.unlink()
            self.waits = True
        except StateError as error:
            log.warning("bundle given up: %s", error)

    def _read(self) -> Record:
        """What was written down; nothing if that is damaged: then it is fetched and tried again."""
        try:
            found = json.loads((self._store.folder / RECORD).read_text())
            names = asdict(Record())
            record = Record(**{name: value for name, value in found.items() if name in names})
            bytes.fromhex(record.bundle)
            if all(type(value) is type(names[name]) for name, value in asdict(record).items()):
                return record
        except FileNotFoundError:
            return Record()
        except (OSError, ValueError, AttributeError, TypeError):
            pass
        log.warning("%s is damaged: what it said is forgotten", self._store.folder / RECORD)
        return Record()

    def _write(self) -> None:
        """Keep the record, whole or not at all.

        Raises:
            StateError: if it cannot be written.
        """
        path = self._store.folder / RECORD
        try:
            files.replace(path, json.dumps(asdict(self.record)).encode())
        except OSError as error:
            raise StateError(f"cannot be written ({error.strerror})", where=str(path)) from error
