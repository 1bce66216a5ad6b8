"""`devices.yaml`: the federation, the kinds of hardware and the fleet, checked before anything starts.

Every complaint names the file, the line, the value found and what was expected.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from coordinator import secretly
from coordinator.aggregate import DEFEND, MEMORY
from coordinator.rounds import Schedule
from coordinator.steps import DECAY, STALENESS, Asynchrony
from wire import signing
from wire.errors import ConfigError
from wire.settings import Training

# What ruamel.yaml raises beside its own errors: of dates that do not exist, tags on the wrong thing, deep nesting, ...
NOT_YAML = (YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError)
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{43}=$")]
Count = Annotated[int, Field(ge=1, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingSettings(_Strict):
    """Local training; see `wire.settings.Training`."""

    optimiser: str = Training.optimiser
    learning_rate: float = Training.learning_rate
    beta1: float = Training.beta1
    beta2: float = Training.beta2
    epsilon: float = Training.epsilon
    clip: float = Training.clip
    start: float = Training.start
    epochs: Count = Training.epochs
    batch: Count = Training.batch
    privacy_epsilon: float = Training.privacy_epsilon


class FederationSettings(_Strict):
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
    seed: Annotated[int, Field(ge=0)] = 0
    rounds: Count = 20
    per_round: Count = 10
    quorum: Count = 8
    deadline_s: float = Field(default=60.0, gt=0)
    start_devices: Count | None = Field(default=None, description="online devices to wait for; per_round if not given")
    mode: Literal["rounds", "async"] = Field(default="rounds", description="async: docs/asynchronous.md")
    buffer: Count | None = Field(default=None, description="async: masks that close a step; quorum if not given")
    staleness: int = Field(default=STALENESS, strict=True, description="async: steps that a mask may be late")
    decay: float = Field(default=DECAY, description="async: weight of a mask one step late, of two its square, ...")
    memory: float = Field(default=MEMORY, ge=0, lt=1, description="share of the previous mean vote that stays")
    defend: bool = Field(default=DEFEND, description="hostile masks are not counted; see docs/robustness.md")
    secure_aggregation: bool = Field(
        default=False, description="the coordinator sees sums of masks only; see docs/secure-aggregation.md"
    )
    evaluate: bool = Field(default=True, description="devices report the global network's accuracy every round")
    telemetry: bool = Field(default=True, description="what training costs devices is kept; see docs/wire-format.md")
    packet_kb: Count = Field(default=256, description="largest MQTT payload sent; 128 for AWS IoT Core")
    runtimes: list[Literal["sparse", "onnx", "executorch"]] = Field(
        default=["sparse", "onnx"], description="runtimes devices may use"
    )
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


class Profile(_Strict):
    """A kind of hardware."""

    title: str
    cores: Count
    cpu: str = ""
    ram_mb: Count
    # What estimates of step time start from, for one core; coordinator/profiles.py names the sources of ours.
    clock_ghz: float | None = Field(default=None, gt=0)
    flops_per_cycle: float | None = Field(default=None, gt=0, description="single precision; a multiply-add is two")
    memory_gb_s: float | None = Field(default=None, gt=0, description="bytes read and written by one core, in 1e9 a s")

    @property
    def has_figures(self) -> bool:
        """Whether an estimate of time can be made."""
        return None not in (self.clock_ghz, self.flops_per_cycle, self.memory_gb_s)


class DeviceSettings(_Strict):
    """One board of the fleet."""

    profile: str | None = None
    note: str = ""
    site: Name | None = Field(
        default=None, description="whose broker it connects to; see hidenseek broker init --sites"
    )
    key: Key | None = Field(default=None, description="public key, as hidenseek-edge key shows it")


class DevicesFile(_Strict):
    """The whole of devices.yaml."""

    federation: FederationSettings = FederationSettings()
    profiles: dict[Name, Profile] = {}
    devices: dict[Name, DeviceSettings | None] = Field(default={}, description="who may join; anyone if empty")

    @property
    def allowed(self) -> frozenset[str]:
        """Ids of the devices that may join; empty for any."""
        return frozenset(self.devices)

    @property
    def keys(self) -> dict[str, bytes]:
        """Public keys of the devices that have one here."""
        return {name: signing.from_text(one.key, where=name) for name, one in self.devices.items() if one and one.key}


def load(path: Path) -> DevicesFile:
    """Read and check a devices.yaml.

    Raises:
        ConfigError: naming file and line, what was found and what was expected.
    """
    try:
        tree = YAML(typ="rt").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror})", where=str(path), hint="Name one with --config"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", where=str(path)) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"not YAML: {error.problem or error.context}", where=f"{path}:{line}") from error
    except NOT_YAML as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(f"not YAML: {first:.200}", where=str(path)) from error
    if not isinstance(tree, CommentedMap):
        raise ConfigError("empty, or not a mapping of names to settings", where=f"{path}:1")
    try:
        found = DevicesFile.model_validate(_plain(tree))
        Training(**found.federation.training.model_dump())
        found.federation.schedule()
        _check_buffer(found)
        if found.federation.secure_aggregation:
            secretly.check(found.federation.schedule(), found.federation.asynchrony(), defend=found.federation.defends)
    except ValidationError as error:
        raise _explain(path, tree, error.errors()[0]) from None
    except ConfigError as error:  # settings that are well-formed alone but not together
        raise ConfigError(error.what, where=f"{path}:{_line(tree, ['federation', *_last_word(error)])}") from None
    for name, device in found.devices.items():
        if device and device.profile and device.profile not in found.profiles:
            near = get_close_matches(device.profile, found.profiles, n=1)
            raise ConfigError(
                f"devices.{name}.profile: no profile is called '{device.profile}'",
                where=f"{path}:{_line(tree, ['devices', name, 'profile'])}",
                hint=f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(found.profiles)}",
            )
    return found


def _check_buffer(found: DevicesFile) -> None:
    """Of an asynchronous federation: a step that waits for more devices than there are would never close."""
    asynchrony = found.federation.asynchrony()
    if asynchrony is not None and 0 < len(found.devices) < asynchrony.buffer:
        name = "buffer" if found.federation.buffer else "quorum"
        listed = len(found.devices)
        what = f"{name} is {asynchrony.buffer}, but {listed} devices are listed, and each has one vote a step"
        raise ConfigError(what, where="federation")


def _explain(path: Path, tree: CommentedMap, error: ErrorDetails) -> ConfigError:
    location = [part for part in error["loc"] if part != "[key]"]
    dotted = ".".join(map(str, location))
    where = f"{path}:{_line(tree, location)}"
    if error["type"] == "extra_forbidden":
        near = get_close_matches(str(location[-1]), _known_names(location[:-1]), n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(_known_names(location[:-1]))}"
        return ConfigError(f"{dotted}: no such setting", where=where, hint=hint)
    message = error["msg"].removeprefix("Input ").replace("String should match pattern", "should match")
    return ConfigError(f"{dotted}: {error['input']!r:.60} found, {message}", where=where)


def _known_names(location: list[Any]) -> list[str]:
    """Setting names of the model at a place in the file."""
    match location:
        case []:
            model: type[BaseModel] = DevicesFile
        case ["federation"]:
            model = FederationSettings
        case ["federation", "training"]:
            model = TrainingSettings
        case ["profiles", _]:
            model = Profile
        case _:
            model = DeviceSettings
    return list(model.model_fields)


def _line(tree: Any, location: list[Any]) -> int:
    """Line of the deepest part of a location that is in the file, counting from 1."""
    line = 1
    for part in location:
        try:
            if isinstance(tree, CommentedMap) and part in tree:
                line = tree.lc.key(part)[0] + 1
            elif isinstance(tree, CommentedSeq) and isinstance(part, int) and part < len(tree):
                line = tree.lc.item(part)[0] + 1
            else:
                break
        except (KeyError, TypeError):  # it came by a merge (`<<: *name`), or in a type without lines
            break
        tree = tree[part]
    return line


def _last_word(error: ConfigError) -> list[str]:
    """Where in `federation` a cross-check failed: its message starts with the setting's name."""
    name = error.what.split()[0]
    return ["training", name] if error.where == "training" else [name]


def _plain(value: Any) -> Any:
    if isinstance(value, CommentedMap):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, CommentedSeq) else value
