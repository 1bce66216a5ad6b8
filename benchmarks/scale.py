"""What fleets of 10,000 to 10,000,000 devices would take, from what was measured: `python -m benchmarks.scale`.

Reads benchmarks/results/loadtest-*.json and ingest.json, prints the tables of docs/scale.md (a test compares). Memory
is a line through 1,000 and 10,000 devices, time what 10,000 devices took each; beyond 20,000 nothing was measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
FLEETS = (10_000, 100_000, 1_000_000, 10_000_000)
MASKS = 1_000  # of a round, whatever the fleet: more voters tell little that these do not
CORES = {"mosquitto": 1, "nats": 2}  # that the broker can use of the machine that was measured
RAM_GB = 16.0
FILES = 1_048_576  # that a process may have open: Linux's fs.nr_open, unless it is raised
BIT_S = 1e9  # of the network
ROUND_S = 60.0  # until all have heard of a round
BACK_S = 600.0  # until all are in again after an outage


def read(name: str) -> dict[str, Any]:
    """A results file."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of a kind of broker, of the coordinator with it and of a device.

    Attributes:
        kind: of the broker.
        broker_mb: the broker's memory without devices, and for each, MB.
        coordinator_mb: the coordinator's.
        packet_us: the broker's processor microseconds for a packet, whatever its kind.
        join_packets: that pass the broker until a device is in.
        join_us: until one more is in, microseconds, with broker, coordinator and devices on one machine.
        mask_us: the coordinator's for a mask.
        heard_bytes: MQTT that every device hears of a round.
        mask_bytes: payload of a mask.
        idle_bytes: MQTT of a device and day without rounds.
    """

    kind: str
    broker_mb: tuple[float, float]
    coordinator_mb: tuple[float, float]
    packet_us: float
    join_packets: float
    join_us: float
    mask_us: float
    heard_bytes: float
    mask_bytes: float
    idle_bytes: float


def costs(kind: str) -> Costs:
    """From the results."""
    small, large = read(f"loadtest-{kind}-1000"), read(f"loadtest-{kind}-10000")
    quiet, batches = read("loadtest-mosquitto-idle"), read("ingest")["rows"][-1]
    devices, rounds, masks = large["devices"], len(large["rounds"]), large["masks"]["sent"]
    counts = large["counts"]
    of_devices = sum(counts[name] for name in counts if f"{name} bytes" in counts)
    # What devices publish goes on to the coordinator, which acknowledges it; and it publishes what only one hears.
    packets = of_devices + 2 * counts["out publish"] + devices + masks
    once_bytes = quiet["counts"]["in publish bytes"] / quiet["devices"]  # and the first round's, which says nothing yet
    return Costs(
        kind=kind,
        broker_mb=_line(small, large, "broker"),
        coordinator_mb=_line(small, large, "coordinator"),
        packet_us=large["processes"]["broker"]["cpu_s"] / packets * 1e6,
        join_packets=(packets - devices * (rounds + 1) - 8 * masks) / devices,
        join_us=large["welcomed_within_s"] / devices * 1e6,
        mask_us=batches["cpu_us_a_mask"]["coordinator"],
        heard_bytes=(counts["in publish bytes"] / devices - once_bytes) / rounds,
        mask_bytes=sum(one["mask_bytes"] for one in large["rounds"]) / masks,
        idle_bytes=quiet["idle"]["bytes_a_device_and_day"],
    )


def _line(small: dict[str, Any], large: dict[str, Any], process: str) -> tuple[float, float]:
    """Peak memory as (start, slope), MB."""
    low, high = (one["processes"][process]["peak_kib"] / 1024 for one in (small, large))
    slope = (high - low) / (large["devices"] - small["devices"])
    return low - slope * small["devices"], slope


def row(found: Costs, devices: int) -> list[str]:
    """What one broker and one coordinator would take, and what of that is too much, the worst first."""
    start, each = found.broker_mb
    broker_gb = (start + each * devices) / 1024
    start, each = found.coordinator_mb
    coordinator_gb = (start + each * devices) / 1024
    broker_s = (devices + 8 * MASKS) * found.packet_us / 1e6 / CORES[found.kind]
    network_s = devices * found.heard_bytes * 8 / BIT_S
    coordinator_s = MASKS * found.mask_us / 1e6
    back_s = devices * found.join_us / 1e6
    limits = {
        "open files": devices / FILES,
        "the broker's memory": broker_gb / RAM_GB,
        "the coordinator's memory": coordinator_gb / RAM_GB,
        "the network": network_s / ROUND_S,
        "the broker's processor": broker_s / ROUND_S,
        "the return of all": back_s / BACK_S,
    }
    broken = [name for name, load in sorted(limits.items(), key=lambda item: -item[1]) if load > 1]
    return [
        found.kind,
        f"{devices:,}",
        f"{broker_gb:,.1f} GB",
        f"{broker_s:,.1f} s",
        f"{network_s:,.1f} s",
        f"{coordinator_gb:,.1f} GB",
        f"{coordinator_s:,.1f} s",
        f"{back_s:,.0f} s",
        ", ".join(broken) or "nothing",
    ]


def table() -> str:
    """All of it in Markdown."""
    heads = ["broker", "devices", "its memory", "its CPU a round", "network a round", "coordinator's memory",
             "its CPU a round", "until all are back", "too much"]  # fmt: skip
    rows = [row(costs(kind), devices) for kind in CORES for devices in FLEETS]
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def measured() -> str:
    """What one of each costs, in Markdown."""
    lines = [["", *CORES], ["---"] * (1 + len(CORES))]
    both = [costs(kind) for kind in CORES]
    for name, values in (
        ("broker: memory for a device", [f"{one.broker_mb[1] * 1024:,.1f} kB" for one in both]),
        ("broker: CPU for a packet", [f"{one.packet_us:,.0f} µs" for one in both]),
        ("broker: packets until a device is in", [f"{one.join_packets:,.0f}" for one in both]),
        ("coordinator: memory for a device", [f"{one.coordinator_mb[1] * 1024:,.1f} kB" for one in both]),
        ("all together: time for a device that comes", [f"{one.join_us:,.0f} µs" for one in both]),
        ("coordinator: CPU for a mask", [f"{one.mask_us:,.0f} µs" for one in both]),
        ("device: hears of a round", [f"{one.heard_bytes:,.0f} B" for one in both]),
        ("device: sends a mask of", [f"{one.mask_bytes:,.0f} B" for one in both]),
        ("device: idle, a day", [f"{one.idle_bytes:,.0f} B" for one in both]),
    ):
        lines.append([name, *values])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(measured(), table(), sep="\n\n")
