"""Downloads against a small HTTP server on a free port: resume, hashes, indexes, and the cache file."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.datasets import cache, fetch, package_index
from wire.errors import FetchError

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Server(http.server.ThreadingHTTPServer):
    """Serves `pages`; can break off each answer after some bytes, ignore ranges, or ask for a login."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, tuple[str, bytes]] = {"/file": ("application/octet-stream", CONTENT)}
        self.break_after: int | None = None
        self.ranges = True
        self.login = ""
        self.asked: list[tuple[str, str]] = []  # path, Range header

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        span = self.headers.get("Range", "")
        self.server.asked.append((self.path, span))
        if self.path not in self.server.pages or (self.headers.get("Authorization") or "") != self.server.login:
            self.send_error(404 if self.path not in self.server.pages else 401)
            return
        kind, body = self.server.pages[self.path]
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        end = len(body) if self.server.break_after is None else start + self.server.break_after
        self.wfile.write(body[start:end])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    """A server of its own for each test, reached without any proxy, with no waiting between attempts."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(fetch, "RETRY_S", 0.0)
    with _Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def _fetch(server: _Server, path: Path, *, sha256: str = SHA256, size_bytes: int = len(CONTENT)) -> Path:
    return fetch.fetch(f"{server.url}/file", path, sha256=sha256, size_bytes=size_bytes)


def test_a_file_is_fetched_once(server: _Server, tmp_path: Path) -> None:
    """The second call finds the whole file and asks nobody; no .part is left."""
    path = tmp_path / "file"
    assert _fetch(server, path).read_bytes() == CONTENT
    assert _fetch(server, path) == path
    assert server.asked == [("/file", "")]
    assert not path.with_name("file.part").exists()


def test_a_partial_file_is_gone_on_with(server: _Server, tmp_path: Path) -> None:
    """Only the missing bytes are asked for."""
    path = tmp_path / "file"
    path.with_name("file.part").write_bytes(CONTENT[:100_000])
    assert _fetch(server, path).read_bytes() == CONTENT
    assert server.asked == [("/file", "bytes=100000-")]


def test_a_server_without_ranges_starts_over(server: _Server, tmp_path: Path) -> None:
    """A 200 to a Range request replaces what was there instead of being appended to it."""
    server.ranges = False
    path = tmp_path / "file"
    path.with_name("file.part").write_bytes(b"x" * 1000)
    assert _fetch(server, path).read_bytes() == CONTENT


def test_a_connection_that_breaks_is_taken_up_again(server: _Server, tmp_path: Path) -> None:
    """Three connections of 100,000 bytes each make the whole file."""
    server.break_after = 100_000
    assert _fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert [span for _, span in server.asked] == ["", "bytes=100000-", "bytes=200000-"]


def test_giving_up_leaves_a_part_to_go_on_from(server: _Server, tmp_path: Path) -> None:
    """When every attempt breaks the error says how far it came, and what came is kept."""
    server.break_after = 1000
    with pytest.raises(FetchError, match="4000 of 256000 bytes came") as caught:
        _fetch(server, tmp_path / "file")
    assert "goes on where it stopped" in caught.value.hint
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:4000]
    assert not (tmp_path / "file").exists()


def test_ctrl_c_leaves_a_part_to_go_on_from(server: _Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in the middle keeps what came, and the next call asks only for the rest."""
    append = fetch._append

    def interrupted(response: object, file: object, size_bytes: int, show: object) -> None:
        def stop(have: int) -> None:
            raise KeyboardInterrupt

        append(response, file, size_bytes, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(fetch, "_append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _fetch(server, tmp_path / "file")
    have = (tmp_path / "file.part").stat().st_size
    assert 0 < have < len(CONTENT)
    monkeypatch.setattr(fetch, "_append", append)
    assert _fetch(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.asked[-1] == ("/file", f"bytes={have}-")


def test_a_wrong_hash_deletes_the_file(server: _Server, tmp_path: Path) -> None:
    """What does not have the pinned hash is not kept, not even as .part."""
    with pytest.raises(FetchError, match=r"sha256 .* found, 0{16}\.\.\. expected"):
        _fetch(server, tmp_path / "file", sha256="0" * 64)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


def test_more_bytes_than_pinned_are_refused(server: _Server, tmp_path: Path) -> None:
    """A server that sends more than it should does not fill the disk."""
    with pytest.raises(FetchError, match="more than the expected 1000 bytes"):
        _fetch(server, tmp_path / "file", size_bytes=1000)
    assert (tmp_path / "file.part").stat().st_size == 0


def test_an_answer_of_404_is_not_tried_again(server: _Server, tmp_path: Path) -> None:
    """A refusal ends it at once, with the server's words."""
    with pytest.raises(FetchError, match="the server answered 404 Not Found"):
        fetch.fetch(f"{server.url}/none", tmp_path / "file", sha256=SHA256, size_bytes=1)
    assert len(server.asked) == 1


def test_only_http_is_fetched_and_passwords_are_not_shown(tmp_path: Path) -> None:
    """A file: address is refused, and a login in the address does not reach the message."""
    with pytest.raises(FetchError, match="http or https") as caught:
        fetch.fetch("file://me:secret@host/etc/passwd", tmp_path / "file", sha256=SHA256, size_bytes=1)
    assert "secret" not in str(caught.value)


def test_the_index_is_asked_for_json_first(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PEP 691 page gives the file's address, relative ones included."""
    page = {"files": [{"filename": "My_Set-1.tar.gz", "url": "../../files/My_Set-1.tar.gz"}, {"filename": 3}]}
    server.pages["/simple/my-set/"] = ("application/vnd.pypi.simple.v1+json", json.dumps(page).encode())
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    assert package_index.find("My_Set", "My_Set-1.tar.gz") == f"{server.url}/files/My_Set-1.tar.gz"


def test_an_html_index_works_too_and_the_extra_index_comes_second(
    server: _Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PEP 503 page of the extra index is read when the first index lacks the project."""
    html = b'<html><a href="/f/other-1.tar.gz">o</a><a href="/f/my-set-1.tar.gz#sha256=00">my-set-1.tar.gz</a></html>'
    server.pages["/extra/my-set/"] = ("text/html", html)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file:///nowhere {server.url}/extra/")
    assert package_index.find("my.set", "my-set-1.tar.gz") == f"{server.url}/f/my-set-1.tar.gz#sha256=00"


def test_a_file_no_index_has_is_reported_with_what_was_tried(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error lists each index's answer, without logins, and says what to do."""
    server.pages["/simple/my-set/"] = ("application/vnd.pypi.simple.v1+json", b'{"files": "none"}')
    server.login = "Basic bWU6c2VjcmV0"
    monkeypatch.setenv("PIP_INDEX_URL", server.url.replace("http://", "http://me:secret@") + "/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{server.url}/extra")
    with pytest.raises(FetchError, match=r"0 files, none called my-set-1\.tar\.gz.*404") as caught:
        package_index.find("my-set", "my-set-1.tar.gz")
    assert "PIP_INDEX_URL" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_login_goes_to_the_index_and_to_no_other_host() -> None:
    """Files on the index's own host get its login; files elsewhere do not."""
    index = "https://me:secret@index.example/simple"
    assert package_index._with_login("https://index.example/f", index) == "https://me:secret@index.example/f"
    assert package_index._with_login("https://files.example/f", index) == "https://files.example/f"
    assert package_index._with_login("http://index.example/f", index) == "http://index.example/f"


def test_the_default_index_is_pypi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any setting of pip's, PyPI is asked."""
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.setattr(package_index, "_pip_setting", lambda key: "")
    assert package_index.indexes() == ["https://pypi.org/simple"]


def test_cached_arrays_come_back_and_damage_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed byte, a cut file and a missing one all read as absent, so that they are built again."""
    monkeypatch.setenv("HIDENSEEK_CACHE", str(tmp_path / "deep" / "cache"))
    arrays = {"raw": np.ones((3, 1, 2), dtype=np.float32), "y": np.arange(3), "part": np.zeros(3, dtype=np.uint8)}
    assert cache.load("toy") is None
    path = cache.save("toy", arrays)
    assert path == tmp_path / "deep" / "cache" / "toy-v1.npz"
    back = cache.load("toy")
    assert back is not None
    assert all(np.array_equal(back[key], value) for key, value in arrays.items())

    changed = arrays | {"y": np.array([0, 1, 1])}
    with np.load(path) as stored:
        seal = stored["sha256"]
    np.savez(path, sha256=seal, **changed)
    assert cache.load("toy") is None
    path.write_bytes(path.read_bytes()[:-30])
    assert cache.load("toy") is None
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """An exception in the middle of writing keeps the file as it was, and leaves no scraps."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with cache.atomic(path) as file:
            file.write(b"half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
