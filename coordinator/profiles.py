"""The kinds of hardware that we know (profiles.yaml beside this module), and those that a devices.yaml adds to them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from coordinator import yaml_file
from coordinator.hardware import Profile, ProfileSettings, resolve
from wire.errors import ConfigError, UnknownName, did_you_mean

DEFAULT_CONFIG = Path("devices.yaml")
PACKAGED = Path(__file__).with_name("profiles.yaml")


class _ProfilesFile(yaml_file.Strict):
    profiles: dict[str, ProfileSettings]


@lru_cache(maxsize=1)
def built_in_settings() -> dict[str, ProfileSettings]:
    """What profiles.yaml says, templates too."""
    return yaml_file.parse(PACKAGED, yaml_file.read(PACKAGED), _ProfilesFile).profiles


@lru_cache(maxsize=1)
def built_in() -> dict[str, Profile]:
    """The profiles that we know by ourselves."""
    return resolve(built_in_settings(), {})


def known(path: Path | None) -> dict[str, Profile]:
    """All profiles: those we know by ourselves, and what a devices.yaml adds to them or changes.

    Args:
        path: of the file; None for the devices.yaml of the current folder, if there is one.

    Raises:
        ConfigError: if the file cannot be read or is wrong.
    """
    from coordinator import config

    if path is None and not DEFAULT_CONFIG.exists():
        return built_in()
    return {**built_in(), **config.load(path or DEFAULT_CONFIG).hardware}


def of_fleet(path: Path | None) -> dict[str, Profile]:
    """The profiles that matter: those that a devices.yaml lists or its devices have; all if it names none.

    Args:
        path: as for `known`.

    Raises:
        ConfigError: if the file cannot be read or is wrong.
    """
    from coordinator import config

    if path is None and not DEFAULT_CONFIG.exists():
        return built_in()
    file = config.load(path or DEFAULT_CONFIG)
    profiles = {**built_in(), **file.hardware}
    used = {device.profile for device in file.devices.values() if device and device.profile}
    return {name: one for name, one in profiles.items() if name in file.hardware or name in used} or profiles


def named(name: str, path: Path | None) -> Profile:
    """The profile of a name, with the figures an estimate of time needs.

    Raises:
        UnknownName: if neither the file nor we know the name.
        ConfigError: if it has no figures.
    """
    profiles = known(path)
    if name not in profiles:
        raise UnknownName(f"no profile is called '{name}'", where="--profile", hint=did_you_mean(name, list(profiles)))
    if not profiles[name].has_figures:
        raise ConfigError(
            f"profile '{name}' lacks clock_ghz, flops_per_cycle or memory_gb_s, which an estimate of time starts from",
            where="--profile",
            hint="Add them in devices.yaml",
        )
    return profiles[name]
