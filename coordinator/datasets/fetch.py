"""Download one file whose size and sha256 are known beforehand, resumably.

The bytes go to `<name>.part`; only when the hash is right does the file take its name. Ctrl-C,
a lost connection or a full disk leave a `.part` that the next call goes on from (HTTP Range).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from coordinator.datasets import cache
from wire.errors import FetchError

PROGRESS_AFTER_S = 2.0  # quicker downloads show nothing
TIMEOUT_S = 30.0  # without a byte
ATTEMPTS = 4  # connections, each going on where the last one broke off
RETRY_S = 0.5  # waited before the second attempt; twice as long before the third, and so on
_CHUNK = 1 << 16  # bytes
_BROKEN = (OSError, http.client.HTTPException)  # what urllib raises when a connection fails (URLError is an OSError)


def fetch(url: str, path: Path, *, sha256: str, size_bytes: int) -> Path:
    """Have the file at `path`, from `url` if it is not there yet.

    Args:
        url: http or https; a user and password in it are sent as basic authentication.
        path: where the file shall lie; its folder is there already.
        sha256: hex digest the whole file must have.
        size_bytes: length the whole file must have; never more is written.

    Raises:
        FetchError: if it cannot be had, or what came is not what was expected.
    """
    part = path.with_name(path.name + ".part")
    try:
        with cache.lock(path):
            if is_whole(path, sha256=sha256):
                return path
            _complete(url, part, size_bytes)
            got = _sha256(part)
            if got != sha256 or part.stat().st_size != size_bytes:
                part.unlink()
                raise FetchError(
                    f"sha256 {got[:16]}... found, {sha256[:16]}... expected; the file is deleted",
                    where=shown(url),
                    hint="Try again; if it stays so, the server offers another file under this name",
                )
            part.replace(path)
    except _BROKEN as error:  # the connection is dealt with in _complete: this is the disk
        raise FetchError(f"cannot be written ({error!s:.120})", where=str(part), hint="Is the disk full?") from None
    return path


def is_whole(path: Path, *, sha256: str) -> bool:
    """Whether the file is there, with the right contents."""
    try:
        return _sha256(path) == sha256
    except OSError:
        return False


def open_url(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Send a GET, with the certificates the environment names, and return the response to read.

    Raises:
        FetchError: if the URL is not http(s).
        OSError, http.client.HTTPException: if it fails; `urllib.error.HTTPError` if the server refuses.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FetchError("an http or https address expected", where=shown(url))
    bare = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    request = urllib.request.Request(bare, headers={"User-Agent": "hidenseek", **headers})  # noqa: S310 -- http(s) only
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
    context = _certificates() if parts.scheme == "https" else None
    response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context)  # noqa: S310
    return response


def shown(url: str) -> str:
    """The URL as it may be printed: without user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _certificates() -> ssl.SSLContext:
    """The system's certificates (SSL_CERT_FILE, SSL_CERT_DIR) and those pip is told to trust."""
    context = ssl.create_default_context()
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
        bundle = Path(os.environ.get(name) or "")
        if bundle.is_file():
            context.load_verify_locations(cafile=bundle)
        elif bundle.is_dir() and bundle.parts:
            context.load_verify_locations(capath=bundle)
    return context


def _complete(url: str, part: Path, size_bytes: int) -> None:
    """Bring `part` up to `size_bytes`, over as many connections as ATTEMPTS allows."""
    last: Exception | None = None
    with part.open("ab") as file, _progress(part.name.removesuffix(".part"), size_bytes) as show:
        if file.tell() > size_bytes:
            file.truncate(0)
        for attempt in range(ATTEMPTS):
            if (have := file.seek(0, os.SEEK_END)) == size_bytes:
                return
            if attempt:
                time.sleep(RETRY_S * attempt)
            try:
                response = open_url(url, {"Range": f"bytes={have}-"} if have else {})
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and error.code < 500:
                    raise FetchError(f"the server answered {error.code} {error.reason}", where=shown(url)) from None
                file.truncate(0)
                last = error
                continue
            except _BROKEN as error:
                last = error
                continue
            with response:
                if have and not _continues(response, have):
                    file.truncate(0)
                last = _append(response, file, size_bytes, show) or last
            if file.seek(0, os.SEEK_END) > size_bytes:
                file.truncate(0)
                raise FetchError(f"more than the expected {size_bytes} bytes came", where=shown(url))
    if part.stat().st_size != size_bytes:
        raise FetchError(
            f"{part.stat().st_size} of {size_bytes} bytes came ({last or 'the connection was closed'!s:.120})",
            where=shown(url),
            hint="Check the connection and run it again: it goes on where it stopped",
        )


def _continues(response: http.client.HTTPResponse, have: int) -> bool:
    """Whether the server sends the rest (206 from byte `have`), rather than everything again."""
    span = response.headers.get("Content-Range", "")
    return response.status == http.HTTPStatus.PARTIAL_CONTENT and span.startswith(f"bytes {have}-")


def _append(
    response: http.client.HTTPResponse, file: IO[bytes], size_bytes: int, show: Callable[[int], None]
) -> Exception | None:
    """Copy until the response ends, breaks or sends too much; what broke it, if anything."""
    have = file.seek(0, os.SEEK_END)
    while have <= size_bytes:
        try:
            chunk = response.read(_CHUNK)
        except _BROKEN as error:
            return error
        if not chunk:
            return None
        file.write(chunk)
        file.flush()
        have += len(chunk)
        show(have)
    return None


@contextlib.contextmanager
def _progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the bytes so far; draws a bar on a terminal once it takes more than 2 s."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(label, total=total)
    begun_s = time.monotonic()

    def show(done: int) -> None:
        bar.update(task, completed=done)
        if not bar.live.is_started and time.monotonic() - begun_s > PROGRESS_AFTER_S:
            bar.start()

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
