"""The report of a run as one HTML file that needs nothing else: no script, no font, no request."""

from __future__ import annotations

import math
from datetime import datetime
from functools import cache
from itertools import accumulate
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from coordinator.report import device_charts
from coordinator.report.axes import Axis, count_axis, log_axis, share_axis
from coordinator.report.causes import causes, hottest, slowest
from coordinator.report.charts import Chart, Mark, Series, draw
from coordinator.report.spent import Group, groups
from coordinator.report.summary import LAST_ROUNDS, RoundSummary, Summary
from wire.errors import ConfigError
from wire.telemetry import throttled_words

DASH = "–"  # shown where there is no number
KIB = 1024
MOST_LISTED = 10  # slowest and hottest devices
MOST_PRINTED = 30  # devices whose own sections are on paper, too
HEAT = (0.05, 0.15, 0.3, 0.5)  # shares of a step from which a layer's cell is darker
SIZES = (("wide", 540, 340), ("narrow", 344, 320))  # of every chart; the style sheet shows the one that fits
ACCURACIES = (  # key of the line, attribute of a round, name
    ("a", "personalised", "personalised"),
    ("b", "seen", "seen"),
    ("c", "unseen", "unseen"),
)


def write_page(summary: Summary, path: Path) -> None:
    """Write the report of a run; whoever looks finds the old page or the whole new one.

    Args:
        summary: the run.
        path: the page; its folders are made.

    Raises:
        ConfigError: if it cannot be written.
    """
    text = render(summary)
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", errors="replace")
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(f"report cannot be written ({error.strerror})", where=str(path)) from error


def render(summary: Summary) -> str:
    """The page as text."""
    total_up = sum(r.up_bytes for r in summary.rounds)
    together = groups(summary.spent)
    return _template().render(
        told=sum(1 for one in summary.spent if one.rounds),
        groups=together,
        slowest=[(one, causes(one, summary.spent)) for one in slowest(summary.spent, MOST_LISTED)],
        hottest=[(one, causes(one, summary.spent)) for one in hottest(summary.spent, MOST_LISTED)],
        layer_names=[type(layer).__name__ for layer in summary.ticket.plan.layers],
        heat=[(group, _heat(group)) for group in together if group.layers_us],
        s=summary,
        ticket=summary.ticket,
        layers=list(zip(summary.ticket.kept_layers, summary.ticket.layers, strict=True)),
        mask_raw=-(-summary.ticket.kept // 8),
        fedavg_times=summary.fedavg_bytes / summary.up_bytes if summary.up_bytes else None,
        fedavg_of_run=summary.fedavg_bytes / total_up if total_up else None,
        total_up=total_up,
        last_rounds=min(LAST_ROUNDS, len(summary.rounds)),
        seen_round=_newest_round(summary, "seen"),
        unseen_round=_newest_round(summary, "unseen"),
        charts=_charts(summary, together),
        words=throttled_words,
        causes=lambda one: causes(one, summary.spent),
        print_devices=len(summary.spent) <= MOST_PRINTED,
    )


@cache
def _template() -> Template:
    folder = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,  # everything is escaped, whatever the template's name
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["css"] = Markup((folder / "page.css").read_text(encoding="utf-8"))  # noqa: S704  # our own file
    environment.filters.update(
        percent=percent,
        signed_percent=signed_percent,
        number=number,
        size=human_bytes,
        duration=duration,
        megabytes=megabytes,
        moment=moment,
        times=times,
        bars=device_charts.bars,
        spark=device_charts.spark,
    )
    return environment.get_template("page.html.j2")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}%}"


def signed_percent(value: float | None) -> str:
    """A deviation as a percentage with its sign."""
    return DASH if value is None or not math.isfinite(value) else f"{round(value, 2) + 0.0:+.0%}".replace("-", "−")


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def times(ratio: float) -> str:
    """How many times as much: a whole number from ten on."""
    return number(ratio, 0 if ratio >= 9.95 else 1)


def human_bytes(value: float | None) -> str:
    """A size to three digits, decimal units: 1 kB is 1,000 bytes."""
    if value is None or not math.isfinite(value):
        return DASH
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale * 0.9995:
            return f"{float(f'{value / scale:.3g}'):g} {unit}"
    return f"{value:.0f} B"


def megabytes(kib: int) -> str:
    """KiB as MB; 0 means that nobody knows."""
    return number(kib * KIB / 1e6, 1) if kib else DASH


