"""Figures as people read them on pages and in tables."""

from __future__ import annotations

import math
from datetime import datetime

DASH = "–"  # shown where there is no number
KIB = 1024


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.{digits}%}"


def signed_percent(value: float | None) -> str:
    """A deviation as a percentage with its sign."""
    return DASH if value is None or not math.isfinite(value) else f"{round(value, 2) + 0.0:+.0%}".replace("-", "−")


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands separators."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def times(ratio: float) -> str:
    """How many times as much: a whole number from ten on."""
    return number(ratio, 0 if ratio >= 9.95 else 1)


def human_bytes(value: float | None) -> str:
    """A size to three digits, decimal units: 1 kB is 1,000 bytes."""
    if value is None or not math.isfinite(value):
        return DASH
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale * 0.9995:
            return f"{float(f'{value / scale:.3g}'):g} {unit}"
    return f"{value:.0f} B"


def megabytes(kib: int) -> str:
    """KiB as MB; 0 means that nobody knows."""
    return number(kib * KIB / 1e6, 1) if kib else DASH


def duration(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(epoch_s: float) -> str:
    """A moment in this machine's time zone."""
    return datetime.fromtimestamp(epoch_s).astimezone().strftime("%Y-%m-%d %H:%M %Z")
