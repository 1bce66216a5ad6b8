"""The live page over HTTP: what is shown, and what is told as it happens."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.report import RUN
from coordinator.cli import build_parser
from coordinator.page import app
from coordinator.page.feed import Feed
from coordinator.page.guard import HEADERS
from coordinator.page.login import read_token
from coordinator.page.options import PageSettings, read_page
from coordinator.page.server import PageServer, bound
from coordinator.store import Store
from tests.helpers import introduce
from tests.page import Made, Visitor, listening, until
from wire.errors import ConfigError, StateError

TEMPLATES = sorted((app.FOLDER / "templates").glob("*.j2"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Six devices after three of eight rounds."""
    return Made(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def server(made: Made) -> Iterator[PageServer]:
    """Their page."""
    with made.shown() as server:
        yield server


@pytest.fixture
def visitor(server: PageServer) -> Visitor:
    """Somebody with the token."""
    return Visitor(server, bearer=server.token)


def test_every_answer_has_the_headers(server: PageServer, visitor: Visitor) -> None:
    """Also refusals, files and streams; nothing inline may run, and no template has anything inline."""
    answers = [visitor.get(path) for path in ("/", "/devices/pi-001", "/nothing", "/static/fleet.js", "/login")]
    answers += [Visitor(server).get("/"), Visitor(server, bearer="wrong").get("/")]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["content-security-policy"]
    for path in TEMPLATES:
        text = path.read_text()
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:|https?://", text), path.name
    for path in ("/", "/devices/pi-001"):
        assert not re.search(r"\sstyle=|<script(?![^>]*\ssrc=)", visitor.get(path).text), path


def test_the_fleet_page_shows_the_run(visitor: Visitor) -> None:
    """Charts of its rounds, its settings, and where the table comes from; charts alone for when a round closes."""
    text = visitor.get("/").text
    assert "<bdi>made-up</bdi>" in text
    assert text.count("<svg") == 4
    assert "After round 3: personalised" in text
    assert 'src="/static/fleet.js"' in text
    assert visitor.get("/charts").text.count("<svg") == 4


def test_the_figures_are_there_as_json(visitor: Visitor) -> None:
    """For programs, with the token as a bearer."""
    found = json.loads(visitor.get("/api/fleet", Accept="application/json").text)
    assert (found["run"]["round"], found["run"]["rounds"], found["run"]["online"]) == (4, 8, 5)
    assert list(found["devices"]) == [f"pi-{number:03}" for number in range(6)]
    state, profile, temperature_c, _, newest, _, accuracy = found["devices"]["pi-000"]
    assert (state, profile, newest) == ("training", "pi-4", 3)
    assert 45 <= temperature_c <= 85
    assert 0.5 <= accuracy < 0.9
    assert [found["devices"][f"pi-00{n}"][0] for n in range(1, 6)] == [
        "training",
        "online",
        "offline",
        "online",
        "online",
    ]


def test_the_figures_say_until_when_a_round_waits(tmp_path: Path) -> None:
    """For its masks; between two rounds for more devices; paused for nothing."""
    made = Made(tmp_path, devices=1, rounds=3)
    with made.shown() as server:
        visitor = Visitor(server, bearer=server.token)

        def waits() -> float | None:
            found = json.loads(visitor.get("/api/fleet", Accept="application/json").text)
            deadline_s: float | None = found["run"]["deadline_s"]
            return deadline_s

        assert waits() == pytest.approx(time.time() + 60, abs=10)
        closed_s = made.store.query("SELECT closed_s FROM round WHERE number = 3")[0]["closed_s"]
        made.figures.announced(3, ())
        assert waits() == closed_s + 60
        made.store.pause()
        assert waits() is None


def test_a_device_has_a_page(visitor: Visitor) -> None:
    """Its rounds, charts and key; one that nobody knows has none."""
    text = visitor.get("/devices/pi-002").text
    assert text.count("<svg") == 10
    assert text.count('<th scope="row">') == 3
    assert "pi-5" in text
    for path, status in (
        ("/devices/pi-099", 404),
        ("/devices/%3Cb%3E", 404),
        ("/nothing", 404),
        ("/static/../app.py", 404),
    ):
        answer = visitor.get(path)
        assert answer.status == status, path
        assert "<b>" not in answer.text
    assert json.loads(visitor.get("/devices/pi-099", Accept="application/json").text)["error"].startswith("no device")


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    """A device may call its hardware what it likes."""
    made = Made(tmp_path, devices=1, rounds=1)
    made.store.save_device("pi-666", introduce("pi-666", profile="<script>alert(1)</script>"))
    made.figures.devices["<img>"] = made.figures.devices["pi-000"]
    with made.shown() as server:
        visitor = Visitor(server, bearer=server.token)
        assert "<script>alert" not in visitor.get("/devices/pi-666").text
        assert "&lt;script&gt;alert" in visitor.get("/devices/pi-666").text
        assert "<img>" not in visitor.get("/devices/%3Cimg%3E").text


def test_browsers_are_told_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First all, then what changes: a device appears, is revoked, sends a mask, is forgotten; to everyone alike."""
    monkeypatch.setattr(Feed, "EVERY_S", 0.1)
    made = Made(tmp_path, devices=3, rounds=1)
    with made.shown() as server:
        visitor = Visitor(server).log_in()
        with listening(visitor) as events, listening(visitor) as others:
            for each in (events, others):
                kind, first = next(each)
                assert (kind, first["all"], len(first["devices"])) == ("fleet", True, 3)
            made.store.save_device("pi-new", introduce("pi-new", profile="pi-5"))
            assert until(events, "pi-new")[:2] == ["offline", "pi-5"]
            made.store.revoke("pi-new")
            assert until(events, "pi-new")[0] == "revoked"
            made.figures.devices["pi-001"].accuracy = 0.125
            assert until(events, "pi-001")[6] == 0.125
            made.store.restore("pi-new")
            made.store.forget_device("pi-new")
            assert until(events, "pi-new") is None
            assert until(others, "pi-001")[6] == 0.125, "whoever reads late gets what is new, at once"


def test_streams_end_with_the_server(tmp_path: Path) -> None:
    """Whoever looks is told how it ended, however short before that was, and nobody holds the server up."""
    made = Made(tmp_path, devices=1, rounds=1)
    with ExitStack() as stack:
        with made.shown() as server:
            events = stack.enter_context(listening(Visitor(server, bearer=server.token)))
            next(events)
            made.figures.announced(7, ())
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 1.5
        last = [told["run"]["round"] for kind, told in events if kind == "fleet"]
    assert last[-1] == 7


def test_too_many_listeners_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever leaves makes room."""
    monkeypatch.setattr("coordinator.page.feed.Feed.LISTENERS", 1)
    with Made(tmp_path, devices=1, rounds=1).shown() as server:
        visitor = Visitor(server, bearer=server.token)
        with listening(visitor) as events:
            next(events)
            assert visitor.get("/events").status == 503


def test_the_port_and_the_token_are_looked_at_first(tmp_path: Path) -> None:
    """A taken port, a token that can be guessed and a certificate that is none are said with what to do."""
    token = tmp_path / "state" / "page.token"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--page: 127\.0\.0\.1:{port} cannot be listened on .*Name another"):
            bound(PageSettings(host="127.0.0.1", port=port, token_file=token)).__enter__()
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert read_token(token) == read_token(token)
    token.write_text("short\n")
    with pytest.raises(ConfigError, match="5 characters, at least 16"):
        read_token(token)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path)
    with pytest.raises(ConfigError, match="no usable certificate"):
        PageServer(PageSettings(host="127.0.0.1", port=0, token_file=token, certificate=token))
    with pytest.raises(ConfigError, match="--page-key: a key without its certificate"):
        PageServer(PageSettings(host="127.0.0.1", port=0, token_file=token, certificate_key=token))


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (["--page"], ("127.0.0.1", 8470)),
        (["--page", "9000"], ("127.0.0.1", 9000)),
        (["--page", "10.0.0.5"], ("10.0.0.5", 8470)),
        (["--page", "0.0.0.0:80"], ("0.0.0.0", 80)),
    ],
)
def test_the_page_is_on_the_loopback_unless_told(options: list[str], address: tuple[str, int]) -> None:
    """And there is none unless asked for."""
    settings = read_page(build_parser().parse_args(["serve", *options]), Path("state"))
    assert settings is not None
    assert (settings.host, settings.port) == address
    assert settings.token_file == Path("state/page.token")


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_an_open_port_without_a_certificate_is_warned_of(tmp_path: Path, host: str, warned: bool) -> None:
    """The token would be read on the way."""
    with bound(PageSettings(host=host, port=0, token_file=tmp_path / "page.token")) as server:
        assert ("--page-cert" in server.warning) == warned
        assert server.url.startswith("http://127.0.0.1:")
        assert server.login_url == f"{server.url}login#{server.token}"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--page-token-file", "x"], "--page-token-file: there is no page without --page"),
        (["--page", "here:there"], "--page: 'here:there' is not HOST:PORT"),
    ],
)
def test_options_that_do_not_go_together_are_told(options: list[str], complaint: str) -> None:
    """With the one that is wrong."""
    with pytest.raises(ConfigError, match=complaint):
        read_page(build_parser().parse_args(["serve", *options]), Path("state"))
    assert read_page(build_parser().parse_args(["serve"]), Path("state")) is None


