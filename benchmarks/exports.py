"""Sizes and parities of every network of the zoo on every runtime that is installed here, into docs/runtimes.md.

python -m benchmarks.exports                 # some minutes
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from benchmarks.machine import describe
from coordinator import cli, verify_worker
from coordinator.models import MODELS, build_plan
from coordinator.prune import prune
from export import manifest
from wire.errors import HidenseekError

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "runtimes.md"
BEGIN, END = "<!-- python -m benchmarks.exports -->", "<!-- end of the table -->"
HEAD = "| network | density | runtime | bytes | planned memory MB | gradients | signs apart | step ms | MB |"


def main() -> None:
    """Export, verify, write the table."""
    argparse.ArgumentParser(prog="python -m benchmarks.exports", description=__doc__).parse_args()
    console = Console()
    lines = [HEAD, "|---|---|---|---:|---:|---:|---:|---:|---:|"]
    for model in MODELS:
        density = 0.05 if model == "conv4" else 0.10
        plan = build_plan(model)
        with TemporaryDirectory() as folder:
            ticket, out = Path(folder) / "t.hns", Path(folder) / "out"
            ticket.write_bytes(prune(plan, density=density, seed=0).encoded)
            cli.main(["export", str(ticket), "-o", str(out)])
            exported = manifest.read(out)
            for runtime, target in exported.manifest.targets.items():
                size = exported.manifest.ticket.bytes + sum(file.bytes for file in target.files.values())
                arena = "-" if target.arena_bytes is None else f"{target.arena_bytes / 1e6:.2f}"
                try:
                    found = verify_worker.verify(out, runtime)
                except HidenseekError as error:
                    console.print(f"{model} on {runtime}: {error}")
                    continue
                verdict = "" if found.ok else " **differs**"
                lines.append(
                    f"| {model} | {density} | {runtime}{verdict} | {size:,} | {arena} | {found.worst_gradient:.1e} "
                    f"| {found.signs_apart:.2%} | {found.step_ms:.2f} | {found.runtime_mb:.1f} |"
                )
    machine = ", ".join(f"{name}: {value}" for name, value in describe().items())
    text = PAGE.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    PAGE.write_text("\n".join([before, "", *lines, "", f"({machine})", "", after]))
    console.print(f"{PAGE} written", soft_wrap=True)


if __name__ == "__main__":
    main()
