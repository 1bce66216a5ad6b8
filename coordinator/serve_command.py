"""`hidenseek serve`: its options, and what it does with them."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator import broker_accounts_command
from coordinator.commands import conclude
from coordinator.page.options import add_page_arguments, read_page
from coordinator.place import Place
from coordinator.store_options import add_store_argument, database_in, read_server
from wire import command
from wire.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console

    from coordinator.config import DevicesFile
    from coordinator.federation import Federation
    from coordinator.orders import Changes
    from coordinator.serving import Service

Subparsers = argparse._SubParsersAction
DEFAULT_LISTEN = "127.0.0.1:1883"
DEFAULT_METRICS = "127.0.0.1:9464"
DEFAULT_PREFIX = "homeassistant"  # as `coordinator.monitoring.discovery` has it

SERVE_EXAMPLES = """
examples:
  hidenseek serve --check                                      # only look at devices.yaml
  hidenseek serve --broker mqtt://192.168.1.10                 # a broker that runs already
  hidenseek serve --broker mqtt://192.168.1.10 --log run.jsonl  # for a log collector
  hidenseek serve --broker mqtt://192.168.1.10 --metrics         # for Prometheus, on http://127.0.0.1:9464/metrics
  hidenseek serve --broker mqtt://192.168.1.10 --home-assistant  # every device shows up there
  hidenseek serve --broker mqtt://192.168.1.10 --page            # a page of the fleet, on http://127.0.0.1:8470/
  hidenseek serve --broker mqtt://192.168.1.10 --workers         # and hidenseek worker, as often as you like
  hidenseek serve --broker mqtt://192.168.1.10 --store postgresql://hidenseek@db.example.org/site   # no file here
  hidenseek serve --listen 0.0.0.0:1883                        # start one here, for devices listed in devices.yaml
  HIDENSEEK_PASSWORD=... hidenseek serve --broker mqtts://coordinator@hub.example.org --ca ca.crt

