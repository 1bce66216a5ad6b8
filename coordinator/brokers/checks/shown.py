"""The port where devices show certificates: whose are taken, and what they open. Some are signed to try, an hour's."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from coordinator.brokers import device_certificates
from coordinator.brokers.checks.rows import Table, Target, attempt, unique
from coordinator.brokers.device_certificates import ALWAYS_TAKEN_BACK
from coordinator.brokers.probe import Probe, context
from wire import pkcs10, refusals, signing
from wire.broker import Broker
from wire.tls import tls_context

SIDE = "certificates"
HOUR_DAYS = 1 / 24
GRACE_S = 0.3


def check(target: Target, table: Table) -> None:
    """Try it, if there is one."""
    if target.certified is None or target.deploy is None or target.pair is None:
        return
    device, other = target.pair
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        device_certificates.make_authority(folder, "stranger")
        good = _signed(target.deploy, device, folder)
        _try(target.certified, table, "a device's", good, wanted=True)
        _try(target.certified, table, "none", None)
        _try(target.certified, table, "another authority's", _signed(folder, device, folder))
        _try(target.certified, table, "one that has ended", _signed(target.deploy, device, folder, days=-HOUR_DAYS))
        gone = _signed(target.deploy, device, folder, serial=ALWAYS_TAKEN_BACK)
        _try(target.certified, table, "one that was taken back", gone)
        _rights(target, table, good, _signed(target.deploy, other, folder))


def _signed(deploy: Path, device: str, folder: Path, *, days: float = HOUR_DAYS, serial: int | None = None) -> Path:
    """A file with a key and a certificate for it."""
    key = signing.new_key()
    issued = device_certificates.issue(deploy, device, pkcs10.request(key, device), days=days, serial=serial)
    path = folder / f"{unique()}.pem"
    path.touch(mode=0o600)
    path.write_bytes(pkcs10.pem(key, issued.certificate, 0))
    return path


def _try(there: Broker, table: Table, what: str, certificate: Path | None, *, wanted: bool = False) -> None:
    broker = replace(there, certificate=certificate)
    refusal = attempt(broker, tls_context(broker))
    if refusal and (said := refusals.of_certificate(broker, tls_context(broker), None)):
        refusal = said.what.partition(f"{certificate}: ")[2] or "a certificate is asked for"
    found = f"refused ({refusal})" if refusal else "accepted"
    table.add(SIDE, f"shown: {what}", "accepted" if wanted else "refused", found, wanted != bool(refusal))


def _rights(target: Target, table: Table, certificate: Path, another: Path) -> None:
    """What is published by the one, with the other's client id, and as the other."""
    assert target.certified is not None
    assert target.pair is not None
    device, other = target.pair
    topics = [f"{target.root}/up/{name}/check-{unique()}" for name in (other, device)]
    tls = [context(target.certified.ca) for _ in range(2)]
    for one, file in zip(tls, (certificate, another), strict=True):
        one.load_cert_chain(file)
    with (
        Probe(target.account(target.coordinator)) as hub,
        Probe(target.certified, client_id=device, tls=tls[0]) as ours,
        Probe(target.certified, client_id=device, tls=tls[1]) as theirs,
    ):
        with suppress(OSError):
            for probe in (hub, ours, theirs):
                probe.connect()
        hub.subscribe(f"{target.root}/up/#")
        ours.spin(lambda: False, GRACE_S)
        stays = ours.connected
        for topic in topics:
            ours.publish(topic, b"by certificate")
        ours.spin(lambda: False, GRACE_S)
        own = hub.wait(topics[1], b"by certificate")
        forged = any(one.topic == topics[0] for one in hub.heard)
    words = {True: "arrives", False: "does not arrive"}
    table.add(SIDE, "device writes its own topics", words[True], words[own], own)
    table.add(SIDE, "device writes as another device", words[False], words[forged], not forged)
    stayed = "stays" if stays else "is ended"
    table.add(SIDE, "a session that another device asks for", "stays", stayed, stays)
