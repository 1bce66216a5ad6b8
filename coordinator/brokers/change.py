"""Accounts changed while brokers run: written, and the brokers of this machine told."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from coordinator.brokers import accounts, claims, render, up
from coordinator.brokers.certificates import CERTIFICATES
from coordinator.brokers.claims import Claims
from coordinator.brokers.deployment import Deployment, Node
from coordinator.brokers.files import Writer
from wire.broker import Broker

RELOADED_S = 0.5  # what a broker may take to read its accounts again


def write(
    folder: Path,
    deployment: Deployment,
    *,
    users: Collection[str] = (),
    certificates: bool = False,
    authority: bool = False,
    known: Claims | None = None,
) -> Writer:
    """Write what is another now, and have users with another password thrown out.

    Args:
        folder: the deployment's.
        deployment: its settings.
        users: who get other passwords.
        certificates: make servers other ones.
        authority: make another authority.
        known: cards and certificates that are about to be written down; those that are if None.

    Raises:
        StateError: if something cannot be read or written.
    """
    if known is None:
        with claims.changing(folder) as known:  # nobody takes a certificate back meanwhile
            return write(folder, deployment, users=users, certificates=certificates, authority=authority, known=known)
    if users and deployment.kind == "nats" and up.running_nodes(folder, deployment):
        # nats-server throws out whom it does not know any more, and nobody whose password is another now.
        render.write(folder, deployment, omit=users, known=known)
        reload(folder, deployment)
    return render.write(
        folder,
        deployment,
        renew_passwords=users,
        renew_certificates=certificates,
        renew_authority=authority,
        known=known,
    )


def own_broker(folder: Path, deployment: Deployment, user: str) -> Broker:
    """The broker that runs on this machine, for one of its accounts."""
    # Its certificate is for the loopback too, whatever it is known by.
    return Broker(
        scheme="mqtts",
        host="127.0.0.1",
        port=deployment.broker_nodes()[0].port,
        user=user,
        password=accounts.load(folder).get(user),
        ca=folder / CERTIFICATES,
    )


def reload(folder: Path, deployment: Deployment) -> list[Node]:
    """Have brokers that run here read their accounts again, and wait until they have; which those are."""
    told = up.reload(folder, deployment)
    if told:
        time.sleep(RELOADED_S)
    return told