Stop with Ctrl-C; the same command takes the run up where it stopped. Other settings for it, its end, the next one:
`hidenseek runs`. What can be watched: docs/monitoring.md.
"""


def add_serve(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """`hidenseek serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="run a federation for real devices",
        description="Prune (or read) the ticket, offer it to the devices, run the rounds, write the report.",
        epilog=SERVE_EXAMPLES,
        formatter_class=command.HelpFormatter,
    )
    command.add_broker_arguments(parser, required=False)
    parser.add_argument(
        "--config", type=Path, default=Path("devices.yaml"), metavar="FILE", help="federation and fleet"
    )
    parser.add_argument("--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="for the broker started here")
    parser.add_argument("--state", type=Path, metavar="DIR", help="database and broker files (default hidenseek-NAME)")
    add_store_argument(parser)
    parser.add_argument("--unseen", type=Path, metavar="FILE", help=".npz with x and y nobody trains on, to test with")
    parser.add_argument("--new", action="store_true", help="abandon an unfinished run")
    parser.add_argument(
        "--stay",
        action=argparse.BooleanOptionalAction,
        help="when the run is over, wait for another to be started (default: with --page)",
    )
    parser.add_argument("--workers", action="store_true", help="let hidenseek worker take masks in its place")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append what happens, a JSON object a line")
    parser.add_argument(
        "--metrics",
        nargs="?",
        const=DEFAULT_METRICS,
        metavar="HOST:PORT",
        help=f"show metrics to Prometheus (without an address: {DEFAULT_METRICS}); dashboard and alerts lie beside "
        "the program, which says where",
    )
    parser.add_argument(
        "--home-assistant",
        nargs="?",
        const=DEFAULT_PREFIX,
        metavar="PREFIX",
        help=f"show every device in Home Assistant, by MQTT discovery under this prefix (default {DEFAULT_PREFIX})",
    )
    add_page_arguments(parser)
    broker_accounts_command.add_deploy_argument(parser)
    parser.add_argument("--check", action="store_true", help="only check the config file and say what it holds")
    parser.set_defaults(run=_serve)


def _serve(arguments: argparse.Namespace) -> int:
    from coordinator import config

    settings = config.load(arguments.config)
    if arguments.check:
        print(f"{arguments.config}: {settings.in_words()}")
        return 0
    return _serve_run(arguments, settings)


def _serve_run(arguments: argparse.Namespace, listed: DevicesFile) -> int:
    from rich.console import Console

    from coordinator import federation as fed
    from coordinator import orders
    from coordinator.broker import EmbeddedBroker
    from coordinator.page.options import PageExtent
    from coordinator.report import cards
    from coordinator.serve_inputs import make_federation, pick_broker, read_unseen, read_wanted
    from coordinator.serving import reached, serving, showing

    console = Console()
    state: Path = arguments.state or fed.state_folder(listed.federation.name)
    stays = arguments.page is not None if arguments.stay is None else arguments.stay
    page_at = read_page(arguments, state, arguments.deploy)
    database = read_server(arguments) or database_in(state)
    new, instead = arguments.new, _instead(database, listed.federation.name, new=arguments.new)
    settings = orders.check_start(listed, instead)
    federation = make_federation(arguments, settings, console)
    evaluator = read_unseen(arguments.unseen, federation.ticket)
    broker = pick_broker(arguments, settings, state)
    shown = read_wanted(arguments)
    with showing(page_at) as page, reached(broker) as address:
        while True:
            with serving(
                federation,
                address,
                console,
                title=f"{federation.name}: {federation.ticket.plan.name}, {federation.ticket.kept:,} sign bits",
                state=state,
                database=database,
                timeout_s=arguments.connect_timeout,
                packet_bytes=settings.federation.packet_kb * 1024,
                evaluator=evaluator,
                new=new,
                instead=instead,
                log=arguments.log,
                wanted=shown,
                page=page,
                extent=PageExtent(config=arguments.config, stays=stays),
            ) as service:
                service.announce(console)
                if isinstance(broker, EmbeddedBroker):
                    console.print(
                        f"broker: {broker.url()}; passwords of the devices: {broker.folder / 'passwords.json'}"
                    )
                summary = service.run()
                summary = replace(summary, cards=cards.notes(service.store, arguments.deploy, federation.name))
                conclude(console, summary, state / "report.html")
                if not stays:
                    return 0
                settings, instead, federation = _next(arguments, service, federation.name, console)
                evaluator, new = read_unseen(arguments.unseen, federation.ticket), False


def _next(
    arguments: argparse.Namespace, service: Service, name: str, console: Console
) -> tuple[DevicesFile, Changes, Federation]:
    """Wait until a run is to be started that can be; how."""
    from coordinator import config, orders
    from coordinator.serve_inputs import make_federation
    from wire.errors import HidenseekError

    console.print("waiting for another run to be started: hidenseek runs start, or the page; Ctrl-C ends")
    while True:
        instead = service.attend()
        try:
            settings = orders.check_start(config.load(arguments.config), instead)
            if settings.federation.name != name:
                raise ConfigError(
                    f"the federation is called '{settings.federation.name}' now, and was '{name}'",
                    where=str(arguments.config),
                    hint="Start hidenseek serve again for another one",
                )
            return settings, instead, make_federation(arguments, settings, console)
        except HidenseekError as error:  # it stays there for a better one
            orders.withdraw(service.store)
            console.print(f"no run is started: {error}", highlight=False, markup=False, soft_wrap=True)
            if service.page:
                service.page.complain(str(error))


def _instead(database: Place, federation: str, *, new: bool) -> Changes:
    """What of devices.yaml does not count for the run that is taken up or started.

    Raises:
        StateError: if another coordinator is at work: before a ticket is pruned for nothing.
    """
    from coordinator import orders
    from coordinator.serving import claim
    from coordinator.store import Store

    try:
        opened = closing(Store(database, make=False))
    except DataError:  # it is made when the first run begins
        return orders.NO_CHANGES
    with opened as store:
        claim(store, federation)
        unfinished = store.unfinished_run()
        if unfinished is not None and not new:
            return orders.begun_with(store, unfinished.id)
        return orders.asked(store) or orders.NO_CHANGES
