"""SD cards of a fleet: a stock image unpacked and given the client once, then made into each device's."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coordinator.datasets.cache import cache_dir, lock
from export.image import blockdevices, build, client, customise, source, system, write
from export.image.customise import Card
from export.image.progress import Progress
from export.image.system import System
from wire.errors import ImageError

KEPT = 2  # bases in the cache: each is as large as an unpacked image


@dataclass(frozen=True, kw_only=True)
class Base:
    """An image with the client in it, and no device's settings yet."""

    path: Path
    system: System
    release: str


def own_image(progress: Progress, *, again: bool = False) -> Path:
    """Our own image, built of Debian packages; once, and then kept.

    Args:
        progress: told what is done.
        again: build it of today's packages though there is one.

    Raises:
        ImageError: if it cannot be built.
        RuntimeMissing: if programs that it takes are not installed.
    """
    folder = cache_dir() / "build"
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / "image"):
        return build.image(folder, progress, again=again)


def prepare(image: Path, sources: list[Path], progress: Progress) -> Base:
    """Unpack a stock image and put the client in, or take what an earlier call has made of the same.

    Args:
        image: as it was downloaded.
        sources: folders with wheels.
        progress: told what is done.

    Raises:
        ImageError: if it is damaged, of an unknown kind, or has no room.
        FetchError: if a wheel cannot be had.
        RuntimeMissing: if a program that changes images is not installed.
    """
    folder = cache_dir() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    stock = folder / f"{_digest(image, progress)}.stock"
    draft = stock.with_suffix(f".part{os.getpid()}")
    try:
        if not stock.exists():
            source.unpack(image, draft, lambda done, total: progress("unpacking the image", done, total))
            system.inspect(draft)  # not kept if it is of no use
            draft.replace(stock)
        found = system.inspect(stock)
        python = f"{found.python[0]}.{found.python[1]}"
        progress(f"wheels for Python {python} on {found.machine}", 0, 0)
        wheels = client.wheels(found, cache_dir() / "wheels" / f"{found.machine}-{python}-{found.glibc}", sources)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = client.unpack(wheels, Path(scratch))
            base = stock.with_suffix(f".{made.release}")
            if not base.exists():
                progress("putting the client in", 0, 0)
                write.copy_sparse(stock, draft)
                customise.install(draft, found, made)
                draft.replace(base)
    except ImageError as error:
        if error.where in (str(draft), str(stock)):  # the user knows it by another name
            raise ImageError(error.what, where=str(image), hint=error.hint) from error
        raise
    finally:
        draft.unlink(missing_ok=True)
    os.utime(base)
    _forget(folder, keep={stock, base})
    return Base(path=base, system=system.inspect(base), release=made.release)


def check(base: Base, card: Card) -> None:
    """Whether the image can do what a card is told; raises ImageError if not, naming the setting."""
    customise.check(base.path, base.system, card.settings)


def make(base: Base, card: Card, target: Path) -> None:
    """Write one device's image into a file, whole or not at all.

    Raises:
        ImageError: if it cannot be written.
    """
    draft = target.with_name(f"{target.name}.part")
    try:
        write.copy_sparse(base.path, draft)
        draft.chmod(0o600)  # it has what only this device may know
        customise.personalise(draft, base.system, card)
        write.to_file(draft, target)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def temporary(base: Base, card: Card) -> Iterator[Path]:
    """One device's image, for as long as it is written to a card."""
    with tempfile.TemporaryDirectory(dir=base.path.parent) as folder:
        target = Path(folder) / "card.img"
        make(base, card, target)
        yield target


def check_target(device: Path, need_bytes: int, image: Path) -> blockdevices.Disk:
    """The disk at a path, if it may be written over; raises ImageError if not."""
    return blockdevices.Machine().target(device, need_bytes, image)


def _digest(image: Path, progress: Progress) -> str:
    """What an image is known by in the cache."""
    total = image.stat().st_size if image.exists() else 0
    digest, done = hashlib.sha256(), 0
    source.packed(image)
    with image.open("rb") as file:
        while chunk := file.read(source.CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress("reading the image", done, total)
    return digest.hexdigest()[:16]


def _forget(folder: Path, keep: set[Path]) -> None:
    """Only the newest few stay, and what this run has made."""
    found = [path for path in folder.iterdir() if path.is_file() and ".part" not in path.suffix]
    for path in sorted(found, key=lambda one: one.stat().st_mtime, reverse=True)[KEPT * 2 :]:
        if path not in keep:
            path.unlink(missing_ok=True)
