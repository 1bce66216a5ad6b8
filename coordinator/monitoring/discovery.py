"""What Home Assistant is told of a federation and its devices: MQTT discovery, device-based (since 2024.12).

A retained message on `PREFIX/device/hns-NAME/ID/config` makes a device appear there, an empty one takes it away.

Source: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from coordinator.monitoring.figures import DeviceFigures, Figures
from wire import __version__
from wire.errors import ConfigError
from wire.topics import Topics

DEFAULT_PREFIX = "homeassistant"
PREFIX = r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$"
_PERCENT = {"unit_of_measurement": "%", "state_class": "measurement", "suggested_display_precision": 1}
Entities = Mapping[str, Mapping[str, object]]  # by what it is called in the state
DEVICE: Entities = {
    "online": {
        "platform": "binary_sensor",
        "name": "Online",
        "device_class": "connectivity",
        "entity_category": "diagnostic",
    },
    "round": {"platform": "sensor", "name": "Round", "icon": "mdi:counter"},
    "accuracy": {"platform": "sensor", "name": "Accuracy", "icon": "mdi:bullseye-arrow", **_PERCENT},
    "temperature": {
        "platform": "sensor",
        "name": "Temperature",
        "device_class": "temperature",
        "unit_of_measurement": "°C",
        "state_class": "measurement",
    },
    "memory": {
        "platform": "sensor",
        "name": "Memory",
        "device_class": "data_size",
        "unit_of_measurement": "MiB",
        "state_class": "measurement",
    },
}
FEDERATION: Entities = {
    "round": {"platform": "sensor", "name": "Round", "icon": "mdi:counter"},
    "masks": {"platform": "sensor", "name": "Masks", "icon": "mdi:vote", "state_class": "measurement"},
    "devices": {"platform": "sensor", "name": "Devices online", "icon": "mdi:lan", "state_class": "measurement"},
    "accuracy": {"platform": "sensor", "name": "Accuracy", "icon": "mdi:bullseye-arrow", **_PERCENT},
}


def check_prefix(prefix: str) -> str:
    """Return a discovery prefix if it can be the beginning of a topic.

    Raises:
        ConfigError: if it cannot.
    """
    if not re.search(PREFIX, prefix) or prefix.endswith("\n"):
        raise ConfigError(
            f"'{prefix}' is not letters, digits, '-' and '_', with '/' between them",
            where="--home-assistant",
            hint=f"Home Assistant's own is {DEFAULT_PREFIX}",
        )
    return prefix


def root(prefix: str, federation: str) -> str:
    """Under which a federation describes itself and its devices, and nobody else anything."""
    return f"{prefix}/device/hns-{federation}"


def federation_topic(prefix: str, topics: Topics) -> str:
    """Where the federation is described."""
    return f"{root(prefix, topics.federation)}/config"


def device_topic(prefix: str, topics: Topics, device: str) -> str:
    """Where a device is described."""
    return f"{root(prefix, topics.federation)}/{device}/config"


def describe_federation(topics: Topics) -> dict[str, object]:
    """The federation as a device, which all others are reached through."""
    facts = {"name": f"hidenseek {topics.federation}", "model": "coordinator", "sw_version": __version__}
    return _describe(topics, _identity(topics), facts, topics.home_federation, FEDERATION)


def describe_device(topics: Topics, device: str, figures: DeviceFigures) -> dict[str, object]:
    """One device."""
    facts = {"name": device, "via_device": _identity(topics)}
    facts |= {key: text for key, text in (("model", figures.profile), ("sw_version", figures.software)) if text}
    return _describe(topics, f"{_identity(topics)}/{device}", facts, topics.home_device(device), DEVICE)


def federation_state(figures: Figures) -> dict[str, object]:
    """What the federation shows; null where that is not known."""
    return {
        "round": figures.round,
        "masks": figures.masks,
        "devices": figures.online,
        "accuracy": _percent(figures.seen if figures.held_out is None else figures.held_out),
    }


def device_state(figures: DeviceFigures) -> dict[str, object]:
    """What a device shows; null where that is not known."""
    return {
        "online": "ON" if figures.online else "OFF",
        "round": figures.round,
        "accuracy": _percent(figures.accuracy),
        "temperature": figures.temperature_c,
        "memory": None if figures.memory_bytes is None else round(figures.memory_bytes / 2**20, 1),
    }


def _describe(
    topics: Topics, identity: str, facts: Mapping[str, str], state_topic: str, entities: Entities
) -> dict[str, object]:
    return {
        "device": {"identifiers": [identity], "manufacturer": "hidenseek", **facts},
        "origin": {
            "name": "hidenseek",
            "sw_version": __version__,
            "support_url": "https://github.com/hidenseek/hidenseek",
        },
        "availability_topic": topics.home_status,
        "state_topic": state_topic,
        "qos": 1,
        "components": {
            key: {"unique_id": f"{identity}/{key}", "value_template": f"{{{{ value_json.{key} }}}}", **entity}
            for key, entity in entities.items()
        },
    }


def _identity(topics: Topics) -> str:
    return f"hns/{topics.federation}"


def _percent(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 1)
