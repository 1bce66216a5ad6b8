"""Which files hold a device's data. Naming them takes no numpy, reading them does: `edge_client.data`."""

from __future__ import annotations

from pathlib import Path

from wire.errors import DataError

HINT = "Save it with numpy.savez(FILE, x=..., y=...): x float32 (samples, *input shape), y whole numbers (samples,)"


def list_files(path: Path) -> list[Path]:
    """The one file named, or every `.npz` file of a folder in order of name.

    Raises:
        DataError: if there is none.
    """
    if not path.is_dir():
        if path.exists():
            return [path]
        raise DataError("no such file or folder", where=str(path), hint="Name one with --data")
    if not (files := sorted(path.glob("*.npz"))):
        raise DataError("no .npz file in this folder", where=str(path), hint=HINT)
    return files
