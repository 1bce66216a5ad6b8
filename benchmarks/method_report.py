"""The results of `benchmarks.method` as a table and a picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from coordinator.baselines import names
from coordinator.experiment import reach

Row = dict[str, Any]
COLOURS = (
    "#0b6e4f", "#7fb069", "#8d99ae", "#1d3557", "#e76f51", "#f4a261", "#9b5de5", "#00a6fb", "#c9184a", "#b08968",
    "#5c4d00",
)  # fmt: skip


def group(rows: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows by task and method."""
    found: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["task"]][row["method"]].append(row)
    return found


def write_markdown(path: Path, result: dict[str, Any]) -> None:
    """A table for every task, and one of HideNseek against the others."""
    lines = []
    for task, methods in group(result["rows"]).items():
        target = result["tasks"][task]["target"]
        lines += [
            f"### {task}",
            "",
            "| method | seeds | seen % | unseen % | personalised % | up B | ideal B | down B | CPU s | peak MB "
            f"| to {target:.0%}: rounds | MB | CPU s |",
            "|---|" + "---:|" * 12,
        ]
        lines += [_line(method, rows) for method, rows in methods.items()]
        lines += ["", *_against(methods), ""]
    path.write_text("\n".join(lines) + "\n")


def _line(method: str, rows: Sequence[Row]) -> str:
    reached = [row["to_target"] for row in rows if row["to_target"]]
    cells = [
        method,
        str(len(rows)),
        *(_accuracy([row[name] for row in rows]) for name in ("seen", "unseen", "personalised")),
        f"{_mean(rows, 'up_bytes_per_device_round'):,.0f}",
        f"{_mean(rows, 'ideal_up_bytes_per_device_round'):,.0f}",
        f"{_mean(rows, 'down_bytes_per_device_round'):,.0f}",
        f"{_mean(rows, 'cpu_seconds'):,.0f}",
        f"{_mean(rows, 'peak_kb') / 1024:,.0f}",
    ]
    if len(reached) == len(rows):
        cells += [
            f"{fmean(r['rounds'] for r in reached):.0f}",
            f"{fmean(r['bytes'] for r in reached) / 1e6:,.2f}",
            f"{fmean(r['cpu_seconds'] for r in reached):,.0f}",
        ]
    else:
        cells += [f"never in {len(rows) - len(reached)} of {len(rows)}", "-", "-"]
    return "| " + " | ".join(cells) + " |"


