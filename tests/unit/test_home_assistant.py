"""Home Assistant: what it is told, when, and that all of it is taken back.

The field names below are those that Home Assistant's own schema has for device-based discovery (2025.4, in
`homeassistant/components/mqtt/schemas.py`, `sensor.py` and `binary_sensor.py`); a real one was shown these messages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.fleet import Fleet, Member
from coordinator.monitoring import discovery, home_assistant
from coordinator.monitoring.figures import Figures
from coordinator.monitoring.home_assistant import BURST, RECORD, HomeAssistant, withdraw_all
from coordinator.observer import Several
from tests.helpers import introduce
from tests.unit.test_agent import update
from wire.errors import ConfigError, StateError
from wire.federation_messages import Telemetry
from wire.telemetry import RoundTelemetry
from wire.transport import MemoryBus

TOP = {"device", "origin", "components", "availability_topic", "state_topic", "qos"}
DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version", "via_device"}
ENTITY = {"platform", "name", "unique_id", "value_template", "icon", "device_class", "entity_category"}
SENSOR = ENTITY | {"unit_of_measurement", "state_class", "suggested_display_precision"}
UNITS = {"temperature": "°C", "data_size": "MiB"}  # of those that Home Assistant takes for a device class
CONFIG = "homeassistant/device/hns-t/{}/config"


class House:
    """A federation that Home Assistant is shown, on a bus in memory, at a time that a test makes pass."""

    def __init__(self, folder: Path, *names: str, bus: MemoryBus | None = None, prefix: str = "homeassistant") -> None:
        self.bus = bus or MemoryBus()
        self.fleet = Fleet(allowed=frozenset(), runtimes=frozenset({"sparse"}))
        self.figures = Figures()
        self.home = HomeAssistant("t", prefix, self.bus.connect(), self.figures, folder / RECORD)
        self.told = Several(self.figures, self.home)
        for name in names:
            self.fleet.members[name] = Member(introduce(name, "sparse", name.encode().ljust(32, b".")))
        self.figures.know(self.fleet)
        self.home.know()
        self.told.broker(True)

    def comes(self, name: str) -> None:
        """A device says hello."""
        self.fleet.members[name] = Member(introduce(name, "sparse", name.encode().ljust(32, b".")))
        self.told.device(name, True, self.fleet)

    def tick(self) -> None:
        """A second has passed."""
        self.home._told_s = -1e9
        self.told.tick()

    @property
    def retained(self) -> dict[str, Any]:
        """What is there for whoever comes; an empty message is none."""
        return {
            topic: data.decode() if data in (b"online", b"offline") else json.loads(data)
            for topic, data in self.bus.retained.items()
            if data
        }


@pytest.fixture
def house(tmp_path: Path) -> House:
    """One with pi-1 online, and a mask of it."""
    house = House(tmp_path)
    house.comes("pi-1")
    house.told.announced(7, ("pi-1",))
    house.told.mask("pi-1", update(7), 806)
    spent = RoundTelemetry(number=7, steps=3, temperature_c=61.5, rss_kib=49_152)
    house.told.telemetry("pi-1", Telemetry(run=bytes(8), rounds=(spent,)))
    house.tick()
    return house


def test_a_device_is_described_as_home_assistant_wants_it(house: House) -> None:
    """Only fields that its schema has; every entity reads a value that is there; identifiers are nobody else's."""
    found = house.retained
    states = {
        topic: house.retained[topic] for topic in found if topic.startswith("hns/t/home/") and "status" not in topic
    }
    identities = set()
    for topic in ("homeassistant/device/hns-t/config", CONFIG.format("pi-1")):
        described = found[topic]
        assert described.keys() == TOP
        assert described["device"].keys() <= DEVICE
        assert {"identifiers", "name"} <= described["device"].keys()
        assert described["availability_topic"] == "hns/t/home/status"
        assert described["origin"]["name"] == "hidenseek"
        for key, entity in described["components"].items():
            assert entity["platform"] in ("sensor", "binary_sensor")
            assert entity.keys() <= (SENSOR if entity["platform"] == "sensor" else ENTITY)
            assert entity["value_template"] == f"{{{{ value_json.{key} }}}}"
            assert key in states[described["state_topic"]]
            if entity.get("device_class") in UNITS:
                assert entity["unit_of_measurement"] == UNITS[entity["device_class"]]
            identities.add(entity["unique_id"])
    assert len(identities) == 9
    assert found[CONFIG.format("pi-1")]["device"]["via_device"] == "hns/t"
    assert found["homeassistant/device/hns-t/config"]["device"]["identifiers"] == ["hns/t"]


