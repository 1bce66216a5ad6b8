"""`export_onnx.py TICKET BUNDLE`: write the onnx bundle of a ticket, and its SHA-256 beside it."""

from __future__ import annotations

import sys
from pathlib import Path

from export.bundle import make_bundle
from wire.settings import Training
from wire.ticket import read_ticket

if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    bundle = make_bundle(read_ticket(source), "onnx", Training())
    target.write_bytes(bundle.encoded)
    Path(f"{target}.id").write_bytes(bundle.id)
