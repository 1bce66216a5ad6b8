"""What a broker is deployed for: kept as `deployment.json` in its folder, so that every later command knows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coordinator.brokers.process import write_whole
from coordinator.monitoring import discovery
from wire import claim
from wire.errors import ConfigError, StateError

FILE = "deployment.json"
ALWAYS_SAVED = 500  # devices
SLACK_BYTES = 16 * 1024  # of topic and headers, above the payload
QUEUE_MIN, QUEUE_PER_DEVICE = 1_000, 10
INFLIGHT = 1_000  # unacknowledged at a client of mosquitto's: as many as coordinator and workers commit at once, twice
CHECKERS = ("check-1", "check-2")  # accounts like a device's, for `broker check` alone
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Deployment(BaseModel):
    """One broker, a cluster of them, or a hub with sites."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["nats", "mosquitto"]
    federation: Name
    hosts: list[str] = Field(min_length=1)
    nodes: int = Field(default=1, ge=1, le=9)
    sites: dict[Name, list[str]] = {}
    devices: dict[Name, Name | None] = {}  # and each one's site
    cards: list[Name] = []  # devices whose cards may claim their accounts
    client_certificates: bool = False  # cards get certificates, not passwords
    certified: list[Name] = []  # devices that are let in by certificate alone
    workers: int = Field(default=0, ge=0, le=1000)
    fleet: int = Field(default=0, ge=0)  # devices to be sized for, beyond those that are listed
    packet_kb: int = Field(default=256, ge=1)
    home_assistant: str | None = Field(default=None, pattern=discovery.PREFIX)  # its discovery prefix
    port: int = Field(default=8883, ge=1, le=65000)
    ws_port: int = Field(default=8084, ge=1, le=65000)
    certificate_port: int = Field(default=8893, ge=1, le=65000)
    cluster_port: int = Field(default=6222, ge=1, le=65000)
    client_port: int = Field(default=4222, ge=1, le=65000)

    @property
    def size(self) -> int:
        """Devices that the limits are for."""
        return max(self.fleet, len(self.devices))

    @property
    def payload_bytes(self) -> int:
        """Largest payload that is let through."""
        return self.packet_kb * 1024 + SLACK_BYTES

    @property
    def queue(self) -> int:
        """Messages kept for a client that is away: all that a fleet says while the coordinator restarts."""
        return max(QUEUE_MIN, QUEUE_PER_DEVICE * self.size)

    @property
    def inflight(self) -> int:
        """Messages on their way to a client of mosquitto's, unacknowledged."""
        return INFLIGHT

    @property
    def autosave_changes(self) -> int:
        """After how many changes mosquitto writes its database."""
        return autosave_changes(self.size)

    @property
    def connections(self) -> int:
        """Clients at once, old connections that are not noticed to be dead among them."""
        return 2 * self.size + 200

    @property
    def workers_names(self) -> list[str]:
        """Users of the workers."""
        return [f"worker-{number}" for number in range(1, self.workers + 1)]

    def devices_of(self, site: str | None) -> list[str]:
        """Devices that connect to a site's broker; None: to the hub's. The checkers are everywhere."""
        return [*(name for name, at in sorted(self.devices.items()) if at == site), *CHECKERS]

    def account_of(self, device: str) -> str:
        """The user whose password a device gets for its card's token."""
        return claim.RENEWAL + device if device in self.certified else device

    def broker_nodes(self) -> list[Node]:
        """Every broker process of it."""
        if self.sites:
            hosts = {"hub": self.hosts} | {f"site-{name}": found for name, found in self.sites.items()}
        elif self.nodes == 1:
            hosts = {"broker": self.hosts}
        elif len(self.hosts) == 1:
            hosts = {f"node-{number}": self.hosts for number in range(1, self.nodes + 1)}
        else:
            hosts = {f"node-{number}": [host] for number, host in enumerate(self.hosts, 1)}
        nodes: list[Node] = []
        for name, own in hosts.items():
            shift = sum(1 for other in nodes if _one_machine(other.hosts, own))  # then each has ports of its own
            site = name.removeprefix("site-") if self.sites and name != "hub" else None
            certified = self.client_certificates and site is None  # devices of sites cannot claim accounts
            nodes.append(
                Node(
                    name=name,
                    hosts=tuple(own),
                    site=site,
                    port=self.port + shift,
                    ws_port=self.ws_port + shift,
                    certificate_port=self.certificate_port + shift if certified else None,
                    cluster_port=self.cluster_port + shift,
                    client_port=self.client_port + shift,
                )
            )
        return nodes


def autosave_changes(devices: int) -> int:
    """After how many changes mosquitto writes its database, whole.

    After each one for small fleets, so that kill -9 loses nothing. The database grows with the fleet, and writing it at
    each change takes mosquitto all its time from about a thousand devices on (docs/scale.md); after a tenth as many
    changes as there are devices, it takes the same for every change, whatever the fleet.
    """
    return 1 if devices <= ALWAYS_SAVED else devices // 10


