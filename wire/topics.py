"""MQTT topic names: the only place that builds or parses one.

::

    hns/<federation>/all/federation          retained, coordinator -> all
    hns/<federation>/all/round               retained, coordinator -> all
    hns/<federation>/all/bundle/<runtime>    retained, coordinator -> all
    hns/<federation>/all/update              retained, coordinator -> all
    hns/<federation>/all/staged              retained, coordinator -> all
    hns/<federation>/all/wheel/<digest>/<part>   retained, coordinator -> all; of bundles too
    hns/<federation>/down/<device>           coordinator -> one device
    hns/<federation>/home/status | federation | devices/<device>   retained, coordinator -> home automation, JSON
    hns/<federation>/up/<device>/hello | state | mask | evaluation | missed | telemetry | exchange
    hns/<federation>/work/<worker>/up | down       a worker <-> the coordinator
    hns/<federation>/claim/<device>/request | answer      a flashed device <-> whoever keeps the broker's accounts

A message too large for one packet is sent in parts on `<topic>/<part number>` (`wire.envelope`).
Names hold letters, digits, `-` and `_` only, so none can escape its level on any broker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from wire.errors import ConfigError, WireError

ROOT = "hns"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
# With which devices hear. What is said to all is retained, and they ask for it with every connection; what one alone is
# told it asks for again, or is told again, until it has it: receipts by sending a mask again, votes, refusals, the
# steps of secure aggregation. A broker need keep nothing for a device that is away; NATS would, 0.3 MB for each filter
# of each device (docs/scale.md).
DEVICE_QOS = 0
UP_KINDS = ("hello", "state", "mask", "evaluation", "missed", "telemetry", "exchange")


def check_name(name: str, what: str) -> str:
    """Return `name` if it can be part of a topic.

    Args:
        name: a device id, a federation name or a runtime name.
        what: what to call it in the error.

    Raises:
        ConfigError: if it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} '{name}' is not 1 to 64 letters, digits, '-' or '_'", hint="It becomes part of an MQTT topic"
        )
    return name


def speaker(topic: str) -> str:
    """Who says what comes on a topic, as far as its levels tell: the first four, `hns/<federation>/up/<device>`."""
    return "/".join(topic.split("/", 4)[:4])


@dataclass(frozen=True)
class Topics:
    """The topics of one federation."""

    federation: str

    def __post_init__(self) -> None:
        check_name(self.federation, "federation name")

    @property
    def announcement(self) -> str:
        """Where the `Federation` message is retained."""
        return f"{ROOT}/{self.federation}/all/federation"

    @property
    def round(self) -> str:
        """Where the `Round` message is retained."""
        return f"{ROOT}/{self.federation}/all/round"

    def bundle(self, runtime: str) -> str:
        """Where the bundle for one runtime is retained."""
        return f"{ROOT}/{self.federation}/all/bundle/{check_name(runtime, 'runtime')}"

    @property
    def update(self) -> str:
        """Where the client's version is retained that devices shall run."""
        return f"{ROOT}/{self.federation}/all/update"

    @property
    def staged(self) -> str:
        """Where the bundles are retained that devices shall have ready."""
        return f"{ROOT}/{self.federation}/all/staged"

    def file_part(self, digest: bytes, number: int) -> str:
        """Where one part of a wheel or bundle with this SHA-256 is retained."""
        return f"{ROOT}/{self.federation}/all/wheel/{digest.hex()[:16]}/{number}"

    def down(self, device: str) -> str:
        """What one device alone is told."""
        return f"{ROOT}/{self.federation}/down/{check_name(device, 'device id')}"

    def up(self, device: str, kind: str) -> str:
        """What one device says; `kind` is one of `UP_KINDS`."""
        return f"{ROOT}/{self.federation}/up/{check_name(device, 'device id')}/{kind}"

    @property
    def home_status(self) -> str:
        """Whether the coordinator is there, for home automation."""
        return f"{ROOT}/{self.federation}/home/status"

    @property
    def home_federation(self) -> str:
        """How the run stands, for home automation."""
        return f"{ROOT}/{self.federation}/home/federation"

    def home_device(self, device: str) -> str:
        """How one device stands, for home automation."""
        return f"{ROOT}/{self.federation}/home/devices/{check_name(device, 'device id')}"

    def claim(self, device: str) -> str:
        """Where a device whose card was just flashed claims its account."""
        return f"{ROOT}/{self.federation}/claim/{check_name(device, 'device id')}/request"

    def claim_answer(self, device: str) -> str:
        """Where it is answered."""
        return f"{ROOT}/{self.federation}/claim/{check_name(device, 'device id')}/answer"

    @property
    def all_claims(self) -> str:
        """Filter for every device's claim."""
        return f"{ROOT}/{self.federation}/claim/#"

    def claimant(self, topic: str) -> str:
        """Return the device id of a claim's topic.

        Raises:
            WireError: if `topic` is none of this federation's.
        """
        match topic.split("/"):
            case [root, federation, "claim", device, "request", *part] if (
                root == ROOT and federation == self.federation and _NAME.fullmatch(device) and len(part) <= 1
            ):
                return device
        raise WireError(f"'{topic:.120}' is not a claim's topic of federation '{self.federation}'")

    def work(self, worker: str, direction: str) -> str:
        """What a worker and the coordinator say to each other; `direction` is "up" or "down"."""
        return f"{ROOT}/{self.federation}/work/{check_name(worker, 'worker name')}/{direction}"

    def worker(self, topic: str) -> str | None:
        """Return the name of the worker who speaks on a topic; None if it is none of theirs."""
        match topic.split("/"):
            case [root, federation, "work", worker, "up", *part] if (
                root == ROOT and federation == self.federation and _NAME.fullmatch(worker) and len(part) <= 1
            ):
                return worker
        return None

    @property
    def all_work(self) -> str:
        """Filter for everything any worker says."""
        return f"{ROOT}/{self.federation}/work/+/up/#"

    def every(self, kind: str) -> str:
        """Filter for what devices say of one kind, parts included."""
        return f"{ROOT}/{self.federation}/up/+/{kind}/#"

    @property
    def all_up(self) -> str:
        """Filter for everything any device says."""
        return f"{ROOT}/{self.federation}/up/#"

    def sender(self, topic: str) -> str:
        """Return the device id of an uplink topic.

        Raises:
            WireError: if `topic` is none of this federation's uplink topics.
        """
        match topic.split("/"):
            case [root, federation, "up", device, kind, *part] if (
                root == ROOT
                and federation == self.federation
                and _NAME.fullmatch(device)
                and kind in UP_KINDS
                and len(part) <= 1
            ):
                return device
        raise WireError(f"'{topic:.120}' is not an uplink topic of federation '{self.federation}'")