def test_states_are_told(house: House) -> None:
    """Percent, degrees, mebibytes; the coordinator is there."""
    assert house.retained["hns/t/home/devices/pi-1"] == {
        "online": "ON", "round": 7, "accuracy": 100 * update(7).correct / update(7).test_samples,
        "temperature": 61.5, "memory": 48.0,
    }  # fmt: skip
    assert house.retained["hns/t/home/federation"] == {"round": 7, "masks": 1, "devices": 1, "accuracy": None}
    assert house.retained["hns/t/home/status"] == "online"
    house.told.device("pi-1", False, house.fleet)
    house.told.closed(7, 1, 0.8771)
    house.tick()
    assert house.retained["hns/t/home/devices/pi-1"]["online"] == "OFF"
    assert house.retained["hns/t/home/federation"] == {"round": 7, "masks": 1, "devices": 0, "accuracy": 87.7}
    house.home.close()
    assert house.retained["hns/t/home/status"] == "offline"


def test_unknown_is_null(tmp_path: Path) -> None:
    """Of a device that was there in an earlier start only."""
    house = House(tmp_path, "pi-9")
    house.tick()
    assert house.retained["hns/t/home/devices/pi-9"] == {
        "online": "OFF", "round": None, "accuracy": None, "temperature": None, "memory": None,
    }  # fmt: skip


def test_a_revoked_device_is_taken_away_and_comes_back_when_restored(house: House) -> None:
    """Both its messages are emptied; that it goes offline then does not bring it back."""
    house.told.revoked("pi-1")
    house.told.device("pi-1", False, house.fleet)
    house.tick()
    assert not [topic for topic in house.retained if "pi-1" in topic]
    assert house.bus.retained[CONFIG.format("pi-1")] == b""
    house.comes("pi-1")
    house.tick()
    assert CONFIG.format("pi-1") in house.retained


def test_the_next_start_takes_away_who_is_gone(house: House, tmp_path: Path) -> None:
    """Who is no longer of the fleet; and, under another prefix, everything that was under the first."""
    house.comes("pi-2")
    house.tick()
    second = House(tmp_path, "pi-2", bus=house.bus)
    second.tick()
    assert CONFIG.format("pi-1") not in second.retained
    assert CONFIG.format("pi-2") in second.retained
    third = House(tmp_path, "pi-2", bus=house.bus, prefix="home/ha")
    third.tick()
    described = {topic for topic in third.retained if topic.endswith("/config")}
    assert described == {"home/ha/device/hns-t/config", "home/ha/device/hns-t/pi-2/config"}
    assert third.retained["hns/t/home/status"] == "online"
    assert withdraw_all(house.bus.connect(), "t", tmp_path / RECORD)
    assert not third.retained
    assert not withdraw_all(house.bus.connect(), "t", tmp_path / RECORD)


def test_after_a_lost_broker_all_is_told_again(house: House) -> None:
    """It may have lost what it had retained; while it is away nothing piles up."""
    house.bus.retained.clear()
    house.told.broker(False)
    house.comes("pi-2")
    house.tick()
    assert not house.retained
    house.told.broker(True)
    house.tick()
    assert {CONFIG.format("pi-1"), CONFIG.format("pi-2"), "hns/t/home/devices/pi-1"} <= house.retained.keys()


def test_a_large_fleet_is_told_of_in_turn(tmp_path: Path) -> None:
    """So many a second, and each written down before it is told of."""
    house = House(tmp_path, *(f"pi-{number:04}" for number in range(2 * BURST + 1)))
    for told in (BURST, 2 * BURST, 2 * BURST + 1):
        house.tick()
        assert sum("/home/devices/" in topic for topic in house.retained) == told
        assert len(json.loads((tmp_path / RECORD).read_text())["devices"]) == told
    house.told.tick()  # not a second later
    assert sum("/home/devices/" in topic for topic in house.retained) == 2 * BURST + 1


@pytest.mark.parametrize("prefix", ["", "a//b", "a/#", "+/b", "/a", "a b", "a\n"])
def test_prefixes_that_are_none_are_refused(prefix: str) -> None:
    """With the option and what is usual."""
    with pytest.raises(ConfigError, match="--home-assistant"):
        discovery.check_prefix(prefix)


def test_a_damaged_record_is_said(tmp_path: Path) -> None:
    """With its place and what to do."""
    for text in ("{", '{"prefix": "#", "devices": []}', "[]", '{"prefix": "a"}'):
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(StateError, match=r"home-assistant\.json: damaged .*Remove it"):
            home_assistant.read_record(tmp_path / RECORD)
