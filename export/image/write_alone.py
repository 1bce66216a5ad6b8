"""The one step that needs root, as a process of its own: `sudo python -c ...write_alone.main() IMAGE DEVICE`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from export.image import blockdevices, progress, write
from wire.errors import HidenseekError


def main(argv: Sequence[str] | None = None) -> int:
    """Write and check a card; return the exit code. The device is looked at once more, for root may write anywhere."""
    image, device = map(Path, argv or sys.argv[1:])
    from rich.console import Console

    try:
        blockdevices.Machine().target(device, image.stat().st_size, image)
        with progress.shown(Console(stderr=True)) as tell:
            digest = write.to_device(image, device, tell)
    except HidenseekError as error:
        sys.stderr.write(f"hidenseek: error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("hidenseek: stopped: the card cannot be booted\n")
        return 130
    sys.stderr.write(f"read back: SHA-256 {digest}\n")
    return 0
