"""A deployment's brokers made known in this network by multicast DNS. The only file that imports zeroconf.

Devices try what is announced only where the address on their card leads nowhere, and TLS decides (`wire.mdns`).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from coordinator.brokers.deployment import Node
from wire.errors import ConfigError, RuntimeMissing
from wire.mdns import CERTIFICATES, HOST, SERVICE

if TYPE_CHECKING:
    from zeroconf import ServiceInfo

LABEL_BYTES = 63  # of a DNS label


@contextmanager
def announced(federation: str, nodes: Sequence[Node], addresses: Sequence[str] | None = None) -> Iterator[list[str]]:
    """Answer for some nodes that run here, until the end of the block.

    Args:
        federation: what they are for; part of the names.
        nodes: which.
        addresses: of this machine, where devices reach it; all of its own if None.

    Yields:
        their names in the network.

    Raises:
        RuntimeMissing: if zeroconf is not installed.
        ConfigError: if they listen on the loopback only, or nothing can be said in this network.
    """
    try:
        from zeroconf import Error, Zeroconf
    except ImportError as error:
        raise RuntimeMissing(
            "zeroconf is not installed", where="--announce", hint='Install it: pip install "hidenseek[coordinator]"'
        ) from error
    if addresses is None:
        if lonely := [node.name for node in nodes if node.bind == "127.0.0.1"]:
            raise ConfigError(
                f"{', '.join(lonely)} can be reached from this machine only",
                where="--announce",
                hint="Name the machine as devices do: hidenseek broker init --hosts NAME",
            )
        addresses = own_addresses()
    services = [_service(federation, node, addresses) for node in nodes]
    try:
        speaker = Zeroconf(interfaces=list(addresses))
    except OSError as error:
        raise ConfigError(f"multicast is not possible here ({error.strerror})", where="--announce") from error
    try:
        for service in services:
            speaker.register_service(service, allow_name_change=True)
        yield [service.name for service in services]
    except Error as error:
        raise ConfigError(f"cannot be announced ({error})", where="--announce") from error
    finally:
        speaker.close()


def own_addresses() -> list[str]:
    """IPv4 addresses of this machine that others can reach.

    Raises:
        ConfigError: if it has none.
    """
    import ifaddr

    found = [str(one.ip) for adapter in ifaddr.get_adapters() for one in adapter.ips if one.is_IPv4]
    found = [one for one in found if not ipaddress.ip_address(one).is_loopback]
    if not found:
        raise ConfigError("this machine has no address but the loopback's", where="--announce")
    return found


def _service(federation: str, node: Node, addresses: Sequence[str]) -> ServiceInfo:
    from zeroconf import ServiceInfo

    properties = {HOST: node.hosts[0], "federation": federation}
    if node.certificate_port:
        properties[CERTIFICATES] = str(node.certificate_port)
    label = f"hidenseek {federation} {node.name}".encode()[:LABEL_BYTES].decode(errors="ignore")
    return ServiceInfo(
        SERVICE,
        f"{label}.{SERVICE}",
        addresses=[socket.inet_aton(one) for one in addresses],
        port=node.port,
        properties=properties,
        server=f"{socket.gethostname().partition('.')[0]}-hidenseek.local.",
    )
