"""TLS to a broker: what a connection needs, what it shows, and what it has failed of."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from wire.broker import Broker
from wire.errors import BrokerRefused, ConfigError


def unanswered(broker: Broker) -> BrokerRefused:
    """What to say of a broker that takes a TLS connection and then ends it."""
    own = broker.certificate
    return refusal(broker) or BrokerRefused(
        f"{broker} ends the connection without an answer",
        hint=f"It may not know who has signed {own}"
        if own
        else "It may want to know its clients by certificates: --cert FILE",
    )


def refusal(broker: Broker, error: ssl.SSLError | None = None) -> BrokerRefused | None:
    """Why a broker does not let in who shows this certificate, or shows none; None if that is not why.

    Args:
        broker: where, and what is shown.
        error: what TLS has ended with, if that is known; otherwise it is asked.
    """
    from wire import refusals  # in no device's memory that is let in

    return refusals.of_certificate(broker, tls_context(broker), error)


def tls_context(broker: Broker) -> ssl.SSLContext:
    """What a TLS connection to this broker needs.

    Raises:
        ConfigError: if a certificate or key cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=str(broker.ca) if broker.ca else None)
    except OSError as error:
        raise ConfigError(f"CA file cannot be read ({why(error)})", where=str(broker.ca)) from error
    if broker.certificate:
        try:
            context.load_cert_chain(broker.certificate, broker.certificate_key)
        except OSError as error:
            files = " and ".join(str(file) for file in (broker.certificate, broker.certificate_key) if file)
            raise ConfigError(f"certificate and key cannot be read ({why(error)})", where=files) from error
    return context


def certificate_of(connection: object) -> dict[str, Any]:
    """The certificate that a server has shown, as `ssl` tells of it; empty if it has shown none."""
    connection = getattr(connection, "_socket", connection)  # of paho's own wrapper for websockets
    try:
        return (connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None) or {}
    except (OSError, ValueError):  # lost again already
        return {}


def why(error: Exception) -> str:
    """What a connection failed of, in a few words."""
    if isinstance(error, socket.gaierror):
        return "the host name is not known"
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, TimeoutError):
        return "timed out"
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
