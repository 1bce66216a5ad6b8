"""A coordinator with all that it needs to serve: database, broker, connection, board; and their end, in order."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from coordinator import orders
from coordinator.broker import EmbeddedBroker
from coordinator.brokers.access import COORDINATOR
from coordinator.evaluate import Evaluator
from coordinator.event_log import EventLog
from coordinator.federation import Federation, connect, prepare
from coordinator.monitoring.watch import FILES, Wanted, Watch
from coordinator.observer import Observer, Several
from coordinator.orders import NO_CHANGES, Changes
from coordinator.page.options import NO_EXTENT, PageExtent, PageSettings
from coordinator.place import Place
from coordinator.report.summary import Summary, summarise
from coordinator.server import Coordinator
from coordinator.store import Store
from coordinator.terminal import Board
from wire.broker import Broker, parse_url
from wire.envelope import DEFAULT_PACKET_BYTES

if TYPE_CHECKING:
    from coordinator.page.server import PageServer

NOTHING = Wanted()


@dataclass(frozen=True, kw_only=True)
class Service:
    """A coordinator ready to serve.

    Attributes:
        coordinator: connected.
        board: its observer.
        store: its database.
        metrics: the address of its metrics, if they were asked for.
        page: the live page, if it was asked for.
    """

    coordinator: Coordinator
    board: Board
    store: Store
    metrics: str | None
    page: PageServer | None = None

    def announce(self, console: Console) -> None:
        """Say where the page and the metrics are, if they were asked for."""
        if self.page:
            console.print(f"page: {self.page.login_url}", highlight=False, soft_wrap=True)
            if self.page.warning:
                console.print(f"warning: {self.page.warning}", style="yellow", soft_wrap=True)
        if self.metrics:
            console.print(
                f"metrics: {self.metrics}; for Grafana and Prometheus: {FILES / 'dashboard.json'}, alerts.yaml",
                highlight=False,
                soft_wrap=True,
            )

    def run(self) -> Summary:
        """Run all rounds, shown on the board; what they came to.

        Raises:
            RoundFailed, BrokerRefused: as `Coordinator.serve`.
        """
        with self.board:
            self.coordinator.serve()
        return summarise(self.store)

    def attend(self) -> Changes:
        """Stay there for devices, and for the page, until another run is to be started; with what settings.

        Raises:
            BrokerRefused, StateError: as `Coordinator.attend`.
        """
        self.coordinator.attend(lambda: orders.asked(self.store) is not None)
        return orders.asked(self.store) or NO_CHANGES


@contextmanager
def serving(
    federation: Federation,
    broker: Broker,
    console: Console,
    *,
    title: str,
    state: Path,
    database: Place,
    timeout_s: float,
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    evaluator: Evaluator | None = None,
    new: bool = False,
    instead: Changes = NO_CHANGES,
    log: Path | None = None,
    wanted: Wanted = NOTHING,
    page: PageServer | None = None,
    extent: PageExtent = NO_EXTENT,
) -> Iterator[Service]:
    """Open the database, connect, show the run; at the end close all of it again.

    Args:
        federation: what to run.
        broker: one that runs.
        console: where the board is shown.
        title: of the board.
        state: folder of what else it keeps.
        database: where its runs are.
        timeout_s: of connecting, in seconds.
        packet_bytes: largest MQTT packet.
        evaluator: held-out samples.
        new: abandon an unfinished run instead of taking it up.
        instead: as `prepare` has it.
        log: file that gets what happens as JSON lines.
        wanted: what else is shown to others.
        page: the live page that is to show it.
        extent: what can be done there.

    Raises:
        StateError: as `prepare`, or if the database cannot be used, or another coordinator is at work on it.
        RuntimeMissing: if it is a server's, and what talks to it is not installed.
        ConfigError: if the log cannot be opened, or the metrics' port cannot be had.
        BrokerUnreachable, BrokerRefused: as connecting does.
    """
    board = Board(
        console, title=title, rounds=federation.schedule.rounds, fedavg_bytes=4 * federation.ticket.plan.weights
    )
    watch = Watch(federation.name, federation.schedule, state, wanted)
    with ExitStack() as stack:
        stack.enter_context(watch.serving_metrics())
        observers: list[Observer] = [board]
        if log:
            observers.append(stack.enter_context(closing(EventLog(log, federation.name, board.remark))))
        state.mkdir(parents=True, exist_ok=True)
        store = stack.enter_context(closing(Store(database)))
        claim(store, federation.name)
        channel = connect(
            broker,
            federation.name,
            federation.ticket,
            timeout_s=timeout_s,
            packet_bytes=packet_bytes,
            weight_bits=federation.weight_bits,
            will=watch.will,
        )
        stack.enter_context(closing(channel.transport))
        stack.enter_context(watch.connected(channel, store))
        observer = Several(*observers, *watch.observers)
        coordinator = prepare(
            federation,
            store=store,
            channel=channel,
            observer=observer,
            evaluator=evaluator,
            new=new,
            instead=instead,
        )
        watch.know(coordinator)
        if page:
            page.show_run(coordinator, watch.figures, extent)
        yield Service(coordinator=coordinator, board=board, store=store, metrics=watch.address, page=page)


def claim(store: Store, federation: str) -> None:
    """Be the one coordinator that is at work on a database, until it is closed; raises StateError if another is."""
    store.claim(f"{federation} on {socket.gethostname()}, process {os.getpid()}")


@contextmanager
def showing(settings: PageSettings | None) -> Iterator[PageServer | None]:
    """The live page, if there is to be one: its port is taken at once, and runs are shown as they come.

    Raises:
        ConfigError, StateError: as `coordinator.page.server.PageServer`.
    """
    if settings is None:
        yield None
        return
    from coordinator.page.server import bound  # a web server is imported only where it is asked for

    with bound(settings) as server:
        yield server


@contextmanager
def reached(broker: Broker | EmbeddedBroker) -> Iterator[Broker]:
    """The coordinator's way to a broker, which runs for as long as this is open if it is ours.

    Raises:
        ConfigError, RuntimeMissing: as starting one does.
    """
    if isinstance(broker, Broker):
        yield broker
        return
    try:
        broker.start()
        yield parse_url(broker.url(COORDINATOR), password=broker.passwords[COORDINATOR])
    finally:
        broker.stop()
