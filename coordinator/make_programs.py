"""Makes what `hidenseek plan --here` measures ExecuTorch with, in minutes: `python -m coordinator.make_programs`.

A program holds a network and nothing of a ticket, so it is good until `coordinator.here.NETS` or the exporter change; a
test compares the networks. What it does in a step is counted beside it, for counting needs torch.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from coordinator.here import BATCH, NETS, PROGRAMS, ticket_of
from export import executorch_work
from export.bundle import make_bundle
from wire.settings import Training


def main() -> None:
    """Write a bundle of every network, and the work in it."""
    PROGRAMS.mkdir(exist_ok=True)
    work = {plan.name: executorch_work.count(plan, ticket_of(plan).kept, BATCH).work for plan in NETS}
    said = {name: {kind: asdict(one) for kind, one in kinds.items()} for name, kinds in work.items()}
    (PROGRAMS / "work.json").write_text(json.dumps(said, indent=1) + "\n")
    for plan in NETS:
        path = PROGRAMS / f"{plan.name}.hnsb"
        path.write_bytes(make_bundle(ticket_of(plan), "executorch", Training(batch=BATCH)).encoded)
        sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")


if __name__ == "__main__":
    main()
