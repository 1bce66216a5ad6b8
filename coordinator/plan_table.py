"""The plan of a ticket for people: a table of boards and runtimes, and what the marks in it mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from coordinator.budgets import UNITS

if TYPE_CHECKING:
    from coordinator.plan_command import Group
    from coordinator.planner import Choice, Cost, Excess, Load
    from wire.ticket import Ticket

SHORT = {  # of limits, for the last column
    "peak_mb": "peak",
    "step_ms": "step",
    "round_s": "round",
    "round_j": "energy",
    "round_bytes": "bytes a round",
    "day_bytes": "bytes a day",
}


def heading(ticket: Ticket, load: Load) -> Text:
    """What is planned."""
    training = load.training
    return Text.assemble(
        (ticket.plan.name, "bold"), f", density {ticket.density:.2%}, ticket {ticket.id.hex()[:16]}; a round: "
        f"{training.epochs} epochs of {load.samples} samples in batches of {training.batch}, {load.steps} steps\n",
    )  # fmt: skip


def table(choices: Sequence[tuple[Group, Choice | None]]) -> Table:
    """A line for every board and runtime, that of the runtime to use marked."""
    found = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("boards", "hardware", "runtime"):
        found.add_column(name)
    for name in ("batch", "arena MB", "peak MB", "step ms", "round s", "J", "kB up"):
        found.add_column(name, justify="right", no_wrap=True)
    found.add_column("limits")
    found.add_column("density", justify="right")
    for group, choice in choices:
        name = group.name if len(group.devices) == 1 else f"{len(group.devices)} x {group.name}"
        if group.devices != (group.name,) and len(group.devices) == 1:
            name = f"{group.devices[0]} ({group.name})"
        if choice is None:
            found.add_row(name, group.profile.title, Text("none of these", style="red"))
            continue
        for i, cost in enumerate(choice.costs):
            board = (name, group.profile.title) if i == 0 else ("", "")
            density = _density(choice.density) if cost.runtime == "sparse" else ""
            found.add_row(*board, *_row(cost, picked=cost is choice.pick, app=group.profile.system != "linux"), density)
    return found


def notes(choices: Sequence[tuple[Group, Choice | None]]) -> Text:
    """What is estimated, and for how many boards it is enough."""
    able = sum(len(group.devices) for group, choice in choices if choice and choice.pick.fits)
    everyone = sum(len(group.devices) for group, _ in choices)
    lines = [f"\n{able} of {everyone} can train it within their limits. "]
    lines.append("Estimated, not measured: one core; ◀ the runtime to use; kB up at most, energy of the whole board. ")
    if any(group.profile.system != "linux" for group, _ in choices):
        lines.append("+ beside what the phone's app takes. ")
    return Text.assemble((lines[0], "bold"), ("".join(lines[1:]), "dim"))


def _row(cost: Cost, *, picked: bool, app: bool) -> list[Text]:
    style = "" if picked else "dim"
    mark = f"{cost.runtime} ◀" if picked else cost.runtime
    figures = [
        str(cost.batch),
        f"{cost.arena_mb:,.1f}",
        f"{'+' if app else ''}{cost.peak_mb:,.0f}",
        _number(cost.step_ms),
        _number(cost.round_s),
        _number(cost.round_j),
        f"{cost.round_bytes / 1e3:,.1f}",
    ]
    if cost.fits:
        verdict = Text("fits", style="green" if picked else "dim")
    else:
        verdict = Text(", ".join(_excess(one, whole=picked) for one in cost.excess), style="red" if picked else "dim")
    return [Text(mark, style="bold" if picked else "dim"), *(Text(one, style=style) for one in figures), verdict]


def _excess(one: Excess, *, whole: bool) -> str:
    """By how much a limit is exceeded, and what it is, if there is room for that."""
    much = f"{one.share:+.0%}" if one.share < 1 else f"x {one.share + 1:,.3g}"
    limit = f" (limit {one.allowed:,g} {UNITS.get(one.limit, 'MB')})" if whole else ""
    return f"{SHORT.get(one.limit, one.limit)} {much}{limit}"


def _density(density: float | None) -> str:
    if density is None:
        return "none"
    return "any" if density >= 1 else f"≤ {density:.1%}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"
