"""What is done on the live page: to devices and to rounds, by whoever has the token and on no other site."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from coordinator import orders
from coordinator.brokers import claims
from coordinator.brokers import deployment as deployments
from coordinator.brokers.enroller import open_card
from coordinator.page.options import PageExtent
from coordinator.page.server import PageServer
from tests.page import Made, Visitor, deployment
from wire import signing


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Three devices."""
    return Made(tmp_path, devices=3, rounds=1)


@pytest.fixture
def server(made: Made) -> Iterator[PageServer]:
    """Their page."""
    with made.shown() as server:
        yield server


def test_a_device_is_revoked_restored_and_forgotten(made: Made, server: PageServer) -> None:
    """As by `hidenseek fleet`; what was done is said once, on the page that comes next."""
    visitor = Visitor(server).log_in()
    key = {"form_key": visitor.form_key()}
    session = visitor.cookie
    for action, said, path in (
        ("revoke", "pi-001 is revoked", "/devices/pi-001"),
        ("revoke", "pi-001 was revoked before", "/devices/pi-001"),
        ("restore", "pi-001 may take part again", "/devices/pi-001"),
        ("forget", "pi-001 is forgotten", "/"),
    ):
        visitor.cookie = session
        answer = visitor.post(f"/devices/pi-001/{action}", key)
        assert (answer.status, answer.headers["location"]) == (303, path)
        visitor.cookie = f"{session}; {visitor.cookie}"
        assert f'<p class="said" role="status">{said}</p>' in visitor.get(path).text
        assert made.store.is_revoked("pi-001") == (action == "revoke")
    assert not made.store.knows("pi-001")
    made.figures.devices["pi-001"].online = False
    assert Visitor(server, bearer=server.token).get("/devices/pi-001").status == 404
    assert made.store.knows("pi-002")


def test_a_revoked_device_is_offered_to_be_restored(made: Made, server: PageServer) -> None:
    """And no other is."""
    made.store.revoke("pi-002")
    visitor = Visitor(server, bearer=server.token)
    found = {
        name: set(re.findall(r'action="/devices/[\w-]+/(\w+)"', visitor.get(f"/devices/{name}").text))
        for name in ("pi-001", "pi-002")
    }
    assert found == {"pi-001": {"revoke", "forget"}, "pi-002": {"restore", "forget"}}


def test_rounds_are_paused_and_resumed(made: Made, server: PageServer) -> None:
    """The button that fits is the one that is shown."""
    visitor = Visitor(server).log_in()
    key = {"form_key": visitor.form_key()}
    for action in ("pause", "resume"):
        hidden = re.findall(r'action="/run/(\w+)" id="\w+" hidden', visitor.get("/").text)
        assert hidden == ["resume" if action == "pause" else "pause"]
        session = visitor.cookie
        assert visitor.post(f"/run/{action}", key).status == 303
        visitor.cookie = session
        assert made.store.paused() == (action == "pause")


@pytest.mark.parametrize("path", ["/devices/pi-001/revoke", "/run/pause", "/logout"])
def test_other_sites_change_nothing(made: Made, server: PageServer, path: str) -> None:
    """A form without what ours carry is refused, and one without a cookie is sent to log in; GET does nothing."""
    visitor = Visitor(server).log_in()
    assert visitor.post(path, {}).status == 403
    assert visitor.post(path, {"form_key": "a" * 64}, Origin="https://elsewhere.example").status == 403
    assert Visitor(server).post(path, {"form_key": visitor.form_key()}).headers["location"] == "/login"
    assert visitor.get(path).status == 405
    assert visitor.post(path, {"form_key": "a" * 10_000}).status == 413
    assert not made.store.is_revoked("pi-001")
    assert not made.store.paused()


def test_programs_need_no_form(made: Made, server: PageServer) -> None:
    """With the token as a bearer; what cannot be done is said with why."""
    program = Visitor(server, bearer=server.token)
    answer = program.post("/devices/pi-077/revoke", {}, Accept="application/json")
    assert json.loads(answer.text) == {"said": "pi-077 is revoked"}
    assert made.store.is_revoked("pi-077")
    for path, status, why in (
        ("/devices/pi-001/eat", 404, "nothing is called 'eat' here"),
        ("/run/eat", 404, "nothing is called 'eat' here"),
        ("/devices/a%20b/revoke", 400, "device id 'a b' is not 1 to 64 letters"),
        ("/devices/pi-001/approve", 400, "no broker's folder is known here"),
    ):
        answer = program.post(path, {}, Accept="application/json")
        assert answer.status == status
        assert json.loads(answer.text)["error"].startswith(why)


