"""Images as they are downloaded: plain, or packed with xz, gzip or zstd, told apart by their first bytes."""

from __future__ import annotations

import gzip
import lzma
import os
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from export.image import tools
from wire.errors import ImageError

CHUNK_BYTES = 4 << 20
GRAIN_BYTES = 64 << 10  # runs of zeros at least this long become holes
SECTOR_BYTES = 512
MAGICS = {b"\xfd7zXZ\x00": "xz", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}
Progress = Callable[[int, int], None]  # bytes done, bytes in all


def packed(path: Path) -> str:
    """How an image is packed: "xz", "gzip", "zstd", or "" for not at all.

    Raises:
        ImageError: if it cannot be read, is empty, or is packed in another way.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})", where=str(path), hint="Name it with --image") from error
    if not start:
        raise ImageError("is empty", where=str(path), hint="Download it again")
    kind = next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), "")
    if kind == "zip":
        raise ImageError("a zip archive; an .img, .xz, .gz or .zst is expected", where=str(path), hint="Unzip it first")
    return kind


def unpack(path: Path, target: Path, progress: Progress = lambda done, total: None) -> int:
    """Write an image's bytes into a file with holes where they are zero; return how many they are.

    Args:
        path: the image as it was downloaded.
        target: what is written; left half-written if this raises.
        progress: told how much of `path` was read.

    Raises:
        ImageError: if it is damaged, cut short, or no disk image.
        RuntimeMissing: if it is packed with zstd and that is not installed.
    """
    total = path.stat().st_size
    size = 0
    with _opened(path) as (stream, position), target.open("wb") as out:
        try:
            while chunk := stream.read(CHUNK_BYTES):
                write_sparse(out, chunk)
                size += len(chunk)
                progress(min(position(), total), total)
        except (EOFError, lzma.LZMAError, zlib.error, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise ImageError(f"cannot be written ({error.strerror})", where=str(target)) from error
            raise ImageError(
                f"damaged or cut short after {size:,} bytes of the image ({error})",
                where=str(path),
                hint="Download it again, and compare its SHA-256 with the publisher's",
            ) from error
        out.truncate(size)
    if size < 1 << 20 or size % SECTOR_BYTES:
        raise ImageError(
            f"{size:,} bytes are no disk image: whole sectors of {SECTOR_BYTES} bytes are expected, 1 MiB at least",
            where=str(path),
            hint="Download it again, and compare its SHA-256 with the publisher's",
        )
    return size


def write_sparse(out: IO[bytes], chunk: bytes) -> None:
    """Write a chunk where the file is, stepping over runs of zeros; the file has to be truncated at the end."""
    view, zeros = memoryview(chunk), bytes(GRAIN_BYTES)
    for at in range(0, len(view), GRAIN_BYTES):
        grain = view[at : at + GRAIN_BYTES]
        if grain == zeros[: len(grain)]:
            out.seek(len(grain), os.SEEK_CUR)
        else:
            out.write(grain)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], int]]]:
    """The image's bytes, and how far its file was read."""
    kind = packed(path)
    with path.open("rb") as file:
        match kind:
            case "xz":
                with lzma.LZMAFile(file) as stream:
                    yield stream, file.tell
            case "gzip":
                with gzip.GzipFile(fileobj=file) as stream:
                    yield stream, file.tell  # type: ignore[misc]
            case "zstd":
                with _zstd(path, file) as stream:
                    yield stream, file.tell
            case _:
                yield file, file.tell


@contextmanager
def _zstd(path: Path, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """By its own program: Python learns it in 3.14 only."""
    command = [tools.find("zstd"), "-d", "-q", "-c"]
    with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
            if process.wait() != 0:
                words = process.stderr.read().decode(errors="replace").strip().splitlines()
                raise ImageError(
                    f"damaged or cut short ({words[-1] if words else 'zstd failed'})",
                    where=str(path),
                    hint="Download it again, and compare its SHA-256 with the publisher's",
                )
        finally:
            process.kill()
