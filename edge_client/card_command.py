"""`hidenseek-edge card`: what the service of a card runs that `hidenseek flash` has written."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import closing
from pathlib import Path

from wire import command

CONNECT_S = 60.0


def add_card(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command."""
    parser = commands.add_parser(
        "card",
        help="join as hidenseek flash has set this device up",
        description="What the service of a card written by hidenseek flash runs: at the first boot claim the account "
        "that the card is for, then join with the card's settings. State is in systemd's $STATE_DIRECTORY, or "
        "/var/lib/hidenseek.",
        epilog="examples:\n  hidenseek-edge card\n  hidenseek-edge card /etc/hidenseek/card.json",
        formatter_class=command.HelpFormatter,
    )
    parser.add_argument("card", type=Path, nargs="?", default=Path("/etc/hidenseek/card.json"), metavar="FILE")
    parser.set_defaults(run=_card)


def _card(arguments: argparse.Namespace) -> int:
    from edge_client import card, cli

    command.log_to_terminal(verbose=False)
    settings, state = card.read(arguments.card), card.state_folder()
    if token := card.token_of(state):
        _enrol(settings, state, token)
        import edge_client.client  # noqa: F401  # compiles it

        # From the beginning, without the 5 MB that compiling leaves behind.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    return cli.main(card.join_options(settings, state))


def _enrol(settings: dict[str, str | float], state: Path, token: str) -> None:
    from edge_client import card, enrol
    from edge_client.store import Store
    from edge_client.supervisor import Supervisor
    from wire import claim, mqtt
    from wire.topics import Topics, check_name

    device = check_name(str(settings["device"]), "device id")
    address = card.with_user(str(settings["broker"]), claim.USER + device)
    broker = mqtt.parse_url(address, password=token, ca=Path(str(settings["ca"])) if settings["ca"] else None)
    broker = mqtt.discovering(broker) if card.may_discover(settings) else broker
    supervisor, topics = Supervisor(), Topics(str(settings["federation"]))
    supervisor.ready()
    with closing(Store(state)) as store:
        enrol.Enrolment(device, topics, store, enrol.hardware(), supervisor.alive).run(broker, CONNECT_S)
