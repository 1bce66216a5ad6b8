"""The root partition of an image: an ext4 file system, read and written by debugfs."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from export.image import tools
from export.image.tree import Tree
from wire.errors import ImageError

MARGIN_BYTES = 32 << 20  # left free: the system's own first boot writes too
_UNSAFE = re.compile(r"[\x00-\x1f\"\\\x7f]")
_QUIET = re.compile(r"debugfs \d|^$")


@dataclass(frozen=True)
class Ext4:
    """An ext2, 3 or 4 file system at an offset of an image."""

    image: Path
    start_bytes: int

    @property
    def _device(self) -> str:
        return f"{self.image}?offset={self.start_bytes}"

    def read(self, path: str) -> bytes | None:
        """What is in a file; None if there is none. Links on the way are followed, the last is not."""
        done = tools.run("debugfs", "-R", f"cat {_quoted(path)}", self._device)
        return None if _complaints(done.stderr) else done.stdout

    def kind(self, path: str) -> str | None:
        """What is there: "regular", "directory", "symlink"; links on the way are followed; None if nothing is."""
        found = re.search(rb"Type:\s*(\S+)", self._stat(path))
        return found[1].decode() if found else None

    def mode(self, path: str) -> int | None:
        """Rights of a file, without its type."""
        found = re.search(rb"Mode:\s*([0-7]+)", self._stat(path))
        return int(found[1], 8) if found else None

    def link(self, path: str) -> str | None:
        """Where a symbolic link points to; None if it is none."""
        found = re.search(rb'Fast link dest: "([^"]*)"', self._stat(path))
        return found[1].decode() if found else None

    def names(self, folder: str) -> set[str]:
        """What is in a folder; nothing if there is no such folder."""
        done = tools.run("debugfs", "-R", f"ls -p {_quoted(folder)}", self._device)
        rows = (line.split("/") for line in done.stdout.decode(errors="replace").splitlines())
        return {row[5] for row in rows if len(row) > 5} - {"", ".", ".."}

    def free_bytes(self) -> int:
        """Room for files of root.

        Raises:
            ImageError: if the file system cannot be read.
        """
        words = self._superblock()
        found = {name: re.search(rf"^{name}:\s*(\d+)", words, re.MULTILINE) for name in ("Free blocks", "Block size")}
        if not all(found.values()):
            raise ImageError("root file system cannot be read", where=str(self.image), hint="Download the image again")
        free, size = (int(one[1]) for one in found.values() if one)
        return free * size

    def missing_bytes(self, size_bytes: int) -> int:
        """How much more room it takes to write so much, and leave some free; 0 or less if there is enough."""
        return size_bytes + MARGIN_BYTES - self.free_bytes()

    def check_unmounted(self) -> None:
        """Whether it was left in order.

        Raises:
            ImageError: if it has a journal to be played back first.
        """
        if "needs_recovery" in self._superblock():
            raise ImageError(
                "root file system was not unmounted: its journal is still to be played back",
                where=str(self.image),
                hint="Take a fresh image, as it was downloaded",
            )

    def put(self, tree: Tree) -> None:
        """Write a tree of files into it, over those that are there.

        Raises:
            ImageError: if there is no room, or anything is not written.
        """
        if (missing := self.missing_bytes(tree.size_bytes)) > 0:
            raise ImageError(
                f"no room in the root file system: {tree.size_bytes / 1e6:,.0f} MB are to be written and "
                f"{MARGIN_BYTES / 1e6:,.0f} MB to stay free, {missing / 1e6:,.0f} MB are missing",
                where=str(self.image),
            )
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "commands"
            script.write_text("".join(f"{line}\n" for line in self._commands(tree, Path(folder))))
            done = tools.run("debugfs", "-w", "-f", script, self._device)
        if complaints := _complaints(done.stderr):
            raise ImageError(
                f"root file system was not written ({complaints[0]:.200})",
                where=str(self.image),
                hint="Download the image again",
            )

    def fsck(self) -> None:
        """Check all of it, changing nothing.

        Raises:
            ImageError: if anything is wrong.
        """
        done = tools.run("e2fsck", "-f", "-n", self._device)
        if done.returncode:
            lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
            wrong = [line for line in lines if line and not re.match(r"e2fsck \d|Pass \d", line)]
            raise ImageError(f"root file system is damaged ({wrong[0] if wrong else 'e2fsck'})", where=str(self.image))

    def _commands(self, tree: Tree, scratch: Path) -> list[str]:
        """What debugfs is told: folders, then files folder by folder, for it writes into the one it is in only."""
        lines: list[str] = []
        made: set[str] = set()
        for folder in tree.all_folders():
            parent = folder.rpartition("/")[0]
            if parent in made or self.kind(folder) is None:
                made.add(folder)
                lines.append(f"mkdir {_quoted(folder)}")
            if folder in made or folder in tree.folders:
                mode = tree.folders.get(folder, 0o755)
                lines.append(f"set_inode_field {_quoted(folder)} mode 04{mode:04o}")
        before = (path for path in [*tree.files, *tree.links] if path.rpartition("/")[0] not in made)
        lines += [f"rm {_quoted(path)}" for path in before if self.kind(path) is not None]
        for number, (path, (content, mode)) in enumerate(sorted(tree.files.items())):
            folder, _, name = path.rpartition("/")
            source = content if isinstance(content, Path) else scratch / f"{number}"
            if isinstance(content, bytes):
                source.write_bytes(content)
            lines += [
                f"cd {_quoted(folder or '/')}",
                f"write {_quoted(str(source))} {_quoted(name)}",
                f"set_inode_field {_quoted(path)} mode 0100{mode:03o}",
                f"set_inode_field {_quoted(path)} uid 0",
                f"set_inode_field {_quoted(path)} gid 0",
            ]
        lines += [f"symlink {_quoted(path)} {_quoted(target)}" for path, target in tree.links.items()]
        return lines

    def _stat(self, path: str) -> bytes:
        return tools.run("debugfs", "-R", f"stat {_quoted(path)}", self._device).stdout

    def _superblock(self) -> str:
        return tools.run("dumpe2fs", "-h", self._device).stdout.decode(errors="replace")


def _quoted(text: str) -> str:
    """As one word for debugfs.

    Raises:
        ImageError: if that cannot be done.
    """
    if _UNSAFE.search(text):
        raise ImageError(f"file name {text!r:.120} has a character that debugfs cannot be told")
    return f'"{text}"'


def _complaints(stderr: bytes) -> list[str]:
    """The program ends with 0 whatever happened; what went wrong it says."""
    return [line for line in stderr.decode(errors="replace").splitlines() if not _QUIET.match(line)]
