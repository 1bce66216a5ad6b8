"""`hidenseek fleet update`: devices in the field get another version of the client, over the broker."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from wire import command
from wire.errors import ConfigError

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek fleet update --broker mqtt://192.168.1.10 --percent 10      # a tenth of the devices first
  hidenseek fleet list                                                  # who runs which version, and where it failed
  hidenseek fleet update --broker mqtt://192.168.1.10                   # then all of them
  hidenseek fleet update --broker mqtt://192.168.1.10 --percent 0       # stop: nobody begins any more
  HIDENSEEK_PASSWORD=... hidenseek fleet update --broker mqtts://coordinator@hub.example.org --ca ca.crt

What is announced is signed with the federation's key and stays at the broker: devices that are away follow when they
come. One that does not come back with the new version takes it back by itself (docs/flash.md, Updates).
"""


def add_update(actions: Subparsers[argparse.ArgumentParser]) -> None:
    """The action."""
    action = actions.add_parser(
        "update",
        help="bring the client on the devices up to date, over the broker",
        description="Offer devices another version of the client: each fetches the wheel for its kind of machine, "
        "tries it, and goes back to what it had if that does not join.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    command.add_broker_arguments(action, required=True)
    action.add_argument(
        "--wheels",
        type=Path,
        action="append",
        metavar="DIR",
        help="folder with our wheels (default dist, `make wheels`)",
    )
    action.add_argument("--version", metavar="V", help="which of them (default: the newest)")
    action.add_argument("--percent", type=float, default=100.0, metavar="P", help="of the devices; 0 stops it")
    action.add_argument("--downgrade", action="store_true", help="also devices that run a newer version")
    action.add_argument(
        "--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="names the federation"
    )
    action.add_argument("--state", type=Path, metavar="DIR", help="state folder of hidenseek serve")
    action.set_defaults(run=_update)


def _update(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from coordinator import client_update, config
    from coordinator.federation import state_folder
    from coordinator.keys import federation_key
    from wire.channel import Channel
    from wire.mqtt import MqttTransport
    from wire.topics import Topics

    if not arguments.config.exists():
        raise ConfigError("no such file", where=str(arguments.config), hint="It names the federation: --config FILE")
    name = config.load(arguments.config).federation.name
    offer = client_update.find(arguments.wheels or [Path("dist")], arguments.version)
    key = federation_key()
    update = client_update.announcement(offer, key=key, percent=arguments.percent, downgrade=arguments.downgrade)
    console = Console(stderr=True)
    transport = MqttTransport(command.read_broker(arguments), client_id=f"hns-{name}-update")
    transport.connect(arguments.connect_timeout)
    columns = (TextColumn("wheels to the broker"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with closing(transport), Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=sum(update.sizes))
        client_update.publish(
            Channel(transport, key),
            Topics(name),
            arguments.state or state_folder(name),
            offer,
            update,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    machines = ", ".join(f"{machine} {len(offer.wheels[machine]) // 1000:,} kB" for machine in update.wheels)
    print(f"client {offer.version} is offered to {arguments.percent:g} % of the devices of '{name}' ({machines})")
    print("who runs it: hidenseek fleet list")
    return 0
