"""What a fleet of scripted devices has seen so far: counts that add up over processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from wire.telemetry import bucket_of, bucket_start_us


@dataclass
class Latencies:
    """Seconds from sending to a receipt, in buckets of a quarter of an octave."""

    buckets: Counter[int] = field(default_factory=Counter)
    longest_s: float = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self.buckets[bucket_of(seconds * 1e6)] += 1
        self.longest_s = max(self.longest_s, seconds)

    def merge(self, other: Latencies) -> None:
        """All of another process."""
        self.buckets.update(other.buckets)
        self.longest_s = max(self.longest_s, other.longest_s)

    def percentile_s(self, percent: float) -> float | None:
        """So many in a hundred took no longer, to a quarter of an octave; None of none."""
        left = self.buckets.total() * percent / 100
        for bucket, count in sorted(self.buckets.items()):
            left -= count
            if left <= 0:
                return min(bucket_start_us(bucket + 1) / 1e6, self.longest_s)
        return None


@dataclass
class RoundTally:
    """One round, as devices saw it. Times are of `wire.transport.monotonic_s`, which the machine's processes share.

    Attributes:
        heard: devices that heard its announcement.
        first_s: when the first did.
        last_s: when the last did.
        trained: devices that trained for it.
        longest_s: the longest training.
        sent: masks.
        sent_last_s: when the last one was first sent.
        confirmed: masks with a receipt.
        confirmed_first_s: when the first receipt came.
        confirmed_last_s: when the last receipt came.
        dropped: masks that nobody wanted any more, for the round had closed.
        mask_bytes: payloads of masks, repeats among them.
    """

    heard: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    trained: int = 0
    longest_s: float = 0.0
    sent: int = 0
    sent_last_s: float = 0.0
    confirmed: int = 0
    confirmed_first_s: float = 0.0
    confirmed_last_s: float = 0.0
    dropped: int = 0
    mask_bytes: int = 0

    def merge(self, other: RoundTally) -> None:
        """All of another process."""
        for name in ("first_s", "confirmed_first_s"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, min(mine, theirs) if mine and theirs else mine or theirs)
        for name in ("last_s", "longest_s", "sent_last_s", "confirmed_last_s"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        for name in ("heard", "trained", "sent", "confirmed", "dropped", "mask_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass
class Tally:
    """One process's devices, or all.

    Attributes:
        devices: how many there are.
        connected: of them, now.
        welcomed: of them, let in by the coordinator.
        done: of them, finished: the run is over for them, or they were turned away.
        counts: events by name: packets and bytes by direction and kind ("out publish", "in publish bytes", ...), and
            what went wrong ("connection lost", "garbled", "refused", "mask refused", "resent", "missed", ...).
        rounds: by number.
        latency: of masks to their receipts.
        pending: masks sent and not confirmed yet.
        federation: name, run and rounds of what is trained; empty before it was announced.
        remarks: what a person should know, the first few.
        fault: why this process has given up; empty if it has not.
        leaving: its devices say goodbye, so that of all this only `counts` is news.
    """

    devices: int = 0
    connected: int = 0
    welcomed: int = 0
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    rounds: dict[int, RoundTally] = field(default_factory=dict)
    latency: Latencies = field(default_factory=Latencies)
    pending: int = 0
    federation: tuple[str, str, int] | tuple[()] = ()
    remarks: list[str] = field(default_factory=list)
    fault: str = ""
    leaving: bool = False

    def remark(self, text: str) -> None:
        """Keep a sentence, if it is new and not one of very many."""
        if text not in self.remarks and len(self.remarks) < 10:
            self.remarks.append(text)

    def round(self, number: int) -> RoundTally:
        """The tally of a round, begun when first asked for."""
        return self.rounds.setdefault(number, RoundTally())

    def merge(self, other: Tally) -> None:
        """All of another process."""
        for name in ("devices", "connected", "welcomed", "done", "pending"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.counts.update(other.counts)
        for number, one in other.rounds.items():
            self.round(number).merge(one)
        self.latency.merge(other.latency)
        self.federation = self.federation or other.federation
        self.fault = self.fault or other.fault
        for text in other.remarks:
            self.remark(text)


def merged(tallies: list[Tally]) -> Tally:
    """Of all processes together."""
    every = Tally()
    for one in tallies:
        every.merge(one)
    return every
