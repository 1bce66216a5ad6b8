"""Exported folders for people: what was written, and how its numbers compare with torch autograd."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from coordinator.board_estimates import BoardEstimate, as_table
from coordinator.verify_worker import Verified
from export.manifest import Exported, Manifest
from wire.errors import HidenseekError

LEFT = ("target", "", "comparison", "files")


def written(manifest: Manifest, boards: Iterable[BoardEstimate]) -> RenderableType:
    """What `hidenseek export` wrote: sizes of every target, and estimates for boards."""
    network = manifest.network
    shape = "x".join(map(str, network.input_shape))
    heading = Text.assemble(
        (network.name, "bold"), f", input {shape}, {network.classes} classes: {network.kept:,} of "
        f"{network.weights:,} weights, batch {manifest.settings.batch}, {manifest.settings.optimiser}",
    )  # fmt: skip
    files = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("target", "files", "bytes", "planned memory"):
        files.add_column(name, justify="left" if name in LEFT else "right")
    for name, target in manifest.targets.items():
        parts = ["ticket.hns", *target.files]
        size = manifest.ticket.bytes + sum(file.bytes for file in target.files.values())
        arena = "–" if target.arena_bytes is None else f"{target.arena_bytes / 1e6:.2f} MB"
        files.add_row(name, ", ".join(parts), f"{size:,}", arena)
    note = Text.assemble(
        ("estimated", "bold"), ", not measured: a training step of the sparse runtime on one core, its process"
    )
    return Group(heading, Text(), files, Text(), note, as_table(boards), Text())


def verified(
    exported: Exported, results: Mapping[str, Verified | HidenseekError], signer: str, *, verbose: bool
) -> RenderableType:
    """What `hidenseek verify` found: a line for every target, and the comparisons that failed, or all."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    for name in ("target", "", "checks", "gradients", "signs", "step ms", "MB", "took s"):
        table.add_column(name, justify="left" if name in LEFT else "right")
    parts: list[RenderableType] = [table]
    for target, result in results.items():
        if isinstance(result, HidenseekError):
            table.add_row(target, Text("not checked", style="yellow"))
            parts += [Text(), Text(f"{target}: {result}", style="yellow")]
            continue
        table.add_row(
            target,
            Text("agrees", style="green") if result.ok else Text("DIFFERS", style="bold red"),
            f"{sum(row.ok for row in result.rows)} of {len(result.rows)}",
            f"{result.worst_gradient:.1e}",
            f"{result.signs_apart:.2%}",
            f"{result.step_ms:.2f}",
            f"{result.runtime_mb:.1f}",
            f"{result.seconds:.1f}",
        )
        shown = [row for row in result.rows if verbose or not row.ok]
        if shown:
            details = Table(header_style="bold", box=None, pad_edge=False, title=target, title_justify="left")
            for name in ("comparison", "found", "allowed", ""):
                details.add_column(name, justify="left" if name in LEFT else "right")
            for row in shown:
                verdict = Text("ok", style="green") if row.ok else Text("DIFFERS", style="bold red")
                details.add_row(row.what, f"{row.found:.1e}", f"{row.allowed:.1e}", verdict)
            parts += [Text(), details]
    ticket = exported.manifest.ticket.sha256[:16]
    heading = Text.assemble(
        (exported.manifest.network.name, "bold"), f", ticket {ticket}…, {signer}; against torch autograd"
    )
    note = Text(
        "gradients: largest error of a layer, relative to its largest gradient; signs: most that differ after one "
        "of the training steps; step and MB (loading and training, on top of Python): of this machine, one thread.",
        style="dim",
    )
    return Group(heading, Text(), *parts, Text(), note)
