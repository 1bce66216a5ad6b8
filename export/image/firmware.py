"""What a Raspberry Pi's firmware reads on the boot partition: config.txt, and the kernel's command line in cmdline.txt.

Source: Raspberry Pi's documentation of config.txt (memory, overclocking options) and of device tree overlays.
"""

from __future__ import annotations

import re

from export.image.settings import CardSettings

MARK = "# hidenseek flash"
# Settings by which a board is made to run faster, hotter, or at another voltage than its maker sells it with.
_FASTER = re.compile(
    r"\s*((arm|gpu|core|h264|isp|v3d|hevc|sdram)_freq(_min)?|over_voltage(_[a-z_]+)?|force_turbo|avoid_warnings)\s*="
)
_POWER = (
    "dtoverlay=disable-bt",
    "dtparam=audio=off",
    "dtparam=act_led_trigger=none",
    "camera_auto_detect=0",
    "display_auto_detect=0",
)


def config(before: str, settings: CardSettings) -> str:
    """config.txt with a card's settings at its end, in the place of those that were put there before."""
    lines = before.partition(MARK)[0].rstrip("\n").splitlines()
    if settings.overclock == "off":
        lines = [f"#{line}" if _FASTER.match(line) else line for line in lines]
    wanted = [
        f"{name}={value}"
        for name, value in (
            ("gpu_mem", settings.gpu_mem_mb),
            ("arm_freq", settings.arm_freq_mhz),
            ("temp_limit", settings.temp_limit_c),
        )
        if value is not None
    ]
    wanted += _POWER if settings.power_saving else ()
    return "\n".join([*lines, *([MARK, "[all]", *wanted] if wanted else [])]) + "\n"


def needed_by(settings: CardSettings) -> list[str]:
    """Names of the settings that only config.txt can be told."""
    given = {
        "gpu_mem_mb": settings.gpu_mem_mb is not None,
        "arm_freq_mhz": settings.arm_freq_mhz is not None,
        "temp_limit_c": settings.temp_limit_c is not None,
        "power_saving": settings.power_saving,
    }
    return [name for name, wanted in given.items() if wanted]


def command_line(before: bytes, settings: CardSettings) -> bytes:
    """The kernel's command line as the service and the radio need it."""
    # Its kernels come without accounting of memory, which the service's limit needs.
    words = ["cgroup_enable=memory"]
    if settings.wifi:
        words.append(f"cfg80211.ieee80211_regdom={settings.wifi.country}")
    return with_words(before, words)


def with_words(line: bytes, words: list[str]) -> bytes:
    """A kernel command line with these settings in the place of earlier ones of the same names."""
    names = {word.partition("=")[0] for word in words} - {"cgroup_enable"}  # which may stand there more than once
    before = re.split(r"\s+", line.decode(errors="replace").strip())
    kept = [word for word in before if word not in words and word.partition("=")[0] not in names]
    return " ".join([*kept, *words]).encode() + b"\n"
