"""What `hidenseek serve` is to run, as its options and devices.yaml say it.

Imported only where a run is to be served: the command line starts without all that this takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from rich.console import Console

from coordinator.broker import EmbeddedBroker, parse_listen
from coordinator.config import DevicesFile
from coordinator.evaluate import Evaluator
from coordinator.federation import Federation, Recipe, made_apart
from coordinator.monitoring.discovery import check_prefix
from coordinator.monitoring.watch import Wanted
from coordinator.presence import NOBODY
from wire import command
from wire.broker import Broker
from wire.errors import ConfigError, DataError
from wire.ticket import Ticket


def make_federation(arguments: argparse.Namespace, settings: DevicesFile, console: Console) -> Federation:
    """What is to be run, with its ticket.

    Raises:
        StateError: if who has claimed an account cannot be read.
        TicketError, UnknownName, PlanError, PruneError, ConfigError: as reading and pruning do, or the settings.
    """
    wanted = settings.federation
    recipe = Recipe(
        ticket=arguments.config.parent / wanted.ticket if wanted.ticket else None,
        model=wanted.model,
        input_shape=tuple(wanted.input_shape) if wanted.input_shape else None,
        classes=wanted.classes,
        density=wanted.density,
        method=wanted.method,
        seed=wanted.seed,
    )
    with console.status("preparing the ticket"):
        ticket = made_apart(recipe)
    return Federation(
        name=wanted.name,
        ticket=ticket,
        training=wanted.local_training(workers=arguments.workers),
        schedule=wanted.schedule(),
        runtimes=tuple(wanted.runtimes),
        asynchrony=wanted.asynchrony(),
        memory=wanted.memory,
        defend=wanted.defends,
        secure_aggregation=wanted.secure_aggregation,
        workers=arguments.workers,
        allowed=settings.allowed,
        keys=settings.keys,
        enrolled=_enrolled(arguments.deploy, wanted.name),
        evaluate=wanted.evaluate,
        telemetry=wanted.telemetry,
    )


def _enrolled(folder: Path, federation: str) -> Callable[[], Mapping[str, bytes]]:
    """Who has claimed an account of this federation's deployment; nobody if the folder has another one, or none.

    Raises:
        StateError: if it cannot be read.
    """
    from coordinator.brokers import deployment as deployments
    from coordinator.brokers.claims import Enrolled

    if (folder / deployments.FILE).exists() and deployments.load(folder).federation == federation:
        return Enrolled(folder)
    return lambda: NOBODY


def read_wanted(arguments: argparse.Namespace) -> Wanted:
    """What is shown to others.

    Raises:
        ConfigError: if an address or a prefix is none.
    """
    at, prefix = arguments.metrics, arguments.home_assistant
    return Wanted(
        metrics=parse_listen(at, default_port=9464, option="--metrics") if at else None,
        home_assistant=check_prefix(prefix) if prefix else None,
    )


def pick_broker(arguments: argparse.Namespace, settings: DevicesFile, state: Path) -> Broker | EmbeddedBroker:
    """The broker that was named, or one to start.

    Raises:
        ConfigError: if there is no device that the one to start could let in.
    """
    if arguments.broker:
        return command.read_broker(arguments)
    if not settings.devices:
        raise ConfigError(
            "no devices listed, and the embedded broker gives every device an account of its own",
            where=str(arguments.config),
            hint="List them under `devices:`, or name a broker with --broker",
        )
    host, port = parse_listen(arguments.listen)
    return EmbeddedBroker(state / "broker", settings.federation.name, sorted(settings.devices), host, port)


def read_unseen(path: Path | None, ticket: Ticket) -> Evaluator | None:
    """Held-out samples to try a ticket's network on, if there are any.

    Raises:
        DataError: if the file has none.
    """
    if path is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Evaluator(ticket, archive["x"].astype(np.float32), archive["y"].astype(np.int64))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"not a readable .npz file with x and y ({error})", where=str(path)) from error
