"""Charts of what devices spent: how long steps take, and memory against its limit; and small ones for every device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

from coordinator.report.axes import amount_axis, count_axis, log_axis
from coordinator.report.charts import Chart, Series
from coordinator.report.spent import Group, Spent
from wire.telemetry import bucket_start_us

KEYS = ("a", "b", "c")  # as many lines as can be told apart
LIMIT = ("x", "limit (devices.yaml)")
SMALL = (132, 26)  # pixels of a device's own charts


def latency(groups: Sequence[Group]) -> Chart | None:
    """How many of the steps took how long, for the kinds of boards with the most steps; None if nobody said."""
    most = sorted((one for one in groups if one.histogram), key=lambda one: -sum(one.histogram.values()))[: len(KEYS)]
    if not most:
        return None
    buckets = range(
        min(min(one.histogram) for one in most) - 1, max(max(one.histogram) for one in most) + 2
    )  # an empty one at both ends: lines come down
    shares = [{b: one.histogram.get(b, 0) / sum(one.histogram.values()) for b in buckets} for one in most]
    names = [f"{one.profile or 'unnamed board'}, {one.runtime}"[:40] for one in most]
    highest = max(share for one in shares for share in one.values())
    return Chart(
        description="Line chart of the share of training steps by their length, for "
        + "; ".join(f"{name}: median {one.step_ms or 0:.2f} ms" for name, one in zip(names, most, strict=True)),
        x=log_axis("milliseconds of a step (log scale)", [_middle_ms(b) for b in buckets], lambda ms: f"{ms:g}"),
        y=amount_axis("share of steps", highest, lambda share: f"{share:.0%}"),
        series=[
            Series(key=key, name=name, points=[(_middle_ms(b), share[b]) for b in buckets], label="", short=name)
            for key, name, share in zip(KEYS, names, shares, strict=False)
        ],
        tooltips=[
            (
                _middle_ms(b),
                f"{bucket_start_us(b) / 1e3:.3g} to {bucket_start_us(b + 1) / 1e3:.3g} ms\n"
                + "\n".join(f"{name} {share[b]:.1%}" for name, share in zip(names, shares, strict=True)),
            )
            for b in buckets
        ],
        labels_outside=False,
    )


def memory(devices: Sequence[Spent], limits_mb: Mapping[str, float]) -> Chart | None:
    """Largest memory of every device, least first, what was planned of it, and its limit; None if nobody said."""
    known = sorted((one for one in devices if one.peak_mb is not None), key=lambda one: one.peak_mb or 0)
    if not known:
        return None
    numbered = list(enumerate(known, 1))
    lines = [
        Series(
            key="a", name="largest resident memory", label="", short="peak",
            points=[(float(n), one.peak_mb) for n, one in numbered],
        ),
        Series(
            key="b", name="arena planned", label="", short="arena",
            points=[(float(n), one.arena_mb) for n, one in numbered],
        ),
        Series(
            key=LIMIT[0], name=LIMIT[1], label="", short="limit", marked=False,
            points=[(float(n), limits_mb.get(one.name)) for n, one in numbered],
        ),
    ]  # fmt: skip
    lines = [line for line in lines if any(y is not None for _, y in line.points)]
    over = [one.name for one in known if one.name in limits_mb and (one.peak_mb or 0) > limits_mb[one.name]]
    return Chart(
        description=f"Chart of the memory of {len(known)} devices, {known[0].peak_mb:.1f} to "
        f"{known[-1].peak_mb:.1f} MB; {len(over)} are above their limit.",
        x=count_axis("device, by memory", len(known)),
        y=amount_axis("MB", max(y for line in lines for _, y in line.points if y is not None), lambda mb: f"{mb:g}"),
        series=lines,
        tooltips=[(float(n), _memory_of(one, limits_mb.get(one.name))) for n, one in numbered],
        labels_outside=False,
    )


def _memory_of(one: Spent, limit: float | None) -> str:
    rows = [one.name, f"largest {one.peak_mb:.1f} MB"]
    rows += [f"arena {one.arena_mb:.2f} MB"] if one.arena_mb is not None else []
    rows += [f"limit {limit:g} MB{': above it' if (one.peak_mb or 0) > limit else ''}"] if limit is not None else []
    return "\n".join(rows)


def bars(histogram: Mapping[int, int]) -> str:
    """A device's steps by their length, as the path of a small chart; empty without any."""
    if not histogram:
        return ""
    first, last, most = min(histogram), max(histogram), max(histogram.values())
    width = SMALL[0] / (last - first + 1)
    return "".join(
        f"M{(b - first) * width:.1f} {SMALL[1]}v-{max(count / most * SMALL[1], 1):.1f}h{width - 0.6:.1f}V{SMALL[1]}z"
        for b, count in sorted(histogram.items())
    )


def spark(values: Sequence[float]) -> str:
    """Values in order from 0 to the largest, as the path of a small line; empty for fewer than two."""
    if len(values) < 2 or not max(values):
        return ""
    across, most = SMALL[0] / (len(values) - 1), max(values)
    places = [f"{n * across:.1f} {SMALL[1] - value / most * (SMALL[1] - 2):.1f}" for n, value in enumerate(values)]
    return f"M{'L'.join(places)}"


def _middle_ms(bucket: int) -> float:
    return sqrt(bucket_start_us(bucket) * bucket_start_us(bucket + 1)) / 1e3
