"""The boot partition of an image: a FAT file system, by mtools."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from export.image import tools
from wire.errors import ImageError


@dataclass(frozen=True)
class Fat:
    """A FAT file system at an offset of an image. Only files of its top folder, which is all that a boot needs."""

    image: Path
    start_bytes: int

    @property
    def _drive(self) -> str:
        return f"{self.image}@@{self.start_bytes}"

    def names(self) -> set[str]:
        """Files and folders at the top.

        Raises:
            ImageError: if it cannot be read.
        """
        done = tools.run("mdir", "-b", "-a", "-i", self._drive, "::")
        if done.returncode:
            raise ImageError(f"boot partition cannot be read ({_words(done.stderr)})", where=str(self.image))
        return {line.strip().removeprefix("::/").rstrip("/") for line in done.stdout.decode().splitlines() if line}

    def read(self, name: str) -> bytes | None:
        """What is in a file; None if there is none of that name."""
        done = tools.run("mcopy", "-n", "-i", self._drive, f"::{name}", "-")
        return done.stdout if done.returncode == 0 else None

    def write(self, files: dict[str, bytes]) -> None:
        """Write files, over those that are there.

        Raises:
            ImageError: if they cannot be written, as when there is no room.
        """
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder) / name
                path.write_bytes(data)
                done = tools.run("mcopy", "-o", "-i", self._drive, path, f"::{name}")
                if done.returncode:
                    raise ImageError(
                        f"{name} cannot be written to the boot partition ({_words(done.stderr)})", where=str(self.image)
                    )


def _words(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"
