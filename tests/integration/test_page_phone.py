"""From the code on the live page to a mask: a phone's browser joins over secure websockets, beside a native device."""

from __future__ import annotations

import json

import pytest

from coordinator.page.invites import phone_page
from tests.integration.browser import needs_browser, opened
from tests.integration.deployed import deployed
from tests.integration.fleet import Processes, wait_until
from tests.integration.test_page import printed
from tests.page import Visitor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.broker,
    needs_browser,
    pytest.mark.skipif(phone_page() is None, reason="needs the page for phones (make web)"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that paho leaves open
]
CONFIG = """
federation: {name: t, model: har-cnn, density: 0.05, rounds: 200, per_round: 2, quorum: 1,
  deadline_s: 20, start_devices: 2, runtimes: [sparse], training: {epochs: 1}}
"""


def test_a_phone_joins_by_the_code(processes: Processes) -> None:
    """The page sees it enrol, train and send its mask, over TLS all the way; another phone with its code is refused."""
    with deployed(processes.home, "mosquitto") as broker, opened() as browser:
        server = broker.folder / "nodes" / "broker" / "config"
        ca = ("--ca", str(broker.folder / "ca.crt"))
        page = ["--page", "127.0.0.1:0", "--deploy", str(broker.folder)]
        page += ["--page-cert", str(server / "server.crt"), "--page-key", str(server / "server.key")]
        processes.serve(
            CONFIG, "--broker", broker.url("coordinator"), *ca, *page,
            password=broker.password("coordinator"),
        )  # fmt: skip
        shown = printed(processes)
        link = browser.run(
            """
            await page.goto(login);
            await page.click("text=Invite a phone");
            await page.click("text=Show the code");
            return page.inputValue("#link");
            """,
            view={"ignoreHTTPSErrors": True}, login=f"{shown.url}login#{shown.token}",
        )  # fmt: skip
        assert link.startswith(f"{shown.url}join/#")
        processes.edge("pi-1", broker.url("pi-1"), *ca, password=broker.password("pi-1"))
        join = """
            await page.goto(link);
            await page.check("input[value=demo]");
            await page.click("#join-button:enabled");
            """
        browser.run(join, view={"ignoreHTTPSErrors": True}, link=link)
        visitor = Visitor(shown, bearer=shown.token)

        def masks() -> int:
            row = json.loads(visitor.get("/api/fleet", Accept="application/json").text)["devices"].get("phone-1")
            return row[4] or 0 if row and row[0] in ("online", "training") else 0

        wait_until(lambda: masks() > 0, 60, "phone-1 has sent a mask")
        assert "Card claimed</dt>" in visitor.get("/devices/phone-1").text
        browser.run(join, view={"ignoreHTTPSErrors": True}, link=link)
        said = browser.run("await page.waitForSelector('#problem:visible'); return page.textContent('#problem');")
        assert "used before" in said
        assert "used twice" in visitor.get("/devices/phone-1").text
