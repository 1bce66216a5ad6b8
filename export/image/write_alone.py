"""The one step that needs root, as a process of its own: `sudo python -c ...write_alone.main() IMAGE DEVICE`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from export.image import blockdevices, write
from wire.errors import HidenseekError

EVERY_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Write and check a card; return the exit code. The device is looked at once more, for root may write anywhere."""
    image, device = map(Path, argv or sys.argv[1:])
    began_s = shown_s = time.monotonic()
    step_before = ""

    def tell(step: str, done: int, total: int) -> None:
        nonlocal began_s, shown_s, step_before
        now = time.monotonic()
        if step != step_before:
            step_before, began_s = step, now
        if now - shown_s < EVERY_S and done < total:
            return
        shown_s, rate = now, done / max(now - began_s, 1e-3)
        left = (total - done) / rate if rate else 0.0
        sys.stderr.write(
            f"\r{step} {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {rate / 1e6:,.1f} MB/s, {left:,.0f} s left  "
        )
        if done == total:
            sys.stderr.write("\n")

    try:
        blockdevices.Machine().target(device, image.stat().st_size, image)
        digest = write.to_device(image, device, tell)
    except HidenseekError as error:
        sys.stderr.write(f"\nhidenseek: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("\nhidenseek: stopped: the card cannot be booted\n")
        return 130
    sys.stderr.write(f"read back: SHA-256 {digest}\n")
    return 0
