"""All that a coordinator cannot make again, in one file, and a coordinator out of such a file.

A tar archive of a few files under fixed names; the first says what it is. The database is a file in it, copied as
SQLite copies one that is in use, or out of a server; restored, it is a file or a server's again. An unfinished run then
goes on under another identity: what devices were told after the backup was made is not known here, and they ignore
whoever tells them of an earlier round of the same run.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from coordinator import copying
from coordinator.brokers import accounts, certificates, claims, deployment
from coordinator.brokers.device_certificates import DEVICES
from coordinator.database import NONE
from coordinator.federation import DATABASE
from coordinator.keys import key_path
from coordinator.monitoring.home_assistant import RECORD
from coordinator.place import Place, Server
from coordinator.store import Store
from wire import __version__
from wire.errors import ConfigError, DataError, StateError
from wire.topics import check_name

MANIFEST, FORMAT = "hidenseek-backup.json", 1
DATABASE_NAME = f"state/{DATABASE}"
LARGEST_TEXT = 64 << 20  # bytes of any file but the database


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup says of itself.

    Attributes:
        federation: its name.
        ticket: the ticket file that devices.yaml names, relative to it.
        made_s: when, seconds since 1970.
    """

    federation: str
    ticket: str | None
    made_s: int


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a coordinator's files are.

    Attributes:
        state: its state folder.
        server: where its database is instead, if it is not a file in that folder.
        config: devices.yaml.
        deploy: the broker's deployment.
    """

    state: Path
    config: Path
    deploy: Path
    server: Server | None = None

    @property
    def database(self) -> Place:
        """Where the database is."""
        return self.server or self.state / DATABASE

    def files(self, ticket: str | None) -> Iterator[tuple[str, Path]]:
        """Names in an archive, and where each of them is here."""
        if self.server is None:
            yield DATABASE_NAME, self.state / DATABASE
        yield f"state/{RECORD}", self.state / RECORD
        yield "state/broker/passwords.json", self.state / "broker" / "passwords.json"
        yield "federation.key", key_path()
        yield "devices.yaml", self.config
        if ticket is not None:
            yield "ticket.hns", self.config.parent / ticket
        secret = (certificates.SERVERS.key, DEVICES.key, accounts.FILE, accounts.HASHES, claims.FILE)
        for name in (deployment.FILE, certificates.CERTIFICATES, DEVICES.certificates, *secret):
            yield f"deploy/{name}", self.deploy / name


def make(places: Places, federation: str, ticket: str | None, archive: Path) -> list[str]:
    """Write a backup, readable by its owner only; the coordinator may be at work meanwhile.

    Returns:
        what is in it.

    Raises:
        DataError: if there is no database.
        StateError: if something cannot be read or written.
    """
    draft, copy = archive.with_name(f"{archive.name}.part"), archive.with_name(f"{archive.name}.db")
    manifest = Manifest(federation=federation, ticket=ticket, made_s=round(time.time()))
    names = [DATABASE_NAME]
    try:
        os.close(_private(copy))
        _copy_database(places.database, copy)
        with os.fdopen(_private(draft), "wb") as stream:
            with tarfile.open(fileobj=stream, mode="w") as tar:
                about = {"format": FORMAT, "software": f"hidenseek {__version__}", **asdict(manifest)}
                _add(tar, MANIFEST, json.dumps(about).encode())
                tar.add(copy, DATABASE_NAME)
                for name, path in places.files(ticket):
                    if name != DATABASE_NAME and path.exists():
                        names.append(name)
                        _add(tar, name, path.read_bytes())
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(archive)
    except (OSError, sqlite3.Error) as error:
        raise StateError(f"no backup could be made ({error})", where=str(archive)) from error
    finally:
        draft.unlink(missing_ok=True)
        copy.unlink(missing_ok=True)
    return names


def read_manifest(archive: Path) -> Manifest:
    """What a backup says of itself.

    Raises:
        DataError: if it is none that this program reads.
    """
    hint = "hidenseek backup makes one"
    try:
        with tarfile.open(archive, "r:") as tar:
            about = json.loads(_read(tar, MANIFEST))
            if about["format"] != FORMAT:
                raise DataError(
                    f"a backup of format {about['format']!r}, this program reads {FORMAT}",
                    where=str(archive),
                    hint="Use the hidenseek that made it",
                )
            found = Manifest(
                federation=check_name(about["federation"], "federation"),
                ticket=about["ticket"],
                made_s=int(about["made_s"]),
            )
            tar.getmember(DATABASE_NAME)
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"no backup of a coordinator ({error})", where=str(archive), hint=hint) from error
    if found.ticket is not None and (Path(found.ticket).is_absolute() or ".." in Path(found.ticket).parts):
        raise DataError(f"its ticket belongs at {found.ticket}", where=str(archive), hint="Put it there yourself")
    return found


def restore(archive: Path, manifest: Manifest, places: Places) -> list[Path]:
    """Put back what a backup has, where nothing is yet.

    Returns:
        the files that were written.

    Raises:
        DataError: if something in it is no plain file.
        StateError: if there is something else already, or something cannot be written.
    """
    written: list[Path] = []
    try:
        with tarfile.open(archive, "r:") as tar:
            held = set(tar.getnames())
            targets = {name: path for name, path in places.files(manifest.ticket) if name in held}
            for name, path in targets.items():
                if path.exists() and (name == DATABASE_NAME or path.read_bytes() != _read(tar, name)):
                    raise StateError("there is another one already", where=str(path), hint="Move it away and try again")
            if places.server is not None:
                with closing(Store(places.server)) as target:
                    copying.check_empty(target)
            for name, path in targets.items():
                if not path.exists():
                    _extract(tar, name, path)
                    written.append(path)
            _restore_database(tar, places)
    except (tarfile.TarError, KeyError) as error:
        raise DataError(f"damaged ({error})", where=str(archive)) from error
    except OSError as error:
        raise StateError(f"cannot be restored ({error})", where=str(archive)) from error
    return written


def _restore_database(tar: tarfile.TarFile, places: Places) -> None:
    """What is done to the file that was extracted; or all, where it goes to a server."""
    if places.server is None:
        with closing(Store(places.state / DATABASE)) as store:
            store.renew_run()
        return
    with tempfile.TemporaryDirectory(prefix="hidenseek-") as folder:  # only its owner can look into it
        copy = Path(folder) / DATABASE
        _extract(tar, DATABASE_NAME, copy)
        with closing(Store(copy)) as store, closing(Store(places.server)) as target:
            store.renew_run()
            copying.copy(store, target)


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.getmember(name)
    source = tar.extractfile(member)
    if source is None or member.size > LARGEST_TEXT:
        raise tarfile.TarError(f"{name} is no file of less than {LARGEST_TEXT} bytes")
    return source.read()


def _extract(tar: tarfile.TarFile, name: str, target: Path) -> None:
    """By this program's own names, never the archive's."""
    source = tar.extractfile(name)
    if source is None:
        raise tarfile.TarError(f"{name} is no file")
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = target.with_name(f"{target.name}.part")
    with source, os.fdopen(_private(draft), "wb") as stream:
        shutil.copyfileobj(source, stream)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(target)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
    tar.addfile(member, io.BytesIO(data))


def _copy_database(source: Place, target: Path) -> None:
    """A file as SQLite copies one that is in use; what a server has, row by row."""
    if isinstance(source, Server):
        with closing(Store(source, make=False)) as there, closing(Store(target)) as copied:
            copying.copy(there, copied)
        return
    if not source.exists():
        raise DataError(f"no {source.name} in this folder", where=str(source.parent), hint=NONE)
    with (
        closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as ours,
        closing(sqlite3.connect(target)) as copy,
    ):
        ours.backup(copy)


def _private(path: Path) -> int:
    """A new file that only its owner can read; its descriptor."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
