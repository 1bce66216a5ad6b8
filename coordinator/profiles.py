"""The kinds of hardware we know, with the figures that estimates start from. devices.yaml can change or add to them.

All figures are other people's; none was measured by this project. For one core:

* flops_per_cycle: single-precision, a multiply-add counts two. Measured instruction throughput of a 128-bit
  `fmla.4s`: 0.99 a cycle on a Raspberry Pi 3's Cortex-A53 and 1.00 on a Cortex-A72, so 8
  (github.com/ocxtal/insn_bench_aarch64, results/). Cortex-A76: 16, twice
  the 8 in double precision that OpenBLAS issue 4581 states, of which Linpack on a Raspberry Pi 5 reaches 6.5.
* clock_ghz: the Raspberry Pis' in forum.digikey.com/t/53450, the N100's in sbc-bench issue 65.
* memory_gb_s: read and written together, twice what memcpy copies: sbc-bench's Results.md
  (github.com/ThomasKaiser/sbc-bench) for Zero 2 W, 3B+ and 4; tinymembench in geerlingguy/sbc-reviews issue 60
  for the 5 (measured on the Pi 500, the same chip); sbc-bench issue 65 for the N100. STREAM on a Pi 4 gives
  5.6 GB/s (sci-pi.org.uk/bench/stream.html).

Uncertain: x86-mini-pc stands for any small PC with an Intel N100; its 16 flops a cycle (two 128-bit units) is
recalled, not looked up, and its 3.4 GHz is a turbo clock that a small case may not hold.
"""

from __future__ import annotations

from pathlib import Path

from coordinator import config
from coordinator.config import Profile
from wire.errors import ConfigError, UnknownName, did_you_mean

BUILT_IN: dict[str, Profile] = {
    "pi-zero-2w": Profile(
        title="Raspberry Pi Zero 2 W", cores=4, cpu="Cortex-A53", ram_mb=512,
        clock_ghz=1.0, flops_per_cycle=8, memory_gb_s=2.6,
    ),
    "pi-3b-plus": Profile(
        title="Raspberry Pi 3B+", cores=4, cpu="Cortex-A53", ram_mb=1024,
        clock_ghz=1.4, flops_per_cycle=8, memory_gb_s=2.3,
    ),
    "pi-4-4gb": Profile(
        title="Raspberry Pi 4 (4 GB)", cores=4, cpu="Cortex-A72", ram_mb=4096,
        clock_ghz=1.8, flops_per_cycle=8, memory_gb_s=5.0,
    ),
    "pi-5-8gb": Profile(
        title="Raspberry Pi 5 (8 GB)", cores=4, cpu="Cortex-A76", ram_mb=8192,
        clock_ghz=2.4, flops_per_cycle=16, memory_gb_s=11.2,
    ),
    "x86-mini-pc": Profile(
        title="x86 mini PC", cores=4, cpu="Intel N100", ram_mb=8192,
        clock_ghz=3.4, flops_per_cycle=16, memory_gb_s=19.8,
    ),
}  # fmt: skip
DEFAULT_CONFIG = Path("devices.yaml")


def known(path: Path | None) -> dict[str, Profile]:
    """The profiles to estimate for: those of a devices.yaml if it lists any, else the built-in ones.

    A profile that leaves figures out takes them from the built-in one of its name.

    Args:
        path: of the file; None for the devices.yaml of the current folder, if there is one.

    Raises:
        ConfigError: if the file cannot be read or is wrong.
    """
    if path is None and not DEFAULT_CONFIG.exists():
        return BUILT_IN
    listed = config.load(path or DEFAULT_CONFIG).profiles
    return {name: _completed(name, profile) for name, profile in listed.items()} or BUILT_IN


def named(name: str, path: Path | None) -> Profile:
    """The profile of a name, with the figures an estimate of time needs.

    Raises:
        UnknownName: if neither the file nor we know the name.
        ConfigError: if it has no figures.
    """
    profiles = {**BUILT_IN, **known(path)}
    if name not in profiles:
        raise UnknownName(f"no profile is called '{name}'", where="--profile", hint=did_you_mean(name, list(profiles)))
    if not profiles[name].has_figures:
        raise ConfigError(
            f"profile '{name}' lacks clock_ghz, flops_per_cycle or memory_gb_s, which an estimate of time starts from",
            where="--profile",
            hint="Add them in devices.yaml",
        )
    return profiles[name]


def _completed(name: str, profile: Profile) -> Profile:
    given = profile.model_dump(exclude_none=True)
    return Profile(**{**BUILT_IN[name].model_dump(), **given}) if name in BUILT_IN else profile
