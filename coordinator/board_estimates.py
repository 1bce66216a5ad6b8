"""What a training step of a ticket takes on boards nobody has measured, as figures and as a table: *estimated*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from coordinator import estimate
from coordinator.hardware import Profile
from wire.ticket import Ticket


@dataclass(frozen=True, kw_only=True)
class BoardEstimate:
    """A training step of the sparse runtime on one kind of hardware.

    Attributes:
        profile: its name.
        title: the hardware in words.
        step_ms: milliseconds of one step on one core; None if the profile lacks a figure.
        process_mb: 1e6 bytes of the whole process, without the device's recordings.
        source: what the time is estimated from.
    """

    profile: str
    title: str
    step_ms: float | None
    process_mb: float
    source: str


def on_boards(ticket: Ticket, profiles: Mapping[str, Profile], batch: int = estimate.BATCH) -> list[BoardEstimate]:
    """An estimate for every profile, in their order.

    Args:
        ticket: what is trained.
        profiles: by name.
        batch: samples of a step.
    """
    blocks = [keep.block for keep in ticket.layers]
    found = []
    for name, profile in profiles.items():
        memory = estimate.process_bytes(ticket.plan, blocks, ticket.magnitudes, batch, profile).of(ticket)
        cost = estimate.step_seconds(ticket.plan, blocks, profile, batch)
        found.append(
            BoardEstimate(
                profile=name,
                title=profile.title,
                step_ms=1e3 * cost.of(ticket) if cost else None,
                process_mb=memory / 1e6,
                source=estimate.figures(profile),
            )
        )
    return found


def as_table(boards: Iterable[BoardEstimate]) -> Table:
    """A line for every board."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("profile", "hardware"):
        table.add_column(name)
    for name in ("step ms", "MB"):
        table.add_column(name, justify="right")
    table.add_column("estimated from (one core)", no_wrap=True)
    for board in boards:
        step = "–" if board.step_ms is None else f"{board.step_ms:,.1f}"
        table.add_row(board.profile, board.title, step, f"{board.process_mb:.1f}", Text(board.source, style="dim"))
    return table
