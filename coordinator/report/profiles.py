"""Reports that boards wrote about themselves (`hidenseek-edge profile --json`), read and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from wire.errors import DataError
from wire.profile_report import FORMAT, VERSION, ProfileReport
from wire.telemetry import LARGEST_BUCKET, MAX_BUCKETS

MOST_BYTES = 4 << 20
HINT = "Write it with hidenseek-edge profile --json, or hidenseek profile --ssh"


@cache
def adapter() -> TypeAdapter[ProfileReport]:
    """Reads and writes reports as JSON; `json_schema()` says what they are."""
    return TypeAdapter(ProfileReport)


def parse(data: bytes, *, where: str) -> ProfileReport:
    """Read one report.

    Raises:
        DataError: if it is none, or of another version.
    """
    try:
        report = adapter().validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(step)[:40] for step in first["loc"]) or "file"
        raise DataError(f"{place}: {first['msg']:.200}", where=where, hint=HINT) from error
    if report.format != FORMAT or report.version != VERSION:
        found = f"'{report.format:.40}' version {report.version}"
        raise DataError(f"{found}, '{FORMAT}' version {VERSION} expected", where=where, hint=HINT)
    try:
        json.dumps(asdict(report), allow_nan=False)
    except ValueError as error:
        raise DataError("a number is not finite", where=where, hint=HINT) from error
    steps = report.latency
    if not (0 <= steps.first_bucket <= LARGEST_BUCKET and 1 <= len(steps.bucket_counts) <= MAX_BUCKETS):
        raise DataError("latency.bucket_counts: no histogram", where=where, hint=HINT)
    return report


def read(paths: Iterable[Path]) -> list[ProfileReport]:
    """Every report of files, and of folders every `.json` in order of name.

    Raises:
        DataError: naming the file.
    """
    found = []
    for path in paths:
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            try:
                with file.open("rb") as opened:
                    data = opened.read(MOST_BYTES + 1)
            except OSError as error:
                raise DataError(f"cannot be read ({error.strerror})", where=str(file), hint=HINT) from error
            if len(data) > MOST_BYTES:
                raise DataError(f"over {MOST_BYTES} bytes", where=str(file), hint=HINT)
            found.append(parse(data, where=str(file)))
    return found
