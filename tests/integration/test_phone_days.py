"""What a day does to a phone that takes part with the page: battery, data plan, files, sleep, no network, reloads."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.integration.deployed import Deployed, deployed
from tests.integration.fleet import Processes, rows, wait_until
from tests.integration.kotlin import Program
from tests.integration.phones import Phone, invitation
from tests.integration.test_phone_page import person
from tests.integration.web import needs_chromium, needs_web

pytestmark = [pytest.mark.broker, pytest.mark.slow, needs_web, needs_chromium]
CONFIG = """
federation: {name: t, rounds: 500, per_round: 1, quorum: 1, deadline_s: 300, training: {epochs: EPOCHS}}
devices: {phone-1: {}}
"""
MASKS = "SELECT number, count(*) FROM mask GROUP BY number ORDER BY number"
PAUSED = "Paused, to save battery or data; it goes on by itself"
# A phone's battery and data plan, which a test sets, over reloads.
MACHINE = """
const state = JSON.parse(sessionStorage.machine ?? '{"charging": false, "level": 0.15, "saveData": false}');
const battery = Object.assign(new EventTarget(), state), connection = Object.assign(new EventTarget(), state);
navigator.getBattery = async () => battery;
Object.defineProperty(navigator, "connection", { value: connection });
globalThis.setMachine = (news) => {
  sessionStorage.machine = JSON.stringify(Object.assign(state, news));
  Object.assign(battery, state);
  Object.assign(connection, state);
  for (const name of ["levelchange", "chargingchange"]) battery.dispatchEvent(new Event(name));
  connection.dispatchEvent(new Event("change"));
};
"""


@pytest.fixture
def phone(chromium: Program) -> Iterator[Phone]:
    """One, which is gone after the test."""
    made = Phone("phone-1", chromium)
    yield made
    made.do("close")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Deployed]:
    """A mosquitto with TLS and websockets."""
    with deployed(tmp_path, "mosquitto", devices="{phone-1: {}}", each=True) as made:
        yield made


def serve(processes: Processes, broker: Deployed, *, epochs: int) -> None:
    """The coordinator; a round of so many epochs takes the phone about 15 ms each."""
    options = ["--broker", broker.url("coordinator"), "--ca", str(broker.folder / "ca.crt")]
    processes.serve(CONFIG.replace("EPOCHS", str(epochs)), *options, password=broker.password("coordinator"))


def masks(processes: Processes) -> dict[object, object]:
    """How many the coordinator has, by round."""
    return dict(rows(processes.database, MASKS))


def grows(processes: Processes) -> None:
    """Wait for a mask of a round that has none now."""
    before = len(masks(processes))
    wait_until(lambda: len(masks(processes)) > before, 60, "another mask comes")


def test_battery_and_data_saver_are_respected(
    processes: Processes, broker: Deployed, page: str, phone: Phone, tmp_path: Path
) -> None:
    """Nothing before and nothing after; overruled by hand; on by itself when it charges, over a reload too."""
    serve(processes, broker, epochs=4)
    phone.do("init", code=MACHINE)
    phone.do("open", url=invitation(page, broker, "phone-1"))
    phone.wait("The battery is at 15 % and not charging")
    phone.do("check", what="input[value=file]")
    phone.do("choose", what="#chosen-file", file=str(person(tmp_path, 1)))
    phone.wait("samples to train on")
    button = "document.getElementById('join-button').disabled"
    assert phone.do("script", code=button) is True
    phone.do("check", what="#anyway")
    assert phone.do("script", code=button) is False
    phone.do("click", what="#join-button")
    phone.wait(r"Masks that arrived\s+[1-9]")

    phone.do("click", what="#anyway")
    phone.wait(re.escape(PAUSED))
    wait_until(lambda: "phone-1 is offline" in processes.log("coordinator"), 20, "the coordinator hears of it")
    sent = masks(processes)
    time.sleep(3)
    assert masks(processes) == sent, "it sends while it pauses"
    phone.do("script", code="setMachine({ charging: true })")
    phone.wait("Training, round")
    grows(processes)
    phone.do("script", code="setMachine({ saveData: true })")
    phone.wait("Data saver is on")
    phone.wait(re.escape(PAUSED))
    phone.do("reload")
    phone.wait(re.escape(PAUSED))
    sent = masks(processes)
    time.sleep(2)
    assert masks(processes) == sent
    phone.do("script", code="setMachine({ saveData: false })")
    phone.wait(r"Masks that arrived\s+[1-9]")
    assert not phone.do("script", code="document.getElementById('power').checkVisibility()")


def test_a_phone_sleeps_and_its_tab_is_switched(
    processes: Processes, broker: Deployed, page: str, phone: Phone, tmp_path: Path
) -> None:
    """Frozen, while the broker starts again and forgets the connection: awake, it is there without a hand on it."""
    serve(processes, broker, epochs=4)
    phone.join(invitation(page, broker, "phone-1"), person(tmp_path, 1))
    phone.wait(r"Masks that arrived\s+[1-9]")
    phone.do("sleep", on=True)
    broker.kill("broker")
    time.sleep(3)
    broker.up("broker")
    wait_until(lambda: broker.log.count("Ctrl-C stops it") == 2, 30, "the broker is up again")
    phone.do("sleep", on=False)
    grows(processes)
    hidden = "Object.defineProperty(document, 'visibilityState', { value: '%s', configurable: true });"
    hidden += "document.dispatchEvent(new Event('visibilitychange'));"
    phone.do("script", code=hidden % "hidden")
    grows(processes)
    phone.do("script", code=hidden % "visible")
    grows(processes)
    assert all(count == 1 for count in masks(processes).values())


def test_a_mask_outlives_the_network_and_the_page(
    processes: Processes, broker: Deployed, page: str, phone: Phone, tmp_path: Path
) -> None:
    """Reloaded in the middle of a round it trains again; trained without a network, it sends what it kept, once."""
    serve(processes, broker, epochs=500)
    phone.join(invitation(page, broker, "phone-1"), person(tmp_path, 1))
    phone.do("script", code="navigator.serviceWorker.ready.then(() => true)")
    phone.wait("Training, round 1")
    key = "indexedDB.databases().then((all) => all.map(({ name }) => name).includes('hidenseek t phone-1'))"
    assert phone.do("script", code=key)
    phone.do("reload")
    phone.wait("Training, round 1")
    phone.wait("Training, round 2", 120)
    assert masks(processes)[1] == 1

    phone.do("offline", on=True)
    phone.do("script", code="new Promise((done) => setTimeout(done, 500))")
    number = int(phone.do("script", code="document.getElementById('round').textContent").split()[0])
    phone.wait("No connection; it goes on when there is one", 120)
    kept = """new Promise((done) => {
      const opening = indexedDB.open("hidenseek t phone-1");
      opening.onsuccess = () => {
        const asked = opening.result.transaction("state").objectStore("state").get("pending");
        asked.onsuccess = () => { opening.result.close(); done(asked.result?.number ?? 0); };
      };
    })"""
    wait_until(lambda: phone.do("script", code=kept) == number, 60, "the mask is kept")
    assert number not in masks(processes)
    phone.do("reload")
    phone.wait("Connecting to the broker|No connection")
    phone.do("offline", on=False)
    phone.wait(f"Training, round {number + 1}", 120)
    assert masks(processes)[number] == 1
    log = phone.do("script", code="document.getElementById('log').textContent")
    assert f"round {number}: training on" not in log, "it trained again for a round whose mask it had"


GOOD = "ax,ay,az,gx,gy,gz,activity\n" + "0.1,0.2,0.9,0,0,0.01,walking\n" * 500
FILES = {
    "good.csv": (GOOD, r"good\.csv: 5 samples to train on, 1 to measure with"),
    "order.csv": (
        "\ufeffActivity, gz,gy,gx,az,ay,ax\r\n" + "Walking, 0,0,0,1,0,0\r\n" * 500,
        r"order\.csv: 5 samples to train on, 1 to measure with",
    ),
    "columns.csv": (
        GOOD.replace("gz,", "z,", 1),
        r"columns\.csv: line 1: 'ax,ay,az,gx,gy,z,activity' has no column gz",
    ),
    "semicolons.csv": (
        GOOD.replace(",", ";"),
        r"line 1: 'ax;ay;az;gx;gy;gz;activity' has no column .* parted by commas",
    ),
    "word.csv": (GOOD.replace("0.2", "east", 1), r"word\.csv: line 2: ay is 'east', a number expected"),
    "gap.csv": (GOOD + "0.1,,0.9,0,0,0,walking\n", r"gap\.csv: line 502: ay is '', a number expected"),
    "endless.csv": (GOOD.replace("0.9", "Infinity", 1), r"line 2: az is 'Infinity', a number expected"),
    "activity.csv": (GOOD.replace("walking", "flying", 1), r"line 2: activity 'flying', one of walking, upstairs"),
    "short.csv": ("\n".join(GOOD.splitlines()[:60]), r"short\.csv: 0 samples, 5 or more are needed"),
    "empty.csv": ("", r"empty\.csv: line 1: '' has no column ax, ay, az, gx, gy, gz, activity"),
    "text.npz": ("no zip", r"text\.npz: no \.npz file that can be read"),
    "notes.txt": ("hello", r"notes\.txt: no \.npz file that can be read"),
}


def test_files_are_read_or_it_is_said_what_is_wrong(page: str, broker: Deployed, phone: Phone, tmp_path: Path) -> None:
    """With line, column and value; nothing can be joined with until a good one is chosen, the same name mended too."""
    phone.do("open", url=invitation(page, broker, "phone-1"))
    phone.wait("What to train on")
    phone.do("check", what="input[value=file]")
    for name, (text, said) in FILES.items():
        (tmp_path / name).write_text(text, newline="")
        phone.do("choose", what="#chosen-file", file=str(tmp_path / name))
        phone.wait(said, 10)
        ready = not phone.do("script", code="document.getElementById('join-button').disabled")
        assert ready == ("to train on" in said), name
    half = np.zeros((9, 6, 128), np.float16)
    for name, arrays, said in (
        ("half.npz", {"x": half, "y": np.arange(9)}, r"an array of <f2 type"),
        ("alone.npz", {"x": half.astype(np.float32)}, r"alone\.npz: array y is missing"),
        ("odd.npz", {"x": half.astype(np.float32), "y": np.arange(8)}, r"x has shape \(9, 6, 128\) and y \(8\)"),
        (
            "nan.npz",
            {"x": half.astype(np.float32) + np.nan, "y": np.arange(9)},
            "x holds a value that is no finite number",
        ),
        ("minus.npz", {"x": half.astype(np.float32), "y": -np.arange(9)}, "labels are whole numbers from 0"),
    ):
        np.savez(tmp_path / name, **arrays)  # type: ignore[arg-type]
        phone.do("choose", what="#chosen-file", file=str(tmp_path / name))
        phone.wait(said, 10)
    whole = (tmp_path / "odd.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    phone.do("choose", what="#chosen-file", file=str(tmp_path / "cut.npz"))
    phone.wait(r"cut\.npz: no \.npz file that can be read", 10)
    (tmp_path / "word.csv").write_text(GOOD)
    phone.do("choose", what="#chosen-file", file=str(tmp_path / "word.csv"))
    phone.wait(r"word\.csv: 5 samples to train on", 10)


def test_data_of_another_shape_is_told(
    processes: Processes, broker: Deployed, page: str, phone: Phone, tmp_path: Path
) -> None:
    """What the federation's network takes, and what was given; the phone can choose again."""
    serve(processes, broker, epochs=1)
    np.savez(tmp_path / "pictures.npz", x=np.zeros((20, 1, 28, 28), np.float32), y=np.arange(20) % 6)
    phone.join(invitation(page, broker, "phone-1"), tmp_path / "pictures.npz")
    phone.wait("takes samples of 6 × 128 numbers, the data here has 1 × 28 × 28: choose other data")
    np.savez(tmp_path / "classes.npz", x=np.zeros((20, 6, 128), np.float32), y=np.arange(20) % 9)
    phone.do("choose", what="#chosen-file", file=str(tmp_path / "classes.npz"))
    phone.wait(r"classes\.npz: 16 samples")
    phone.do("click", what="#join-button")
    phone.wait("the data does not fit the federation's network of 6 classes".replace("the", "[Tt]he", 1))


