"""Who may connect at all, and how: TLS, certificates, passwords, websockets."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import tempfile
from dataclasses import replace
from pathlib import Path

from coordinator.brokers import certificates
from coordinator.brokers.checks.rows import Table, Target, attempt, unique
from coordinator.brokers.probe import Probe, context
from wire.broker import SECURE

SIDE = "connection"
SOON_DAYS = 30
OURS = "no protocols available"  # then it is we who have refused
VERSIONS = (
    ("TLS 1.0", ssl.TLSVersion.TLSv1, False),
    ("TLS 1.1", ssl.TLSVersion.TLSv1_1, False),
    ("TLS 1.2", ssl.TLSVersion.TLSv1_2, True),
    ("TLS 1.3", ssl.TLSVersion.TLSv1_3, True),
)


def check(target: Target, table: Table) -> bool:
    """Try all of it; whether the coordinator gets in, without which nothing else can be tried."""
    broker = target.account(target.coordinator)
    refusal = attempt(broker)
    who = f"as {target.coordinator}" if target.coordinator else "without an account"
    table.add(SIDE, f"connect {who}", "accepted", refusal or "accepted", not refusal)
    if broker.scheme in SECURE:
        _tls(target, table)
    else:
        table.add(SIDE, "encryption", "TLS", f"none: {broker.scheme}://", False)
    _passwords(target, table)
    _websocket(target, table)
    return not refusal


def _tls(target: Target, table: Table) -> None:
    broker = target.account(target.coordinator)
    for name, version, wanted in VERSIONS:
        refusal = attempt(broker, context(broker.ca, version=version))
        expected = "accepted" if wanted else "refused"
        if OURS in refusal:
            table.skip(SIDE, name, "the OpenSSL of this machine does not speak it")
        elif name == "TLS 1.3" and refusal:
            table.add(SIDE, name, expected, refusal, "note")
        else:
            table.add(SIDE, name, expected, f"refused ({refusal})" if refusal else "accepted", bool(refusal) != wanted)
    with tempfile.TemporaryDirectory() as folder:
        certificates.make_authority(Path(folder), "stranger")
        refusal = attempt(broker, context(Path(folder) / certificates.CERTIFICATES))
    noticed = refusal.startswith("certificate")
    table.add(SIDE, "a CA that is not the broker's", "noticed by us", refusal or "not noticed", noticed)
    refusal = attempt(replace(broker, scheme="mqtt"))
    table.add(SIDE, "without TLS on its port", "refused", "refused" if refusal else "accepted", bool(refusal))
    _certificate(target, table)


def _certificate(target: Target, table: Table) -> None:
    broker = target.broker
    try:
        with (
            socket.create_connection((broker.host, broker.port), 5) as plain,
            context(broker.ca).wrap_socket(plain, server_hostname=broker.host) as secure,
        ):
            shown = secure.getpeercert(binary_form=True)
    except OSError as error:
        table.add(SIDE, "certificate for this address", "valid", str(error)[:80], False)
        return
    until, names = certificates.from_der(shown or b"")
    left = until - dt.datetime.now(dt.UTC)
    table.add(SIDE, f"certificate for {broker.host}", "valid", f"valid, for {', '.join(names)[:60]}", True)
    table.add(
        SIDE,
        "certificate ends",
        f"in more than {SOON_DAYS} days",
        f"{until:%Y-%m-%d}, in {left.days} days",
        left > dt.timedelta(days=SOON_DAYS),
    )


def _passwords(target: Target, table: Table) -> None:
    refusal = attempt(target.account(None))
    table.add(SIDE, "anonymous", "refused", f"refused ({refusal})" if refusal else "accepted", bool(refusal))
    if target.coordinator is None:
        table.skip(SIDE, "wrong password", "no accounts were named")
        return
    for what, user in (("wrong password", target.coordinator), ("unknown user", f"nobody-{unique()}")):
        refusal = attempt(target.account(user, "wrong"))
        table.add(SIDE, what, "refused", f"refused ({refusal})" if refusal else "accepted", bool(refusal))


def _websocket(target: Target, table: Table) -> None:
    if target.websocket is None:
        table.skip(SIDE, "websockets, for apps", "no address was named (--ws)")
        return
    user = target.devices[0] if target.devices else target.coordinator
    topic = f"{target.root}/up/{user}/check-{unique()}"
    try:
        with Probe(target.account(target.coordinator)) as hub, Probe(target.account(user, websocket=True)) as app:
            refusal = hub.connect() or app.connect()
            hub.subscribe(f"{target.root}/up/#")
            app.publish(topic, b"by websocket")
            app.spin(lambda: False, 0.1)
            came = not refusal and hub.wait(topic, b"by websocket")
    except (OSError, ValueError) as error:
        refusal, came = str(error)[:80], False
    found = "connects and publishes" if came else refusal or "connects, and its message does not arrive"
    table.add(SIDE, "websockets, for apps", "connects and publishes", found, came)
    if target.websocket.scheme in SECURE:
        refusal = attempt(replace(target.account(None, websocket=True), scheme="ws"))
        table.add(SIDE, "websockets without TLS", "refused", "refused" if refusal else "accepted", bool(refusal))
