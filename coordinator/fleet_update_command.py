"""`hidenseek fleet update`: devices in the field get another version of the client, over the broker."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.place import Place
from coordinator.store_options import add_store_argument, database_in, read_server
from wire import command
from wire.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.rollout import Rollout
    from wire.channel import Channel
    from wire.topics import Topics

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek fleet update --broker mqtt://192.168.1.10 --percent 10      # a tenth of the devices first
  hidenseek fleet list                                                  # who runs which version, and where it failed
  hidenseek fleet update --broker mqtt://192.168.1.10                   # then all of them
  hidenseek fleet update --broker mqtt://192.168.1.10 --percent 0       # stop: nobody begins any more
  hidenseek fleet update --broker mqtt://192.168.1.10 --stages 5,25,100 --stop-after 2    # stays, and does it by itself
  hidenseek fleet update --broker mqtt://192.168.1.10 --url https://files.example.org/hidenseek/     # not by the broker
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
    action.add_argument(
        "--url",
        metavar="URL",
        help="https folder that has the same files: devices fetch them there, in ranges, and not from the broker",
    )
    action.add_argument("--version", metavar="V", help="which of them (default: the newest)")
    share = action.add_mutually_exclusive_group()
    share.add_argument("--percent", type=float, default=100.0, metavar="P", help="of the devices; 0 stops it")
    share.add_argument(
        "--stages",
        metavar="P,P,...",
        help="shares one after the other, such as 5,25,100: the next when every device of the one before that is "
        "there runs it or has gone back; the first few are the canaries",
    )
    action.add_argument(
        "--stop-after",
        type=int,
        metavar="N",
        help="watch, and offer it to nobody any more once N devices have failed with it (with --stages: 1)",
    )
    action.add_argument(
        "--wait",
        type=float,
        default=20.0,
        metavar="MINUTES",
        help="a device that was there and has not come back with it in that time has failed (with --stages)",
    )
    action.add_argument("--downgrade", action="store_true", help="also devices that run a newer version")
    action.add_argument(
        "--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="names the federation"
    )
    action.add_argument("--state", type=Path, metavar="DIR", help="state folder of hidenseek serve")
    add_store_argument(action)
    action.set_defaults(run=_update)


def _update(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from coordinator import client_update, config, rollout
    from coordinator.federation import state_folder
    from coordinator.keys import federation_key
    from coordinator.store import Store
    from wire.channel import Channel
    from wire.mqtt import MqttTransport
    from wire.topics import Topics

    if not arguments.config.exists():
        raise ConfigError("no such file", where=str(arguments.config), hint="It names the federation: --config FILE")
    name = config.load(arguments.config).federation.name
    stages = rollout.stages(arguments.stages) if arguments.stages else (arguments.percent,)
    watched = arguments.stages is not None or arguments.stop_after is not None
    stop_after = 1 if arguments.stop_after is None else arguments.stop_after
    if stop_after < 1:
        raise ConfigError(f"{stop_after} found, 1 or more expected", where="--stop-after")
    if not arguments.wait > 0:
        raise ConfigError(f"{arguments.wait:g} found, more than 0 minutes expected", where="--wait")
    state = arguments.state or state_folder(name)
    database = read_server(arguments) or database_in(state)
    if watched:  # it says what devices run
        Store(database, make=False).close()
    offer = client_update.find(arguments.wheels or [Path("dist")], arguments.version)
    key = federation_key()
    update = client_update.announcement(
        offer, key=key, percent=stages[0], downgrade=arguments.downgrade, url=arguments.url or ""
    )
    if arguments.url:
        client_update.check_served(offer, update)
    console = Console(stderr=True)
    transport = MqttTransport(command.read_broker(arguments), client_id=f"hns-{name}-update")
    transport.connect(arguments.connect_timeout)
    channel, topics = Channel(transport, key), Topics(name)
    columns = (TextColumn("wheels to the broker"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with closing(transport):
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=sum(update.sizes))
            client_update.publish(
                channel, topics, state, offer, update, lambda done, total: progress.update(task, completed=done)
            )
        machines = ", ".join(f"{machine} {len(offer.wheels[machine]) // 1000:,} kB" for machine in update.wheels)
        if not watched:
            print(
                f"client {offer.version} is offered to {arguments.percent:g} % of the devices of '{name}' ({machines})"
            )
            print("who runs it: hidenseek fleet list")
            return 0
        print(f"client {offer.version} for '{name}' ({machines})")
        began = rollout.Rollout(
            update=update,
            stages=stages,
            stop_after=stop_after,
            wait_s=arguments.wait * 60,
            began_s=time.monotonic(),
        )
        _watch(began, channel, topics, database)
    return 0


def _watch(began: Rollout, channel: Channel, topics: Topics, database: Place) -> None:
    """Carry a roll-out through; an interrupt leaves it at its stage.

    Raises:
        UpdateStopped: if too many devices fail.
    """
    from coordinator.rollout_watch import Watch
    from coordinator.store import Store

    with closing(Store(database, make=False)) as store:
        try:
            end = Watch(began, channel, topics, store, lambda text: print(text, flush=True)).run()
        except KeyboardInterrupt:
            share = began.stages[began.stage]
            print(f"it stays offered to {share:g} %: the same command goes on, --percent 0 stops it", file=sys.stderr)
            raise
    print(f"{len(end.done)} devices run {began.update.version}, {len(end.failed)} have gone back; who: fleet list")
