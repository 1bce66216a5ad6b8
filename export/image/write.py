"""Writing an image: to a card with all of it read back, or to a file. What is interrupted does not boot."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from wire.errors import ImageError

CHUNK_BYTES = 4 << 20
FIRST_BYTES = 4 << 20  # written last: the partition table, without which neither firmware nor kernel finds anything
COPY_BYTES = 64 << 20
FLUSH_BYTES = 64 << 20  # so that progress is that of the card and not of this machine's memory
BLKRRPART = 0x125F  # linux/fs.h
Progress = Callable[[str, int, int], None]  # "writing" or "checking", bytes done, bytes in all


def to_device(image: Path, device: Path, progress: Progress = lambda step, done, total: None) -> str:
    """Write an image to a block device, read it back, and compare; return its SHA-256.

    The first bytes are zeroed first and written last, after everything else has reached the card: whenever this
    stops, the card either has all of the image or cannot be booted.

    Args:
        image: what is written.
        device: where to; all that is on it is lost.
        progress: told what is done.

    Raises:
        ImageError: if it is in use or gone, cannot be written, or does not give back what was written.
    """
    total = image.stat().st_size
    digest = hashlib.sha256()
    try:
        # On a block device O_EXCL is refused while it, or a part of it, is mounted.
        target = os.open(device, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        try:
            if not stat.S_ISBLK(os.fstat(target).st_mode):
                raise ImageError("no block device", where=str(device), hint="For a file, name one that ends in .img")
            os.pwrite(target, bytes(min(FIRST_BYTES, total)), 0)
            os.fsync(target)
            first = b""
            flushed = 0
            for at, chunk in _chunks(image):
                digest.update(chunk)
                if at == 0:
                    first, chunk = chunk[:FIRST_BYTES], chunk[FIRST_BYTES:]
                _pwrite(target, chunk, at if at else len(first))
                if at - flushed >= FLUSH_BYTES:
                    os.fsync(target)
                    flushed = at
                progress("writing", at, total)
            os.fsync(target)
            _pwrite(target, first, 0)
            os.fsync(target)
            progress("writing", total, total)
            expected = digest.hexdigest()
            # Still held: let go, a desktop would mount it, which writes to it.
            found = _read_back(device, total, progress)
            if found != expected:
                os.pwrite(target, bytes(FIRST_BYTES), 0)
                os.fsync(target)
            _tell_kernel(target)
        finally:
            os.close(target)
    except OSError as error:
        raise _explained(error, device) from error
    if found != expected:
        raise ImageError(
            f"the card does not give back what was written (SHA-256 {found[:16]}, {expected[:16]} expected)",
            where=str(device),
            hint="It is worn out or counterfeit, or its reader is bad: take another; it has been made unbootable",
        )
    return expected


def to_file(made: Path, target: Path) -> None:
    """Put a finished image in the place of a file, whole or not at all.

    Raises:
        ImageError: if it cannot be written.
    """
    try:
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(target)
    except OSError as error:
        raise ImageError(f"cannot be written ({error.strerror})", where=str(target)) from error


def copy_sparse(source: Path, target: Path) -> None:
    """Copy an image, its holes as holes.

    Raises:
        ImageError: if it cannot be written; then nothing is there.
    """
    size = source.stat().st_size
    try:
        target.write_bytes(b"")
        copy_part(source, 0, target, 0, size)
        os.truncate(target, size)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise ImageError(f"cannot be written ({error.strerror})", where=str(target)) from error


def copy_part(source: Path, source_at: int, target: Path, target_at: int, size: int) -> None:
    """Copy bytes of one file into another, which may not be there yet; where the first has holes nothing is written."""
    with source.open("rb") as reading, target.open("r+b" if target.exists() else "wb") as writing:
        for start, end in _extents(reading.fileno(), source_at, source_at + size):
            at = start
            while at < end:
                at += _copy(reading.fileno(), writing.fileno(), at, at - source_at + target_at, end - at)


def _copy(source: int, target: int, at: int, to: int, count: int) -> int:
    if hasattr(os, "copy_file_range"):  # Linux's: no bytes through this process, none at all on btrfs and XFS
        try:
            if done := os.copy_file_range(source, target, min(count, COPY_BYTES), at, to):
                return done
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
    chunk = os.pread(source, min(count, CHUNK_BYTES), at)
    if not chunk:
        raise OSError(errno.EIO, "the file got shorter while it was copied")
    _pwrite(target, chunk, to)
    return len(chunk)


def _extents(file: int, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Where a file has data, within two bounds."""
    while at < end:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        at = min(os.lseek(file, start, os.SEEK_HOLE), end)
        if start < at:
            yield start, at


def _chunks(image: Path) -> Iterator[tuple[int, bytes]]:
    """All of an image and where each part is. Holes are not read from disk, for the kernel knows that they are zero."""
    at = 0
    with image.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield at, chunk
            at += len(chunk)


def _pwrite(target: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view, at)
        view, at = view[written:], at + written


def _read_back(device: Path, total: int, progress: Progress) -> str:
    """SHA-256 of what is on the card: read past this machine's memory, which knows only what was meant."""
    digest = hashlib.sha256()
    direct = getattr(os, "O_DIRECT", 0)
    try:
        source = os.open(device, os.O_RDONLY | os.O_CLOEXEC | direct)
    except OSError:
        source = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(-1, CHUNK_BYTES) as buffer:  # aligned to a page, as direct reading wants it
            done = 0
            while done < total:
                got = os.preadv(source, [buffer], done)
                if got == 0:
                    break
                digest.update(memoryview(buffer)[: min(got, total - done)])
                done += got
                progress("checking", min(done, total), total)
    finally:
        os.close(source)
    return digest.hexdigest()


def _tell_kernel(target: int) -> None:
    """Have the kernel look for partitions anew; where it cannot, it does when the card is put in again."""
    with suppress(OSError):
        fcntl.ioctl(target, BLKRRPART)


def _explained(error: OSError, device: Path) -> ImageError:
    where = str(device)
    match error.errno:
        case errno.EBUSY:
            return ImageError("in use: it or a part of it is mounted", where=where, hint="Unmount it, then again")
        case errno.EACCES | errno.EPERM:
            return ImageError("only root may write to it", where=where, hint="Run it with sudo")
        case errno.EIO | errno.ENODEV | errno.ENXIO | errno.ENOMEDIUM:
            return ImageError(
                f"the card failed or was pulled out ({error.strerror})", where=where, hint="Put it in, then again"
            )
        case errno.ENOSPC:
            return ImageError("the card is smaller than it says", where=where, hint="It is counterfeit: take another")
        case _:
            return ImageError(f"cannot be written ({error.strerror})", where=where)
