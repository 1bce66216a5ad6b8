"""A run in figures, all of them counted from what was stored while it ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, median

from coordinator import profiles
from coordinator.backend import Row
from coordinator.hardware import Profile
from coordinator.report.cards import CardNote
from coordinator.report.predicted import Predicted, predict, training_of
from coordinator.report.spent import Spent, spent_by_device
from coordinator.store import Store
from coordinator.store_runs import StoredRun
from wire.errors import StateError
from wire.profile_report import ProfileReport
from wire.ticket import Ticket, decode_ticket

LAST_ROUNDS = 5  # personalised accuracy swings with the devices drawn: it is a mean over the last rounds
FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class RoundSummary:
    """One round and its outcome. Accuracies are in [0, 1], None where nobody measured.

    Attributes:
        number: 1, 2, ...
        voters: masks counted.
        seen: accuracy of the outcome's signs on the test samples of the devices that reported.
        seen_devices: how many reported.
        unseen: the same on the coordinator's held-out samples.
        personalised: accuracy of the voters' own signs on their own test samples.
        loss: mean training loss, nats.
        up_bytes: mean payload bytes of a voter's mask and evaluation.
        mask_bytes: mean payload bytes of a voter's mask alone.
        down_bytes: payload bytes of the announcement and the receipt one voter received.
        seconds: from announcement to close.
    """

    number: int
    voters: int
    seen: float | None
    seen_devices: int
    unseen: float | None
    personalised: float | None
    loss: float
    up_bytes: float
    mask_bytes: float
    down_bytes: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class DeviceSummary:
    """One device over a run.

    Attributes:
        name: its id.
        profile, runtime, software: as it introduced itself.
        rounds: masks counted.
        train_samples: samples it trains on.
        personalised: accuracy with its own signs, its newest.
        seen: accuracy with the final global network.
        step_ms: median over rounds of its median step, milliseconds.
        train_s: mean seconds of training a round.
        peak_memory_kb: largest resident memory, KiB.
        up_bytes: all its masks' and evaluations' payload bytes.
    """

    name: str
    profile: str
    runtime: str
    software: str
    rounds: int
    train_samples: int
    personalised: float | None
    seen: float | None
    step_ms: float | None
    train_s: float | None
    peak_memory_kb: int
    up_bytes: int


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A whole run.

    Attributes:
        limits_mb: of memory, by device, where somebody has set one.
        boards: reports of boards that were profiled by themselves.
        cards: what is the matter with cards and who was shut out.
    """

    name: str
    run: str
    ticket: Ticket
    finished: bool
    started_s: float
    seconds: float
    bundle_bytes: int
    rounds: list[RoundSummary]
    devices: list[DeviceSummary]
    spent: list[Spent] = field(default_factory=list)
    predicted: list[Predicted] = field(default_factory=list)
    limits_mb: Mapping[str, float] = field(default_factory=dict)
    boards: list[ProfileReport] = field(default_factory=list)
    cards: list[CardNote] = field(default_factory=list)

    @property
    def seen(self) -> float | None:
        """Accuracy of the newest global network on the devices' test samples."""
        return _newest([r.seen for r in self.rounds])

    @property
    def unseen(self) -> float | None:
        """Accuracy of the newest global network on held-out samples."""
        return _newest([r.unseen for r in self.rounds])

    @property
    def personalised(self) -> float | None:
        """Accuracy of the devices' own signs, mean of the last five rounds."""
        return _mean([r.personalised for r in self.rounds[-LAST_ROUNDS:]])

    @property
    def up_bytes(self) -> float:
        """Mean uplink payload bytes of one device in one round."""
        return _mean([r.up_bytes for r in self.rounds if r.voters]) or 0.0

    @property
    def down_bytes(self) -> float:
        """Mean downlink payload bytes of one device in one round."""
        return _mean([r.down_bytes for r in self.rounds if r.voters]) or 0.0

    @property
    def fedavg_bytes(self) -> int:
        """What FedAvg sends up per device and round for the same network: every weight as float32."""
        return fedavg_bytes(self.ticket)

    def to_json(self) -> dict[str, object]:
        """The figures `hidenseek demo --json` writes."""
        return {
            "accuracy": {"seen": self.seen, "unseen": self.unseen, "personalised": self.personalised},
            "bytes": {
                "up_per_device_round": round(self.up_bytes),
                "down_per_device_round": round(self.down_bytes),
                "fedavg_up_per_device_round": self.fedavg_bytes,
                "mask_raw": -(-self.ticket.kept // 8),
            },
            "rounds": len(self.rounds),
            "seconds": round(self.seconds, 1),
            "devices": len(self.devices),
            "ticket": self.ticket.id.hex(),
        }


def fedavg_bytes(ticket: Ticket) -> int:
    """What FedAvg sends up per device and round for the same network: every weight as float32."""
    return FLOAT_BYTES * ticket.plan.weights


def summarise(store: Store, run: StoredRun | None = None, *, known: Mapping[str, Profile] | None = None) -> Summary:
    """Read a run from the database.

    Args:
        store: the database.
        run: the newest, if none is named.
        known: kinds of hardware that predictions are made for; those that come with us, if none are given.

    Raises:
        StateError: if there is no run.
    """
    run = run or store.newest_run()
    if run is None:
        raise StateError("no run in this database yet", where=str(store.place))
    ticket = decode_ticket(run.ticket, where=f"ticket of run {run.id.hex()}")
    stored = store.rounds(run.id)
    # Nobody trained in the final announcement; the run ends when its last evaluation is in.
    end_s = run.finished_s or max([run.started_s, *(r.closed_s for r in stored if r.closed_s)])
    devices = _devices(store, run.id)
    begin_s = stored[0].opened_s if stored else run.started_s
    spent = spent_by_device(store, run.id, devices, len(ticket.plan.layers))
    known = profiles.built_in() if known is None else known
    return Summary(
        name=run.name,
        run=run.id.hex(),
        ticket=ticket,
        finished=run.finished_s is not None,
        started_s=run.started_s,
        seconds=max(end_s - begin_s, 0.0),
        bundle_bytes=run.bundle_bytes,
        rounds=round_summaries(store, run.id),
        devices=devices,
        spent=spent,
        predicted=predict(ticket, training_of(run.settings), spent, known),
    )


def round_summaries(store: Store, run: bytes, first: int = 1) -> list[RoundSummary]:
    """Every round from `first` on that has closed, in order.

    The database adds up, not Python: a page that shows a run asks for this while the run goes on.
    """
    masks = _by_number(
        store,
        "SELECT counted AS number, count(*) AS voters, avg(loss) AS loss, avg(payload_bytes) AS mask_bytes, "
        "avg(receipt_bytes) AS receipt_bytes, avg(1.0 * correct / nullif(test_samples, 0)) AS personalised "
        "FROM mask WHERE run = ? AND counted >= ? GROUP BY counted",
        run,
        first,
    )
    tried = _by_number(
        store,
        "SELECT number, count(*) AS devices, avg(payload_bytes) AS payload_bytes, "
        "1.0 * sum(correct) / nullif(sum(test_samples), 0) AS share FROM evaluation WHERE run = ? AND number >= ? "
        "GROUP BY number",
        run,
        first,
    )
    shares = "SELECT number, 1.0 * correct / samples AS share FROM held_out WHERE run = ? AND number >= ?"
    held_out = _by_number(store, shares, run, first)
    columns = "number, announced_bytes, opened_s, closed_s"
    rounds = f"SELECT {columns} FROM round WHERE run = ? AND number >= ? ORDER BY number"
    found = []
    for number, announced_bytes, opened_s, closed_s in store.query(rounds, run, first):
        if closed_s is None:
            continue
        mask, asked = masks.get(number), tried.get(number)
        outcome = tried.get(number + 1)  # it is announced, and so evaluated, with the next round
        mask_bytes = mask["mask_bytes"] if mask else 0.0
        found.append(
            RoundSummary(
                number=number,
                voters=mask["voters"] if mask else 0,
                seen=outcome["share"] if outcome else None,
                seen_devices=outcome["devices"] if outcome else 0,
                unseen=held_out[number]["share"] if number in held_out else None,
                personalised=mask["personalised"] if mask else None,
                loss=mask["loss"] if mask else 0.0,
                up_bytes=mask_bytes + (asked["payload_bytes"] if asked else 0.0),
                mask_bytes=mask_bytes,
                down_bytes=announced_bytes + (mask["receipt_bytes"] if mask else 0.0),
                seconds=max(closed_s - opened_s, 0.0),
            )
        )
    return found


def _by_number(store: Store, sql: str, run: bytes, first: int) -> dict[int, Row]:
    return {row["number"]: row for row in store.query(sql, run, first)}


def _devices(store: Store, run: bytes) -> list[DeviceSummary]:
    # All at once: the tables have no index by device.
    columns = "device, correct, test_samples, step_ms, train_s, peak_memory_kb, payload_bytes"
    by_device = _grouped(store.query(f"SELECT {columns} FROM mask WHERE run = ? ORDER BY number", run))
    tried_by = _grouped(store.query("SELECT * FROM evaluation WHERE run = ? ORDER BY number", run))
    found = []
    for name, hello in store.devices().items():
        masks, tried = by_device.get(name, []), tried_by.get(name, [])
        if not masks and not tried:
            continue
        found.append(
            DeviceSummary(
                name=name,
                profile=hello.profile,
                runtime=hello.runtime,
                software=hello.software,
                rounds=len(masks),
                train_samples=hello.train_samples,
                personalised=_share(masks[-1:]),
                seen=_share(tried[-1:]),
                step_ms=median(m["step_ms"] for m in masks) if masks else None,
                train_s=_mean([m["train_s"] for m in masks]),
                peak_memory_kb=max((m["peak_memory_kb"] for m in masks), default=0),
                up_bytes=sum(row["payload_bytes"] for row in [*masks, *tried]),
            )
        )
    return found


def _grouped(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of each device, in the order they came in."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["device"]].append(row)
    return found


def _share(rows: list[Row]) -> float | None:
    """Right of all samples tried."""
    samples = sum(row["test_samples"] for row in rows)
    return sum(row["correct"] for row in rows) / samples if samples else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _newest(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return known[-1] if known else None
