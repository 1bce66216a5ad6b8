"""What a board says about itself, read from files as Linux and the Pi's firmware write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_client import readings
from edge_client.energy import Meter, pmic_watts
from edge_client.outbox import MOST_ROUNDS, Outbox
from tests.helpers import root_with
from wire.telemetry import RoundTelemetry, throttled_words

STATUS = "Name:\tpython3\nVmPeak:\t  120000 kB\nVmHWM:\t   41236 kB\nVmRSS:\t   40012 kB\n"
ROLLUP = (
    "00400000-7ffd1000 ---p 00000000 00:00 0    [rollup]\nRss:               39996 kB\nPss:               31002 kB\n"
)
IO = "rchar: 9000\nwchar: 800\nread_bytes: 4096\nwrite_bytes: 12288\n"
PMIC = """ 3V3_SYS_A current(1)=0.50000000A
 VDD_CORE_A current(7)=2.00000000A
 EXT5V_V volt(24)=5.10000000V
 3V3_SYS_V volt(9)=3.30000000V
 VDD_CORE_V volt(15)=0.80000000V
"""


def test_a_raspberry_pi_is_read(tmp_path: Path) -> None:
    """Memory, bytes written, clock, temperature and throttling, in the units of their names."""
    root = root_with(
        tmp_path,
        {
            "proc/self/status": STATUS,
            "proc/self/smaps_rollup": ROLLUP,
            "proc/self/io": IO,
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
            "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq": "1000000\n",
            "sys/class/thermal/thermal_zone0/type": "gpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "40000\n",
            "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone1/temp": "61876\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        },
    )
    assert readings.memory(root) == readings.Memory(rss_kib=39_996, pss_kib=31_002, peak_kib=41_236)
    assert readings.written_bytes(root) == 12_288
    assert readings.board(root) == readings.Board(frequency_mhz=1000, temperature_c=62.0, throttled=0x50005)
    assert throttled_words(0x50005) == ("under-voltage, throttled, under-voltage has occurred, has been throttled")


def test_a_bare_system_leaves_all_of_it_unknown(tmp_path: Path) -> None:
    """No file, nothing guessed; and files with nonsense are as none."""
    assert readings.board(tmp_path) == readings.Board(frequency_mhz=None, temperature_c=None, throttled=None)
    assert readings.memory(tmp_path).rss_kib is None
    root_with(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "hot\n", "proc/self/io": "write_bytes: many\n"})
    assert readings.board(tmp_path).temperature_c is None
    assert readings.written_bytes(tmp_path) is None
    assert Meter(tmp_path, firmware=lambda *_: None).millijoules() is None


def test_energy_of_each_source(tmp_path: Path) -> None:
    """The Pi 5's rails, an INA's microwatts over time, and RAPL's counter, across its end."""
    assert pmic_watts(PMIC) == pytest.approx(0.5 * 3.3 + 2.0 * 0.8)
    assert pmic_watts("error=1") is None
    assert Meter(tmp_path / "pi5", firmware=lambda *_: PMIC).source == "pmic"

    ina = root_with(
        tmp_path / "ina",
        {"sys/class/hwmon/hwmon0/name": "ina219\n", "sys/class/hwmon/hwmon0/power1_input": "2500000\n"},
    )
    meter = Meter(ina, firmware=lambda *_: None)
    meter.start()
    meter._at_s -= 4  # as if four seconds had passed
    assert meter.source == "ina"
    assert meter.millijoules() == pytest.approx(10_000, abs=50)

    zone = "sys/class/powercap/intel-rapl:0/"
    rapl = root_with(tmp_path / "rapl", {zone + "energy_uj": "9000000\n", zone + "max_energy_range_uj": "10000000\n"})
    meter = Meter(rapl, firmware=lambda *_: None)
    meter.start()
    (rapl / zone / "energy_uj").write_text("500000\n")
    assert meter.source == "rapl"
    assert meter.millijoules() == 1500


def test_telemetry_waits_for_its_time_and_is_not_kept_for_ever() -> None:
    """At most so often and so many rounds; layers' times of the newest only; the last of a run at once."""
    outbox = Outbox()
    for number in range(1, MOST_ROUNDS + 3):
        outbox.add(RoundTelemetry(number=number, steps=1, forward_us=(1, 2), backward_us=(3, 4)))
    taken = outbox.take(0.0)
    assert [one.number for one in taken] == list(range(3, MOST_ROUNDS + 3))
    assert [one.forward_us for one in taken] == [()] * (MOST_ROUNDS - 1) + [(1, 2)]
    outbox.add(RoundTelemetry(number=9, steps=1))
    assert outbox.take(1.0) == ()
    assert [one.number for one in outbox.take(1.0, last=True)] == [9]
