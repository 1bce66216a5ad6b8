"""What a person wants of runs: start one, stop it, give it other settings; by `hidenseek runs` or on the live page.

All of it is rows of the database, which a coordinator at work looks at a few times a second. A run's settings are those
of devices.yaml, but for what it was started with in their place, and what it got since; both stay with the run, so that
it is taken up as it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from coordinator import config, yaml_file
from coordinator.config import DevicesFile
from coordinator.database import replacing
from coordinator.rounds import CHANGEABLE, Schedule
from coordinator.store import Store
from coordinator.yaml_file import Misplaced
from wire.errors import ConfigError, StateError, did_you_mean

Changes = Mapping[str, object]  # settings by their names below `federation` in devices.yaml
NO_CHANGES: Changes = {}
FIXED = ("name", "ticket", "model", "input_shape", "classes", "packet_kb")  # by devices.yaml, for every run


def values(texts: Mapping[str, str]) -> dict[str, object]:
    """Settings as a person writes them, as values in a file would be."""
    return {name: yaml_file.scalar(text) for name, text in texts.items()}


# A run to be started.


def ask(store: Store, listed: DevicesFile, changes: Changes) -> str:
    """Have a run started by the coordinator, when it is done with the one before; what to say.

    Args:
        store: the coordinator's database.
        listed: what devices.yaml says.
        changes: what is to be otherwise.

    Raises:
        ConfigError: if a setting cannot be so.
        StateError: if a run is not over yet, or it cannot be written.
    """
    check_start(listed, changes)
    going = store.unfinished_run()
    if going is not None:
        raise StateError(
            f"run {going.id.hex()} goes on",
            where=str(store.place),
            hint="Stop it first: hidenseek runs stop",
        )
    with store.together():
        withdraw(store)
        store.write_rows("INSERT INTO next_run VALUES (?, ?)", [(json.dumps(dict(changes)), time.time())])
    return "a new run is to be started"


def check_start(listed: DevicesFile, changes: Changes) -> DevicesFile:
    """The settings of a run that is started with these changes; raises ConfigError if one cannot be so."""
    for name in changes:
        if name in FIXED:
            what = f"{name} is for devices.yaml to say, and for every run"
            hint = "Change it there, and start hidenseek serve again"
            raise ConfigError(what, hint=hint, setting=name)
    return _amended(listed, changes)


def asked(store: Store) -> Changes | None:
    """What the run that is to be started has otherwise than devices.yaml; None: none is to be."""
    found = store.query("SELECT amended FROM next_run")
    return json.loads(found[0]["amended"]) if found else None


def withdraw(store: Store) -> None:
    """No run is to be started."""
    store.write_rows("DELETE FROM next_run", [()])


def begin(store: Store, run: bytes, changes: Changes) -> None:
    """Write down with what a run was started in place of what devices.yaml says."""
    _write(store, run, changes, begun=True)


def begun_with(store: Store, run: bytes) -> Changes:
    """What `begin` wrote down."""
    return _read(store, run, begun=True)


# A run that goes on.


def stop(store: Store) -> str:
    """Have the run end now, with the network of the last round that has closed; what to say."""
    going = store.unfinished_run()
    if going is None:
        return "no run goes on"
    store.finish_run(going.id)
    return f"run {going.id.hex()} is stopped"


def change(store: Store, changes: Changes) -> str:
    """Give the run that goes on other settings; what to say.

    Raises:
        ConfigError: if a setting cannot be so, or not any more.
        StateError: if none goes on, or it cannot be written.
    """
    going = store.unfinished_run()
    if going is None:
        raise StateError("no run goes on", where=str(store.place), hint="Start one: hidenseek runs start")
    settings = json.loads(going.settings)
    opened, least = _opened(store, going.id)
    for name in changes:
        if name not in CHANGEABLE:
            hint = did_you_mean(name, list(CHANGEABLE))
            raise ConfigError(f"{name} cannot be changed while a run goes on", hint=hint, setting=name)
        if settings["asynchrony"] and name != "rounds":
            raise ConfigError(f"{name} does not count in an asynchronous run", hint="Change rounds", setting=name)
    before = changed(store, going.id)
    wanted = _amended(_as_begun(settings, before), changes).federation.schedule()
    if wanted.rounds < least:
        raise ConfigError(f"rounds is {wanted.rounds}, but round {least} is under way", setting="rounds")
    if "start_devices" in changes and opened:
        what = "start_devices does not count any more: the first round has opened"
        raise ConfigError(what, setting="start_devices")
    now = _schedule(settings, before)
    news = {name: getattr(wanted, name) for name in changes if getattr(wanted, name) != getattr(now, name)}
    _write(store, going.id, news, begun=False)
    words = ", ".join(f"{name} {value:g}" for name, value in news.items())
    return f"changed: {words}" if news else "nothing is changed"


def changed(store: Store, run: bytes) -> Changes:
    """What a run got since it began."""
    return _read(store, run, begun=False)


@dataclass(frozen=True)
class Orders:
    """What a person wants of one run, as a coordinator at work asks.

    Args:
        store: the database.
        run: which run.
        begun: its rules when it began.
    """

    store: Store
    run: bytes
    begun: Schedule

    def schedule(self) -> Schedule:
        """The rules now; never fewer rounds than have opened."""
        changes = changed(self.store, self.run)
        if not changes:
            return self.begun
        found = replace(self.begun, **dict(changes))  # type: ignore[arg-type]  # `change` has checked them
        return replace(found, rounds=max(found.rounds, _opened(self.store, self.run)[1]))

    def stopped(self) -> bool:
        """Whether the run is to be over."""
        found = self.store.query("SELECT 1 FROM run WHERE id = ? AND finished_s IS NOT NULL", self.run)
        return bool(found)


def _schedule(settings: Any, changes: Changes) -> Schedule:
    return Schedule(**(settings["schedule"] | dict(changes)))


def _as_begun(settings: Any, changes: Changes) -> DevicesFile:
    """What counts for the rules of a run, as a devices.yaml would say it."""
    schedule = settings["schedule"] | dict(changes)
    federation = {name: schedule[name] for name in (*CHANGEABLE, "seed")}
    federation |= {"defend": settings["defend"], "secure_aggregation": settings.get("secure_aggregation", False)}
    if settings["asynchrony"]:
        federation |= {"mode": "async", **settings["asynchrony"]}
    return DevicesFile.model_validate({"federation": federation})


def _amended(found: DevicesFile, changes: Changes) -> DevicesFile:
    try:
        return config.amended(found, changes)
    except Misplaced as error:
        name = ".".join(map(str, error.location[1:]))
        raise ConfigError(error.what, hint=error.hint, setting=name) from None


def _opened(store: Store, run: bytes) -> tuple[bool, int]:
    """Whether a round of a run has opened, and how many rounds it has at least, that one and the one that is due."""
    found = store.query("SELECT number, closed_s, selected FROM round WHERE run = ? ORDER BY number DESC LIMIT 1", run)
    if not found:
        return False, 1
    number, closed_s, selected = found[0]
    if not selected:  # the result
        return True, number - 1
    return True, number if closed_s is None else number + 1


def _write(store: Store, run: bytes, changes: Changes, *, begun: bool) -> None:
    rows = [(run, name, int(begun), json.dumps(value)) for name, value in changes.items()]
    store.write_rows(replacing("amended", ("run", "name", "begun"), ("value",)), rows)


def _read(store: Store, run: bytes, *, begun: bool) -> Changes:
    rows = store.query("SELECT name, value FROM amended WHERE run = ? AND begun = ?", run, int(begun))
    return {row["name"]: json.loads(row["value"]) for row in rows}