def test_cards_are_seen_and_approved(tmp_path: Path) -> None:
    """One that waits, one that was used twice; approved, the second waits again."""
    deploy = deployment(tmp_path, "pi-000", "pi-009")
    settings = deployments.load(deploy)
    for device in ("pi-000", "pi-009"):
        settings, _ = open_card(deploy, settings, device, time.time(), certificate=True)
    with claims.changing(deploy) as known:
        for private in (b"a" * 32, b"b" * 32):
            known.decide("pi-000", signing.public_key(private), "Raspberry Pi 4", time.time())
    made = Made(tmp_path, devices=2, rounds=1, deploy=deploy)
    with made.shown() as server:
        program = Visitor(server, bearer=server.token)
        states = {name: row[0] for name, row in made.source.take().devices.items()}
        assert states == {"pi-000": "used twice", "pi-001": "training", "pi-009": "flashed, waiting"}
        text = program.get("/devices/pi-000").text
        assert "Its card was used 1 more time" in text
        assert 'action="/devices/pi-000/approve"' in text
        assert "never" in program.get("/devices/pi-009").text
        for action, said in (("revoke", "opens the broker no more"), ("restore", "is good again")):
            answer = program.post(f"/devices/pi-000/{action}", {}, Accept="application/json")
            assert f"its certificate {said}" in json.loads(answer.text)["said"]
        answer = program.post("/devices/pi-000/approve", {}, Accept="application/json")
        assert json.loads(answer.text)["said"].endswith("who had it is out")
        assert claims.load(deploy).cards["pi-000"].key is None
        assert made.source.take().devices["pi-000"][0] == "training"


def test_settings_that_others_changed_meanwhile_are_left(made: Made, server: PageServer) -> None:
    """A form that was open for a while changes what was written into it, and nothing else."""
    visitor = Visitor(server).log_in()
    text = visitor.get("/run").text
    shown = dict(re.findall(r'<input id="f-\d+" name="(\w+)" value="([^"]*)"', text))
    assert set(shown) == {"rounds", "per_round", "quorum", "deadline_s"}
    was = {f"was.{name}": value for name, value in shown.items()}
    orders.change(made.store, {"rounds": 40})
    visitor.post("/run/change", {"form_key": visitor.form_key(), **was, **shown, "deadline_s": "90"})
    assert orders.changed(made.store, made.source.run) == {"rounds": 40, "deadline_s": 90}


def test_no_run_is_started_by_a_coordinator_that_does_not_stay(made: Made, server: PageServer) -> None:
    """Which is said on the page and to programs; one that goes on is stopped first."""
    program = Visitor(server, bearer=server.token)
    assert program.post("/run/stop", {}, Accept="application/json").status == 200
    answer = program.post("/run/start", {"rounds": "3"}, Accept="application/json")
    assert (answer.status, "hidenseek serve --stay" in answer.text) == (503, True)
    assert "this coordinator starts no other" in program.get("/run").text
    assert 'id="start" hidden' in program.get("/").text


def test_what_a_person_fills_in_for_a_new_run_is_checked(tmp_path: Path) -> None:
    """By devices.yaml as it is then; a file that is wrong is told with its line."""
    config = tmp_path / "devices.yaml"
    config.write_text("federation: {rounds: 9, per_round: 3, quorum: 2}\n")
    made = Made(tmp_path, devices=3, rounds=1, extent=PageExtent(config=config, stays=True))
    with made.shown() as server:
        program = Visitor(server, bearer=server.token)
        program.post("/run/stop", {})
        assert 'name="rounds" value="9"' in program.get("/run").text
        wrong = program.post("/run/start", {"rounds": "12", "quorum": "4"})
        assert wrong.status == 400
        assert 'name="rounds" value="12"' in wrong.text
        assert "quorum is 4, but only 3 devices are selected a round" in wrong.text
        config.write_text("federation:\n  round: 9\n")
        assert "devices.yaml:2: federation.round: no such setting" in unescape(program.get("/run").text)
        config.write_text("federation: {rounds: 9, per_round: 3, quorum: 2}\n")
        assert program.post("/run/start", {"rounds": "12", "seed": "5"}).status == 303
        assert orders.asked(made.store) == {"rounds": 12, "seed": 5}
        assert "A run is being started" in program.get("/run").text
