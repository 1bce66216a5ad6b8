"""Energy, from whatever on the board measures it. Nothing here guesses: without a sensor there is no figure.

Sources: sysfs-class-hwmon (power1_input: microwatts) and power/powercap (energy_uj: microjoules, wrapping at
max_energy_range_uj) of Linux's documentation; Raspberry Pi 5's `vcgencmd pmic_read_adc`, whose rails are pairs of
`NAME_A current(n)=...A` and `NAME_V volt(n)=...V`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edge_client.readings import ROOT, read_number, read_text, vcgencmd
from wire.telemetry import ENERGY_SOURCES

CODES = {name: code for code, name in ENERGY_SOURCES.items()}
INA = ("ina219", "ina226", "ina2xx", "ina220", "ina230", "ina231", "ina260", "ina3221")
EVERY_S = 2.0  # power is read so often: asking the firmware starts a process
_RAIL = re.compile(r"^\s*(\S+)_([AV])\s+\w+\(\d+\)=([\d.]+)[AV]\s*$", re.MULTILINE)


def pmic_watts(text: str) -> float | None:
    """The sum of current x voltage over the rails in the answer of `vcgencmd pmic_read_adc`; None if there are none.

    What is drawn straight from the 5 V input, such as USB, passes no rail and is not in it.
    """
    found: dict[str, dict[str, float]] = {}
    for name, unit, value in _RAIL.findall(text):
        found.setdefault(name, {})[unit] = float(value)
    rails = [one["A"] * one["V"] for one in found.values() if len(one) == 2]
    return sum(rails) if rails else None


@dataclass
class Meter:
    """Energy since `start`, of the best sensor that there is.

    Args:
        root: of /sys.
        firmware: asks the Pi's firmware.
    """

    root: Path = ROOT
    firmware: Callable[..., str | None] = vcgencmd
    source: str | None = None
    _watts: Callable[[], float | None] = lambda: None
    _zones: list[Path] = field(default_factory=list)
    _at_s: float = 0.0
    _joules: float = 0.0
    _power: float = 0.0
    _read_s: float | None = None
    _counters: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        sensors = [
            folder / "power1_input"
            for folder in sorted((self.root / "sys/class/hwmon").glob("hwmon*"))
            if (read_text(folder / "name") or "").strip() in INA and read_number(folder / "power1_input") is not None
        ]
        # Only whole packages: their parts are counted in them.
        zones = sorted((self.root / "sys/class/powercap").glob("intel-rapl:[0-9]"))
        self._zones = [zone for zone in zones if read_number(zone / "energy_uj") is not None]
        if sensors:
            self.source, self._watts = "ina", lambda: (read_number(sensors[0]) or 0) / 1e6
        elif pmic_watts(self.firmware("pmic_read_adc") or "") is not None:
            self.source, self._watts = "pmic", lambda: pmic_watts(self.firmware("pmic_read_adc") or "")
        if self.source is None and self._zones:
            self.source = "rapl"

    def start(self) -> None:
        """Begin to measure."""
        self._at_s, self._joules = time.monotonic(), 0.0
        self._counters = [read_number(zone / "energy_uj") or 0 for zone in self._zones]
        self._power = self._newest_power()

    def tick(self) -> None:
        """Read the power, if it is time to."""
        if self.source in ("ina", "pmic") and time.monotonic() - self._at_s >= EVERY_S:
            self._integrate()

    def millijoules(self) -> int | None:
        """Since `start`; None without a sensor."""
        if self.source is None:
            return None
        if self.source == "rapl":
            return sum(map(self._spent, self._zones, self._counters)) // 1000
        self._integrate()
        return round(self._joules * 1000)

    def _integrate(self) -> None:
        now_s, power = time.monotonic(), self._newest_power()
        self._joules += (power + self._power) / 2 * (now_s - self._at_s)
        self._at_s, self._power = now_s, power

    def _newest_power(self) -> float:
        """Watts, not older than `EVERY_S`; 0 where counters say it all."""
        if self.source not in ("ina", "pmic"):
            return 0.0
        now_s = time.monotonic()
        if self._read_s is None or now_s - self._read_s >= EVERY_S:
            self._read_s, self._power = now_s, self._watts() or self._power
        return self._power

    def _spent(self, zone: Path, before: int) -> int:
        now = read_number(zone / "energy_uj") or before
        return now - before if now >= before else now - before + (read_number(zone / "max_energy_range_uj") or 0)
