"""`hidenseek broker invite`: a QR code with which a phone joins, without the live page."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from coordinator import broker_accounts_command
from coordinator.store_options import add_store_argument, open_store
from wire import command
from wire.errors import ConfigError, DataError

Subparsers = argparse._SubParsersAction
KINDS = ("png", "svg")
EXAMPLES = """
examples:
  hidenseek broker invite phone-1 --page https://hub.example.org:8090/         # the code, here in the terminal
  hidenseek broker invite phone-1 --page https://hub.example.org:8470/join/    # by the page of hidenseek serve --page
  hidenseek broker invite phone-1 --page https://join.example.org/ -o phone-1.png    # a picture, to send or print

The page for phones is hidenseek-edge web's, hidenseek serve's, or where it was copied to. A code is good for one phone,
once, for 30 days; made again for the same id, it takes the place of the one before. Its claim is answered while
`hidenseek broker up` or `hidenseek broker enrol` runs.
"""


def add_invite(actions: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek broker invite`."""
    parser = actions.add_parser(
        "invite",
        help="a QR code with which a phone joins",
        description="Make an account for a phone, which the first one with the code gets, and show the code: a link to "
        "the page for phones with all that the phone needs behind its #.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("device", metavar="ID", help="the id that the phone gets")
    parser.add_argument("--page", required=True, metavar="URL", help="address of the page for phones")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write the code as a picture, .png or .svg, instead"
    )
    broker_accounts_command.add_deploy_argument(parser)
    parser.add_argument(
        "--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="who may join, if there is one"
    )
    parser.add_argument("--state", type=Path, metavar="DIR", help="state folder of hidenseek serve (default: by name)")
    add_store_argument(parser)
    parser.set_defaults(run=_invite)


def _invite(arguments: argparse.Namespace) -> int:
    from coordinator import config, invitation
    from coordinator.brokers import deployment as deployments
    from coordinator.brokers.process import write_whole
    from wire.errors import StateError

    output: Path | None = arguments.output
    kind = output.suffix.lstrip(".").lower() if output else ""
    if output and kind not in KINDS:
        raise ConfigError(f"'{output.name}' is no name of a picture", where="--output", hint="End it in .png or .svg")
    page = invitation.read_page(arguments.page)
    name = deployments.load(arguments.deploy).federation
    listed = config.load(arguments.config) if arguments.config.exists() else None
    host = invitation.Host(
        federation=listed.federation.name if listed else name,
        folder=arguments.deploy,
        key=_key(),
        allowed=listed.allowed if listed else frozenset(),
        joined=partial(_joined, arguments),
    )
    made = host.invite(arguments.device, arguments.page.strip())
    if output:
        write_whole(output, made.picture(kind), 0o600)
        print(f"wrote {output}: whoever sees it can be {made.device}")
    else:
        try:
            print(made.drawn(), end="")
        except UnicodeEncodeError as error:
            raise StateError(
                f"this terminal cannot show the code ({error.encoding})", hint="Write a picture: -o code.png"
            ) from None
    print(made.link)
    print(f"for {made.device}: one phone, once, within 30 days")
    if host.key is None:
        print("the phone will trust the first federation that it meets: this machine has no key of it (hidenseek key)")
    for doubt in invitation.doubts(page):
        print(doubt, file=sys.stderr)
    return 0


def _key() -> bytes | None:
    """The federation's public key, where this machine has it."""
    from coordinator.keys import federation_key, key_path
    from wire import signing

    return signing.public_key(federation_key(make=False)) if key_path().exists() else None


def _joined(arguments: argparse.Namespace, device: str) -> bool:
    """Whether a device has joined by an id, as far as this machine knows: the coordinator may be on another."""
    try:
        with open_store(arguments) as store:
            return store.knows(device)
    except (ConfigError, DataError):
        if arguments.state or arguments.store:
            raise
        return False
