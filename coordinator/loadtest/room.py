"""Whether this machine has room for so many connections: open files of a process, ports of an address."""

from __future__ import annotations

import ipaddress
import resource
import socket

from wire.errors import ConfigError

SPARE = 60  # files of a process that are no connections
PER_SOURCE = 5_000  # of the 28,000 ports that an address has for one broker, by default
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


def use_all_files() -> int:
    """Open as many files as this process is allowed at all, and its children too; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 20)  # more than that some systems refuse
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def processes(devices: int, wanted: int | None) -> int:
    """How many processes hold so many connections.

    Args:
        devices: connections.
        wanted: processes that were asked for; None: two, or as many as are needed.

    Raises:
        ConfigError: if those that were asked for do not suffice.
    """
    files = use_all_files() - SPARE
    least = -(-devices // max(files, 1))
    if files < 1 or (wanted is not None and wanted < least):
        raise ConfigError(
            f"{devices:,} connections are to be made, and {wanted or 1} processes may hold "
            f"{max(files, 0) * (wanted or 1):,}",
            where="--processes",
            hint=f"Take {least} processes, or raise the limit of open files: ulimit -Hn, LimitNOFILE= in systemd",
        )
    return wanted or max(least, min(2, devices))


def check_broker(devices: int) -> None:
    """Whether a broker started here could hold so many connections.

    Raises:
        ConfigError: if not.
    """
    files = use_all_files() - SPARE
    if devices > files:
        raise ConfigError(
            f"a broker started here may hold {files:,} connections (ulimit -Hn), and {devices:,} are to be made",
            where="--devices",
            hint="Raise the limit of open files as root: ulimit -Hn 100000, or LimitNOFILE= in systemd; or take fewer",
        )


def sources(host: str, devices: int) -> list[str]:
    """Local addresses to connect from, one for every 5,000 devices; none: the system's choice.

    Only to a broker on the loopback, all of whose 16 million addresses Linux answers to.
    """
    try:
        if ipaddress.ip_address(host) not in LOOPBACK:
            return []
    except ValueError:
        return []
    found = []
    for number in range(-(-devices // PER_SOURCE)):
        address = str(LOOPBACK.network_address + 1 + number)
        with socket.socket() as probe:
            try:
                probe.bind((address, 0))
            except OSError:  # another system than Linux: 127.0.0.1 alone
                break
        found.append(address)
    return found
