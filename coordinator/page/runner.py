"""A run's settings as a form: of the one that goes on, or of one to be started. `coordinator.orders` checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator import config, orders
from coordinator.config import DevicesFile
from coordinator.page.snapshot import RunState, Source
from coordinator.rounds import CHANGEABLE
from wire.errors import ConfigError, HidenseekError, StateError

LABELS = {  # and what a person should know of it
    "rounds": ("Rounds", "How many the run has in all."),
    "per_round": ("Devices a round", "So many are asked for a mask; fewer, if fewer are online."),
    "quorum": ("Masks a round needs", "With fewer it is not counted, and more devices are asked."),
    "deadline_s": ("Round time-out", "Seconds that a round waits for its masks."),
    "start_devices": ("Devices to start with", "The first round waits until so many are online."),
    "density": ("Density", "Share of the weights that is kept, above 0, at most 1."),
    "seed": ("Seed", "Another one is another network, and another draw of devices."),
    "training.epochs": ("Epochs", "How often a device goes through its samples in a round."),
    "training.batch": ("Batch", "Samples of a training step."),
    "training.learning_rate": ("Learning rate", "Of the devices' optimiser."),
}
OF_START = tuple(LABELS)
WAS = "was."  # before a name: what stood in the form when it was made


@dataclass(frozen=True, kw_only=True)
class Field:
    """A setting in a form.

    Attributes:
        name: as in devices.yaml.
        label, text: for a person.
        value: what stands there.
        known: what it is.
        wrong: why it cannot be.
    """

    name: str
    label: str
    text: str
    value: str
    known: str
    wrong: str = ""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What can be filled in.

    Attributes:
        action: what it does: "change" or "start".
        fields: none if nothing can be done.
        wrong: what is wrong with the whole.
    """

    action: str
    fields: list[Field]
    wrong: str = ""


@dataclass(frozen=True)
class Runner:
    """Shows settings, and gives orders.

    Args:
        source: of the run that is shown.
    """

    source: Source

    def form(self, run: RunState, texts: Mapping[str, str] | None = None, wrong: HidenseekError | None = None) -> Form:
        """The settings of the run that goes on; of the next if it is over.

        Args:
            run: as it stands.
            texts: what was filled in, if it was.
            wrong: what came of it.
        """
        try:
            known = self._listed() if run.over else self._going(run)
        except ConfigError as error:
            return Form(action="start", fields=[], wrong=str(error))
        fields = []
        for name, value in known.items():
            label, text = LABELS[name]
            complaint = str(wrong) if isinstance(wrong, ConfigError) and wrong.setting == name else ""
            written = texts.get(name, value) if texts else value
            fields.append(Field(name=name, label=label, text=text, value=written, known=value, wrong=complaint))
        whole = str(wrong) if wrong and not any(field.wrong for field in fields) else run.problem if run.over else ""
        return Form(action="start" if run.over else "change", fields=fields, wrong=whole)

    def change(self, texts: Mapping[str, str]) -> str:
        """Give the run that goes on other settings; what to say. Raises ConfigError, StateError as `orders.change`."""
        known = self._going(self.source.take().run)
        with self.source.writing() as store:
            return orders.change(store, orders.values(_news(texts, known)))

    def start(self, texts: Mapping[str, str]) -> str:
        """Have a run started; what to say.

        Raises:
            ConfigError, StateError: as `orders.ask`; also if nobody would start it, or devices.yaml cannot be read.
        """
        extent = self.source.extent
        if extent.config is None or not extent.stays:
            raise StateError("this coordinator starts no other run", hint="Start it with hidenseek serve --stay")
        changes = orders.values(_news(texts, self._listed()))
        with self.source.writing() as store:
            said = orders.ask(store, config.load(extent.config), changes)
        self.source.problem = ""
        return said

    def _going(self, run: RunState) -> dict[str, str]:
        with self.source.reading() as store:
            found = orders.Orders(store, self.source.run, self.source.schedule).schedule()
        names = ("rounds",) if self.source.asynchronous else CHANGEABLE
        return {name: _text(getattr(found, name)) for name in names if name != "start_devices" or not run.round}

    def _listed(self) -> dict[str, str]:
        """What devices.yaml says of a run to be started; nothing if none can be."""
        extent = self.source.extent
        if extent.config is None or not extent.stays:
            return {}
        return {name: _text(_value(config.load(extent.config), name)) for name in OF_START}


def _news(texts: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """What was filled in otherwise than it stood there, or than it is: others may have changed something meanwhile."""
    before = {**known, **{name.removeprefix(WAS): text for name, text in texts.items() if name.startswith(WAS)}}
    filled = {name: text.strip() for name, text in texts.items() if not name.startswith(WAS)}
    return {name: text for name, text in filled.items() if text != before.get(name)}


def _value(listed: DevicesFile, name: str) -> Any:
    found: Any = listed.federation
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.12g}" if isinstance(value, float) else str(value)
