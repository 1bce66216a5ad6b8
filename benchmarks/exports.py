"""Sizes and parities of every network of the zoo on every runtime that is installed here, into docs/runtimes.md.

python -m benchmarks.exports                             # a quarter of an hour or more
python -m benchmarks.exports --models lenet conv4        # only their rows anew
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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exports", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="networks (all)")
    options = parser.parse_args()
    console = Console()
    text = PAGE.read_text()
    before, old, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(BEGIN) : text.index(END)], END
    after += text[text.index(END) + len(END) :]
    rows = {model: [line for line in old.splitlines() if line.startswith(f"| {model} |")] for model in MODELS}
    for model in options.models:
        rows[model] = []
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
                rows[model].append(
                    f"| {model} | {density} | {runtime}{verdict} | {size:,} | {arena} | {found.worst_gradient:.1e} "
                    f"| {found.signs_apart:.2%} | {found.step_ms:.2f} | {found.runtime_mb:.1f} |"
                )
    machine = ", ".join(f"{name}: {value}" for name, value in describe().items())
    table = [HEAD, "|---|---|---|---:|---:|---:|---:|---:|---:|", *(line for model in MODELS for line in rows[model])]
    PAGE.write_text("\n".join([before, "", *table, "", f"({machine})", "", after]))
    console.print(f"{PAGE} written", soft_wrap=True)


if __name__ == "__main__":
    main()
