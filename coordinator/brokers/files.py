"""Files that a deployment consists of: written anew when they change, never over what a person has edited."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.brokers.process import write_whole

RECORD = ".written.json"


@dataclass
class Writer:
    """Writes into one folder, and remembers in it what it wrote.

    Args:
        folder: where.

    Attributes:
        made: files that are new.
        changed: files that said something else before.
        edited: files that a person has edited since; what was to be written lies beside them as `.new`, or, of
            files that are always ours, what they were lies there as `.edited`.
    """

    folder: Path
    made: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        try:
            self._hashes: dict[str, str] = json.loads((self.folder / RECORD).read_text())
        except (OSError, ValueError):
            self._hashes = {}  # then whatever lies there counts as edited, and stays

    def write(self, name: str, text: str, *, mode: int = 0o644, ours: bool = False) -> None:
        """Write one file.

        Args:
            name: relative to the folder.
            text: what it shall say.
            mode: of the file.
            ours: it holds accounts, which have to be right: it is always written.

        Raises:
            StateError: if it cannot be written.
        """
        path, data = self.folder / name, text.encode()
        digest = hashlib.sha256(data).hexdigest()
        before = path.read_bytes() if path.exists() else None
        touched = before is not None and hashlib.sha256(before).hexdigest() not in (digest, self._hashes.get(name))
        if touched:
            self.edited.append(name)
            if not ours:
                write_whole(path.with_name(path.name + ".new"), data, mode)
                return
            write_whole(path.with_name(path.name + ".edited"), before or b"", mode)
        if before == data:
            self._hashes[name] = digest
            return
        if before is None:
            self.made.append(name)
        elif not touched:
            self.changed.append(name)
        write_whole(path, data, mode)
        # An interrupt before this line costs nothing: the same text again is never taken for an edit.
        self._hashes[name] = digest
        write_whole(self.folder / RECORD, json.dumps(self._hashes, indent=1).encode(), 0o644)
