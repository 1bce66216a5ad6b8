"""Runs of a real federation, steered from the live page in a real Chromium: other settings, stop, start, restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.browser import Browser, needs_browser, opened
from tests.integration.fleet import Processes, rows, wait_until
from tests.integration.test_page import printed
from tests.page import Visitor

pytestmark = [pytest.mark.slow, needs_browser]
DEVICES = ("pi-1", "pi-2")
CONFIG = """
federation: {name: t, model: har-cnn, density: 0.05, rounds: 900, per_round: 2, quorum: 1,
  deadline_s: 60, start_devices: 2, runtimes: [sparse], training: {epochs: 1}}
devices: {pi-1: {}, pi-2: {}}
"""
SERVE = ("--listen", "127.0.0.1:0", "--page", "127.0.0.1:0")
VIEWS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "colorScheme": "light"},
    "phone": {"viewport": {"width": 390, "height": 844}, "colorScheme": "dark", "hasTouch": True, "isMobile": True},
}
STANDS = (
    "await page.waitForFunction((text) => document.querySelector('#standing')?.textContent === text, text,"
    " { timeout: 60000 });"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for all."""
    with opened() as browser:
        yield browser


def test_runs_are_steered_from_the_page(browser: Browser, processes: Processes, tmp_path: Path) -> None:
    """By keyboard: a wrong setting is said beside its field; a run is made longer, stopped, and another one started."""
    processes.serve(CONFIG, *SERVE)
    page = printed(processes)
    address, passwords = processes.embedded_broker()
    for name in DEVICES:
        processes.edge(name, f"mqtt://{name}@{address}", password=passwords[name], once=False)
    browser.run(
        "await page.goto(url);" + STANDS, view=VIEWS["desktop"], url=f"{page.url}login#{page.token}", text="running"
    )

    browser.run(
        "await page.click('#change'); await page.fill('[name=rounds]', '0'); await page.keyboard.press('Enter');"
    )
    wrong = browser.run(
        """
        await page.waitForSelector("[aria-invalid]");
        return page.$eval("[aria-invalid]", (field) => ({
          name: field.name, value: field.value, focused: field === document.activeElement,
          text: field.ariaDescribedByElements.map((one) => one.textContent)[0],
        }));
        """
    )
    assert wrong == {
        "name": "rounds", "value": "0", "focused": True,
        "text": "federation.rounds: 0 found, should be greater than or equal to 1",
    }  # fmt: skip
    assert (
        browser.run(
            "await page.screenshot({ path: picture, fullPage: true }); return axe();",
            picture=str(tmp_path / "wrong.png"),
        )
        == []
    )
    browser.run(
        "await page.keyboard.press('Control+A'); await page.keyboard.type('800'); await page.keyboard.press('Enter');"
    )
    said = browser.run("await page.waitForSelector('.said'); return page.textContent('.said');")
    assert said == "changed: rounds 800"
    browser.run(
        "await page.waitForFunction(() => document.querySelector('[data-run=round]').textContent.endsWith(' of 800'));"
    )
    wait_until(lambda: "the settings of the run were changed" in processes.log("coordinator"), 10, "it is heeded")

    browser.run("await page.click('#stop button');" + STANDS, text="stopped")
    wait_until(lambda: "waiting for another run" in processes.log("coordinator"), 30, "the coordinator stays")
    assert (tmp_path / "serve" / "report.html").exists()
    ((closed, rounds),) = rows(processes.database, "SELECT count(closed_s), count(*) FROM round")
    assert closed in (rounds - 1, rounds - 2)  # the result, and the round that was open, if one was
    for view in VIEWS:
        found = browser.run(
            """
            await page.goto(url);
            await page.goto(home + "run");
            await page.screenshot({ path: picture, fullPage: true });
            return [...(await axe()), await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)];
            """,
            view=VIEWS[view],
            url=f"{page.url}login#{page.token}",
            home=page.url,
            picture=str(tmp_path / f"start-{view}.png"),
        )
        assert found == [0]
    browser.run(
        """
        await page.fill("[name=rounds]", "4");
        await page.fill("[name=quorum]", "3");
        await page.fill("[name='training.epochs']", "2");
        await page.click("text=Start the run");
        await page.waitForSelector("[name=quorum][aria-invalid]");
        """
    )
    shown = "return page.textContent('form.settings .bad');"
    assert browser.run(shown) == "quorum is 3, but only 2 devices are selected a round"
    assert browser.run("return page.inputValue('[name=rounds]');") == "4"
    browser.run(
        "await page.fill('[name=quorum]', '2'); await page.click('text=Start the run');" + STANDS, text="finished"
    )
    assert browser.run("return page.textContent('[data-run=round]');") == "4 of 4"
    second = "SELECT id FROM run ORDER BY started_s DESC LIMIT 1"
    ((count,),) = rows(processes.database, f"SELECT count(closed_s) FROM round WHERE run = ({second})")
    assert count == 4
    sent = rows(processes.database, f"SELECT DISTINCT device FROM mask WHERE run = ({second}) ORDER BY device")
    assert sent == [(name,) for name in DEVICES]
    complaints = [text for text in browser.run("return errors.splice(0);") if "ERR_" not in text and "400" not in text]
    assert complaints == []


def test_a_run_with_other_settings_is_taken_up(processes: Processes) -> None:
    """Those that it was started with and those that it got since, after a kill; devices.yaml was not touched."""
    processes.serve(CONFIG, *SERVE)
    page = printed(processes)
    address, passwords = processes.embedded_broker()
    for name in DEVICES:
        processes.edge(name, f"mqtt://{name}@{address}", password=passwords[name], once=False)
    wait_until(lambda: bool(rows(processes.database, "SELECT 1 FROM round WHERE number > 2")), 60, "rounds open")
    visitor = Visitor(page, bearer=page.token)  # type: ignore[arg-type]

    def post(path: str, **fields: str) -> dict[str, str]:
        answer = visitor.post(path, fields, Accept="application/json")
        return dict(json.loads(answer.text))

    assert post("/run/start", rounds="3")["error"].startswith(str(processes.database))
    assert post("/run/stop")["said"].endswith("is stopped")
    wait_until(lambda: "waiting for another run" in processes.log("coordinator"), 30, "the coordinator stays")
    assert post("/run/start", **{"training.epochs": "2", "density": "0.1"}) == {"said": "a new run is to be started"}
    wait_until(lambda: len(rows(processes.database, "SELECT id FROM run")) == 2, 60, "another run begins")
    last = "(SELECT id FROM run ORDER BY started_s DESC LIMIT 1)"
    wait_until(lambda: bool(rows(processes.database, f"SELECT 1 FROM round WHERE run = {last}")), 60, "its rounds open")
    assert post("/run/change", deadline_s="45") == {"said": "changed: deadline_s 45"}
    processes.kill("coordinator")
    (processes.home / "coordinator.log").unlink()
    processes.serve(CONFIG, *SERVE)
    wait_until(lambda: "taking up run" in processes.log("coordinator"), 60, "the run is taken up")
    page = printed(processes)
    text = Visitor(page).log_in().get("/run").text  # type: ignore[arg-type]
    assert 'name="deadline_s" value="45"' in text
    ((settings,),) = rows(processes.database, f"SELECT settings FROM run WHERE id = {last}")
    assert '"epochs": 2' in str(settings)
