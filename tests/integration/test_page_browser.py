"""The live page in a real Chromium: for everybody, quick with a thousand devices, honest when nobody answers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.page.server import PageServer
from tests.integration.browser import Browser, needs_browser, opened
from tests.page import Made, deployment
from wire.invite import decode

pytestmark = [pytest.mark.slow, needs_browser]
DEVICES = 1000
VIEWS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "colorScheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "colorScheme": "dark", "hasTouch": True, "isMobile": True},
}
PATHS = {"fleet": "", "device": "devices/pi-002", "run": "run", "invite": "invite", "none": "nothing", "login": "login"}
LOG_IN = """
await page.goto(url);
await page.waitForSelector("#fleet tbody tr");
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all."""
    with opened() as browser:
        yield browser


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A large fleet with a broker's folder."""
    folder = tmp_path_factory.mktemp("page")
    return Made(folder, devices=DEVICES, rounds=5, deploy=deployment(folder, "pi-000"))


@pytest.fixture(scope="module")
def server(made: Made) -> Iterator[PageServer]:
    """Its page."""
    with made.shown() as server:
        yield server


@pytest.mark.parametrize("view", VIEWS)
def test_every_page_is_for_everybody(browser: Browser, server: PageServer, view: str, tmp_path: Path) -> None:
    """No rule of axe is broken, nothing is wider than the screen, and no page breaks its own policy."""
    browser.run(LOG_IN, view=VIEWS[view], url=server.login_url)
    for name, path in PATHS.items():
        broken = browser.run(
            """
            await page.goto(url);
            if (name === "fleet") await page.waitForSelector("#fleet tbody tr");
            await page.screenshot({ path: picture, fullPage: true });
            const wider = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
            return [...(await axe()), ...(wider > 0 ? [`${wider} px too wide`] : [])];
            """,
            url=server.url + path, name=name, picture=str(tmp_path / f"{name}-{view}.png"),
        )  # fmt: skip
        assert broken == [], name
    complaints = [text for text in browser.run("return errors.splice(0);") if "404" not in text]
    assert complaints == []


def test_a_thousand_devices_are_there_at_once(browser: Browser, server: PageServer) -> None:
    """First paint and the first rows, generously: machines that test are busy."""
    found = browser.run(
        LOG_IN
        + """
        await page.goto(home);
        await page.waitForSelector("#fleet tbody tr");
        return page.evaluate(() => ({
          paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
          shown: performance.getEntriesByName("fleet-shown")[0].startTime,
          rows: document.querySelectorAll("#fleet tbody tr").length,
          count: document.querySelector("#count").textContent,
        }));
        """,
        view=VIEWS["desktop"], url=server.login_url, home=server.url,
    )  # fmt: skip
    assert found["paint"] < 3000
    assert found["shown"] < 4000
    assert (found["rows"], found["count"]) == (25, "1,000 devices")


def test_the_table_is_sorted_and_searched_by_keyboard(browser: Browser, made: Made, server: PageServer) -> None:
    """Sorted by accuracy, worst and best first; found by id and state; the next part."""
    browser.run(LOG_IN, view=VIEWS["desktop"], url=server.login_url)
    column = "return page.$$eval('#fleet tbody tr', (rows, at) => rows.map((row) => row.cells[at].textContent), at);"
    press = "await page.focus(`th[data-key=${key}] button`); await page.keyboard.press('Enter');"
    accuracies = sorted(one.accuracy for one in made.figures.devices.values() if one.accuracy is not None)
    shown = browser.run(press + column, key="accuracy", at=7)
    assert shown == [f"{one:.1%}" for one in accuracies[:25]]
    shown = browser.run(press + column, key="accuracy", at=7)
    assert shown == [f"{one:.1%}" for one in accuracies[:-26:-1]]
    assert browser.run("return page.getAttribute('th[data-key=accuracy]', 'aria-sort');") == "descending"
    browser.run(press, key="name")
    shown = browser.run(
        "await page.focus('.pager [data-go=\"1\"]'); await page.keyboard.press('Enter');" + column, at=0
    )
    assert shown == [f"pi-{number:03}" for number in range(25, 50)]
    shown = browser.run("await page.fill('[name=text]', '99'); " + column, at=0)
    assert shown == sorted(name for name in made.figures.devices if "99" in name)
    offline = [name for name, one in made.figures.devices.items() if "99" in name and not one.online]
    shown = browser.run("await page.selectOption('[name=state]', 'offline'); " + column, at=0)
    assert shown == sorted(offline)
    assert offline
    assert browser.run("return page.textContent('#count');") == f"{len(offline)} of 1,000 devices"


