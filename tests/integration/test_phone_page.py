"""Phones that take part with the page in a real Chromium: beside boards, over a real broker, through bad days."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator import cli
from coordinator.brokers import deployment as deployments
from coordinator.brokers import enroller
from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import Processes, assert_every_mask_counted_once, rows, wait_until, write_person
from tests.integration.kotlin import Program
from tests.integration.phones import Phone, invitation
from tests.integration.web import needs_chromium, needs_web

pytestmark = [pytest.mark.broker, pytest.mark.slow, needs_web, needs_chromium]
Phones = Callable[[str], Phone]
DEVICES = "{pi-1: {}, pi-2: {}, phone-1: {}, phone-2: {}, phone-3: {}}"
CONFIG = """
federation:
  name: t
  rounds: ROUNDS
  per_round: 5
  quorum: QUORUM
  start_devices: START
  deadline_s: 30
  training: {epochs: 8}
devices: {pi-1: {}, pi-2: {}, phone-1: {}, phone-2: {}, phone-3: {}}
"""


@pytest.fixture
def phones(chromium: Program) -> Iterator[Phones]:
    """Makes phones, which are gone after the test."""
    made: list[Phone] = []

    def make(name: str) -> Phone:
        made.append(Phone(name, chromium))
        return made[-1]

    yield make
    for phone in made:
        phone.do("close")


@pytest.fixture
def broker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployed]:
    """A broker with TLS and websockets, as `hidenseek broker init` makes it: mosquitto, if a test asks for no other."""
    with deployed(tmp_path, getattr(request, "param", "mosquitto"), devices=DEVICES, each=True) as made:
        yield made


def serve(processes: Processes, broker: Deployed, *, rounds: int, quorum: int) -> None:
    """The coordinator."""
    config = CONFIG.replace("ROUNDS", str(rounds)).replace("QUORUM", str(quorum))
    config = config.replace("START", "5" if quorum > 1 else "1")
    options = ["--broker", broker.url("coordinator"), "--ca", str(broker.folder / "ca.crt")]
    processes.serve(config, *options, password=broker.password("coordinator"))


def person(folder: Path, seed: int) -> Path:
    """One file of samples."""
    return write_person(folder / f"person-{seed}", seed) / "train.npz"


@pytest.mark.parametrize("broker", ["mosquitto", "nats"], indirect=True)
def test_three_phones_and_two_boards_complete_a_federation(
    tmp_path: Path, processes: Processes, broker: Deployed, page: str, phones: Phones
) -> None:
    """One phone has its invitation's token, one is reloaded, one is without a network for a while."""
    serve(processes, broker, rounds=8, quorum=3)
    for device in ("pi-1", "pi-2"):
        processes.edge(
            device, broker.url(device), "--ca", str(broker.folder / "ca.crt"), password=broker.password(device)
        )
    _, token = enroller.open_card(broker.folder, deployments.load(broker.folder), "phone-1", time.time())
    three = [phones(f"phone-{number}") for number in (1, 2, 3)]
    links = [
        invitation(page, broker, "phone-1", token, claim=True),
        *(invitation(page, broker, phone.name) for phone in three[1:]),
    ]
    began_s = time.monotonic()
    for number, (phone, link) in enumerate(zip(three, links, strict=True)):
        phone.join(link, person(tmp_path, number))
    assert "#" not in three[0].do("script", code="location.href"), "the secret stays out of the history"
    for phone in three:
        phone.wait(r"Masks that arrived\s+[1-9]")
    assert time.monotonic() - began_s < 60

    three[1].do("reload")
    three[1].wait(r"Masks that arrived\s+[1-9]")
    three[2].do("offline", on=True)
    time.sleep(2)
    three[2].do("offline", on=False)
    for phone in three:
        phone.wait("The run is over", 120)
    assert processes.wait("coordinator", 60) == 0, processes.log("coordinator")
    assert_every_mask_counted_once(processes, 8)
    sent = dict(rows(processes.database, "SELECT device, COUNT(*) FROM mask GROUP BY device"))
    assert set(sent) == {"pi-1", "pi-2", "phone-1", "phone-2", "phone-3"}
    wait_until(lambda: "'phone-1' has enrolled" in broker.log, 5, "the enrolment to be told")
    agreed = float(three[0].do("script", code="document.getElementById('fleet').textContent").split()[0])
    assert agreed >= 80, "it has learned"


