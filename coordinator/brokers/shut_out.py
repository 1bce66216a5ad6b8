"""Devices that a deployment's brokers let in no more: their certificates, their accounts, and their connections."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from coordinator.brokers import change, claims, render, up
from coordinator.brokers import deployment as deployments
from coordinator.brokers.access import COORDINATOR
from coordinator.brokers.deployment import Deployment
from coordinator.brokers.probe import Probe


def follow(folder: Path | None, federation: str | None, device: str, now_s: float, *, out: bool) -> str:
    """Do to a device's certificates what a coordinator is told of the device, and say so.

    Args:
        folder: where a deployment may be.
        federation: of that coordinator, if it is known; a deployment of another one is left alone.
        device: which.
        now_s: seconds since 1970.
        out: it is revoked, else it may take part again.

    Returns:
        what became of its certificates; "" if it has none here.

    Raises:
        StateError: if something cannot be read or written.
    """
    if folder is None or not (folder / deployments.FILE).exists():
        return ""
    deployment = deployments.load(folder)
    if federation not in (None, deployment.federation) or not bar(folder, deployment, device, now_s, out=out):
        return ""
    elsewhere = "" if up.running_nodes(folder, deployment) else f", once the broker has the new {render.TAKEN_BACK}"
    if out:
        ends = f" and was started again ({folder}/README.md, Later)" if elsewhere else ""
        return f"its certificate opens the broker no more{elsewhere}{ends}"
    return f"its certificate is good again{elsewhere}"


def bar(folder: Path, deployment: Deployment, device: str, now_s: float, *, out: bool) -> bool:
    """Have a device's certificates be good for nothing while it is revoked, and end its connection; or be good again.

    Args:
        folder: the deployment's.
        deployment: its settings.
        device: which; one that has no certificates is left as it is.
        now_s: seconds since 1970.
        out: whether it is revoked from now on.

    Returns:
        whether anything changed.

    Raises:
        StateError: if something cannot be read or written.
    """
    with claims.changing(folder) as known:
        card = known.cards.get(device)
        if card is None or device not in deployment.certified or (card.barred_s is not None) == out:
            return False
        known.cards[device] = card.model_copy(update={"barred_s": now_s if out else None})
        change.write(folder, deployment, known=known)
        change.reload(folder, deployment)
    if out:
        throw_out(folder, deployment, device)
    return True


def close(folder: Path, deployment: Deployment, devices: Collection[str], now_s: float) -> Deployment:
    """Take devices' accounts, cards and certificates away, and end their connections.

    Args:
        folder: the deployment's.
        deployment: its settings.
        devices: which.
        now_s: seconds since 1970.

    Returns:
        the settings without them.

    Raises:
        StateError: if something cannot be read or written.
    """
    changed = deployment.model_copy(
        update={
            "devices": {name: site for name, site in deployment.devices.items() if name not in devices},
            "cards": [name for name in deployment.cards if name not in devices],
            "certified": [name for name in deployment.certified if name not in devices],
        }
    )
    with claims.changing(folder) as known:
        for device in devices:
            known.end_certificates(device, now_s)
        change.write(folder, changed, known=known)
        change.reload(folder, changed)
    for device in set(devices).intersection(deployment.certified):
        throw_out(folder, changed, device)
    return changed


def throw_out(folder: Path, deployment: Deployment, device: str) -> None:
    """End the connection of a device whose certificates were taken back: a broker looks at those of new ones only.

    mosquitto knows who shows a certificate by the device's id alone, and ends the connection of an id when another
    one comes by it. Brokers that do not run here are left alone.

    Source: MQTT 3.1.1, [MQTT-3.1.4-2].
    """
    node = deployment.broker_nodes()[0]
    if node.certificate_port is None or node.name not in up.running_nodes(folder, deployment):
        return
    there = change.own_broker(folder, deployment, COORDINATOR)
    with suppress(OSError), Probe(there, client_id=device) as other:
        other.connect()
