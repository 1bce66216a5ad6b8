"""The certificate that a web server of ours shows."""

from __future__ import annotations

import ssl
from pathlib import Path

from wire.errors import ConfigError


def server_context(certificate: Path | None, key: Path | None, *, options: tuple[str, str]) -> ssl.SSLContext | None:
    """TLS with a certificate; None without one: the server speaks HTTP.

    Args:
        certificate: PEM, with those that lead to its authority.
        key: its private key, PEM; None: in the same file.
        options: how a person names the two on the command line.

    Raises:
        ConfigError: if they cannot be read, do not belong together, or there is a key alone.
    """
    if certificate is None:
        if key is not None:
            raise ConfigError("a key without its certificate", where=options[1], hint=f"Name it: {options[0]} FILE")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"no usable certificate with its key ({error})",
            where=str(certificate),
            hint=f"Name both as PEM files: {options[0]} FILE {options[1]} FILE",
        ) from error
    return context
