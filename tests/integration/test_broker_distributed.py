"""Brokers on several machines: a federation goes on when one dies in the middle of a round, and loses nothing."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from coordinator.brokers.probe import Probe
from tests.chaos.ledger import audit
from tests.integration.deployed import MONITOR, Deployed, deployed
from tests.integration.fleet import Processes, rows, wait_until
from wire.broker import parse_url
from wire.mqtt import MqttTransport

pytestmark = [
    pytest.mark.broker,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # sockets that paho leaves open
]

ROUNDS, QUORUM = 3, 3
DEVICES = ["pi-1", "pi-2", "pi-3"]
FLEET = "{pi-1: {}, pi-2: {site: A}, pi-3: {site: B}}"
CONFIG = f"""
federation:
  name: t
  method: uniform
  rounds: {ROUNDS}
  per_round: 3
  quorum: {QUORUM}
  deadline_s: 60
  runtimes: [sparse]
  training: {{epochs: 100}}
devices: {FLEET}
"""


def start(broker: Deployed, processes: Processes, nodes: dict[str, int | None]) -> None:
    """The coordinator and the devices, each with the node it is told; None: with all of them."""
    processes.serve(CONFIG, *_where(broker, "coordinator", nodes), password=broker.password("coordinator"))
    for device in DEVICES:
        url, ca = broker.url(device, nodes[device]), str(broker.folder / "ca.crt")
        processes.edge(device, url, "--ca", ca, password=broker.password(device))


def _where(broker: Deployed, user: str, nodes: dict[str, int | None]) -> list[str]:
    return ["--broker", broker.url(user, nodes[user]), "--ca", str(broker.folder / "ca.crt")]


def see_it_through(processes: Processes) -> None:
    """Wait for the end, and compare both sides' ledgers: nothing lost, nothing doubled, nothing else broken."""
    assert processes.wait("coordinator", 120) == 0, processes.log("coordinator")[-2000:]
    for device in DEVICES:
        assert processes.wait(device, 40) == 0, processes.log(device)[-2000:]
    logs = {device: processes.log(device) for device in DEVICES}
    states = {device: processes.home / "state" / device for device in DEVICES}
    ledger = audit(processes.database, logs, states, ROUNDS, QUORUM)
    assert ledger.broken == []
    assert ledger.stored == ROUNDS * len(DEVICES)  # a receipt may be lost with a node, a mask may not


def in_the_middle_of_round_2(processes: Processes) -> bool:
    """A device works on it, and no mask of it has come."""
    working = any("round 2: training" in processes.log(device) for device in DEVICES)
    return working and rows(processes.database, "SELECT count(*) FROM mask WHERE number = 2") == [(0,)]


def leader(broker: Deployed) -> str:
    """The node that leads the stream of MQTT messages."""
    node = broker.settings.broker_nodes()[0]
    url = f"http://127.0.0.1:{node.client_port + MONITOR}/jsz?accounts=true&streams=true"
    with urllib.request.urlopen(url, timeout=5) as answer:
        found = json.load(answer)
    streams = {stream["name"]: stream for stream in found["account_details"][0]["stream_detail"]}
    assert len(streams["$MQTT_msgs"]["cluster"].get("replicas", [])) == 2, "three copies"
    return str(streams["$MQTT_msgs"]["cluster"]["leader"])


def test_a_cluster_loses_its_leader(tmp_path: Path, processes: Processes) -> None:
    """Three nodes; the one that leads dies for good in the middle of a round."""
    with deployed(tmp_path, "nats", "--nodes", "3", devices="{pi-1: {}, pi-2: {}, pi-3: {}}", each=True) as broker:
        ready = MqttTransport(
            parse_url(broker.url("pi-1", None), password=broker.password("pi-1"), ca=broker.folder / "ca.crt"),
            client_id="ready",
        )
        ready.connect(60)  # as long as the cluster takes to agree
        ready.close(0)
        start(broker, processes, dict.fromkeys([*DEVICES, "coordinator"]))
        wait_until(lambda: in_the_middle_of_round_2(processes), 90, "the middle of round 2")
        broker.kill(leader(broker))
        assert in_the_middle_of_round_2(processes)
        see_it_through(processes)


