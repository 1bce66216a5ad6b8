"""From settings to a coordinator ready to serve: ticket, bundles, database, the run to start or take up."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from coordinator import apart, dithered, orders, secretly, workforce
from coordinator.aggregate import DEFEND, MEMORY
from coordinator.evaluate import Evaluator
from coordinator.fleet import Fleet
from coordinator.keys import federation_key
from coordinator.models import build_plan
from coordinator.observer import Observer
from coordinator.orders import NO_CHANGES, Changes
from coordinator.presence import NOBODY
from coordinator.prune import prune
from coordinator.rounds import Schedule
from coordinator.server import Coordinator
from coordinator.steps import Asynchrony
from coordinator.store import Store
from export.bundle import make_bundle
from wire import secure
from wire.broker import Broker
from wire.bundle import Bundle
from wire.channel import Channel
from wire.envelope import DEFAULT_PACKET_BYTES
from wire.errors import StateError
from wire.fields import RUN_BYTES
from wire.mqtt import MqttTransport
from wire.settings import Training
from wire.ticket import Ticket, decode_ticket, read_ticket
from wire.transport import Will

DATABASE = "coordinator.db"


def state_folder(name: str) -> Path:
    """Where `hidenseek serve` keeps a federation's state if it is not told."""
    return Path(f"hidenseek-{name}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Which network a federation trains: a ticket file, or how to prune one; sizes default to the model's own."""

    ticket: Path | None = None
    model: str = "har-cnn"
    input_shape: tuple[int, ...] | None = None
    classes: int | None = None
    density: float = 0.10
    method: str = "synflow"
    seed: int = 0

    def make(self, progress: Callable[[int, int], None] = lambda done, total: None) -> Ticket:
        """Read or prune the ticket.

        Raises:
            TicketError, UnknownName, PlanError, PruneError: as reading and pruning do.
        """
        if self.ticket is not None:
            return read_ticket(self.ticket)
        plan = build_plan(self.model, input_shape=self.input_shape, classes=self.classes)
        return prune(plan, density=self.density, seed=self.seed, method=self.method, progress=progress)


def made_apart(recipe: Recipe) -> Ticket:
    """As `Recipe.make`, in a process of its own: torch would stay with the coordinator, 200 MB of its memory.

    Raises:
        TicketError, UnknownName, PlanError, PruneError: as reading and pruning do.
    """
    if recipe.ticket is not None:
        return recipe.make()
    return decode_ticket(apart.run(partial(_encoded, recipe)), where=recipe.model)


def _encoded(recipe: Recipe) -> bytes:
    return recipe.make().encoded


@dataclass(frozen=True, kw_only=True)
class Federation:
    """All that is decided before a run starts."""

    name: str
    ticket: Ticket
    training: Training
    schedule: Schedule
    runtimes: tuple[str, ...]
    asynchrony: Asynchrony | None = None
    memory: float = MEMORY
    defend: bool = DEFEND
    secure_aggregation: bool = False
    workers: bool = False
    allowed: frozenset[str] = frozenset()
    keys: Mapping[str, bytes] = field(default_factory=dict)
    enrolled: Callable[[], Mapping[str, bytes]] = lambda: NOBODY
    evaluate: bool = True
    telemetry: bool = True

    def bundles(self) -> dict[str, Bundle]:
        """What devices download, by runtime."""
        return {runtime: make_bundle(self.ticket, runtime, self.training) for runtime in self.runtimes}

    @property
    def weight_bits(self) -> int:
        """Bits of a kept weight in the largest message of a device."""
        return secure.width(secure.MOST) if self.secure_aggregation else 1

    def settings(self) -> str:
        """Everything a resumed run must agree with, as canonical JSON."""
        every: dict[str, Any] = {
            "schedule": asdict(self.schedule),
            "training": asdict(self.training),
            "asynchrony": asdict(self.asynchrony) if self.asynchrony else None,
            "memory": self.memory,
            "defend": self.defend,
        }
        # Not otherwise: runs that began before there was any are taken up as they were.
        if self.secure_aggregation:
            every["secure_aggregation"] = True
        if not self.training.dither:
            del every["training"]["dither"]
        return json.dumps(every, sort_keys=True)


def connect(
    broker: Broker,
    name: str,
    ticket: Ticket,
    *,
    timeout_s: float,
    packet_bytes: int = DEFAULT_PACKET_BYTES,
    weight_bits: int = 1,
    will: Will | None = None,
) -> Channel:
    """Connect the coordinator; a device's message may have so many bits a kept weight and some room.

    If it vanishes, the broker publishes `will`.

    Raises:
        BrokerUnreachable, BrokerRefused: as `MqttTransport.connect`.
    """
    transport = MqttTransport(broker, client_id=f"hns-{name}-coordinator", will=will)
    transport.connect(timeout_s)
    return Channel(
        transport, federation_key(), max_bytes=ticket.kept * weight_bits // 8 + 64 * 1024, packet_bytes=packet_bytes
    )


def prepare(
    federation: Federation,
    *,
    store: Store,
    channel: Channel,
    observer: Observer,
    evaluator: Evaluator | None = None,
    new: bool = False,
    instead: Changes = NO_CHANGES,
) -> Coordinator:
    """Start a run, or take up the one the database holds unfinished.

    Args:
        federation: what to run.
        store: the database.
        channel: a connected channel.
        observer: told what happens.
        evaluator: held-out samples.
        new: abandon an unfinished run instead of taking it up.
        instead: what of the settings is not as devices.yaml says, to be kept with a run that is started.

    Raises:
        StateError: if the unfinished run has another ticket or other settings.
        ConfigError: if its settings do not go with secure aggregation, dither or workers.
    """
    if federation.secure_aggregation:
        secretly.check(federation.schedule, federation.asynchrony, defend=federation.defend)
    if federation.training.dither:
        dithered.check(federation.asynchrony, secure_aggregation=federation.secure_aggregation)
    if federation.workers:
        workforce.check(
            federation.asynchrony,
            secure_aggregation=federation.secure_aggregation,
            dither=bool(federation.training.dither),
        )
    bundles = federation.bundles()
    unfinished = store.unfinished_run()
    if unfinished is not None and new:
        store.finish_run(unfinished.id)
        unfinished = None
    if unfinished is not None:
        same = (unfinished.ticket, unfinished.settings) == (federation.ticket.encoded, federation.settings())
        if not same:
            raise StateError(
                f"run {unfinished.id.hex()} is not finished, and has another ticket or other settings",
                where=str(store.place),
                hint="Put the settings back to take it up, or start over with --new",
            )
        run = unfinished.id
    else:
        run = secrets.token_bytes(RUN_BYTES)
        with store.together():
            store.start_run(
                run=run,
                name=federation.name,
                ticket=federation.ticket.encoded,
                settings=federation.settings(),
                bundle_bytes=max(len(bundle.encoded) for bundle in bundles.values()),
            )
            orders.begin(store, run, instead)
            orders.withdraw(store)
    started = store.unfinished_run()
    assert started is not None
    return Coordinator(
        run=run,
        issued=round(started.started_s * 1000),
        name=federation.name,
        ticket=federation.ticket,
        bundles=bundles,
        training=federation.training,
        schedule=federation.schedule,
        fleet=Fleet(
            allowed=federation.allowed,
            runtimes=frozenset(bundles),
            keys=federation.keys,
            secure_aggregation=federation.secure_aggregation,
            dither=bool(federation.training.dither),
        ),
        channel=channel,
        store=store,
        observer=observer,
        asynchrony=federation.asynchrony,
        memory=federation.memory,
        defend=federation.defend,
        secure_aggregation=federation.secure_aggregation,
        workers=federation.workers,
        evaluator=evaluator,
        enrolled=federation.enrolled,
        evaluate=federation.evaluate,
        telemetry=federation.telemetry,
    )
