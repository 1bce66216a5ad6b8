"""Who may read and write which topics: the one place that says so, for every kind of broker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.monitoring import discovery
from wire.topics import ROOT

COORDINATOR, HOME_ASSISTANT, ENROLLER = "coordinator", "home-assistant", "enroller"
# Of NATS: where its MQTT sessions get what is delivered to them. It refuses these as filters of a client.
NATS_DELIVERY = ("$MQTT.sub.>", "$MQTT.deliver.pubrel.>")


@dataclass(frozen=True, kw_only=True)
class Rights:
    """MQTT filters that an account may subscribe to, and that it may publish to."""

    read: tuple[str, ...]
    write: tuple[str, ...]


def coordinator(federation: str, prefix: str | None) -> Rights:
    """Hears every device and every worker, speaks to all of them; shows them in Home Assistant under a prefix."""
    root = f"{ROOT}/{federation}"
    home = (f"{root}/home/#", f"{discovery.root(prefix, federation)}/#") if prefix else ()
    return Rights(
        read=(f"{root}/up/#", f"{root}/work/#"), write=(f"{root}/all/#", f"{root}/down/#", f"{root}/work/#", *home)
    )


def home_assistant(federation: str, prefix: str) -> Rights:
    """Reads what it is shown, and says that it is there."""
    return Rights(read=(f"{prefix}/#", f"{ROOT}/{federation}/home/#"), write=(f"{prefix}/status",))


def worker(federation: str) -> Rights:
    """Hears devices in the coordinator's place and confirms to them what it has; hands sums on."""
    root = f"{ROOT}/{federation}"
    return Rights(read=(f"{root}/all/#", f"{root}/up/#", f"{root}/work/#"), write=(f"{root}/down/#", f"{root}/work/#"))


def device(federation: str, name: str) -> Rights:
    """Its own topics, and what is said to everyone."""
    root = f"{ROOT}/{federation}"
    return Rights(read=(f"{root}/all/#", f"{root}/down/{name}/#"), write=(f"{root}/up/{name}/#",))


def claimant(federation: str, name: str) -> Rights:
    """A device whose card was just flashed, before it has an account of its own."""
    root = f"{ROOT}/{federation}/claim/{name}"
    return Rights(read=(f"{root}/answer/#",), write=(f"{root}/request/#",))


def enroller(federation: str) -> Rights:
    """Answers those."""
    root = f"{ROOT}/{federation}"
    return Rights(read=(f"{root}/claim/#",), write=(f"{root}/claim/#",))


def site(federation: str, devices: Iterable[str]) -> Rights:
    """A site's bridge at the hub: what its devices may, together."""
    root, names = f"{ROOT}/{federation}", sorted(devices)
    return Rights(
        read=(f"{root}/all/#", *(f"{root}/down/{name}/#" for name in names)),
        write=tuple(f"{root}/up/{name}/#" for name in names),
    )


def nats_permissions(rights: Rights) -> dict[str, list[str]]:
    """The same as NATS subjects."""
    return {
        "publish": [subject for one in rights.write for subject in _subjects(one)],
        "subscribe": [*(subject for one in rights.read for subject in _subjects(one)), *NATS_DELIVERY],
    }


def _subjects(pattern: str) -> list[str]:
    """An MQTT filter x/# covers x itself, and the bare subject needs its own grant."""
    subject = pattern.replace("/", ".")
    return [subject.removesuffix(".#"), subject.removesuffix("#") + ">"] if pattern.endswith("/#") else [subject]
