"""`hidenseek-edge card`: what the service of a card runs that `hidenseek flash` has written."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from contextlib import closing
from pathlib import Path

from wire import command
from wire.errors import HidenseekError

CONNECT_S = 60.0


def add_card(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command."""
    parser = commands.add_parser(
        "card",
        help="join as hidenseek flash has set this device up",
        description="What the service of a card written by hidenseek flash runs: at the first boot claim the account "
        "that the card is for, or a certificate for the broker, then join with the card's settings; later, ask for the "
        "next certificate in time. State is in systemd's $STATE_DIRECTORY, or /var/lib/hidenseek.",
        epilog="examples:\n  hidenseek-edge card\n  hidenseek-edge card /etc/hidenseek/card.json",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("card", type=Path, nargs="?", default=Path("/etc/hidenseek/card.json"), metavar="FILE")
    parser.set_defaults(run=_card)


def _card(arguments: argparse.Namespace) -> int:
    from edge_client import card, cli
    from wire import claim  # which needs PyNaCl; a board that is only profiled may have none

    command.log_to_terminal(verbose=False)
    settings, state = card.read(arguments.card), card.state_folder()
    token = card.token_of(state)
    if token:
        _enrol(settings, state, claim.USER, token)
    if token or _renewed(settings, state):
        import edge_client.apart
        import edge_client.client
        import edge_client.counts
        import edge_client.workshop  # noqa: F401  # compiles it

        # From the beginning, without the 5 MB that compiling leaves behind.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    return cli.main(card.join_options(settings, state))


def _renewed(settings: dict[str, str | float], state: Path) -> bool:
    """Whether the device has just got its next certificate, because it was time, or it is called otherwise now.

    Raises:
        HidenseekError: if it has none that it can go on with.
    """
    from edge_client import card, renewal
    from edge_client.store import certificate_name
    from wire import claim

    if not card.is_certified(settings, state):
        return False
    path = state / certificate_name(str(settings["device"]))
    if path.exists() and not renewal.is_due(path, time.time()):
        return False
    try:
        _enrol(settings, state, claim.RENEWAL, card.password_of(state))
    except HidenseekError as error:
        if not path.exists():
            raise
        logging.getLogger("hidenseek.edge").warning("no next certificate yet, going on with this one: %s", error)
        return False
    return True


def _enrol(settings: dict[str, str | float], state: Path, user: str, secret: str) -> None:
    """Claim the account that a card is for, with its token, or the next certificate, with the password."""
    from edge_client import card, enrol
    from edge_client.store import Store
    from edge_client.supervisor import Supervisor
    from wire.broker import discovering, parse_url
    from wire.topics import Topics, check_name

    device = check_name(str(settings["device"]), "device id")
    address = card.with_user(str(settings["broker"]), user + device)
    broker = parse_url(address, password=secret, ca=Path(str(settings["ca"])) if settings["ca"] else None)
    broker = discovering(broker) if card.may_discover(settings) else broker
    supervisor, topics = Supervisor(), Topics(str(settings["federation"]))
    supervisor.ready()
    certified = bool(settings["certificates"])
    with closing(Store(state)) as store:
        enrol.Enrolment(device, topics, store, enrol.hardware(), supervisor.alive, certified).run(broker, CONNECT_S)
