"""What a person may do to devices and to rounds: the same by `hidenseek fleet` and on the live page.

All of it is a row of the database, which a coordinator at work looks at once a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec

from coordinator.store import Store

P = ParamSpec("P")


@dataclass(frozen=True, kw_only=True)
class Action(Generic[P]):
    """Something done to a device, or to the rounds.

    Attributes:
        text: what it does, for help.
        change: does it; whether anything changed.
        done: said if it did.
        nothing: said if it did not.
    """

    text: str
    change: Callable[Concatenate[Store, P], bool]
    done: str
    nothing: str

    def carry_out(self, store: Store, *args: P.args, **kwargs: P.kwargs) -> str:
        """Do it; what to say. Raises StateError if it cannot be written."""
        return self.done if self.change(store, *args, **kwargs) else self.nothing


TO_DEVICES: Mapping[str, Action[[str]]] = {
    "revoke": Action(
        text="a device takes part no more, from the next round on",
        change=Store.revoke,
        done="is revoked",
        nothing="was revoked before",
    ),
    "restore": Action(
        text="a revoked device may take part again",
        change=Store.restore,
        done="may take part again",
        nothing="was not revoked",
    ),
    "forget": Action(
        text="forget a device's key: the next one under its id is it",
        change=Store.forget_device,
        done="is forgotten",
        nothing="was never seen",
    ),
}
# Done to a device's certificates at the broker, too; whether it is out then.
BROKER_TOO: Mapping[str, bool] = {"revoke": True, "restore": False}
TO_RUNS: Mapping[str, Action[[]]] = {
    "pause": Action(
        text="no round opens after the one that is open, until resumed",
        change=Store.pause,
        done="paused: no round opens until it is resumed",
        nothing="was paused before",
    ),
    "resume": Action(
        text="rounds open again",
        change=Store.resume,
        done="resumed: the next round opens when enough devices are there",
        nothing="was not paused",
    ),
}
