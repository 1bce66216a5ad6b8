"""When a step of an asynchronous federation closes, and in which a mask counts: a pure function of events.

A step is a round that is open to every device and closes with its `buffer`-th mask, whoever sent it. No clock in
here, on purpose: a step that a deadline closed could be decided by the one device that was awake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from coordinator.rounds import Action, Announce, Close, Finish
from wire.errors import ConfigError, Mismatch, WireError
from wire.federation_messages import EVERYONE

STALENESS = 4
DECAY = 0.5
LEAST_DECAY = 0.01  # to the power of the most staleness, it is still a number
MOST_STALENESS = 100  # so many steps' votes are kept at hand


@dataclass(frozen=True, kw_only=True)
class Asynchrony:
    """How an asynchronous run proceeds.

    Attributes:
        buffer: masks, each of another device, that close a step.
        staleness: how many steps before the one in which it counts a mask may have begun.
        decay: a mask that began s steps before counts decay^s.

    Raises:
        ConfigError: if a value is out of range.
    """

    buffer: int
    staleness: int = STALENESS
    decay: float = DECAY

    def __post_init__(self) -> None:
        def check(name: str, ok: bool, expected: str) -> None:
            if not ok:
                raise ConfigError(f"{name} is {getattr(self, name)!r}, {expected} expected", where="federation")

        check("buffer", self.buffer >= 1, "at least 1")
        check("staleness", 0 <= self.staleness <= MOST_STALENESS, f"0..{MOST_STALENESS}")
        check("decay", LEAST_DECAY <= self.decay <= 1, f"a number in {LEAST_DECAY:g}..1")


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Where an asynchronous run stands.

    Attributes:
        rounds: how many steps.
        asynchrony: the rules.
        number: the step that is open, or opens first (1, 2, ...).
        counted: by step, from the open one on, whose masks count in it.
        opened: a step was announced.
        held: no step closes, nor does the first open; masks count in the open one as long as it is so.
        over: nothing more happens.
    """

    rounds: int
    asynchrony: Asynchrony
    number: int = 1
    counted: Mapping[int, frozenset[str]] = field(default_factory=dict)
    opened: bool = False
    held: bool = False
    over: bool = False


Outcome: TypeAlias = tuple[Steps, list[Action]]


def begin(steps: Steps) -> Outcome:
    """Announce the first step, unless that was done; then close what has its masks and was held."""
    if steps.held:
        return steps, []
    if steps.opened:
        return _go_on(steps)
    return replace(steps, opened=True), [_announce(steps, again=False)]


def place(steps: Steps, device: str, began: int) -> int:
    """The step in which a device's mask counts: the open one, or the next in which it has no vote yet.

    So nobody has two votes in one step, and no mask of a device that hurries is lost.

    Args:
        steps: where the run stands.
        device: whose mask.
        began: the step whose votes it was trained from.

    Raises:
        WireError: if it is wanted in none.
    """
    if not steps.opened or steps.over or not 1 <= began <= steps.number:
        raise Mismatch("mask for a step that is not open", expected=steps.number, got=began)
    number = steps.number
    while device in steps.counted.get(number, ()):
        number += 1
    if number - began > steps.asynchrony.staleness:
        expected = f"step {number - steps.asynchrony.staleness} or later"
        raise Mismatch("mask too old", expected=expected, got=f"step {began}")
    if number > steps.rounds:
        raise WireError(f"'{device}' has its vote in step {steps.number}, and no step is left for another")
    return number


def stored(steps: Steps, device: str, number: int) -> Outcome:
    """A device's mask, and that it counts in step `number`, is on disk."""
    if steps.over or number < steps.number:
        return steps, []
    devices = steps.counted.get(number, frozenset()) | {device}
    return _go_on(replace(steps, counted={**steps.counted, number: devices}))


def resume(steps: Steps, *, number: int, counted: Mapping[int, frozenset[str]]) -> Outcome:
    """Take up a run after a restart: announce its newest step again, or close it at once if its masks are there."""
    steps = replace(steps, number=number, counted=counted, opened=True)
    if number > steps.rounds:
        return replace(steps, over=True), [Finish()]
    steps, actions = _go_on(steps)
    return steps, actions or [_announce(steps, again=True)]


def _go_on(steps: Steps) -> Outcome:
    """Close steps for as long as they have their masks: later ones may have got theirs early."""
    actions: list[Action] = []
    while not steps.held and len(steps.counted.get(steps.number, ())) >= steps.asynchrony.buffer:
        actions.append(Close(number=steps.number))
        if steps.number == steps.rounds:
            return replace(steps, counted={}, over=True), [*actions, Finish()]
        later = {number: devices for number, devices in steps.counted.items() if number > steps.number}
        steps = replace(steps, number=steps.number + 1, counted=later)
        actions.append(_announce(steps, again=False))
    return steps, actions


def _announce(steps: Steps, *, again: bool) -> Announce:
    return Announce(number=steps.number, selected=(EVERYONE,), again=again)
