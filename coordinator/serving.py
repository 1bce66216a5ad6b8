"""A coordinator with all that it needs to serve: database, broker, connection, board; and their end, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from coordinator.broker import EmbeddedBroker
from coordinator.brokers.access import COORDINATOR
from coordinator.evaluate import Evaluator
from coordinator.event_log import EventLog
from coordinator.federation import DATABASE, Federation, connect, prepare
from coordinator.monitoring.watch import FILES, Wanted, Watch
from coordinator.observer import Observer, Several
from coordinator.page.options import PageSettings
from coordinator.report.summary import Summary, summarise
from coordinator.server import Coordinator
from coordinator.store import Store
from coordinator.terminal import Board
from wire.envelope import DEFAULT_PACKET_BYTES
from wire.mqtt import Broker, parse_url

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


@contextmanager
def serving(
    federation: Federation,
    broker: Broker | EmbeddedBroker,
    console: Console,
    *,
    title: str,
    state: Path,
    timeout_s: float,
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    evaluator: Evaluator | None = None,
    new: bool = False,
    log: Path | None = None,
    wanted: Wanted = NOTHING,
    page: PageSettings | None = None,
) -> Iterator[Service]:
    """Open the database, start the broker if it is ours, connect; at the end close and stop all of it again.

    Args:
        federation: what to run.
        broker: one that runs, or one to start.
        console: where the board is shown.
        title: of the board.
        state: folder of the database.
        timeout_s: of connecting, in seconds.
        packet_bytes: largest MQTT packet.
        evaluator: held-out samples.
        new: abandon an unfinished run instead of taking it up.
        log: file that gets what happens as JSON lines.
        wanted: what else is shown to others.
        page: where the live page is to be; None: nowhere.

    Raises:
        StateError: as `prepare`, or if the database cannot be used.
        ConfigError: if the log cannot be opened, or the metrics' or the page's port cannot be had.
        ConfigError, RuntimeMissing, BrokerUnreachable, BrokerRefused: as starting and connecting do.
    """
    board = Board(
        console, title=title, rounds=federation.schedule.rounds, fedavg_bytes=4 * federation.ticket.plan.weights
    )
    watch = Watch(federation.name, federation.schedule, state, wanted)
    with ExitStack() as stack:
        stack.enter_context(watch.serving_metrics())
        server = None
        if page:  # a web server is imported only where it is asked for
            from coordinator.page.server import bound

            server = stack.enter_context(bound(page))
        observers: list[Observer] = [board]
        if log:
            observers.append(stack.enter_context(closing(EventLog(log, federation.name, board.remark))))
        store = stack.enter_context(closing(Store(state / DATABASE)))
        channel = connect(
            stack.enter_context(_address(broker)),
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
        coordinator = prepare(federation, store=store, channel=channel, observer=observer, evaluator=evaluator, new=new)
        watch.know(coordinator)
        if server:
            stack.enter_context(server.serving(coordinator, watch.figures))
        yield Service(
            coordinator=coordinator,
            board=board,
            store=store,
            metrics=watch.address,
            page=server,
        )


@contextmanager
def _address(broker: Broker | EmbeddedBroker) -> Iterator[Broker]:
    """The coordinator's way to a broker, which runs for as long as this is open if it is ours."""
    if isinstance(broker, Broker):
        yield broker
        return
    try:
        broker.start()
        yield parse_url(broker.url(COORDINATOR), password=broker.passwords[COORDINATOR])
    finally:
        broker.stop()
