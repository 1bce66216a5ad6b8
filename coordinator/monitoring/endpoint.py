"""Where Prometheus collects: an address of this machine, http://HOST:PORT/metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from wire.errors import ConfigError


@contextmanager
def exposed(registry: CollectorRegistry, host: str, port: int) -> Iterator[str]:
    """Serve metrics while this is open.

    Args:
        registry: what to show to whoever asks; there are no passwords.
        host: address of this machine.
        port: 0 takes a free one.

    Yields:
        the address.

    Raises:
        ConfigError: if that port cannot be had.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be listened on ({error.strerror or error})",
            where="--metrics",
            hint="Name another address: --metrics 127.0.0.1:9465",
        ) from error
    try:
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
