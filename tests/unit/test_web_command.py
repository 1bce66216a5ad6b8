"""`hidenseek-edge web`: the page is served with the right types, copied, or said not to be there; and it is small."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from edge_client import cli, web_command
from edge_client.web import PAGE

MOST_KB = 300  # compressed
built = pytest.mark.skipif(not (PAGE / "index.html").exists(), reason="needs the page (make web)")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the page's place."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in ("index.html", "kernels.wasm", "sw.js"):
        (folder / name).write_text(name)
    monkeypatch.setattr(web_command, "PAGE", folder)
    return folder


def test_it_is_copied(page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into a new folder, whole."""
    target = tmp_path / "var" / "join"
    assert cli.main(["web", "--to", str(target)]) == 0
    assert {file.name for file in target.iterdir()} == {"index.html", "kernels.wasm", "sw.js"}
    assert str(target) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--cert-key", "k.pem"], 10, "a key without its certificate"),
        (["--port", "TAKEN"], 10, "cannot listen on 127.0.0.1"),
        (["--port", "70000"], 10, "cannot listen on 127.0.0.1"),
        (["--port", "0", "--cert", "/no/such.pem"], 10, "no usable certificate with its key"),
        (["--to", "/proc/none"], 10, "cannot be written"),
    ],
)
def test_what_cannot_be_is_said(
    page: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, words: str
) -> None:
    """One line each, and a stable exit code."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["web", *(port if word == "TAKEN" else word for word in options)]) == code
    assert words in capsys.readouterr().err


def test_without_the_page_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a server of nothing."""
    monkeypatch.setattr(web_command, "PAGE", tmp_path)
    assert cli.main(["web"]) == 23
    assert "make web" in capsys.readouterr().err


@built
def test_it_is_served() -> None:
    """By the program as a user starts it: types that browsers insist on."""
    command = [sys.executable, "-m", "edge_client.cli", "web", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split("the page: ")[1].split(";")[0]
        found = {}
        for name in ("", "kernels.wasm", "worker.js", "manifest.webmanifest"):
            with urllib.request.urlopen(address + name) as answer:
                found[name] = answer.headers["Content-Type"]
        process.terminate()
    assert found == {
        "": "text/html", "kernels.wasm": "application/wasm", "worker.js": "text/javascript",
        "manifest.webmanifest": "application/manifest+json",
    }  # fmt: skip


@built
def test_it_is_small() -> None:
    """All that a phone downloads to take part, compressed."""
    sizes = {file.name: len(gzip.compress(file.read_bytes(), 9)) for file in PAGE.iterdir()}
    assert sizes["kernels.wasm"] > 10_000
    assert sum(sizes.values()) <= MOST_KB * 1000, sizes
