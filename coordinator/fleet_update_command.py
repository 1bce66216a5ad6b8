"""`hidenseek fleet update`: devices get another client, or the bundle of a run to come, over the broker."""

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
    from coordinator.config import FederationSettings
    from coordinator.rollout import Rollout
    from wire.channel import Channel
    from wire.topics import Topics
    from wire.update import Offered

Subparsers = argparse._SubParsersAction

EXAMPLES = """
examples:
  hidenseek fleet update --broker mqtt://192.168.1.10 --percent 10      # a tenth of the devices first
  hidenseek fleet list                                                  # who runs which version, and where it failed
  hidenseek fleet update --broker mqtt://192.168.1.10                   # then all of them
  hidenseek fleet update --broker mqtt://192.168.1.10 --percent 0       # stop: nobody begins any more
  hidenseek fleet update --broker mqtt://192.168.1.10 --stages 5,25,100 --stop-after 2    # stays, and does it by itself
  hidenseek fleet update --broker mqtt://192.168.1.10 --url https://files.example.org/hidenseek/     # not by the broker
  hidenseek fleet update --broker mqtt://192.168.1.10 --bundle next.hns --stages 10,100     # a ticket, before its run
  HIDENSEEK_PASSWORD=... hidenseek fleet update --broker mqtts://coordinator@hub.example.org --ca ca.crt

What is announced is signed with the federation's key and stays at the broker: devices that are away follow when they
come. One that does not come back with the new version takes it back by itself (docs/flash.md, Updates). A bundle
changes nothing that is trained now: devices have it and have tried it when `hidenseek serve` begins with that ticket.
"""


def add_update(actions: Subparsers[argparse.ArgumentParser]) -> None:
    """The action."""
    action = actions.add_parser(
        "update",
        help="bring the client on the devices up to date, or the ticket of a run to come to them, over the broker",
        description="Offer devices another version of the client: each fetches the wheel for its kind of machine, "
        "tries it, and goes back to what it had if that does not join. Or the bundles of a ticket that a run to come "
        "will train: each device fetches that of its runtime, and trains one step with it.",
        epilog=EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    command.add_broker_arguments(action, required=True)
    what = action.add_mutually_exclusive_group()
    what.add_argument("--client", action="store_true", help="the client (the default)")
    what.add_argument(
        "--bundle",
        type=Path,
        metavar="PATH",
        help="a ticket (.hns) or an exported folder: its bundles, for the runtimes and training of devices.yaml",
    )
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

    from coordinator import config, offers, rollout
    from coordinator.federation import state_folder
    from coordinator.keys import federation_key
    from coordinator.store import Store
    from wire.channel import Channel
    from wire.mqtt import MqttTransport
    from wire.topics import Topics

    if not arguments.config.exists():
        raise ConfigError("no such file", where=str(arguments.config), hint="It names the federation: --config FILE")
    settings = config.load(arguments.config).federation
    stages = rollout.stages(arguments.stages) if arguments.stages else (arguments.percent,)
    watched = arguments.stages is not None or arguments.stop_after is not None
    stop_after = 1 if arguments.stop_after is None else arguments.stop_after
    if stop_after < 1:
        raise ConfigError(f"{stop_after} found, 1 or more expected", where="--stop-after")
    if not arguments.wait > 0:
        raise ConfigError(f"{arguments.wait:g} found, more than 0 minutes expected", where="--wait")
    state = arguments.state or state_folder(settings.name)
    database = read_server(arguments) or database_in(state)
    if watched:  # it says what devices run
        Store(database, make=False).close()
    key = federation_key()
    prepare = _client if arguments.bundle is None else _bundle
    offered, files = prepare(arguments, settings, key, stages[0])
    console = Console(stderr=True)
    transport = MqttTransport(command.read_broker(arguments), client_id=f"hns-{settings.name}-update")
    transport.connect(arguments.connect_timeout)
    channel, topics = Channel(transport, key), Topics(settings.name)
    columns = (TextColumn("files to the broker"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with closing(transport):
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=sum(offered.sizes))
            offers.publish(
                channel, topics, state, files, offered, lambda done, total: progress.update(task, completed=done)
            )
        name = rollout.name_of(offered)
        each = ", ".join(f"{one} {len(data) / 1000:,.1f} kB" for one, data in sorted(files.items()))
        if not watched:
            print(f"{name} is offered to {arguments.percent:g} % of the devices of '{settings.name}' ({each})")
            print("what comes of it: hidenseek fleet list")
            return 0
        print(f"{name} for '{settings.name}' ({each})")
        began = rollout.Rollout(
            offered=offered,
            stages=stages,
            stop_after=stop_after,
            wait_s=arguments.wait * 60,
            began_s=time.monotonic(),
        )
        _watch(began, channel, topics, database)
    return 0


def _client(
    arguments: argparse.Namespace, settings: FederationSettings, key: bytes, percent: float
) -> tuple[Offered, dict[str, bytes]]:
    """The newest wheels, and what is said of them."""
    from coordinator import client_update, offers

    offer = client_update.find(arguments.wheels or [Path("dist")], arguments.version)
    update = client_update.announcement(
        offer, key=key, percent=percent, downgrade=arguments.downgrade, url=arguments.url or ""
    )
    if arguments.url:
        offers.check_served(offer.wheels, update)
    return update, offer.wheels


def _bundle(
    arguments: argparse.Namespace, settings: FederationSettings, key: bytes, percent: float
) -> tuple[Offered, dict[str, bytes]]:
    """A ticket's bundles, and what is said of them.

    Raises:
        ConfigError: if something is asked for that is of wheels.
    """
    from coordinator import bundle_update

    of_wheels = {"--wheels": arguments.wheels, "--url": arguments.url, "--version": arguments.version}
    for option, given in {**of_wheels, "--downgrade": arguments.downgrade}.items():
        if given:
            raise ConfigError("goes with --client only: a bundle has no version", where=option)
    training = settings.local_training()
    ticket = bundle_update.read(arguments.bundle)
    bundles = bundle_update.make(ticket, settings.runtimes, training)
    return bundle_update.announcement(ticket, bundles, training, key=key, percent=percent), bundles


def _watch(began: Rollout, channel: Channel, topics: Topics, database: Place) -> None:
    """Carry a roll-out through; an interrupt leaves it at its stage.

    Raises:
        UpdateStopped: if too many devices fail.
    """
    from coordinator.rollout import name_of
    from coordinator.rollout_watch import Watch
    from coordinator.store import Store

    with closing(Store(database, make=False)) as store:
        try:
            end = Watch(began, channel, topics, store, lambda text: print(text, flush=True)).run()
        except KeyboardInterrupt:
            share = began.stages[began.stage]
            print(f"it stays offered to {share:g} %: the same command goes on, --percent 0 stops it", file=sys.stderr)
            raise
    print(f"{name_of(began.offered)} works on {len(end.done)} devices, and not on {len(end.failed)}; who: fleet list")
