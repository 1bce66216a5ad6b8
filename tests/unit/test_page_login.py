"""Who gets in to the live page: with the token, its cookie, and not by guessing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.page.login import Login
from coordinator.page.server import PageServer
from tests.page import Made, Visitor


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """The page of two devices."""
    with Made(tmp_path_factory.mktemp("page"), devices=2, rounds=1).shown() as server:
        yield server


def test_nobody_gets_in_without_the_token(server: PageServer) -> None:
    """Browsers are sent to the form, programs are told; nothing is shown on any address."""
    stranger = Visitor(server)
    for path in ("/", "/charts", "/devices/pi-001", "/nothing"):
        answer = stranger.get(path)
        assert (answer.status, answer.headers["location"]) == (303, "/login")
    for path in ("/events", "/api/fleet"):
        answer = stranger.get(path, Accept="*/*")
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert stranger.post("/logout", {}).status == 303
    assert "pi-001" not in stranger.get("/login").text


def test_a_browser_logs_in_with_the_form(server: PageServer) -> None:
    """Its cookie lets it in, no script can read it, and no other site has it sent."""
    visitor = Visitor(server)
    answer = visitor.post("/login", {"token": server.token})
    assert (answer.status, answer.headers["location"]) == (303, "/")
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "secure" not in said.split("; "), "over HTTP it would never be sent back"
    assert visitor.get("/").status == 200
    assert server.token not in visitor.get("/").text


def test_logging_out_needs_a_form_of_ours(server: PageServer) -> None:
    """As whatever changes something: another site cannot know what it carries."""
    visitor = Visitor(server).log_in()
    assert visitor.post("/logout", {}).status == 403
    assert visitor.post("/logout", {"form_key": "0" * 64}).status == 403
    other = Visitor(server).log_in()
    key = visitor.form_key()
    other.cookie = f"hidenseek-page={Login(server.token, now=lambda: 2e9).cookie()}"
    assert other.post("/logout", {"form_key": key}).status == 403, "of another visitor's page"
    assert visitor.post("/logout", {"form_key": key}).status == 303
    assert visitor.get("/").status == 303


def test_wrong_tokens_are_few_in_a_minute(tmp_path: Path) -> None:
    """After five the right one is not looked at either, whichever way it comes; then it is."""
    with Made(tmp_path, devices=1, rounds=1).shown() as server:
        for number in range(5):
            answer = (
                Visitor(server, bearer="wrong").get("/")
                if number % 2
                else Visitor(server).post("/login", {"token": "é"})
            )
            assert answer.status == 401
        for answer in (
            Visitor(server, bearer=server.token).get("/"),
            Visitor(server).post("/login", {"token": server.token}),
        ):
            assert answer.status == 429
            assert 0 < int(answer.headers["retry-after"]) <= 60


def test_tokens_and_cookies_end() -> None:
    """Wrong tokens are forgotten after a minute, cookies are good for a week and for one token."""
    now = [1000.0]
    login = Login("a-token-of-a-test", now=lambda: now[0])
    cookie = login.cookie()
    for _ in range(5):
        assert login.wait_s("10.0.0.1") == 0
        assert not login.admits("no", "10.0.0.1")
    assert login.wait_s("10.0.0.1") == 60
    assert login.wait_s("10.0.0.2") == 0
    now[0] += 61
    assert login.wait_s("10.0.0.1") == 0
    assert login.admits(login.token, "10.0.0.1")
    assert login.knows(cookie)
    end, mac = cookie.split(".")
    for forged in ("", ".", "x.y", f"{int(end) + 1}.{mac}", f"{end}.{mac[:-1]}", f"{end}.{mac[::-1]}", f"{end}.é"):
        assert not login.knows(forged)
    assert not Login("another-token-of-a-test", now=lambda: now[0]).knows(cookie)
    now[0] += 7 * 86400
    assert not login.knows(cookie)


def test_addresses_that_tried_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest goes."""
    monkeypatch.setattr(Login, "addresses", 3)
    login = Login("a-token-of-a-test")
    for number in range(10):
        login.admits("no", f"10.0.0.{number}")
    assert len(login._wrong) == 3
