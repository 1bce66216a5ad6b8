"""Parts of a wheel from a web server instead of the broker. What it says is not believed: the whole has a hash."""

from __future__ import annotations

import ssl
import urllib.request
from http.client import HTTPException

from wire import __version__
from wire.errors import FetchError
from wire.update import PART_BYTES

TIMEOUT_S = 15.0
PARTIAL = 206


def fetch(url: str, number: int, size: int) -> bytes:
    """One part, asked for by its range of bytes, so that a fetch goes on where it was interrupted.

    Args:
        url: of the wheel; https.
        number: which part: 0, 1, ...
        size: bytes of the whole.

    Raises:
        FetchError: if it cannot be had.

    Source: RFC 9110, 14: range requests.
    """
    first = number * PART_BYTES
    length = min(PART_BYTES, size - first)
    headers = {"Range": f"bytes={first}-{first + length - 1}", "User-Agent": f"hidenseek-edge/{__version__}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  # the federation signed it, and it is https
    try:
        context = ssl.create_default_context()
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:  # noqa: S310
            data: bytes = answer.read(length + 1)
            status = answer.status
    except (OSError, HTTPException, ValueError) as error:
        raise FetchError(f"part {number} cannot be fetched ({error})", where=url) from error
    if status != PARTIAL or len(data) != length:
        raise FetchError(
            f"status {status} and {len(data)} bytes found, {PARTIAL} and {length} expected", where=url,
            hint="The server has to serve ranges of bytes",
        )  # fmt: skip
    return data
