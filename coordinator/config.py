"""`devices.yaml`: the federation, the kinds of hardware and the fleet, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from coordinator import dithered, profiles, secretly, yaml_file
from coordinator.aggregate import DEFEND, MEMORY
from coordinator.budgets import Budget
from coordinator.card_settings import FlashSettings
from coordinator.hardware import Count, Name, Profile, ProfileSettings, Runtime, resolve
from coordinator.rounds import Schedule
from coordinator.steps import DECAY, STALENESS, Asynchrony
from coordinator.yaml_file import Misplaced, Strict
from wire import signing
from wire.errors import ConfigError, did_you_mean
from wire.settings import Training

Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]


def _either(name: str) -> str:
    """For a setting whose default goes with `dither`."""
    dithers, signs = (getattr(training, name) for training in (dithered.TRAINING, Training()))
    return f"{dithers:g} if not given, {signs:g} where devices send signs"


class TrainingSettings(Strict):
    """Local training; see `wire.settings.Training`."""

    optimiser: str = Training.optimiser
    learning_rate: float | None = Field(default=None, description=_either("learning_rate"))
    beta1: float = Training.beta1
    beta2: float = Training.beta2
    epsilon: float | None = Field(default=None, description=_either("epsilon"))
    clip: float = Training.clip
    start: float = Training.start
    epochs: Count = Training.epochs
    batch: Count = Training.batch
    privacy_epsilon: float = Training.privacy_epsilon
    dither: float | None = Field(
        default=None,
        description=f"largest score of which devices send a bit; 0: they send signs. {dithered.TRAINING.dither:g} if "
        "not given, but 0 with mode async, secure_aggregation, privacy_epsilon or workers; docs/method.md",
    )


class FederationSettings(Strict):
    """What is trained, by how many, for how long."""

    name: Name = "default"
    model: str = Field(default="har-cnn", description="a model of `hidenseek prune --help`; unused if ticket is given")
    input_shape: list[Count] | None = Field(
        default=None, description="shape of one sample; the model's own if not given"
    )
    classes: Count | None = Field(default=None, description="classes to tell apart; the model's own if not given")
    ticket: str | None = Field(default=None, description="a ticket file made by hidenseek prune")
    density: float = Field(default=0.10, gt=0, le=1)
    method: str = Field(default="synflow", description="how to prune; see hidenseek prune --help")
    seed: int = Field(default=0, ge=0)
    rounds: Count = 20
    per_round: Count = 10
    quorum: Count = 8
    deadline_s: float = Field(default=60.0, gt=0)
    start_devices: Count | None = Field(default=None, description="online devices to wait for; per_round if not given")
    mode: Literal["rounds", "async"] = Field(default="rounds", description="async: docs/asynchronous.md")
    buffer: Count | None = Field(default=None, description="async: masks that close a step; quorum if not given")
    staleness: int = Field(default=STALENESS, description="async: steps that a mask may be late")
    decay: float = Field(default=DECAY, description="async: weight of a mask one step late, of two its square, ...")
    memory: float = Field(
        default=MEMORY, ge=0, lt=1, description="share of the previous mean vote that stays, of signs"
    )
    defend: bool = Field(default=DEFEND, description="hostile masks are not counted; see docs/robustness.md")
    secure_aggregation: bool = Field(
        default=False, description="the coordinator sees sums of masks only; see docs/secure-aggregation.md"
    )
    evaluate: bool = Field(default=True, description="devices report the global network's accuracy every round")
    telemetry: bool = Field(default=True, description="what training costs devices is kept; see docs/wire-format.md")
    packet_kb: Count = Field(default=256, description="largest MQTT payload sent; 128 for AWS IoT Core")
    runtimes: list[Runtime] = Field(default=["sparse", "onnx"], description="runtimes devices may use")
    training: TrainingSettings = TrainingSettings()

    def schedule(self) -> Schedule:
        """The rounds' rules."""
        return Schedule(
            rounds=self.rounds,
            per_round=self.per_round,
            quorum=self.quorum,
            deadline_s=self.deadline_s,
            start_devices=self.start_devices or self.per_round,
            seed=self.seed,
        )

    @property
    def defends(self) -> bool:
        """Whether hostile masks are looked for: not among masks that nobody sees, unless the file insists."""
        return self.defend and (not self.secure_aggregation or "defend" in self.model_fields_set)

    def local_training(self, *, workers: bool = False) -> Training:
        """How devices train, and what they send.

        Args:
            workers: others than the coordinator count masks.

        Raises:
            ConfigError: naming a setting that is out of range.
        """
        seen = self.mode == "rounds" and not self.secure_aggregation and not workers
        return dithered.recipe(self.training.model_dump(exclude_none=True), seen=seen)

    def plan_in_words(self) -> str:
        """For a person who checks the file."""
        asynchrony = self.asynchrony()
        if asynchrony is None:
            unseen = ", masks added up unseen" if self.secure_aggregation else ""
            return f"{self.rounds} rounds of {self.per_round} devices{unseen}"
        return f"{self.rounds} asynchronous steps of {asynchrony.buffer} masks"

    def asynchrony(self) -> Asynchrony | None:
        """The rules of an asynchronous run; None for rounds."""
        found = Asynchrony(buffer=self.buffer or self.quorum, staleness=self.staleness, decay=self.decay)
        return found if self.mode == "async" else None


