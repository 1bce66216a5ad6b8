"""A ticket for people: what it keeps layer by layer, what that costs, and what training it should take. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator import estimate, footprint
from coordinator.board_estimates import as_table, on_boards
from coordinator.hardware import Profile
from wire.ticket import Keep, KeptLayer, Ticket


def render(ticket: Ticket, profiles: Mapping[str, Profile]) -> RenderableType:
    """A heading, a table of layers with totals, what the two densities mean, and estimates for `profiles`."""
    made = ", ".join(f"{name} {value}" for name, value in ticket.made.items()) or "unknown"
    heading = Text.assemble(
        ("ticket ", "dim"), (ticket.id.hex()[:16], "bold"), f"  {ticket.plan.name}, input ",
        "x".join(map(str, ticket.plan.input_shape)), f", {ticket.plan.classes} classes, seed {ticket.seed}\n",
        ("made by ", "dim"), made, ("; weights ", "dim"),
        "±c per layer" if ticket.magnitudes == "constant" else "Kaiming-normal magnitudes",
        ("; file ", "dim"), f"{len(ticket.encoded):,} bytes",
    )  # fmt: skip
    table = Table(show_footer=True, header_style="bold", footer_style="bold", box=None, pad_edge=False)
    shapes = [layer.shape for layer in ticket.kept_layers]
    columns = [
        ("layer", "all"),
        ("weight shape", ""),
        ("weights", f"{ticket.plan.weights:,}"),
        ("kept", f"{ticket.kept:,}"),
        ("weight density", f"{ticket.density:.2%}"),
        ("multiply-adds", f"{sum(shape.macs for shape in shapes):,}"),
        ("kept", f"{sum(layer.kept_macs for layer in ticket.kept_layers):,}"),
        ("multiply-add density", f"{ticket.mac_density:.2%}"),
        ("block", ""),
        ("mask", ""),
        ("c", ""),
    ]
    for name, footer in columns:
        table.add_column(name, footer, justify="left" if name in ("layer", "weight shape", "mask") else "right")
    for layer, keep in zip(ticket.kept_layers, ticket.layers, strict=True):
        table.add_row(*_row(layer, keep))
    note = Text(
        f"A sample costs the kept multiply-adds, a mask one bit per kept weight: {-(-ticket.kept // 8):,} bytes raw.",
        style="dim",
    )
    return Group(heading, Text(), table, Text(), note, Text(), *_estimates(ticket, profiles))


def _estimates(ticket: Ticket, profiles: Mapping[str, Profile]) -> list[RenderableType]:
    """Predicted time of a training step and memory of the process, for every profile."""
    heading = Text.assemble(
        ("estimated", "bold"), f", not measured: training on the sparse runtime, batch {estimate.BATCH}, one core"
    )
    note = Text(
        "Time: counted operations and bytes at the core's rates. Memory: what is trained, and the process of "
        f"{footprint.PROCESS['sparse'] / 1e6:.0f} MB; without recordings. More, and other runtimes: hidenseek plan",
        style="dim",
    )
    return [heading, as_table(on_boards(ticket, profiles)), note]


def _row(layer: KeptLayer, keep: Keep) -> list[str]:
    shape = layer.shape
    return [
        shape.name,
        "x".join(map(str, shape.weight_shape)),
        f"{shape.weights:,}",
        f"{layer.kept:,}",
        f"{layer.kept / shape.weights:.2%}",
        f"{shape.macs:,}",
        f"{layer.kept_macs:,}",
        f"{layer.kept_macs / shape.macs:.2%}",
        str(keep.block),
        "seeded" if isinstance(keep.mask, int) else f"{len(keep.mask):,} bytes",
        f"{keep.scale:.4f}",
    ]
