"""What happens in a run as JSON lines, for log collectors."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path

from coordinator.fleet import Fleet
from coordinator.observer import Observer
from wire.errors import ConfigError
from wire.federation_messages import Evaluation, MaskUpdate, Telemetry

TELEMETRY = ("train_ms", "cpu_ms", "rss_kib", "peak_kib", "temperature_c", "throttled", "energy_mj", "sent_bytes")


class _Lines(WatchedFileHandler):
    """Appends lines, to a new file once a log rotation has moved the old one; tells of the first that failed."""

    def __init__(self, path: Path, failed: Callable[[str], None]) -> None:
        super().__init__(path, encoding="utf-8")
        self._failed: Callable[[str], None] | None = failed

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # a name of logging's
        if self._failed is not None:
            self._failed(f"{self.baseFilename} cannot be written: this log may lack lines from here on")
            self._failed = None


class EventLog(Observer):
    """Appends one JSON object a line.

    Every line has `time` (RFC 3339, UTC), `federation` and `event`; docs/operations.md lists the others' fields.

    Args:
        path: the file; what is in it stays.
        federation: its name.
        failed: told once, in a sentence, if a line cannot be written; the run goes on without.

    Raises:
        ConfigError: if the file cannot be opened.
    """

    def __init__(self, path: Path, federation: str, failed: Callable[[str], None]) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lines = _Lines(path, failed)
        except OSError as error:
            raise ConfigError(
                f"log cannot be opened ({error.strerror})", where=str(path), hint="Name another file with --log"
            ) from error
        self._federation = federation

    def close(self) -> None:
        """Give the file back."""
        with suppress(OSError):  # of lines that a full disk did not take, which was told
            self._lines.close()

    def device(self, name: str, online: bool, fleet: Fleet) -> None:
        """See `Observer.device`."""
        self._write("device", device=name, online=online)

    def revoked(self, name: str) -> None:
        """See `Observer.revoked`."""
        self._write("revoked", device=name)

    def announced(self, number: int, selected: tuple[str, ...]) -> None:
        """See `Observer.announced`."""
        self._write("announced", round=number, selected=len(selected))

    def mask(self, name: str, update: MaskUpdate, payload_bytes: int) -> None:
        """See `Observer.mask`."""
        self._write(
            "mask",
            device=name,
            round=update.number,
            bytes=payload_bytes,
            loss=_finite(update.loss),
            correct=update.correct,
            test_samples=update.test_samples,
            train_s=_finite(update.train_s),
        )

    def evaluation(self, name: str, evaluation: Evaluation) -> None:
        """See `Observer.evaluation`."""
        self._write(
            "evaluation",
            device=name,
            round=evaluation.number,
            correct=evaluation.correct,
            test_samples=evaluation.test_samples,
        )

    def telemetry(self, name: str, telemetry: Telemetry) -> None:
        """See `Observer.telemetry`."""
        for spent in telemetry.rounds:
            figures = {key: _finite(getattr(spent, key)) for key in TELEMETRY}
            self._write("telemetry", device=name, round=spent.number, **figures)

    def broker(self, connected: bool) -> None:
        """See `Observer.broker`."""
        self._write("broker", connected=connected)

    def closed(self, number: int, voters: int, held_out: float | None) -> None:
        """See `Observer.closed`."""
        self._write("closed", round=number, masks=voters, held_out=held_out)

    def remark(self, text: str) -> None:
        """See `Observer.remark`."""
        self._write("remark", text=text)

    def _write(self, event: str, **fields: object) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({"time": now, "federation": self._federation, "event": event, **fields}, allow_nan=False)
        self._lines.handle(logging.LogRecord("hidenseek", logging.INFO, "", 0, line, None, None))


def _finite(value: float | None) -> float | None:
    """What a device says may be no number, which JSON has no word for."""
    return value if value is not None and math.isfinite(value) else None
