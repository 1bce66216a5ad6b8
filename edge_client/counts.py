"""How many samples a device has, remembered for as long as its files are the same: joining then reads none of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from edge_client import files
from edge_client.data_files import list_files

log = logging.getLogger("hidenseek.edge")
RECORD = "samples.json"  # in a device's state folder
VERSION = 1  # of what is checked before samples count


def of(data: Path, state: Path, count: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """Samples to train on, and to test with.

    Args:
        data: the device's file, or folder of files.
        state: its state folder.
        count: reads and checks the files; called if they are not those that were counted last.

    Raises:
        DataError: naming the file, what was found and what was expected.
    """
    now = [VERSION, str(data.resolve()), _signs(data)]
    if (known := _read(state / RECORD, now)) is not None:
        return known
    train, test = count()
    if _signs(data) == now[-1]:  # else somebody is still writing
        try:
            files.replace(state / RECORD, json.dumps([now, train, test]).encode())
        except OSError as error:  # they are counted again next time
            log.warning("%s cannot be written (%s)", state / RECORD, error.strerror)
    return train, test


def _signs(data: Path) -> list[list[str | int]]:
    """Of every file its name, size and when it was written last, which all stay while it does."""
    found: list[list[str | int]] = []
    for file in list_files(data):
        known = file.stat()
        found.append([file.name, known.st_size, known.st_mtime_ns])
    return found


def _read(path: Path, now: list[object]) -> tuple[int, int] | None:
    """What was counted, if it was of the same files; None too if the record is damaged."""
    try:
        match json.loads(path.read_bytes()):
            case [before, int() as train, int() as test] if before == now and train > 0 and test >= 0:
                return train, test
    except (OSError, ValueError):
        pass
    return None