def test_a_database_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    """Nor made, nor brought up to date."""
    with pytest.raises(StateError, match="no usable database"):
        Store(tmp_path / "none.db", read_only=True)
    assert not (tmp_path / "none.db").exists()
    made = Made(tmp_path, devices=1, rounds=1)
    reader = Store(made.store.place, read_only=True)
    with pytest.raises(StateError, match="readonly"):
        reader.revoke("pi-000")
    reader.close()
    made.store.close()
    sqlite3.connect(made.store.place).execute("PRAGMA user_version = 2").connection.close()
    with pytest.raises(StateError, match="database version 2"):
        Store(made.store.place, read_only=True)


def test_what_devices_did_before_a_restart_is_recalled(made: Made) -> None:
    """What is newest in the database; rounds are read again only while they may change."""
    newest = made.store.query("SELECT device, correct, arrived_s FROM mask WHERE run = ? AND number = 3", RUN)
    assert {n: (d.round, d.accuracy, d.mask_s) for n, d in made.figures.devices.items()} == {
        row["device"]: (3, row["correct"] / 100, row["arrived_s"]) for row in newest
    }
    history = app.History(made.source)
    before = history.rounds()
    assert [one.number for one in before] == [1, 2, 3]
    after = history.rounds()
    assert after == before
    assert [a is b for a, b in zip(after, before, strict=True)] == [True, False, False]
