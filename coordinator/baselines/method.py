"""What a federated learning method is, to the simulator."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from wire.errors import ConfigError, did_you_mean
from wire.plan import Plan

Array: TypeAlias = NDArray[Any]
State: TypeAlias = dict[str, Array]  # saved with numpy.savez after every round
Floats: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be learned; the same for every method of a comparison.

    Attributes:
        plan: the network. Methods that prune it are told how far by their own settings.
        devices: ids of all devices, sorted.
        seed: of initial weights and masks.
    """

    plan: Plan
    devices: tuple[str, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Local training; every method's settings begin with these.

    Attributes:
        epochs: passes over a device's data in a round.
        batch: samples per optimiser step.
        learning_rate: the step size that is searched over, method by method.
    """

    epochs: int = 2
    batch: int = 16
    learning_rate: float = 0.01

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "learning_rate"):
            require(name, getattr(self, name), getattr(self, name) > 0, "a positive number")


def require(name: str, value: float, ok: bool, expected: str) -> None:
    """Refuse a setting out of range.

    Raises:
        ConfigError: naming it, the value and what was expected.
    """
    if not ok:
        raise ConfigError(f"{value} found, {expected} expected", where=f"--set {name}")


def require_share(settings: Settings, *names: str) -> None:
    """Refuse settings that are no share in (0, 1]."""
    for name in names:
        value = getattr(settings, name)
        require(name, value, 0 < value <= 1, "a number in (0, 1]")


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """What a device trains on: x float32 (n, *input_shape), y int64 (n,)."""

    x: Floats
    y: Labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Local:
    """What a device's training came to.

    Attributes:
        up: what it sends.
        memory: what it keeps for its next round.
        model: its own network, for `Method.logits`.
        loss: mean training loss of the last epoch, nats.
    """

    up: bytes
    memory: State
    model: Any
    loss: float


@dataclass(frozen=True, kw_only=True)
class Update:
    """What came up from one device: `payload` is its `Local.up`, `samples` how many it trained on, `seed` with what."""

    device: str
    samples: int
    payload: bytes
    seed: int = 0


class Method(ABC, Generic[S]):
    """One method, on both sides; it has no state but what it is handed.

    An object is pickled into worker processes; make what is costly there, lazily.

    Args:
        task: what is to be learned.
        settings: an instance of `Config`.
    """

    Config: ClassVar[type[Settings]] = Settings
    has_global = True  # False: there is no network but the devices' own

    def __init__(self, task: Task, settings: S) -> None:
        self.task = task
        self.settings = settings

    # The coordinator.

    @abstractmethod
    def start(self) -> State:
        """What the coordinator holds before the first round."""

    @abstractmethod
    def announce(self, state: State, device: str | None) -> bytes:
        """What goes down to one device; to None: the whole global network, for `model`."""

    def hear(self, state: State, device: str, payload: bytes) -> bytes:
        """What a device makes of `announce(state, device)` with what it heard before: what `train` is handed."""
        return payload

    @abstractmethod
    def aggregate(self, state: State, updates: Sequence[Update]) -> State:
        """Put a round's updates together; they come sorted by device."""

    def ideal_bytes(self, state: State, update: Update) -> float:
        """What the best code known for an update would take; by default what it took."""
        return len(update.payload)

    def remarks(self, state: State, updates: Sequence[Update]) -> Sequence[str]:
        """What a person should know of a round; by default nothing."""
        return ()

    # A device.

    @abstractmethod
    def train(self, down: bytes, samples: Samples, memory: State, seed: int) -> Local:
        """Train for one round.

        Args:
            down: what `announce` made for this device, and `hear` of that.
            samples: the device's own.
            memory: what its last training kept; empty the first time.
            seed: fixes the order of the samples and every draw.
        """

    # Evaluation.

    @abstractmethod
    def model(self, down: bytes) -> Any:
        """Read the global network from `announce(state, None)`."""

    @abstractmethod
    def logits(self, model: Any, x: Floats) -> Floats:
        """Run a network: samples (n, *input_shape) -> (n, classes)."""


def make_settings(cls: type[Settings], given: Mapping[str, str | int | float | bool]) -> Settings:
    """Fill a settings class from names and values, as `--set name=value` gives them.

    Raises:
        ConfigError: naming the setting, the value found and what was expected.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in fields:
            raise ConfigError(
                f"there is no setting '{name}' here", where=f"--set {name}", hint=did_you_mean(name, list(fields))
            )
        default = fields[name].default
        values[name] = _convert(name, value, type(default))
    return cls(**values)


def _convert(name: str, value: str | int | float | bool, kind: type) -> Any:
    if kind is bool:
        known = {"true": True, "false": False}
        if str(value).lower() in known:
            return known[str(value).lower()]
    elif not (kind is int and isinstance(value, float) and not value.is_integer()):
        try:
            return kind(value)
        except ValueError:
            pass
    expected = "true or false" if kind is bool else {int: "a whole number", float: "a number"}.get(kind, kind.__name__)
    raise ConfigError(f"'{value}' found, {expected} expected", where=f"--set {name}")
