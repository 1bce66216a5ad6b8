"""The report of a run as one HTML file that needs nothing else: no script, no font, no request."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import Template
from markupsafe import Markup

from coordinator.report import device_charts, html
from coordinator.report.causes import causes, hottest, slowest
from coordinator.report.charts import drawn
from coordinator.report.round_charts import accuracy_by_bytes, accuracy_by_round, bytes_by_round
from coordinator.report.spent import Group, groups
from coordinator.report.summary import LAST_ROUNDS, Summary
from wire.errors import ConfigError
from wire.telemetry import throttled_words

MOST_LISTED = 10  # slowest and hottest devices
MOST_PRINTED = 30  # devices whose own sections are on paper, too
HEAT = (0.05, 0.15, 0.3, 0.5)  # shares of a step from which a layer's cell is darker


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
    environment = html.environment(folder)
    environment.globals["css"] = Markup((folder / "page.css").read_text(encoding="utf-8"))  # noqa: S704  # our own file
    environment.filters.update(
        bars=device_charts.bars,
        spark=device_charts.spark,
    )
    return environment.get_template("page.html.j2")


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
        charts |= {
            "rounds": accuracy_by_round(summary.rounds),
            "bytes": accuracy_by_bytes(summary.rounds, summary.ticket),
            "sent": bytes_by_round(summary.rounds, summary.ticket),
        }
    return {name: drawn(chart) for name, chart in charts.items() if chart is not None}
