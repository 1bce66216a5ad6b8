"""Files that are to be put into a file system: what goes where, and with which rights. All belong to root."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

BLOCK_BYTES = 4096


@dataclass
class Tree:
    """Files, folders and links by their absolute paths. Folders on the way need not be listed.

    Attributes:
        files: contents, or a file of this machine that has them, and the mode.
        folders: modes of folders that are not to be 0755.
        links: what each points to.
    """

    files: dict[str, tuple[bytes | Path, int]] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, content: bytes | str | Path, mode: int = 0o644) -> None:
        """Put a file there."""
        self.files[path] = (content.encode() if isinstance(content, str) else content, mode)

    def merge(self, other: Tree) -> None:
        """Put all of another tree there too."""
        self.files |= other.files
        self.folders |= other.folders
        self.links |= other.links

    def all_folders(self) -> list[str]:
        """Every folder that has to be there, parents first; without `/`."""
        found = {str(one) for path in [*self.files, *self.links] for one in PurePosixPath(path).parents}
        for path in self.folders:
            found |= {path, *(str(one) for one in PurePosixPath(path).parents)}
        return sorted(found - {"/"})

    @property
    def size_bytes(self) -> int:
        """Room that it takes, in whole blocks, folders included."""
        sizes = (
            content.stat().st_size if isinstance(content, Path) else len(content) for content, _ in self.files.values()
        )
        return sum(-(-size // BLOCK_BYTES) for size in sizes) * BLOCK_BYTES + len(self.all_folders()) * BLOCK_BYTES