def duration(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(epoch_s: float) -> str:
    """A moment in this machine's time zone."""
    return datetime.fromtimestamp(epoch_s).astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _heat(group: Group) -> list[tuple[float, int]]:
    """Every layer's microseconds, and how dark its cell is: 0 to 4."""
    whole = sum(group.layers_us)
    return [(us, sum(us >= share * whole for share in HEAT) if whole else 0) for us in group.layers_us]


def _newest_round(summary: Summary, attribute: str) -> int | None:
    """The round a headline accuracy is of."""
    return max((r.number for r in summary.rounds if getattr(r, attribute) is not None), default=None)


def _charts(summary: Summary, together: list[Group]) -> dict[str, list[Markup]]:
    charts = {
        "latency": device_charts.latency(together),
        "memory": device_charts.memory(summary.spent, summary.limits_mb),
    }
    if summary.rounds:
        charts |= {"rounds": _by_round(summary), "bytes": _by_bytes(summary), "sent": _sent(summary)}
    return {
        name: [Markup(draw(chart, width=w, height=h, css_class=f"chart {size}")) for size, w, h in SIZES]  # noqa: S704
        for name, chart in charts.items()
        if chart is not None
    }


def _by_round(summary: Summary) -> Chart:
    return Chart(
        description=f"Line chart of accuracy after each round. {_ends(summary)}. The table of rounds has the numbers.",
        x=count_axis("round", max(r.number for r in summary.rounds)),
        y=_accuracy_axis(summary),
        series=_accuracy_lines(summary, [float(r.number) for r in summary.rounds]),
        tooltips=[(float(r.number), f"Round {r.number}\n{_accuracies(r)}") for r in summary.rounds],
    )


def _by_bytes(summary: Summary) -> Chart:
    sent = list(accumulate(r.up_bytes for r in summary.rounds))
    fedavg = float(summary.fedavg_bytes)
    return Chart(
        description=f"Line chart of accuracy over bytes sent up per device. {_ends(summary)}, after "
        f"{human_bytes(sent[-1])}. FedAvg would have sent {human_bytes(fedavg)} after its first round.",
        x=log_axis("bytes up per device so far (log scale)", [*sent, fedavg], human_bytes),
        y=_accuracy_axis(summary),
        series=_accuracy_lines(summary, sent),
        tooltips=[
            (total, f"{number(total)} bytes up, after round {r.number}\n{_accuracies(r)}")
            for total, r in zip(sent, summary.rounds, strict=True)
        ],
        mark=Mark(
            at=fedavg,
            rows=("FedAvg after", "its first round:", human_bytes(fedavg)),
            distance=f"{times(fedavg / sent[-1])}× the bytes" if sent[-1] else "",
        ),
        labels_outside=False,
    )


def _sent(summary: Summary) -> Chart:
    first, last = float(summary.rounds[0].number), float(summary.rounds[-1].number)
    measured = [(float(r.number), r.up_bytes or None) for r in summary.rounds]
    raw = float(-(-summary.ticket.kept // 8))
    fedavg = float(summary.fedavg_bytes)
    known = [value for _, value in measured if value]
    lines = [
        ("x", "FedAvg (computed)", "FedAvg", fedavg),
        ("y", "raw mask, 1 bit per kept weight (computed)", "raw", raw),
    ]
    return Chart(
        description="Line chart of bytes sent up per device in each round: "
        f"{human_bytes(min(known, default=None))} to {human_bytes(max(known, default=None))}, "
        f"against {human_bytes(raw)} raw and {human_bytes(fedavg)} for FedAvg.",
        x=count_axis("round", int(last)),
        y=log_axis("bytes up per device (log scale)", [*known, raw, fedavg], human_bytes),
        series=[
            Series(
                key="a",
                name="sent (measured)",
                points=measured,
                label=human_bytes(known[-1]) if known else "",
                short="sent",
            ),
            *(
                Series(
                    key=key,
                    name=name,
                    points=[(first, size), (last, size)],
                    label=human_bytes(size),
                    short=short,
                    marked=False,
                )
                for key, name, short, size in lines
            ),
        ],
        tooltips=[
            (float(r.number), f"Round {r.number}\nsent {number(r.up_bytes)} bytes, of them {number(r.mask_bytes)} mask")
            for r in summary.rounds
        ],
    )


def _accuracy_axis(summary: Summary) -> Axis:
    known = [getattr(r, attribute) for r in summary.rounds for _, attribute, _ in ACCURACIES]
    return share_axis("accuracy", [value for value in known if value is not None])


def _accuracy_lines(summary: Summary, xs: list[float]) -> list[Series]:
    lines = []
    for key, attribute, name in ACCURACIES:
        values = [getattr(r, attribute) for r in summary.rounds]
        known = [value for value in values if value is not None]
        if known:
            points = list(zip(xs, values, strict=True))
            lines.append(Series(key=key, name=name, points=points, label=percent(known[-1]), short=name))
    return lines


def _accuracies(one: RoundSummary) -> str:
    return "\n".join(f"{name} {percent(getattr(one, attribute))}" for _, attribute, name in ACCURACIES)


def _ends(summary: Summary) -> str:
    last = summary.rounds[-1]
    return f"After round {last.number}: {', '.join(_accuracies(last).splitlines())}"