def _against(methods: dict[str, list[Row]]) -> list[str]:
    """HideNseek against every other: accuracy, bytes of the whole run, and time to the other's own end."""
    if "hidenseek" not in methods or len(methods) < 2:
        return []
    lines = [
        "| hidenseek against | seeds | personalised, points | seen, points | total bytes | uplink "
        "| to its end: rounds | bytes | CPU |",
        "|---|" + "---:|" * 8,
    ]
    ours = {row["seed"]: row for row in methods["hidenseek"]}
    for method, rows in methods.items():
        pairs = [(ours[row["seed"]], row) for row in rows if row["seed"] in ours]
        if method == "hidenseek" or not pairs:
            continue
        up = fmean(theirs["up_bytes_per_device_round"] for _, theirs in pairs)
        own_up = fmean(mine["up_bytes_per_device_round"] for mine, _ in pairs)
        total = sum(_total(mine) for mine, _ in pairs) / max(sum(_total(theirs) for _, theirs in pairs), 1)
        cells = [
            method,
            str(len(pairs)),
            _points(pairs, "personalised"),
            _points(pairs, "seen"),
            f"{total - 1:+.1%}" if up else "-",
            _times(up / own_up) if up else "-",
            *_to_its_end(pairs),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _times(ratio: float) -> str:
    factor, word = (ratio, "less") if ratio >= 1 else (1 / ratio, "more")
    return f"{factor:,.0f}x {word}" if factor >= 10 else f"{factor:.1f}x {word}"


def _to_its_end(pairs: Sequence[tuple[Row, Row]]) -> tuple[str, str, str]:
    """Rounds, bytes and CPU seconds until own networks are where the other's end, against what it took for that."""
    mine = [_reach(ours, theirs["personalised"]) for ours, theirs in pairs]
    reached = [found for found in mine if found is not None]
    if len(reached) < len(mine):
        return f"never in {len(mine) - len(reached)} of {len(mine)}", "-", "-"
    others = [_reach(theirs, theirs["personalised"]) or _whole(theirs) for _, theirs in pairs]
    rounds, sent, seconds = (
        (sum(found[name] for found in reached), sum(other[name] for other in others))
        for name in ("rounds", "bytes", "cpu_seconds")
    )
    return (
        f"{rounds[0] / len(pairs):.0f} against {rounds[1] / len(pairs):.0f}",
        f"{sent[0] / sent[1] - 1:+.1%}" if sent[1] else "-",
        f"{seconds[0] / seconds[1] - 1:+.0%}",
    )


def _reach(row: Row, accuracy: float) -> dict[str, float] | None:
    """`coordinator.experiment.reach` of a run's curve."""
    points = [
        {"round": number, "personalised": own, "up_bytes": sent, "down_bytes": 0, "cpu_s": seconds}
        for number, (own, _, sent, seconds) in enumerate(row["curve"], 1)
    ]
    return reach(points, accuracy)


def _whole(row: Row) -> dict[str, float]:
    """What all of a run took: three rounds' mean may stay below that of the last five."""
    return {"rounds": len(row["curve"]), "bytes": _total(row), "cpu_seconds": row["cpu_seconds"]}


def _total(row: Row) -> float:
    total: float = sum(point[2] for point in row["curve"])
    return total


def _points(pairs: Sequence[tuple[Row, Row]], name: str) -> str:
    if any(row[name] is None for pair in pairs for row in pair):
        return "-"
    return f"{100 * fmean(a[name] - b[name] for a, b in pairs):+.1f}"


def _mean(rows: Sequence[Row], name: str) -> float:
    return fmean(row[name] for row in rows)


def _accuracy(values: Sequence[float | None]) -> str:
    found = [100 * value for value in values if value is not None]
    if len(found) < len(values) or not found:
        return "-"
    return f"{fmean(found):.1f}" + (f" ± {stdev(found):.1f}" if len(found) > 1 else "")


def write_svg(path: Path, result: dict[str, Any]) -> None:
    """Personalised accuracy against bytes sent in both directions since the first round, on a log scale."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "hidenseek"
    from matplotlib import pyplot

    tasks = group(result["rows"])
    figure, axes = pyplot.subplots(1, len(tasks), figsize=(6.2 * len(tasks), 4.6), squeeze=False, layout="constrained")
    for axis, (task, methods) in zip(axes[0], tasks.items(), strict=True):
        for method, rows in methods.items():
            if method == "local-only":
                axis.axhline(100 * _mean(rows, "personalised"), color="#8d99ae", linestyle=":", label=method, zorder=1)
                continue
            colour = COLOURS[names().index(method) % len(COLOURS)]
            accuracy = _smooth(
                [fmean(points) for points in zip(*([p[0] for p in r["curve"]] for r in rows), strict=True)]
            )
            sent = [fmean(points) for points in zip(*([p[2] for p in r["curve"]] for r in rows), strict=True)]
            total = [sum(sent[: i + 1]) / 1e6 for i in range(len(sent))]
            width = 2.4 if method.startswith("hidenseek") else 1.3
            axis.plot(total, [100 * a for a in accuracy], color=colour, label=method, linewidth=width)
        axis.set_xscale("log")
        axis.set_xlabel("MB sent, up and down, all devices")
        axis.set_ylabel("personalised accuracy, %")
        axis.set_title(task)
        axis.grid(alpha=0.25)
        axis.legend(fontsize=8, loc="lower right", frameon=False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _smooth(values: Sequence[float], width: int = 5) -> list[float]:
    return [fmean(values[max(0, i - width + 1) : i + 1]) for i in range(len(values))]