def test_a_hub_with_sites_loses_each(tmp_path: Path, processes: Processes) -> None:
    """The hub and a site's broker die in the middle of a round and come back: what waited for them is there."""
    sites = ["--sites", "A=localhost,B=localhost"]
    with deployed(tmp_path, "mosquitto", *sites, devices=FLEET, each=True) as broker:
        start(broker, processes, {"coordinator": 0, "pi-1": 0, "pi-2": 1, "pi-3": 2})
        wait_until(lambda: in_the_middle_of_round_2(processes), 60, "the middle of round 2")
        for name in ("hub", "site-A"):
            broker.kill(name)
            assert in_the_middle_of_round_2(processes)
        for name in ("hub", "site-A"):
            broker.up(name)
        see_it_through(processes)


def test_what_a_bridge_carries(tmp_path: Path) -> None:
    """QoS 1 and retained messages both ways, what waited while the hub was away, and nothing of another site's."""
    sites = ["--sites", "A=localhost,B=localhost"]
    with deployed(tmp_path, "mosquitto", *sites, devices=FLEET, each=True) as broker:
        with broker.probe("coordinator") as hub:
            hub.publish("hns/t/all/round", b"retained", retain=True)
            hub.publish("hns/t/down/pi-3", b"for another site")
            hub.publish("hns/t/down/pi-2", b"own")
            hub.spin(lambda: False, 0.2)
            wait_until(lambda: _is_retained_at_the_site(broker), 30, "the bridge is there")
        with broker.probe("coordinator") as hub, broker.probe("pi-2", node=1) as device:
            hub.subscribe("hns/t/up/#")
            device.subscribe("hns/t/down/#")
            device.subscribe("hns/t/all/#")
            assert device.wait("hns/t/all/round", b"retained")  # so it is subscribed, to both
            hub.publish("hns/t/down/pi-2", b"own, later")
            hub.spin(lambda: False, 0.2)
            assert device.wait("hns/t/down/pi-2", b"own, later")
            assert {m.retained for m in device.heard if m.payload == b"retained"} == {True}
            assert not [message for message in device.heard if message.topic.endswith("pi-3")]
            device.publish("hns/t/up/pi-3/mask", b"in another's name")
            device.publish("hns/t/up/pi-2/state", b"online", retain=True)
            device.spin(lambda: False, 0.2)
            assert hub.wait("hns/t/up/pi-2/state", b"online")
            assert not [message for message in hub.heard if "pi-3" in message.topic]
        # A whole site that has gone over: its bridge speaks for its own devices only.
        with broker.probe("coordinator") as hub, broker.probe("site-A") as bridge:
            hub.subscribe("hns/t/up/#")
            bridge.publish("hns/t/up/pi-3/mask", b"forged")
            bridge.publish("hns/t/up/pi-2/mask", b"own")
            bridge.spin(lambda: False, 0.2)
            assert hub.wait("hns/t/up/pi-2/mask", b"own")
            assert b"forged" not in [message.payload for message in hub.heard]
            assert [m.payload for m in hub.heard if m.retained] == [b"online"], "retained at the hub too"
        with Probe(broker.broker("coordinator"), client_id="c", clean=False) as hub:
            hub.connect()
            hub.subscribe("hns/t/up/+/mask")
        broker.kill("hub")
        sent = [b"%d" % number for number in range(50)]
        with broker.probe("pi-2", node=1) as device:
            assert device.confirmed([device.publish("hns/t/up/pi-2/mask", one) for one in sent]) == 50
        broker.kill("site-A")
        broker.up("site-A")
        broker.up("hub")
        with Probe(broker.broker("coordinator"), client_id="c", clean=False) as hub:
            wait_until(lambda: _connects(hub), 20, "the hub is back")
            hub.spin(lambda: len({message.payload for message in hub.heard}) >= 50, 15)
            assert list(dict.fromkeys(message.payload for message in hub.heard)) == sent


def _is_retained_at_the_site(broker: Deployed) -> bool:
    with broker.probe("pi-2", node=1) as device:
        device.subscribe("hns/t/all/#")
        return device.wait("hns/t/all/round", b"retained", 0.5)


def _connects(probe: Probe) -> bool:
    try:
        return not probe.connect()
    except OSError:
        return False
