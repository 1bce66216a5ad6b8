"""The HTTP server of `hidenseek-edge web`; apart, for with all it imports it is 2 MB that a service does not need."""

from __future__ import annotations

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from wire.errors import ConfigError
from wire.https import server_context

TYPES = {".wasm": "application/wasm", ".webmanifest": "application/manifest+json", ".js": "text/javascript"}


def server(folder: Path, bind: str, port: int, cert: Path | None, cert_key: Path | None) -> ThreadingHTTPServer:
    """A server of a folder's files, listening.

    Args:
        folder: which.
        bind: address to listen on.
        port: to listen on; 0: any.
        cert: certificate that it shows, PEM; None: no TLS.
        cert_key: its private key, if not in the same file.

    Raises:
        ConfigError: if it cannot listen there, or the certificate cannot be used.
    """
    context = server_context(cert, cert_key, options=("--cert", "--cert-key"))
    try:
        made = ThreadingHTTPServer((bind, port), partial(_Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"cannot listen on {bind}:{port} ({error})",
            where="--port",
            hint="Name another: --port 8091",
        ) from error
    if context:
        made.socket = context.wrap_socket(made.socket, server_side=True, do_handshake_on_connect=False)
    return made


class _Handler(SimpleHTTPRequestHandler):
    """Files, and nothing that they may be taken for."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    def end_headers(self) -> None:
        """A browser asks again whether a file has changed: the service worker is what keeps them."""
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *values: Any) -> None:
        """Nothing: visits are nobody's business."""
