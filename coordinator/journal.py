"""A simulation's files: what it is, a row a round, and the state to go on from."""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np

from coordinator.baselines.method import State
from wire.errors import StateError

Row: TypeAlias = dict[str, Any]


@dataclass
class Journal:
    """A run's files. Everything after a round is written whole, its row in `rounds.jsonl` last.

    They are its own until `close`.

    Raises:
        StateError: if another process has them, or they are of another run.
    """

    folder: Path
    spec: dict[str, Any]

    def __post_init__(self) -> None:
        (self.folder / "devices").mkdir(parents=True, exist_ok=True)
        self._lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check()
        except BlockingIOError as error:
            self.close()
            raise StateError(
                "another process is simulating this very run",
                where=str(self.folder),
                hint="Wait until it has ended, or name another folder with --out",
            ) from error
        except StateError:
            self.close()
            raise

    def close(self) -> None:
        """Leave them to others."""
        self._lock.close()

    def _check(self) -> None:
        path = self.folder / "run.json"
        if not path.exists():
            path.write_text(json.dumps(self.spec, indent=1, sort_keys=True) + "\n")
            return
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise StateError(f"not JSON ({error})", where=str(path), hint="Delete the folder") from error
        if found != self.spec:
            differing = sorted(k for k in {*found, *self.spec} if found.get(k) != self.spec.get(k))
            raise StateError(
                f"holds another run: {', '.join(differing)} differ",
                where=str(self.folder),
                hint="Name another folder with --out, or delete this one",
            )

    def rows(self) -> list[Row]:
        """The rows of the rounds that are done; a half-written last line is dropped."""
        path = self.folder / "rounds.jsonl"
        rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                rows.append(json.loads(line))
            except ValueError:
                break
        whole = "".join(json.dumps(row) + "\n" for row in rows)
        if path.exists() and path.read_text() != whole:
            part = path.with_suffix(".part")
            part.write_text(whole)
            part.replace(path)
        return rows

    def memory(self, device: str, number: int) -> Path:
        """Where a device keeps what it remembers of round `number`."""
        return self.folder / "devices" / f"{device}.{number:05d}.npz"

    def newest_memory(self, device: str, before: int) -> Path | None:
        """What a device remembers of its last round before `before`; a later one is of a round that was cut off."""
        return max(self._memories(device, before), default=None)

    def _memories(self, device: str, before: int) -> list[Path]:
        every = (self.folder / "devices").glob(f"{device}.*.npz")
        return [path for path in every if int(path.name.split(".")[1]) < before]

    def load_state(self, number: int) -> State:
        """The coordinator's state after a round."""
        return load(self._state(number))

    def commit(self, state: State, row: Row, selected: tuple[str, ...]) -> None:
        """A round is done."""
        number = row["round"]
        save(self._state(number), state)
        with (self.folder / "rounds.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        self._state(number - 1).unlink(missing_ok=True)
        for device in selected:
            for path in self._memories(device, before=number):
                path.unlink()

    def _state(self, number: int) -> Path:
        return self.folder / f"state.{number:05d}.npz"


def load(path: Path) -> State:
    """Read what `save` wrote.

    Raises:
        StateError: if it is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise StateError(f"cannot be read ({error})", where=str(path), hint="Delete the run's folder") from error


def save(path: Path, state: State) -> None:
    """Write arrays whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **state)  # type: ignore[arg-type]  # its stub takes them for allow_pickle
    part.replace(path)
