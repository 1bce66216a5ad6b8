"""Where a broker is and how to log in, and the addresses that people write for it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from wire.lazy import load_later

load_later("ipaddress")  # only for addresses in brackets, and 0.4 MB
from urllib.parse import unquote, urlsplit  # noqa: E402

from wire.errors import ConfigError  # noqa: E402

SECURE = ("mqtts", "wss")
PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
SEPARATOR = re.compile(r",(?=\w+://)")  # of the addresses of a cluster's nodes; a password may hold commas


@dataclass(frozen=True, kw_only=True)
class Broker:
    """Where a broker is and how to log in. `repr` never shows the password.

    `others` are further nodes of the same cluster, host and port: any of them will do. `discover`: if none of them
    answers, the network is asked where one is (`wire.routes`).
    """

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None
    path: str = "/mqtt"
    ca: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    others: tuple[tuple[str, int], ...] = ()
    discover: bool = False

    def __repr__(self) -> str:
        return ",".join(f"{self.scheme}://{host}:{port}" for host, port in self.nodes)

    @property
    def nodes(self) -> tuple[tuple[str, int], ...]:
        """Host and port of every node."""
        return ((self.host, self.port), *self.others)


def parse_url(
    url: str,
    *,
    password: str | None = None,
    ca: Path | None = None,
    certificate: Path | None = None,
    certificate_key: Path | None = None,
) -> Broker:
    """Read `mqtt[s]://[user[:password]@]host[:port]` (or ws[s]://...), or several with commas between them.

    Args:
        url: the address; of a cluster, those of its nodes. The first one's user is everyone's.
        password: used if the address names none.
        ca: certificate authority file for mqtts and wss; the system's if None.
        certificate: shown to a broker that wants to know its clients by one; PEM.
        certificate_key: its private key, if that is not in the same file.

    Raises:
        ConfigError: if the address is not of that form, a certificate is named where none can be shown, or the
            addresses of a cluster differ in more than host and port.
    """
    first, *others = (
        _parse_one(one, password=password, ca=ca, certificate=certificate, certificate_key=certificate_key)
        for one in SEPARATOR.split(url)
    )
    for other in others:
        if (other.scheme, other.path) != (first.scheme, first.path) or other.user not in (None, first.user):
            raise ConfigError(
                f"{first} and {other} differ in more than host and port",
                where="--broker",
                hint="Several addresses are nodes of one cluster: mqtts://USER@HOST1,mqtts://HOST2",
            )
    return replace(first, others=tuple((other.host, other.port) for other in others))


def discovering(broker: Broker) -> Broker:
    """The broker, whose network may be asked where it is.

    Raises:
        ConfigError: if its certificate would not show that it is the right one.
    """
    if broker.scheme != "mqtts" or broker.ca is None:
        raise ConfigError(
            f"{broker} found, a broker with TLS and its own certificate authority expected",
            where="--discover",
            hint="Whoever is in the network may answer, and nothing else tells them apart: mqtts://HOST and --ca FILE",
        )
    return replace(broker, discover=True)


def _parse_one(
    url: str, *, password: str | None, ca: Path | None, certificate: Path | None, certificate_key: Path | None
) -> Broker:
    hint = "Write it as mqtt://HOST, mqtt://HOST:1883 or mqtts://USER@HOST:8883"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"'{url}' is no address ({error})", where="--broker", hint=hint) from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise ConfigError(f"'{url}' is no broker address", where="--broker", hint=hint)
    if certificate and parts.scheme not in SECURE:
        raise ConfigError(f"'{url}' is no TLS address", where="--cert", hint="A certificate needs mqtts:// or wss://")
    if certificate_key and not certificate:
        raise ConfigError("a key without a certificate", where="--cert-key", hint="Name the certificate with --cert")
    return Broker(
        scheme=parts.scheme,
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else password,
        path=parts.path or "/mqtt",
        ca=ca,
        certificate=certificate,
        certificate_key=certificate_key,
    )