@pytest.mark.parametrize("broker", ["mosquitto", "nats"], indirect=True)
def test_whom_nobody_lets_in_is_told_so(
    tmp_path: Path, processes: Processes, broker: Deployed, page: str, phones: Phones
) -> None:
    """A wrong token, a wrong password, another federation's key, a token used before; a phone that is revoked."""
    phone = phones("phone-1")
    _, token = enroller.open_card(broker.folder, deployments.load(broker.folder), "phone-1", time.time())
    phone.join(invitation(page, broker, "phone-1", "no such token", claim=True), None)
    phone.wait("The broker does not know this invitation's token")

    phone.join(invitation(page, broker, "phone-2", "wrong"), None)
    phone.wait("The broker does not let 'phone-2' in")

    phone.join(invitation(page, broker, "phone-1", token, claim=True), None)
    phone.wait("waiting for the federation")
    copy = phones("copy")
    copy.join(invitation(page, broker, "phone-1", token, claim=True), None)
    copy.wait("The invitation is not good any more.*used before")

    serve(processes, broker, rounds=50, quorum=1)
    phone.wait(r"Masks that arrived\s+[1-9]")
    stranger = phones("stranger")
    stranger.join(invitation(page, broker, "phone-3", key=bytes(31) + b"\1"), None)
    stranger.do("click", what="summary")
    stranger.wait("a federation with another key than the one this phone trusts")

    state = ["--state", str(tmp_path / "serve")]
    assert cli.main(["fleet", "revoke", "phone-1", *state]) == 0
    phone.wait("The coordinator refused 'phone-1': 'phone-1' was revoked")


@pytest.mark.parametrize("broker", ["mosquitto", "nats"], indirect=True)
def test_a_phone_works_through_what_happens_to_phones(
    processes: Processes, broker: Deployed, page: str, phones: Phones
) -> None:
    """Pause and go on, a broker that is gone for a while, stop; what was told of it survives a reload."""
    serve(processes, broker, rounds=200, quorum=1)
    phone = phones("phone-1")
    phone.join(invitation(page, broker, "phone-1"), None)
    phone.wait(r"Masks that arrived\s+[1-9]")
    phone.do("click", what="#pause")
    phone.wait("Paused; nothing is sent or received")
    phone.do("click", what="text=Go on")
    phone.wait("Training, round")
    broker.kill("broker")
    phone.wait("No connection; it goes on when there is one")
    broker.up("broker")
    phone.wait("Training, round")
    phone.do("click", what="#stop")
    phone.wait("A demo person, made up: \\d+ samples")
    phone.do("reload")
    phone.wait("from before")
    assert phone.do("script", code="document.getElementById('progress').hidden")


def test_the_page_opens_without_a_network(page: str, phones: Phones, broker: Deployed) -> None:
    """After the first visit; it waits for the network, and says so."""
    phone = phones("phone-1")
    phone.do("open", url=invitation(page, broker, "phone-1"))
    phone.wait("What to train on")
    phone.do("script", code="navigator.serviceWorker.ready.then(() => true)")
    phone.do("offline", on=True)
    phone.do("reload")
    phone.wait("What to train on")
    phone.do("check", what="input[value=demo]")
    phone.wait("samples to train on")
    phone.do("click", what="#join-button")
    phone.wait("Connecting to the broker")
    phone.do("offline", on=False)
    phone.wait("waiting for the federation")


def test_everybody_can_use_it(page: str, phones: Phones, broker: Deployed) -> None:
    """Axe finds nothing, light and dark, before and after joining; the keyboard alone gets a person in."""
    for scheme in ("light", "dark"):
        phone = phones(f"axe-{scheme}")
        phone.do("scheme", scheme=scheme)
        phone.do("open", url=page)
        phone.wait("An invitation first")
        assert phone.do("axe") == []
        phone.do("open", url=invitation(page, broker, "phone-1"))
        phone.do("reload")
        phone.wait("What to train on")
        phone.do("check", what="input[value=motion]")
        assert phone.do("axe") == []
        for key in ("ArrowDown", "ArrowDown"):
            phone.do("press", what=key)
        phone.wait("A demo person, made up")
        for key in ("Tab", "Enter"):
            phone.do("press", what=key)
        phone.wait("waiting for the federation")
        phone.do("click", what="summary")
        assert phone.do("axe") == []


def test_motion_is_recorded_at_fifty_hertz(page: str, phones: Phones, broker: Deployed) -> None:
    """Readings that come sixty times a second become windows of the activity that the person has chosen."""
    phone = phones("phone-1")
    phone.do("open", url=invitation(page, broker, "phone-1"))
    phone.wait("What to train on")
    phone.do("check", what="input[value=motion]")
    phone.do("click", what="#record")
    phone.wait("Stop recording")
    phone.do("script", code=SENSORS)
    phone.do("click", what="text=Stop recording")
    # 16 s of 50 readings: (800 - 128) / 64 + 1 windows, give or take the one at the end.
    phone.wait(r"walking: 16 s, 1[012] samples")
    phone.wait(r"Your motion: (8|9|10) samples to train on, 2 to measure with")


# A phone's sensors, as their events reach the page: 16 s at 60 Hz, with stamps of their own.
SENSORS = """
for (let i = 0; i < 960; i++) {
  const event = new DeviceMotionEvent("devicemotion", {
    accelerationIncludingGravity: { x: Math.sin(i / 5), y: 9.8, z: 0.1 }, rotationRate: { alpha: 1, beta: 2, gamma: 3 },
  });
  Object.defineProperty(event, "timeStamp", { value: 1000 + (i * 1000) / 60 });
  dispatchEvent(event);
}
"""
