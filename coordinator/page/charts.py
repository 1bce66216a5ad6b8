"""Charts of the page: those of the run are the report's own, those of one device are here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from coordinator.backend import Row
from coordinator.report.axes import Axis, amount_axis, count_axis, share_axis
from coordinator.report.charts import Chart, Series, drawn
from coordinator.report.round_charts import accuracy_by_round, bytes_by_round
from coordinator.report.summary import RoundSummary
from coordinator.report.words import KIB, human_bytes, number, percent
from wire.ticket import Ticket

MOST_ROUNDS = 500  # in a chart: the last ones
Line = tuple[str, str, Callable[[Row], float | None]]  # key, name, value of a round


def of_run(rounds: Sequence[RoundSummary], ticket: Ticket) -> list[tuple[str, list[Markup]]]:
    """Titles and charts of a run; none before the first round has closed."""
    rounds = rounds[-MOST_ROUNDS:]
    if not rounds:
        return []
    return [
        ("Accuracy by round", drawn(accuracy_by_round(rounds))),
        ("Bytes sent up by round", drawn(bytes_by_round(rounds, ticket))),
    ]


def of_device(name: str, rounds: Sequence[Row]) -> list[tuple[str, list[Markup]]]:
    """Titles and charts of a device; those that there are figures for."""
    rounds = rounds[-MOST_ROUNDS:]
    if not rounds:
        return []

    def amount(title: str) -> Callable[[list[float]], Axis]:
        return lambda values: amount_axis(title, max(values), lambda value: f"{value:g}")

    def bytes_axis(values: list[float]) -> Axis:
        return amount_axis("bytes", max(values), human_bytes)

    wanted: list[tuple[str, Callable[[list[float]], Axis], Callable[[float], str], list[Line]]] = [
        (
            "Accuracy",
            lambda values: share_axis("accuracy on its own test samples", values),
            percent,
            [("a", "own signs", lambda row: row["own"]), ("b", "global network", lambda row: row["seen"])],
        ),
        (
            "Training loss",
            amount("nats"),
            lambda value: number(value, 3),
            [("a", "loss", lambda row: row["loss"])],
        ),
        (
            "Time of a step",
            amount("milliseconds"),
            lambda value: f"{number(value, 2)} ms",
            [
                ("a", "median", lambda row: row["step_ms"]),
                ("b", "95th percentile", lambda row: None if row["step_p95_us"] is None else row["step_p95_us"] / 1e3),
            ],
        ),
        (
            "Memory",
            amount("MB"),
            lambda value: f"{number(value, 1)} MB",
            [
                ("a", "peak", lambda row: row["peak_memory_kb"] * KIB / 1e6 or None),
                ("b", "after training", lambda row: None if row["rss_kib"] is None else row["rss_kib"] * KIB / 1e6),
            ],
        ),
        ("Bytes sent up", bytes_axis, human_bytes, [("a", "mask", lambda row: float(row["payload_bytes"]))]),
    ]
    found = []
    for title, axis, words, lines in wanted:
        chart = _chart(f"{title} of {name}", rounds, axis, words, lines)
        if chart is not None:
            found.append((title, drawn(chart)))
    return found


def _chart(
    title: str,
    rounds: Sequence[Row],
    axis: Callable[[list[float]], Axis],
    words: Callable[[float], str],
    lines: Sequence[Line],
) -> Chart | None:
    """One chart over rounds; None if nothing is known."""
    series, told = [], []
    tooltips = [f"Round {row['number']}" for row in rounds]
    values: list[float] = []
    for key, name, value in lines:
        points = [(float(row["number"]), value(row)) for row in rounds]
        known = [y for _, y in points if y is not None]
        if not known:
            continue
        values += known
        series.append(Series(key=key, name=name, points=points, label=words(known[-1]), short=name))
        told.append(f"{name} {words(known[-1])}")
        for place, (_, y) in enumerate(points):
            tooltips[place] += f"\n{name} {words(y)}" if y is not None else ""
    if not series:
        return None
    return Chart(
        description=f"Line chart: {title}. After round {rounds[-1]['number']}: {', '.join(told)}.",
        x=count_axis("round", rounds[-1]["number"]),
        y=axis(values),
        series=series,
        tooltips=[(float(row["number"]), text) for row, text in zip(rounds, tooltips, strict=True)],
    )