@dataclass(frozen=True, kw_only=True)
class Node:
    """One broker process: its name, the addresses it is known by (the first is shown), and its ports.

    `certificate_port` is the one where devices show certificates instead of passwords, if there is one.
    """

    name: str
    hosts: tuple[str, ...]
    site: str | None
    port: int
    ws_port: int
    cluster_port: int
    client_port: int
    certificate_port: int | None = None

    @property
    def ports(self) -> list[int]:
        """Those that devices and apps connect to."""
        return [self.port, self.ws_port, *([self.certificate_port] if self.certificate_port else [])]

    @property
    def bind(self) -> str:
        """The address to listen on: the loopback's if it is known by no other."""
        return "127.0.0.1" if all(map(is_loopback, self.hosts)) else "0.0.0.0"  # noqa: S104  # behind TLS and passwords

    @property
    def url(self) -> str:
        """Where devices find it."""
        return f"mqtts://{bracketed(self.hosts[0])}:{self.port}"

    @property
    def certificate_url(self) -> str:
        """Where devices that have certificates find it; "" if they do not."""
        return f"mqtts://{bracketed(self.hosts[0])}:{self.certificate_port}" if self.certificate_port else ""

    @property
    def ws_url(self) -> str:
        """Where apps find it."""
        return f"wss://{bracketed(self.hosts[0])}:{self.ws_port}/mqtt"


def _one_machine(hosts: Iterable[str], others: Iterable[str]) -> bool:
    """Whether two nodes are known by a common address, the loopback's names being one."""
    ours, theirs = ({"" if is_loopback(host) else host for host in some} for some in (hosts, others))
    return not ours.isdisjoint(theirs)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bracketed(host: str) -> str:
    """As it stands in an address."""
    return f"[{host}]" if ":" in host else host


def check(deployment: Deployment) -> None:
    """Whether its parts fit together.

    Raises:
        ConfigError: if not; names the option.
    """
    if deployment.kind == "mosquitto" and deployment.nodes > 1:
        raise ConfigError("mosquitto has no clusters", where="--nodes", hint="Take --kind nats, or --sites A,B")
    if deployment.kind == "nats" and deployment.sites:
        raise ConfigError("sites are for mosquitto", where="--sites", hint="Take --kind mosquitto, or --nodes 3")
    if deployment.kind == "nats" and deployment.client_certificates:
        raise ConfigError(
            "nats-server asks everybody on its MQTT port for a certificate, or nobody",
            where="--client-certificates",
            hint="Take --kind mosquitto, or leave it out: devices then have passwords",
        )
    if deployment.certified and not deployment.client_certificates:
        first = deployment.certified[0]
        raise ConfigError(
            f"{len(deployment.certified)} devices have certificates and no passwords, '{first}' among them",
            where="--no-client-certificates",
            hint=f"hidenseek broker remove-device {first} first, then write new cards",
        )
    if deployment.nodes == 2:
        raise ConfigError("2 nodes stop when one does", where="--nodes", hint="Take 1, 3 or 5")
    if deployment.nodes > 1 and len(deployment.hosts) not in (1, deployment.nodes):
        raise ConfigError(
            f"{len(deployment.hosts)} hosts for {deployment.nodes} nodes",
            where="--hosts",
            hint="Name one for each node, or a single one to try it on one machine",
        )
    for name, site in deployment.devices.items():
        if site is not None and site not in deployment.sites:
            known = f"Known: {', '.join(deployment.sites)}" if deployment.sites else "Name sites with --sites"
            raise ConfigError(f"device '{name}' is at site '{site}', which is none", where="devices", hint=known)
    taken = {
        "coordinator",
        "home-assistant",
        "enroller",
        *CHECKERS,
        *deployment.workers_names,
        *(f"site-{name}" for name in deployment.sites),
    }
    if clash := sorted(taken & deployment.devices.keys()):
        raise ConfigError(f"'{clash[0]}' is the broker's own account", where="devices", hint="Rename the device")


def load(folder: Path) -> Deployment:
    """Read a deployment's settings.

    Raises:
        ConfigError: if there is none.
        StateError: if they are damaged.
    """
    path = folder / FILE
    try:
        return Deployment.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"no {FILE} in this folder", where=str(folder), hint="Make one: hidenseek broker init; or name it: --deploy"
        ) from None
    except (OSError, ValidationError) as error:
        first = str(error).replace("\n", " ")
        raise StateError(
            f"damaged ({first:.120})", where=str(path), hint="Restore it, or run broker init anew"
        ) from error


def save(folder: Path, deployment: Deployment) -> None:
    """Write them; raises StateError if they cannot be written."""
    write_whole(folder / FILE, deployment.model_dump_json(indent=1).encode() + b"\n", 0o644)