def test_what_happens_is_shown_and_what_is_clicked_is_done(browser: Browser, made: Made, server: PageServer) -> None:
    """A device that sends a mask, one that is revoked by its button after a question, rounds that are paused."""
    browser.run(LOG_IN, view=VIEWS["desktop"], url=server.login_url)
    made.figures.devices["pi-005"].accuracy = 0.0625
    cell = "await page.waitForFunction(([name, text]) => [...document.querySelectorAll('#fleet tbody tr')]"
    cell += ".some((row) => row.cells[0].textContent === name && row.textContent.includes(text)), [name, text]);"
    browser.run(cell, name="pi-005", text="6.3%")
    browser.run(
        "await page.click('text=pi-006'); await page.click('text=Revoke'); await page.waitForSelector('.said');"
    )
    assert browser.run("return page.textContent('.said');") == "pi-006 is revoked"
    assert made.store.is_revoked("pi-006")
    browser.run(
        "await page.click('text=Fleet'); await page.click('#pause button'); await page.waitForSelector('.said');"
    )
    assert made.store.paused()
    browser.run("await page.waitForFunction(() => document.querySelector('#standing').textContent.startsWith('paus'));")
    assert browser.run("return page.isVisible('#resume button') && !(await page.isVisible('#pause button'));")
    browser.run("await page.click('#resume button'); await page.waitForSelector('#pause button:visible');")
    assert not made.store.paused()


def test_a_phone_can_read_the_code(browser: Browser, made: Made, server: PageServer) -> None:
    """The picture on the screen, dark or light, says what the link beside it says."""
    import zxingcpp
    from PIL import Image

    for number, view in enumerate(VIEWS.values(), 1):
        browser.run(LOG_IN, view=view, url=server.login_url)
        link, picture = browser.run(
            """
            await page.click("text=Invite a phone");
            await page.click("text=Show the code");
            await page.waitForSelector("svg.qr");
            return [await page.inputValue("#link"), (await page.screenshot({ fullPage: true })).toString("base64")];
            """
        )
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("L"))
        (code,) = zxingcpp.read_barcodes(pixels)
        assert code.text == link
        assert decode(link).device == f"phone-{number}"
    assert browser.run("return page.textContent('#waits');") == "Waiting for the phone …"


def test_the_page_says_when_the_coordinator_is_away(browser: Browser, tmp_path: Path) -> None:
    """It keeps what it shows, and goes on by itself, still logged in, when the coordinator is back."""
    made = Made(tmp_path, devices=3, rounds=2)
    with made.shown() as server:
        port = int(server.url.split(":")[2].strip("/"))
        browser.run(LOG_IN, view=VIEWS["desktop"], url=server.login_url)
        assert browser.run("return page.isHidden('#away');")
    browser.run("await page.waitForSelector('#away:visible', { timeout: 20000 });")
    assert browser.run("return page.textContent('#away');").startswith("The coordinator is away.")
    assert browser.run("return page.locator('#fleet tbody tr').count();") == 3
    made.figures.devices["pi-001"].accuracy = 0.03125
    with made.shown(port=port):
        browser.run("await page.waitForSelector('#away', { state: 'hidden', timeout: 20000 });")
        browser.run("await page.waitForSelector('text=3.1%');")