def test_the_page_can_be_installed_and_needs_no_network_then(page: str, broker: Deployed, phone: Phone) -> None:
    """After the first visit: all that it is made of is kept, what it remembers too, and nothing of it is asked for."""
    phone.do("open", url=invitation(page, broker, "phone-1"))
    phone.wait("What to train on")
    phone.do("script", code="navigator.serviceWorker.ready.then(() => true)")
    # Windows of tests are private ones, in which nothing can be installed; whatever else is wrong would be named too.
    assert phone.do("installable") == ["in-incognito"]
    icons = """fetch("manifest.webmanifest").then((answer) => answer.json()).then(({ icons }) => Promise.all(icons.map(
      async ({ src, sizes }) => {
        const image = new Image();
        image.src = src;
        await image.decode();
        return sizes === "any" || sizes === `${image.naturalWidth}x${image.naturalHeight}`;
      })))"""
    assert set(phone.do("script", code=icons)) == {True}
    phone.do("offline", on=True)
    phone.do("open", url=page)
    phone.wait("Your invitation")
    phone.wait("phone-1")
    phone.do("check", what="input[value=demo]")
    phone.wait("samples to train on")
    fetched = "performance.getEntriesByType('resource').filter(({ responseStatus }) => responseStatus !== 200).length"
    assert phone.do("script", code=fetched) == 0
    phone.do("open", url=f"{page}?from=home")
    phone.wait(r"A demo person, made up: \d+ samples to train on, \d+ to measure with \(from before\)")
