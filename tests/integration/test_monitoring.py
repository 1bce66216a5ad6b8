"""A federation that is watched: a real Prometheus asks what the dashboard asks, Home Assistant's account listens."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from coordinator import cli
from coordinator.monitoring.watch import FILES
from tests.integration.deployed import deployed
from tests.integration.fleet import Processes, wait_until
from tests.unit.test_metrics import DASHBOARD

pytestmark = [
    pytest.mark.broker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that paho leaves open
]
CONFIG = """
federation: {name: t, model: har-cnn, density: 0.05, rounds: 1000, per_round: 2, quorum: 1,
  deadline_s: 10, start_devices: 2, runtimes: [sparse], training: {epochs: 1}}
devices: {pi-1: {}, pi-2: {}}
"""
# Of queries that have nothing to show here: no sensor, no held-out samples, nothing that was refused.
SILENT = re.compile(r"temperature|held_out_accuracy_ratio\{[^}]*\}$|messages_refused")


def collector(folder: Path, target: str) -> tuple[subprocess.Popen[bytes], str]:
    """A Prometheus as docs/monitoring.md sets it up, but for times and ports; and its address."""
    document = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
    (settings,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", document, re.DOTALL)
    for shown, ours in (
        ("127.0.0.1:9464", target),
        ("10s", "250ms"),
        ("/etc/prometheus/hidenseek-alerts.yaml", str(FILES / "alerts.yaml")),
    ):
        assert shown in settings
        settings = settings.replace(shown, ours)
    (folder / "prometheus.yaml").write_text(settings)
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=log,
            stderr=log,
        )
    listening = re.compile(r'"?Listening on"? address=(\S+)')
    log_file = folder / "prometheus.log"
    wait_until(lambda: "Server is ready" in log_file.read_text(), 20, "Prometheus is ready")
    found = listening.search(log_file.read_text())
    assert found is not None
    return server, f"http://{found[1]}"


def ask(server: str, query: str) -> list[Any]:
    """An instant query's result."""
    url = f"{server}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url) as answer:
        result: list[Any] = json.load(answer)["data"]["result"]
        return result


def test_a_federation_is_watched(processes: Processes, tmp_path: Path) -> None:
    """Over TLS: every query of the dashboard has an answer; devices appear, and disappear when they are revoked."""
    with deployed(tmp_path, "mosquitto", "--home-assistant") as broker:
        ca = ("--ca", str(broker.folder / "ca.crt"))
        watched = ("--metrics", "127.0.0.1:0", "--home-assistant")
        processes.serve(
            CONFIG, "--broker", broker.url("coordinator"), *ca, *watched, password=broker.password("coordinator")
        )
        for name in ("pi-1", "pi-2"):
            processes.edge(name, broker.url(name), *ca, password=broker.password(name))

        def serves() -> bool:
            assert processes.running["coordinator"].poll() is None, processes.log("coordinator")
            return "metrics: http://" in processes.log("coordinator")

        wait_until(serves, 60, "metrics are served")
        said = re.search(r"metrics: http://(\S+)/metrics; .*?(\S+dashboard\.json)", processes.log("coordinator"))
        assert said is not None
        assert Path(said[2]).samefile(FILES / "dashboard.json")
        prometheus, server = collector(tmp_path, said[1])
        try:
            wait_until(lambda: bool(ask(server, "hidenseek_round > 3")), 60, "rounds go by")
            asked = {
                target["expr"].replace("$__rate_interval", "1m").replace("$federation", "t")
                for panel in DASHBOARD["panels"]
                for target in panel.get("targets", [])
            }
            asked = {query for query in asked if not SILENT.search(query)}
            unanswered = asked

            def answered() -> bool:
                nonlocal unanswered
                unanswered = {query for query in unanswered if not ask(server, query)}
                return not unanswered

            try:
                wait_until(answered, 60, "every query has an answer")
            except AssertionError:
                pytest.fail(f"no answer to {sorted(unanswered)}")
            (certificate,) = ask(server, "hidenseek_broker_certificate_expiry_timestamp_seconds - time()")
            assert 800 < float(certificate["value"][1]) / 86400 < 826
            assert not ask(server, "ALERTS")
            revoke_is_seen(processes, broker.probe("home-assistant"))
        finally:
            prometheus.terminate()
            prometheus.wait(20)


def revoke_is_seen(processes: Processes, home: Any) -> None:
    """Home Assistant's account hears of both devices, then that one is gone, then that the coordinator has died."""
    latest: dict[str, bytes] = {}

    def hears(topic: str, expected: bytes | None) -> bool:
        latest.update({message.topic: message.payload for message in home.heard})
        return topic in latest and expected in (None, latest[topic])

    with home:
        for pattern in ("homeassistant/+/+/config", "homeassistant/+/+/+/config", "hns/t/home/#"):
            assert home.subscribe(pattern)
        topics = ["homeassistant/device/hns-t/config", *(f"homeassistant/device/hns-t/pi-{n}/config" for n in (1, 2))]
        topics += ["hns/t/home/status", "hns/t/home/federation", "hns/t/home/devices/pi-1", "hns/t/home/devices/pi-2"]
        assert home.spin(lambda: all(hears(topic, None) for topic in topics), 10), latest.keys()
        assert json.loads(latest["hns/t/home/devices/pi-1"])["online"] == "ON"
        assert latest["hns/t/home/status"] == b"online"
        assert cli.main(["fleet", "revoke", "pi-2", "--state", str(processes.home / "serve")]) == 0
        assert home.spin(lambda: hears(topics[2], b"") and hears("hns/t/home/devices/pi-2", b""), 10)
        processes.kill("coordinator")
        began_s = time.monotonic()
        assert home.spin(lambda: hears("hns/t/home/status", b"offline"), 60)
        assert time.monotonic() - began_s < 5, "the broker notices a process that has died at once"
