"""Files that a power cut leaves as they were, or as they were to be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace(path: Path, data: bytes, check: Callable[[Path], None] = lambda path: None) -> None:
    """Write a file, its owner's alone; after a power cut it holds either the old or the new bytes.

    Args:
        path: which.
        data: all of it.
        check: told where the new bytes are, before they take the place of the old ones, which stay if it raises.

    Raises:
        OSError: if it cannot be written; then it holds the old bytes.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        check(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # half a file must not keep the last room on a full card
        raise
