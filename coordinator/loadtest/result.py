"""What a load test came to: for people who look at it while it runs, for the results file, for the exit code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from coordinator.loadtest.tally import RoundTally, Tally
from coordinator.loadtest.usage import Watched

DAY_S = 86_400
QUIET_KEEPALIVES = 2  # so long must nothing happen before idle traffic is told by the day


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """One round as devices saw it; seconds, None if it is not over.

    Attributes:
        number: which.
        tally: counts.
        seconds: from its announcement, where it was heard first, to the next one.
    """

    number: int
    tally: RoundTally
    seconds: float | None

    @property
    def overhead_s(self) -> float | None:
        """What the round took beyond its longest training."""
        return None if self.seconds is None else self.seconds - self.tally.longest_s

    def to_json(self) -> dict[str, Any]:
        """For the results."""
        tally = self.tally
        receipts_s = tally.confirmed_last_s - tally.confirmed_first_s
        return {
            "round": self.number,
            "heard": tally.heard,
            "heard_within_s": round(tally.last_s - tally.first_s, 3),
            "trained": tally.trained,
            "longest_training_s": round(tally.longest_s, 3),
            "sent": tally.sent,
            "confirmed": tally.confirmed,
            "dropped": tally.dropped,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "overhead_s": None if self.overhead_s is None else round(self.overhead_s, 3),
            "receipts_within_s": round(receipts_s, 3),
            "receipts_per_s": round(tally.confirmed / receipts_s) if receipts_s > 0 else None,
            "mask_bytes": tally.mask_bytes,
        }


def rounds_of(tally: Tally) -> list[RoundResult]:
    """Every round that was announced; the announcement of the result, at the end, is none."""
    last = tally.federation[2] if tally.federation else 0
    found = []
    for number, one in sorted(tally.rounds.items()):
        following = tally.rounds.get(number + 1)
        seconds = following.first_s - one.first_s if following and following.first_s else None
        if number <= last:
            found.append(RoundResult(number=number, tally=one, seconds=seconds))
    return found


def masks_of(tally: Tally) -> dict[str, int]:
    """Masks of all rounds: sent, confirmed, dropped (their round had closed), waiting for a receipt, and lost."""
    found = {
        name: sum(getattr(one, name) for one in tally.rounds.values()) for name in ("sent", "confirmed", "dropped")
    }
    lost = found["sent"] - found["confirmed"] - found["dropped"] - tally.pending
    return {**found, "waiting": tally.pending, "lost": lost}


@dataclass
class Idle:
    """Traffic while nothing was said: what connections cost that are only there.

    Args:
        keepalive_s: of the connections.
    """

    keepalive_s: int
    seconds: float = 0.0
    device_seconds: float = 0.0
    bytes: int = 0
    _before: tuple[float, int, int, int] | None = None
    _looks: list[tuple[float, float, int]] = field(default_factory=lambda: [(0.0, 0.0, 0)])

    def look(self, tally: Tally, now_s: float) -> None:
        """Take what has happened since the last look, if nothing was said meanwhile and nobody came or went."""
        counts = tally.counts
        said = sum(counts[f"{way} {kind}"] for way in ("in", "out") for kind in ("publish", "connect", "subscribe"))
        size = sum(count for name, count in counts.items() if name.endswith(" bytes"))
        if self._before is not None:
            since_s, had_said, had_size, had_connected = self._before
            if said == had_said and tally.connected == had_connected:
                self.seconds += now_s - since_s
                self.device_seconds += (now_s - since_s) * tally.connected
                self.bytes += size - had_size
                self._looks.append((self.seconds, self.device_seconds, self.bytes))
        self._before = now_s, said, size, tally.connected

    @property
    def bytes_a_day(self) -> float | None:
        """Bytes of MQTT for a device and day; None if it was not idle for long enough.

        Of whole keepalives only, the last ones: devices that connected together ping together.
        """
        whole_s = self.seconds // self.keepalive_s * self.keepalive_s
        if whole_s < QUIET_KEEPALIVES * self.keepalive_s or not self.device_seconds:
            return None
        _, seconds, size = next(look for look in reversed(self._looks) if look[0] <= self.seconds - whole_s)
        return (self.bytes - size) / (self.device_seconds - seconds) * DAY_S


@dataclass(kw_only=True)
class Result:
    """All of it.

    Attributes:
        settings: of the test, JSON values.
        tally: of all processes.
        watched: broker, coordinator and the devices' own processes.
        idle: traffic while nothing happened.
        connected_s: until every device was connected; None if that was never so.
        welcomed_s: until every device was let in by the coordinator.
        seconds: in all.
        stored: masks in the coordinator's database by round, where that is ours to read.
        interrupted: by Ctrl-C.
    """

    settings: dict[str, Any]
    tally: Tally = field(default_factory=Tally)
    watched: list[Watched] = field(default_factory=list)
    idle: Idle
    connected_s: float | None = None
    welcomed_s: float | None = None
    seconds: float = 0.0
    stored: dict[int, int] | None = None
    interrupted: bool = False

    def faults(self) -> list[str]:
        """What should not have been, in sentences; nothing: all is well."""
        tally, found = self.tally, []
        if self.connected_s is None:
            found.append(
                f"{tally.devices - tally.connected - tally.done:,} of {tally.devices:,} devices are not connected"
            )
        elif tally.federation and self.welcomed_s is None:
            found.append(f"the coordinator has let in {tally.welcomed:,} of {tally.devices:,} devices")
        if not tally.federation:
            found.append("no federation was announced: is hidenseek serve running there, with this name?")
        masks = masks_of(tally)
        if masks["lost"]:
            found.append(f"{masks['lost']:,} masks were sent and never confirmed")
        if masks["dropped"] and not self.settings["churn"]:
            found.append(f"{masks['dropped']:,} masks were sent and not counted: their rounds had closed")
        if self.stored is not None:
            confirmed = {one.number: one.tally.confirmed for one in rounds_of(tally)}
            for number, count in confirmed.items():
                if self.stored.get(number, 0) < count:
                    found.append(f"round {number}: {count:,} masks confirmed, {self.stored.get(number, 0):,} kept")
        wrong = ("refused by the broker", "turned away", "subscription refused", "mask refused")
        return found + [f"{name}: {tally.counts[name]:,}" for name in wrong if tally.counts[name]]

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        tally = self.tally
        rounds = rounds_of(tally)
        percentiles = {f"p{percent}": tally.latency.percentile_s(percent) for percent in (50, 95, 99)}
        return {
            **self.settings,
            "seconds": round(self.seconds, 1),
            "connected": tally.devices if self.connected_s is not None else tally.connected,
            "connected_within_s": self.connected_s and round(self.connected_s, 1),
            "welcomed": tally.welcomed,
            "welcomed_within_s": self.welcomed_s and round(self.welcomed_s, 1),
            "rounds": [one.to_json() for one in rounds],
            "masks": {**masks_of(tally), "stored": None if self.stored is None else sum(self.stored.values())},
            "receipt_after_s": {**percentiles, "max": round(tally.latency.longest_s, 3)},
            "idle": {
                "keepalive_s": self.idle.keepalive_s,
                "seconds": round(self.idle.seconds, 1),
                "bytes_a_device_and_day": self.idle.bytes_a_day and round(self.idle.bytes_a_day),
            },
            "processes": processes_of(self.watched),
            "counts": dict(sorted(tally.counts.items())),
            "faults": self.faults(),
            "remarks": tally.remarks,
            "interrupted": self.interrupted,
        }


def processes_of(watched: Iterable[Watched]) -> dict[str, Any]:
    """What the processes of every name used together."""
    return {one.name: one.to_json() for one in watched}
