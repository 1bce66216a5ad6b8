"""Options of the page, and what they come to."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 8470
DEFAULT_PAGE = f"127.0.0.1:{DEFAULT_PORT}"
CERTIFICATE = ("--page-cert", "--page-key")
TOKEN_FILE = "page.token"  # noqa: S105  # a file's name


@dataclass(frozen=True, kw_only=True)
class PageSettings:
    """Where the page is, and for whom.

    Attributes:
        host: address of this machine.
        port: 0 takes a free one.
        token_file: what lets in; made if it is missing.
        certificate: of HTTPS; None: the page speaks HTTP.
        certificate_key: its private key; None: in the same file.
        deploy: folder of the broker that `hidenseek broker init` wrote, if there is one.
    """

    host: str
    port: int
    token_file: Path
    certificate: Path | None = None
    certificate_key: Path | None = None
    deploy: Path | None = None


@dataclass(frozen=True, kw_only=True)
class PageExtent:
    """What can be done on the page beside what can always be.

    Attributes:
        config: devices.yaml that a run is started by; None: none can be.
        stays: the coordinator stays when a run is over, for the next.
    """

    config: Path | None = None
    stays: bool = False


NO_EXTENT = PageExtent()


def add_page_arguments(parser: argparse.ArgumentParser) -> None:
    """--page and what belongs to it."""
    group = parser.add_argument_group("live page")
    group.add_argument(
        "--page",
        nargs="?",
        const=DEFAULT_PAGE,
        metavar="[HOST:]PORT",
        help=f"show the fleet in a browser (without an address: {DEFAULT_PAGE}); docs/live-page.md",
    )
    group.add_argument(
        "--page-token-file", type=Path, metavar="FILE", help=f"what lets in (default {TOKEN_FILE} in the state folder)"
    )
    group.add_argument("--page-cert", type=Path, metavar="FILE", help="certificate: HTTPS, which phones ask for")
    group.add_argument("--page-key", type=Path, metavar="FILE", help="its private key (default: in the same file)")


def read_page(arguments: argparse.Namespace, state: Path, deploy: Path | None = None) -> PageSettings | None:
    """What the options ask for; None: no page.

    Args:
        arguments: as `add_page_arguments` has them read.
        state: the coordinator's folder.
        deploy: where the broker may have been set up.

    Raises:
        ConfigError: if the address is none, or options of the page are given without one.
    """
    from coordinator.broker import parse_listen
    from wire.errors import ConfigError

    at: str | None = arguments.page
    if at is None:
        for option in ("page_token_file", "page_cert", "page_key"):
            if getattr(arguments, option) is not None:
                name = f"--{option.replace('_', '-')}"
                raise ConfigError("there is no page without --page", where=name, hint=f"Add --page {DEFAULT_PAGE}")
        return None
    host, port = parse_listen(f"127.0.0.1:{at}" if at.isdigit() else at, default_port=DEFAULT_PORT, option="--page")
    return PageSettings(
        host=host,
        port=port,
        token_file=arguments.page_token_file or state / TOKEN_FILE,
        certificate=arguments.page_cert,
        certificate_key=arguments.page_key,
        deploy=deploy if deploy and deploy.is_dir() else None,
    )
