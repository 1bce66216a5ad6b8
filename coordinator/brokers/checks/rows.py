"""What is checked, with which accounts, and the rows that come of it."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from coordinator.brokers.probe import Probe
from wire.broker import Broker, parse_url
from wire.topics import ROOT

Verdict = Literal["ok", "FAIL", "not tried", "note"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One trial.

    Attributes:
        side: of the broker that it is about.
        what: was tried.
        expected: outcome.
        found: outcome.
        verdict: "FAIL" makes the whole check fail; "note" is nothing that has to be so.
    """

    side: str
    what: str
    expected: str
    found: str
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Target:
    """A broker to be checked.

    Args:
        broker: its address, with its certificate authority.
        websocket: its address for apps, if it has one.
        federation: whose topics are used.
        passwords: by user; of the coordinator, of two devices, and maybe of others.
        coordinator: user of the coordinator; None: nobody is known, and all are anonymous.
        devices: users of two devices that are not at work now.
        packet_bytes: largest payload that the federation sends.
        queue: messages to keep for a device that is away.
        home_assistant: discovery prefix of Home Assistant, if it has an account.
        worker: user of a worker, if there is one.
        certified: where devices show certificates, if they do.
        deploy: folder of the deployment, whose authority signs some to try; with `certified`.
    """

    broker: Broker
    websocket: Broker | None
    federation: str
    passwords: dict[str, str] = field(repr=False)
    coordinator: str | None
    devices: tuple[str, ...]
    packet_bytes: int
    queue: int = 1000
    home_assistant: str | None = None
    worker: str | None = None
    certified: Broker | None = None
    deploy: Path | None = None

    @property
    def root(self) -> str:
        """The federation's topics."""
        return f"{ROOT}/{self.federation}"

    @property
    def pair(self) -> tuple[str, str] | None:
        """Two devices, if there are two."""
        return (self.devices[0], self.devices[1]) if len(self.devices) > 1 else None

    def account(self, user: str | None, password: str | None = None, *, websocket: bool = False) -> Broker:
        """The way to the broker as this user; None: as nobody."""
        where = self.websocket if websocket and self.websocket else self.broker
        found = password if password is not None else self.passwords.get(user or "")
        return replace(where, user=user, password=found if user else None)

    def listener(self, user: str | None) -> Broker:
        """As `account`; without any accounts, as the one that everybody is."""
        return self.account(user if user in self.passwords else self.coordinator)


@dataclass
class Table:
    """Rows as they come.

    Args:
        tell: told each new row.
    """

    tell: Callable[[Row], None] = lambda row: None
    rows: list[Row] = field(default_factory=list)

    def add(self, side: str, what: str, expected: str, found: str, verdict: Verdict | bool) -> bool:
        """Append a row; whether its verdict is "ok"."""
        if isinstance(verdict, bool):
            verdict = "ok" if verdict else "FAIL"
        row = Row(side=side, what=what, expected=expected, found=found, verdict=verdict)
        self.rows.append(row)
        self.tell(row)
        return verdict == "ok"

    def skip(self, side: str, what: str, why: str) -> None:
        """Append a row of what was not tried."""
        self.add(side, what, "", why, "not tried")

    @property
    def failed(self) -> int:
        """Rows that should not be so."""
        return sum(row.verdict == "FAIL" for row in self.rows)


def attempt(broker: Broker, tls: ssl.SSLContext | None = None) -> str:
    """Why a connection is not to be had, in a few words; empty if it is."""
    probe = Probe(broker, tls=tls)
    try:
        return probe.connect(5.0)
    except ssl.SSLCertVerificationError as error:
        return f"certificate: {error.verify_message}"
    except ssl.SSLError as error:
        words = (error.reason or str(error)).replace("_", " ").lower()
        return f"TLS: {words.removeprefix('tlsv1 alert ')}"
    except (OSError, ValueError) as error:
        return str(error.strerror or error).lower() if isinstance(error, OSError) else str(error)
    finally:
        probe.close()


def unique() -> str:
    """A word that nobody has used before."""
    return secrets.token_hex(4)


def with_hosts(url: str, like: Broker) -> Broker:
    """An address with the certificates of another."""
    return parse_url(url, ca=like.ca, certificate=like.certificate, certificate_key=like.certificate_key)
