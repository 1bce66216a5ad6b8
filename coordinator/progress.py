"""How far a run has come, as far as its parts share it."""

from __future__ import annotations

from dataclasses import dataclass, field

from wire.errors import RoundFailed


@dataclass
class Progress:
    """One run's.

    Attributes:
        started: the broker has let the coordinator in, and it is known where the run stopped before.
        finished_s: when the result was announced, by `wire.transport.monotonic_s`; None: not yet.
        result: the number that it was announced with.
        unheard: devices that have not tried the result yet, once there is one.
        failure: why there will be none.
    """

    started: bool = False
    finished_s: float | None = None
    result: int = 0
    unheard: set[str] = field(default_factory=set)
    failure: RoundFailed | None = None