class DeviceSettings(Strict):
    """One board of the fleet."""

    profile: str | None = Field(default=None, description="kind of hardware; `hidenseek devices` lists those we know")
    note: str = ""
    budget: Budget | None = Field(default=None, description="limits of this board alone")
    site: Name | None = Field(
        default=None, description="whose broker it connects to; see hidenseek broker init --sites"
    )
    key: Key | None = Field(default=None, description="public key, as hidenseek-edge key shows it")
    flash: FlashSettings | None = Field(default=None, description="its card, where it is not as all; docs/flash.md")


class DevicesFile(Strict):
    """The whole of devices.yaml."""

    federation: FederationSettings = FederationSettings()
    budget: Budget = Field(default=Budget(), description="of everyone; a profile's counts before it, a device's first")
    profiles: dict[Name, ProfileSettings] = Field(default={}, description="kinds of hardware, beside those we know")
    flash: FlashSettings = Field(
        default=FlashSettings(), description="what `hidenseek flash` writes on cards; docs/flash.md"
    )
    devices: dict[Name, DeviceSettings | None] = Field(default={}, description="who may join; anyone if empty")

    @property
    def allowed(self) -> frozenset[str]:
        """Ids of the devices that may join; empty for any."""
        return frozenset(self.devices)

    @property
    def keys(self) -> dict[str, bytes]:
        """Public keys of the devices that have one here."""
        return {name: signing.from_text(one.key, where=name) for name, one in self.devices.items() if one and one.key}

    @cached_property
    def hardware(self) -> dict[str, Profile]:
        """The profiles that the file lists, each with what it extends.

        Raises:
            Misplaced: as `coordinator.hardware.resolve`; not of a file that `load` has read.
        """
        return resolve(self.profiles, profiles.built_in_settings()) if self.profiles else {}

    def in_words(self) -> str:
        """For a person who checks the file."""
        who, own = f"{len(self.devices) or 'any'} devices may join", f"{len(self.profiles)} profiles of its own"
        return f"federation '{self.federation.name}', {self.federation.plan_in_words()}, {own}, {who}"

    def budget_of(self, device: str, profile: str = "") -> Budget:
        """The limits of one board: its own before its profile's, those before everyone's.

        Args:
            device: its name.
            profile: what it says it is, where the file does not say.
        """
        listed = self.devices.get(device) or DeviceSettings()
        kind = self.hardware.get(listed.profile or profile)
        return self.budget.over(kind.budget if kind else None).over(listed.budget)


def load(path: Path) -> DevicesFile:
    """Read and check a devices.yaml.

    Raises:
        ConfigError: naming file and line, what was found and what was expected.
    """
    tree = yaml_file.read(path)
    found = yaml_file.parse(path, tree, DevicesFile)
    try:
        _check(found)
    except Misplaced as error:
        raise yaml_file.complaint(path, tree, error) from None
    return found


def amended(found: DevicesFile, changes: Mapping[str, object]) -> DevicesFile:
    """The same with other settings of the federation, checked as those of a file.

    Args:
        found: as it was.
        changes: by the name below `federation`, with a dot in those of training (`training.epochs`).

    Raises:
        Misplaced: naming one that is wrong.
    """
    wanted: dict[str, Any] = found.federation.model_dump(exclude_unset=True)
    for name, value in changes.items():
        *above, last = name.split(".")
        place = wanted
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise Misplaced(["federation", name], f"federation.{name}: no such setting")
        place[last] = value
    try:
        federation = DevicesFile.model_validate({"federation": wanted}).federation
    except ValidationError as error:
        raise yaml_file.misplaced(DevicesFile, error) from None
    made = found.model_copy(update={"federation": federation})
    _check(made)
    return made


def _check(found: DevicesFile) -> None:
    """Whether settings that are well-formed alone go together.

    Raises:
        Misplaced: naming one that does not.
    """
    try:
        training = found.federation.local_training()
        found.federation.schedule()
        _check_buffer(found)
        if found.federation.secure_aggregation:
            secretly.check(found.federation.schedule(), found.federation.asynchrony(), defend=found.federation.defends)
        if training.dither:
            dithered.check(found.federation.asynchrony(), secure_aggregation=found.federation.secure_aggregation)
    except ConfigError as error:  # its message starts with the setting's name
        name = error.what.split()[0]
        raise Misplaced(
            ["federation", *(["training"] if error.where == "training" else []), name], error.what
        ) from None
    hardware = found.hardware
    for name, device in found.devices.items():
        if device and device.profile and device.profile not in hardware and device.profile not in profiles.built_in():
            names = list(dict.fromkeys([*profiles.built_in(), *hardware]))
            what = f"devices.{name}.profile: no profile is called '{device.profile}'"
            raise Misplaced(["devices", name, "profile"], what, did_you_mean(device.profile, names))


def _check_buffer(found: DevicesFile) -> None:
    """Of an asynchronous federation: a step that waits for more devices than there are would never close."""
    asynchrony = found.federation.asynchrony()
    if asynchrony is not None and 0 < len(found.devices) < asynchrony.buffer:
        name = "buffer" if found.federation.buffer else "quorum"
        listed = len(found.devices)
        what = f"{name} is {asynchrony.buffer}, but {listed} devices are listed, and each has one vote a step"
        raise ConfigError(what, where="federation")
