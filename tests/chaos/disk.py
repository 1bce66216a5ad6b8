"""A small disk that can be filled to its last byte and emptied again: a tmpfs."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096


@dataclass(frozen=True)
class Disk:
    """Where it is mounted."""

    path: Path

    def fill(self) -> bool:
        """Leave not one byte, again whenever called: who deletes a file makes room. True, for use in conditions."""
        with (self.path / "ballast").open("ab", buffering=0) as file:
            for size in (256 * BLOCK, BLOCK, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue
        return True

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.path / "ballast").unlink()


@contextmanager
def small_disk(size_kb: int) -> Iterator[Disk]:
    """A disk of this size, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="hidenseek-disk-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", folder], check=True, timeout=20)
        try:
            yield Disk(Path(folder))
        finally:
            # Lazily: namespaces of processes that just ended may hold it for a moment.
            subprocess.run(["umount", "--lazy", folder], check=True, timeout=20)
