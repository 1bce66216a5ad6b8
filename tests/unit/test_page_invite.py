"""Inviting a phone: what the link says, what the broker then knows, and who is not invited."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from coordinator.brokers import accounts, claims
from coordinator.page import app, invites
from coordinator.page.guard import JOIN_HEADERS
from coordinator.page.server import PageServer
from tests.page import Made, Visitor, deployment
from wire import claim
from wire.invite import Invite, decode

KEY = bytes(range(32))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Two devices and a mosquitto's folder that knows one of them."""
    made = Made(tmp_path, devices=2, rounds=1, deploy=deployment(tmp_path, "pi-000"))
    made.source.key = KEY
    return made


@pytest.fixture
def server(made: Made) -> Iterator[PageServer]:
    """Their page."""
    with made.shown() as server:
        yield server


def test_a_phone_is_invited(made: Made, server: PageServer) -> None:
    """The link has all that it needs; the broker waits for it, and nobody else has become another."""
    assert made.deploy is not None
    before = accounts.load(made.deploy)
    visitor = Visitor(server).log_in()
    form = visitor.get("/invite").text
    assert 'name="device" value="phone-1"' in form
    assert f'value="{server.url.rstrip("/")}"' in form
    fields = {"form_key": visitor.form_key(), "device": "phone-1", "address": "https://192.168.1.10:8470/anything"}
    answer = visitor.post("/invite", fields)
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    (link,) = re.findall(r'id="link" readonly value="([^"]+)"', answer.text)
    assert '<svg viewBox="0 0 ' in answer.text
    page, _, _ = (link := unescape(link)).partition("#")
    assert page == "https://192.168.1.10:8470/join/"
    token = accounts.load(made.deploy)[claim.USER + "phone-1"]
    assert decode(link) == Invite(
        federation="made-up",
        broker="wss://127.0.0.1:8084/mqtt",
        device="phone-1",
        secret=token,
        claim=True,
        key=KEY,
    )
    assert {user: accounts.load(made.deploy)[user] for user in before} == before
    assert claims.load(made.deploy).cards["phone-1"].key is None
    assert made.source.take().devices["phone-1"][0] == "flashed, waiting"
    assert 'name="device" value="phone-2"' in visitor.get("/invite").text


def test_an_invitation_that_was_lost_is_made_again(made: Made, server: PageServer) -> None:
    """And the first is worth nothing from then on; programs get it as JSON."""
    program = Visitor(server, bearer=server.token)
    links = []
    for _ in range(2):
        answer = program.post("/invite", {"device": "phone-1"}, Accept="application/json")
        links.append(json.loads(answer.text)["link"])
    first, second = (decode(link).secret for link in links)
    assert first != second
    assert made.deploy is not None
    assert accounts.load(made.deploy)[claim.USER + "phone-1"] == second
    assert links[0].startswith(f"{server.url}join/#")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"device": "pi-000"}, "'pi-000' is taken"),
        ({"device": "a b"}, "device id 'a b' is not 1 to 64 letters"),
        ({"device": ""}, "device id '' is not"),
        ({"device": "coordinator"}, "'coordinator' is the broker's own account"),
        ({"device": "phone-1", "address": "ftp://x"}, "'ftp://x' is no address of a page"),
        ({"device": "phone-1", "address": "http://a:b@x"}, "is no address of a page"),
        ({"device": "phone-1", "address": "http://["}, "is no address of a page"),
    ],
)
def test_whom_nobody_can_invite(made: Made, server: PageServer, fields: dict[str, str], why: str) -> None:
    """It is said why, in the form as well, and no account is made."""
    program = Visitor(server, bearer=server.token)
    answer = program.post("/invite", fields, Accept="application/json")
    assert answer.status == 400
    assert why in json.loads(answer.text)["error"]
    shown = program.post("/invite", fields)
    assert shown.status == 400
    assert why in unescape(shown.text)
    assert made.deploy is not None
    assert not claims.load(made.deploy).cards


def test_only_listed_devices_are_invited(made: Made, server: PageServer) -> None:
    """Where devices.yaml lists them: the next that is free is suggested."""
    made.source.allowed = frozenset({"pi-000", "pi-001", "tablet"})
    program = Visitor(server, bearer=server.token)
    assert 'name="device" value="tablet"' in program.get("/invite").text
    answer = program.post("/invite", {"device": "phone-1"}, Accept="application/json")
    assert "not among the 3 devices that may join" in json.loads(answer.text)["error"]
    assert program.post("/invite", {"device": "tablet"}).status == 200


def test_another_federations_broker_is_refused(made: Made, server: PageServer) -> None:
    """Its topics would be others."""
    made.source.name = "mine"
    answer = Visitor(server, bearer=server.token).post("/invite", {"device": "p"}, Accept="application/json")
    assert "the broker there is for the federation 'made-up', this is 'mine'" in json.loads(answer.text)["error"]


def test_without_a_broker_of_ours_the_page_says_so(tmp_path: Path) -> None:
    """And what to do."""
    with Made(tmp_path, devices=1, rounds=1).shown() as server:
        program = Visitor(server, bearer=server.token)
        text = program.get("/invite").text
        assert "hidenseek broker init" in text
        assert 'name="device"' not in text
        answer = program.post("/invite", {"device": "p"}, Accept="application/json")
        assert answer.status == 400
        assert "no broker here that phones could join at" in json.loads(answer.text)["error"]


def test_the_page_for_phones_is_open_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    """With rights of its own to compute and connect, and no others; what is beside its folder is not."""
    phones = tmp_path / "dist"
    phones.mkdir()
    (phones / "index.html").write_text("<!doctype html><title>phone</title>")
    (phones / "worker.js").write_text("export {};\n" * 1000)
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setattr(app, "phone_page", lambda: phones)
    with made.shown() as server:
        stranger = Visitor(server)
        answer = stranger.get("/join/")
        assert (answer.status, answer.text) == (200, "<!doctype html><title>phone</title>")
        assert answer.headers["content-security-policy"] == JOIN_HEADERS["content-security-policy"]
        assert "unsafe-inline" not in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-cache"
        packed = stranger.get("/join/worker.js", **{"Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert len(packed.text) < 500
        for path in ("/join/../secret", "/join/%2e%2e/secret", "/join/none.js"):
            assert stranger.get(path).status in (303, 404), path


def test_a_page_for_phones_that_is_not_built_is_told(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the phone and to whoever invites."""
    monkeypatch.setattr(app, "phone_page", lambda: None)
    monkeypatch.setattr(invites, "phone_page", lambda: None)
    with made.shown() as server:
        answer = Visitor(server).get("/join/")
        assert answer.status == 404
        assert "make web" in answer.text
        program = Visitor(server, bearer=server.token)
        assert "make web" in program.get("/invite").text
        answer = program.post("/invite", {"device": "p", "address": "http://10.0.0.5:8470"}, Accept="application/json")
        doubts = json.loads(answer.text)["doubts"]
        assert [("make web" in one, "HTTPS" in one) for one in doubts] == [(True, False), (False, True)]
        answer = program.post("/invite", {"device": "p", "address": "http://localhost:1"}, Accept="application/json")
        assert "Nobody but this machine" in json.loads(answer.text)["doubts"][1]
