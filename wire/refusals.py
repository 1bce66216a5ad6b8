"""What a broker has against the certificate that it was shown: read out of the alert that its TLS ends with.

A client of TLS 1.3 has shown its certificate, and goes on, before the broker has looked at it; the alert comes later,
and paho drops it. So the connection is made once more, for that alone.

Source: RFC 8446, 6.2; the names are OpenSSL's.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from wire.errors import BrokerRefused

if TYPE_CHECKING:
    from wire.broker import Broker

WITHIN_S = 5.0
REASONS = {
    "CERTIFICATE_REVOKED": ("it was taken back", "A new card: hidenseek flash; found again: hidenseek fleet restore"),
    "CERTIFICATE_EXPIRED": ("it has ended, by the broker's clock", "Is that clock right? If so, ask for another one"),
    "UNKNOWN_CA": ("the broker does not know who has signed it", "Is the certificate of this deployment?"),
    "BAD_CERTIFICATE": ("it is damaged", "Ask for another one"),
    "UNSUPPORTED_CERTIFICATE": ("it is not for clients", "Ask for one with the key usage clientAuth"),
    "CERTIFICATE_UNKNOWN": ("the broker does not say why", "Its log does"),
}


def of_certificate(broker: Broker, context: ssl.SSLContext, error: ssl.SSLError | None) -> BrokerRefused | None:
    """Why a broker does not let in who shows this certificate, or shows none; None if that is not why.

    Args:
        broker: where, and what is shown.
        context: for a connection with that.
        error: what TLS has ended with, if that is known.
    """
    reason = getattr(error or _ask(broker, context), "reason", None) or ""
    if broker.certificate is None:
        if "CERTIFICATE_REQUIRED" in reason:
            hint = "--cert FILE; devices with passwords have another port"
            return BrokerRefused(f"{broker} wants a certificate to be shown", hint=hint)
        return None
    for name, (why, hint) in REASONS.items():
        if reason.endswith(f"_ALERT_{name}"):
            return BrokerRefused(f"{broker} refuses the certificate {broker.certificate}: {why}", hint=hint)
    return None


def _ask(broker: Broker, context: ssl.SSLContext) -> ssl.SSLError | None:
    """What TLS ends with; None if it does not."""
    context.check_hostname = False  # that it is the right broker was seen before; it may be elsewhere (`wire.routes`)
    try:
        with (
            socket.create_connection((broker.host, broker.port), WITHIN_S) as plain,
            context.wrap_socket(plain, server_hostname=broker.host) as secured,
        ):
            secured.recv(1)
    except ssl.SSLError as error:
        return error
    except OSError:
        pass
    return None
