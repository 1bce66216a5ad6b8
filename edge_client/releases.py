"""Newer clients beside the installed one, two at most, of which one at most is in use.

::

    client/a, client/b     a client each: its modules, as its wheel has them
    client/current         a link to the one in use; without it the installed one runs
    client/record.json     what they are, which one is on trial, which wheels have failed

The installed client is never changed. It starts first, every time, and hands over to the one in use. A new one is on
trial until it has joined, trained one step and kept to the device's memory: if it fails in that, has been started three
times or runs for ten minutes without, the link goes back to what it was.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NoReturn

from edge_client import files
from wire import __version__
from wire.errors import StateError
from wire.update import ON_TRIAL, failure_note

log = logging.getLogger("hidenseek.edge")
FOLDER = "client"  # in a device's state folder
CURRENT, RECORD, SLOTS = "current", "record.json", ("a", "b")
VARIABLE = "HIDENSEEK_CLIENT"  # set for a client that was handed over to
STARTS, WORK_WITHIN_S = 3, 600.0
AGAIN_AFTER_S = 86400.0  # a wheel that has failed; the broker may just have been away
PACKAGES = ("wire/", "edge_client/")  # of the wheel: the rest is for workstations
MAX_UNPACKED_BYTES = 256 << 20
CHECK_S = 120.0
# The installed client's modules stay behind those of the newer one: numpy and what else it needs are there.
START = """\
import json, os, sys
there = json.loads(os.environ["HIDENSEEK_CLIENT"])
sys.path[:] = [there["slot"], *there["path"]]
sys.pycache_prefix = there["cache"]
sys.argv[0] = "hidenseek-edge"
from edge_client import {module}
sys.exit({module}.main())
"""


@dataclass
class Record:
    """What a device has to know of its clients.

    Attributes:
        installed: version of the installed client that the others were made beside.
        versions: by slot.
        wheels: SHA-256 by slot, hexadecimal.
        trial: the slot on trial, or "".
        previous: what was in use before it, or "" for the installed client.
        starts: how often the one on trial has been started.
        failed: when wheels failed, seconds since 1970, by SHA-256.
        failure: version that failed last, for people.
        issued: when the newest update was issued that was heard of, milliseconds since 1970.
    """

    installed: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    wheels: dict[str, str] = field(default_factory=dict)
    trial: str = ""
    previous: str = ""
    starts: int = 0
    failed: dict[str, float] = field(default_factory=dict)
    failure: str = ""
    issued: int = 0


class Releases:
    """A device's clients.

    Args:
        state: the device's state folder.
        environment: of this process.
    """

    def __init__(self, state: Path, environment: Mapping[str, str] = os.environ) -> None:
        self.folder = state / FOLDER
        self.handed = json.loads(environment[VARIABLE]) if VARIABLE in environment else None
        self.record = self._read()

    @property
    def on_trial(self) -> bool:
        """Whether this process is a new client that has not shown yet that it works."""
        return self.handed is not None and self.record.trial == Path(self.handed["slot"]).name

    @property
    def note(self) -> str:
        """What a hello says of it: that it is on trial, or which version has failed here; or ""."""
        if self.on_trial:
            return ON_TRIAL
        return failure_note(self.record.failure) if self.record.failure else ""

    def hand_over(self) -> None:
        """Let the newer client take this process's place, if there is one; called by whichever has been started."""
        if self.handed is not None:
            return
        slot = self._in_use()
        if slot and self.record.installed != __version__:
            log.info("the installed client is %s now; what came after %s goes", __version__, self.record.installed)
            self.record = Record(failed=self.record.failed, issued=self.record.issued)
            self._point("")
            self._write()
            return
        if slot and slot == self.record.trial:
            if self.record.starts >= STARTS:
                self.roll_back(f"it was started {STARTS} times and has not joined and trained")
                slot = self._in_use()
            else:
                self.record.starts += 1
                self._write()
        if slot:
            environment = os.environ | {VARIABLE: self._there(slot)}
            os.execve(sys.executable, self._command("cli", sys.argv[1:]), environment)  # noqa: S606

    def start_again(self) -> NoReturn:
        """Start from the beginning, in the same process: the installed client, which hands over."""
        argv = self.handed["argv"] if self.handed else sys.orig_argv[1:]
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        os.execve(sys.executable, [sys.executable, *argv], environment)  # noqa: S606

    def has_failed(self, wheel: bytes) -> bool:
        """Whether a wheel was tried in vain in the last day; a clock that was wrong then forgives it."""
        return 0 <= time.time() - self.record.failed.get(wheel.hex(), -AGAIN_AFTER_S) < AGAIN_AFTER_S

    def note_issued(self, issued: int) -> None:
        """An update that was issued then has been heard of."""
        if issued != self.record.issued:
            self.record.issued = issued
            self._write()

    def install(self, wheel: Path, digest: bytes, version: str) -> None:
        """Unpack a wheel whose SHA-256 is right, see that it starts, and put it in use, on trial.

        Raises:
            StateError: if it cannot be used; what is in use stays so, and the wheel counts as failed.
        """
        running = self._in_use()
        slot = SLOTS[running == SLOTS[0]]
        try:
            self._unpack(wheel, slot)
            self._check(slot, version)
        except StateError:
            self._failed(digest.hex(), version)
            import shutil

            shutil.rmtree(self.folder / slot, ignore_errors=True)
            self._write()
            raise
        installed = self.handed["installed"] if self.handed else __version__
        self.record.installed, self.record.trial, self.record.previous = installed, slot, running
        self.record.starts, self.record.failure = 0, ""
        self.record.versions[slot], self.record.wheels[slot] = version, digest.hex()
        self._write()
        self._point(slot)

    def confirm(self) -> None:
        """The client on trial works: it stays."""
        log.info("client %s has joined and trained, and stays", __version__)
        self.record.trial, self.record.starts = "", 0
        self._write()

    def roll_back(self, why: str) -> None:
        """Put in use what was before the client on trial."""
        slot = self.record.trial
        version = self.record.versions.get(slot, "?")
        log.warning("client %s is taken back: %s", version, why)
        self._failed(self.record.wheels.get(slot, ""), version)
        self._point(self.record.previous)
        self.record.trial, self.record.starts = "", 0
        self._write()

    def _failed(self, wheel: str, version: str) -> None:
        kept = sorted(self.record.failed.items(), key=lambda item: item[1])[-7:]
        self.record.failed = {**dict(kept), wheel: time.time()}
        self.record.failure = version

    def _in_use(self) -> str:
        """The slot that the link points to; "" for the installed client."""
        try:
            slot = str((self.folder / CURRENT).readlink())
        except OSError:
            return ""
        return slot if slot in SLOTS and (self.folder / slot).is_dir() else ""

    def _point(self, slot: str) -> None:
        """Have the link point to a slot, or ("") take it away; at no moment is there half of it."""
        link = self.folder / CURRENT
        if not slot:
            link.unlink(missing_ok=True)
            return
        draft = link.with_suffix(".new")
        draft.unlink(missing_ok=True)
        draft.symlink_to(slot)
        draft.replace(link)
        _sync(self.folder)

    def _there(self, slot: str) -> str:
        there = self.handed or {
            "argv": sys.orig_argv[1:],
            "path": [str(Path(part).absolute()) for part in sys.path],
            "installed": __version__,
            "cache": sys.pycache_prefix,
        }
        return json.dumps({**there, "slot": str((self.folder / slot).absolute())})

    def _command(self, module: str, arguments: list[str]) -> list[str]:
        return [sys.executable, *_flags(), "-c", START.format(module=module), *arguments]

    def _unpack(self, wheel: Path, slot: str) -> None:
        import shutil
        import zipfile  # with what unpacks other kinds of archives: 1 MB that is seldom needed

        target = self.folder / slot
        shutil.rmtree(target, ignore_errors=True)
        try:
            with zipfile.ZipFile(wheel) as archive:
                members = [one for one in archive.infolist() if one.filename.startswith(PACKAGES)]
                if sum(one.file_size for one in members) > MAX_UNPACKED_BYTES:
                    raise StateError("it unpacks to more than 256 MB", where=wheel.name)
                if any(".." in one.filename.split("/") for one in members):
                    raise StateError("it has files that lie outside of it", where=wheel.name)
                archive.extractall(target, members)  # its hash is signed, and names are checked
            os.sync()  # before the link points there: a power cut must not leave empty modules
        except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            raise StateError(f"it cannot be unpacked ({error})", where=wheel.name) from error

    def _check(self, slot: str, version: str) -> None:
        """Start it once, to load what a device needs, and say its version."""
        import subprocess  # seldom

        environment = os.environ | {VARIABLE: self._there(slot)}
        try:
            done = subprocess.run(
                self._command("selfcheck", []),
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=CHECK_S,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StateError(f"client {version} does not start ({error})") from error
        if done.returncode or done.stdout.strip() != version:
            words = (done.stderr.strip() or done.stdout.strip() or "nothing said").splitlines()[-1]
            raise StateError(f"client {version} does not start here ({words:.200})")

    def _read(self) -> Record:
        """What was written down; nothing if that is damaged: then the installed client runs, and asks anew."""
        try:
            found = json.loads((self.folder / RECORD).read_text())
            names = asdict(Record())  # a newer client may have written more
            record = Record(**{name: value for name, value in found.items() if name in names})
            if all(type(value) is type(names[name]) for name, value in asdict(record).items()):
                return record
        except FileNotFoundError:
            return Record()
        except (OSError, ValueError, AttributeError):
            pass
        log.warning("%s is damaged: the installed client runs", self.folder / RECORD)
        with suppress(OSError):
            self._point("")
        return Record()

    def _write(self) -> None:
        """Keep the record, whole or not at all.

        Raises:
            StateError: if it cannot be written.
        """
        path = self.folder / RECORD
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files.replace(path, json.dumps(asdict(self.record)).encode())
            _sync(self.folder)
        except OSError as error:
            raise StateError(f"cannot be written ({error.strerror})", where=str(path)) from error


def _flags() -> list[str]:
    """Options of this interpreter that save memory on a card (`export.image.client`), for one that takes its place."""
    flags = ["-I", *(["-S"] if sys.flags.no_site else [])]
    return [*flags, f"-{'O' * sys.flags.optimize}"] if sys.flags.optimize else flags


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
