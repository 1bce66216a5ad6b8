"""A device's id changed in all places that have it: devices.yaml, a coordinator's database, a broker's deployment.

Each place is changed whole or not at all, and one that knows the new id alone has been changed already: after an
interrupt the same command does the rest.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from coordinator import config, yaml_file
from coordinator.brokers import deployment as deployments
from coordinator.brokers import enroller
from coordinator.brokers.process import write_whole
from coordinator.place import Place
from coordinator.store import Store
from wire.errors import ConfigError, UnknownName, did_you_mean
from wire.topics import check_name


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a federation's devices are named; None for what there is not.

    Attributes:
        config: the devices.yaml.
        database: the coordinator's.
        deploy: the broker's deployment.
    """

    config: Path | None = None
    database: Place | None = None
    deploy: Path | None = None

    @property
    def kept(self) -> str:
        """The database as a person knows it: its folder, or the server."""
        return str(self.database.parent if isinstance(self.database, Path) else self.database)


@dataclass(frozen=True, kw_only=True)
class Renamed:
    """What was changed.

    Attributes:
        where: the places, as a person knows them.
        waiting: the device's card was not claimed yet, and is good for nothing now.
        account: its account at the broker has the new name.
    """

    where: tuple[str, ...]
    waiting: bool
    account: bool


def rename(places: Places, old: str, new: str) -> Renamed:
    """Call a device otherwise wherever it is known.

    Args:
        places: where to look for it.
        old: its id until now.
        new: its id from now on.

    Raises:
        ConfigError: if an id is none, or the new one belongs to another device.
        UnknownName: if no place knows the old one.
        StateError: if a place cannot be changed now.
    """
    old, new = check_name(old, "device id"), check_name(new, "device id")
    text = _in_config(places.config, old, new)
    deployment = deployments.load(places.deploy) if places.deploy else None
    listed = deployment is not None and _is_to_change(f"{places.deploy}", set(deployment.devices), old, new)
    store = Store(places.database, make=False) if places.database else None
    try:
        seen = store is not None and _is_to_change(
            places.kept, {name for name in (old, new) if store.mentions(name)}, old, new
        )
        if not (text or listed or seen):
            known = {*(store.devices() if store else ()), *(deployment.devices if deployment else ())}
            raise UnknownName(f"no device is called '{old}'", hint=did_you_mean(old, sorted(known)))
        with store.together() if store is not None else nullcontext():  # undone if the deployment cannot be changed
            if seen and store is not None:
                store.rename_device(old, new)
            waiting = (
                enroller.rename(places.deploy, deployment, old, new)
                if listed and places.deploy and deployment
                else False
            )
    finally:
        if store is not None:
            store.close()
    if text and places.config:
        write_whole(places.config, text.encode(), places.config.stat().st_mode & 0o777)
    done = ((text, places.config), (seen, places.kept), (listed, places.deploy))
    return Renamed(where=tuple(str(place) for changed, place in done if changed), waiting=waiting, account=listed)


def _in_config(path: Path | None, old: str, new: str) -> str:
    """The text of devices.yaml as it is to be; empty if it stays as it is."""
    if path is None or not _is_to_change(str(path), set(config.load(path).devices), old, new):
        return ""
    return yaml_file.renamed(path, ["devices", old], new)


def _is_to_change(where: str, known: set[str], old: str, new: str) -> bool:
    """Whether a place has the old id; raises ConfigError if it has both."""
    if old in known and new in known:
        raise ConfigError(
            f"'{new}' is another device than '{old}'", where=where, hint="Take an id that no device has had"
        )
    return old in known
