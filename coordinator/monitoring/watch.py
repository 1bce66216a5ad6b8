"""What of a run is shown to others: assembled as it was asked for, and ended in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.monitoring import home_assistant
from coordinator.monitoring.figures import Figures
from coordinator.observer import Observer
from coordinator.rounds import Schedule
from coordinator.server import Coordinator
from coordinator.store import Store
from wire.channel import Channel
from wire.transport import Will

if TYPE_CHECKING:
    from coordinator.monitoring.metrics import Metrics

FILES = Path(__file__).parent  # dashboard.json for Grafana, alerts.yaml for Prometheus


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What was asked for.

    Attributes:
        metrics: address and port of this machine to show metrics at.
        home_assistant: discovery prefix of Home Assistant.
    """

    metrics: tuple[str, int] | None = None
    home_assistant: str | None = None


@dataclass
class Watch:
    """The observers that show a run to others.

    Args:
        federation: its name.
        schedule: of the run.
        state: the coordinator's folder.
        wanted: what is shown, and where.

    Attributes:
        address: where metrics are.
        figures: how the run stands.
        observers: in the order in which they have to be told.
    """

    federation: str
    schedule: Schedule
    state: Path
    wanted: Wanted
    address: str | None = None
    observers: list[Observer] = field(default_factory=list)
    figures: Figures = field(default_factory=Figures)
    _metrics: Metrics | None = None
    _home: home_assistant.HomeAssistant | None = None

    @property
    def will(self) -> Will | None:
        """What the broker is to say if the coordinator vanishes."""
        return home_assistant.will(self.federation) if self.wanted.home_assistant else None

    @contextmanager
    def serving_metrics(self) -> Iterator[None]:
        """Metrics can be collected for as long as this is open, if that was asked for.

        Raises:
            ConfigError: if the port cannot be had.
        """
        self.observers.append(self.figures)
        if self.wanted.metrics is None:
            yield
            return
        from coordinator.monitoring.endpoint import exposed
        from coordinator.monitoring.metrics import Metrics

        self._metrics = Metrics(self.federation, self.schedule, self.figures)
        self.observers.append(self._metrics)
        with exposed(self._metrics.registry, *self.wanted.metrics) as self.address:
            yield

    @contextmanager
    def connected(self, channel: Channel, store: Store) -> Iterator[None]:
        """Speak on a connection, which is to be closed after this is.

        Raises:
            StateError: if the record of what was published is damaged.
        """
        if self._metrics is not None:
            self._metrics.attach(channel, store)
        record = self.state / home_assistant.RECORD
        if self.wanted.home_assistant is None:
            home_assistant.withdraw_all(channel.transport, self.federation, record)
            yield
            return
        self._home = home_assistant.HomeAssistant(
            self.federation, self.wanted.home_assistant, channel.transport, self.figures, record
        )
        self.observers.append(self._home)
        try:
            yield
        finally:
            self._home.close()

    def know(self, coordinator: Coordinator) -> None:
        """Take over a fleet as the coordinator has found it."""
        self.figures.know(coordinator.fleet)
        self.figures.recall(coordinator.store, coordinator.run)
        if self._home is not None:
            self._home.know()
