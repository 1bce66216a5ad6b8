"""What one device's card is told: of devices.yaml, of the options, and of the broker's deployment."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator import profiles, yaml_file
from coordinator.card_settings import FlashSettings
from coordinator.config import DevicesFile
from export.image.customise import Card
from export.image.service import Service
from wire.broker import parse_url
from wire.claim import TOKEN_FILE
from wire.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.brokers.deployment import Deployment

USUAL_MB, LEAST_MB = 256, 48


@dataclass(frozen=True, kw_only=True)
class Where:
    """Where devices find their broker, and how they get into it.

    Attributes:
        broker: address that was named; "" for that of devices.yaml, or of the deployment.
        ca: file with its certificate authority that was named.
        deploy: folder of `broker init`, whose accounts devices are to claim; None for a broker that is not ours.
    """

    broker: str = ""
    ca: Path | None = None
    deploy: Path | None = None


def card(config: Path, settings: DevicesFile, name: str, where: Where) -> Card:
    """A device's card, without the token that it claims its account with.

    Raises:
        ConfigError: naming the device and the setting.
    """
    device = settings.devices[name]
    wanted = device.flash.over(settings.flash) if device and device.flash else settings.flash
    folder = config.parent
    certificates = ""
    try:
        broker, ca = where.broker or wanted.broker, where.ca or (folder / wanted.ca if wanted.ca else None)
        if where.deploy is not None:
            deployment = _deployment(where.deploy, settings, device.site if device else None)
            certificates = _certificates(deployment, broker)
            broker = broker or ",".join(node.url for node in deployment.broker_nodes() if node.site is None)
            ca = ca or where.deploy / "ca.crt"
        if not broker:
            raise ConfigError("no broker", where="broker", hint="Name one: --broker mqtts://HOST, or --deploy DIR")
        _check_broker(broker)
        _check_clock(settings, name, wanted)
        return Card(
            settings=wanted.card(name, folder),
            service=Service(
                device=name,
                federation=settings.federation.name,
                broker=broker,
                certificates=certificates,
                ca=_read(ca) if ca else None,
                trust=wanted.trust or "",
                profile=(device.profile if device else None) or "",
                threads=wanted.threads,
                memory_mb=wanted.memory_mb or _memory_mb(settings, name),
                peak_mb=settings.budget_of(name).peak_mb or 0,
            ),
            data=wanted.recordings(folder),
        )
    except ConfigError as error:
        raise ConfigError(
            f"{error.where}: {error.what}" if error.where else error.what,
            where=f"{_place(config, name, error.where)}: flash of {name}",
            hint=error.hint,
        ) from error


def _certificates(deployment: Deployment, named: str | None) -> str:
    """Where the device of a card shows its certificate, at the host of a broker that was named; "" if it has none."""
    from coordinator.brokers.deployment import bracketed

    node = deployment.broker_nodes()[0]
    if not named or not node.certificate_port:
        return node.certificate_url
    broker = parse_url(named)
    hosts = [bracketed(host) for host, _ in broker.nodes] if broker.scheme == "mqtts" else []
    return ",".join(f"mqtts://{host}:{node.certificate_port}" for host in hosts)


def _place(config: Path, name: str, setting: str) -> str:
    """File, and line where a setting is that counts for a device; of the device if it is nowhere."""
    tree: Any = yaml_file.read(config)
    parts = setting.split(".")
    for above in (["devices", name, "flash"], ["flash"]):
        found = tree
        for part in [*above, parts[0]]:
            found = found.get(part) if isinstance(found, dict) else None
        if found is not None:
            return f"{config}:{yaml_file.line_of(tree, [*above, *parts])}"
    return f"{config}:{yaml_file.line_of(tree, ['devices', name])}"


def _check_clock(settings: DevicesFile, name: str, wanted: FlashSettings) -> None:
    """A board is not to be clocked higher than it is sold, if that is known and nobody has said that it may."""
    device = settings.devices[name]
    profile = (device.profile if device else None) or ""
    kind = settings.hardware.get(profile) or profiles.built_in().get(profile)
    sold_mhz = round(kind.clock_ghz * 1000) if kind and kind.clock_ghz else None
    if wanted.overclock == "off" and wanted.arm_freq_mhz and sold_mhz and wanted.arm_freq_mhz > sold_mhz:
        raise ConfigError(
            f"{wanted.arm_freq_mhz} found, at most {sold_mhz} expected, which '{profile}' is sold with",
            where="arm_freq_mhz",
            hint="Say `overclock: keep` too if it is meant",
        )


def with_token(made: Card, deploy: Path | None) -> Card:
    """The card with a token for the device's account, which from now on is waited for.

    Raises:
        StateError: if the deployment cannot be changed.
    """
    if deploy is None:
        return made
    import time

    from coordinator.brokers import deployment as deployments
    from coordinator.brokers import enroller

    certified = bool(made.service.certificates)
    _, token = enroller.open_card(
        deploy, deployments.load(deploy), made.service.device, time.time(), certificate=certified
    )
    return replace(made, secrets=made.secrets | {TOKEN_FILE: f"{token}\n".encode()})


def enrolled(deploy: Path | None, name: str) -> bool:
    """Whether a device has claimed its account with an earlier card; raises StateError if that cannot be read."""
    if deploy is None:
        return False
    from coordinator.brokers import claims

    known = claims.load(deploy).cards.get(name)
    return known is not None and known.key is not None


def _deployment(folder: Path, settings: DevicesFile, site: str | None) -> Deployment:
    from coordinator.brokers import deployment as deployments

    found = deployments.load(folder)
    if found.federation != settings.federation.name:
        raise ConfigError(
            f"{folder} is for federation '{found.federation}', devices.yaml for '{settings.federation.name}'",
            where="--deploy",
        )
    if site is not None:
        raise ConfigError(
            f"devices of a site ('{site}') cannot claim accounts yet: their broker keeps none", where="site"
        )
    return found


def _memory_mb(settings: DevicesFile, name: str) -> int:
    """Where the kernel ends the program: what its budget allows is still to be seen, and reported, before that."""
    peak_mb = settings.budget_of(name).peak_mb
    return max(LEAST_MB, int(peak_mb * 1.5)) if peak_mb else USUAL_MB


def _check_broker(url: str) -> None:
    parse_url(url)
    if re.search(r"//[^/,]*@", url):
        raise ConfigError("it has a user in it", where="broker", hint="Leave that out: each device has its own")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", where="ca") from error
