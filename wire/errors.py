"""The one exception tree of hidenseek, in a module of its own so that nothing imports in a circle.

::

    HidenseekError            base; carries `what`, `where`, `hint`, and a stable exit code
    ├── ConfigError        10 devices.yaml or a command's settings are wrong
    ├── DataError          11 a data file or folder is missing or has the wrong shape or labels
    ├── UnknownName        12 a model, method, data set, device or runtime nobody has heard of
    ├── TicketError        13 a ticket or bundle is corrupt, truncated or of another version
    ├── WireError          14 bytes from the network do not decode
    │   ├── Truncated         fewer bytes than announced
    │   ├── TooLarge          more bytes, items or elements than allowed
    │   ├── Forged            not signed by whom it has to be, or altered since
    │   └── Mismatch          well-formed, but for another round, run, ticket or mask length
    ├── BrokerUnreachable  15 no answer at the broker's address
    ├── BrokerRefused      16 the broker answered and said no (password, permission)
    ├── JoinRefused        17 the coordinator turned this device away
    ├── DuplicateDevice    18 two processes joined under one device id
    ├── PlanError          20 a network plan whose shapes do not fit
    ├── PruneError         21 pruning would cut the network in two or empty a layer, or a budget is too low
    ├── ExportError        22 a target cannot express the plan, a plan not a module, or autograd differs
    ├── RuntimeMissing     23 the runtime's package is not installed on this machine
    ├── FetchError         24 a data set could not be downloaded, or its hash is wrong
    ├── StateError         25 a state folder belongs to another run or is in use
    ├── RoundFailed        26 a federation could not go on (no quorum, no devices)
    ├── OverBudget         27 devices of a run spent more than a limit, or nobody measured
    ├── ImageError         28 an SD card's image cannot be customised, or the card not be written
    ├── NotEnoughMemory    29 what a device is to do takes more memory than it may have
    ├── BoardFailed        30 a board cannot be reached over ssh, or what it was to do failed there
    └── UpdateStopped      31 a new client failed on too many devices

Exit codes are part of the interface: `docs/errors.md` lists them and a test compares the two.
0 is success, 2 a usage error (argparse), 130 an interrupt with Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class HidenseekError(Exception):
    """Anything a user may meet. Says what went wrong, where, and what to do about it.

    Args:
        what: what was found, and what was expected, in one sentence without a final full stop.
        where: file and line, topic or argument the fault was met in; empty if `what` says it.
        hint: what the user can do next; empty if nothing sensible can be said.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}. {self.hint}" if self.hint else text


class ConfigError(HidenseekError):
    """`devices.yaml` or a command's settings are wrong; `setting` is which, where it is known to be one alone."""

    exit_code = 10

    def __init__(self, what: str, *, where: str = "", hint: str = "", setting: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.setting = setting


class DataError(HidenseekError):
    """A data file or folder is missing or has the wrong shape or labels."""

    exit_code = 11


class UnknownName(HidenseekError):
    """A model, method, data set, device or runtime nobody has heard of."""

    exit_code = 12


class TicketError(HidenseekError):
    """A ticket or bundle is corrupt, truncated or of another version."""

    exit_code = 13


class WireError(HidenseekError):
    """Bytes from the network do not decode to what they should be; `code` says why in a word, for counting."""

    exit_code = 14
    code: ClassVar[str] = "invalid"


class Truncated(WireError):
    """Fewer bytes than the header announced."""

    code = "truncated"

    def __init__(self, what: str, *, expected_bytes: int, got_bytes: int) -> None:
        super().__init__(f"{what}: expected {expected_bytes} bytes, got {got_bytes}")
        self.expected_bytes = expected_bytes
        self.got_bytes = got_bytes


class TooLarge(WireError):
    """More bytes, items or elements than this side accepts."""

    code = "too-large"

    def __init__(self, what: str, *, limit: int, got: int) -> None:
        super().__init__(f"{what}: at most {limit} accepted, got {got}")
        self.limit = limit
        self.got = got


class Forged(WireError):
    """Not signed by whom it has to be, or altered since."""

    code = "forged"


class Mismatch(WireError):
    """Well-formed, but meant for another round, run, ticket or mask length."""

    code = "mismatch"

    def __init__(self, what: str, *, expected: object, got: object) -> None:
        super().__init__(f"{what}: expected {expected}, got {got}")
        self.expected = expected
        self.got = got


class BrokerUnreachable(HidenseekError):
    """Nothing answered at the broker's address in time."""

    exit_code = 15


class BrokerRefused(HidenseekError):
    """The broker answered and said no: wrong password, or not permitted."""

    exit_code = 16


class JoinRefused(HidenseekError):
    """The coordinator turned this device away."""

    exit_code = 17


class DuplicateDevice(HidenseekError):
    """Two processes joined under one device id; the later one stops."""

    exit_code = 18


class PlanError(HidenseekError):
    """A network plan whose shapes do not fit together."""

    exit_code = 20


class PruneError(HidenseekError):
    """Pruning would empty a layer or leave no path from input to output."""

    exit_code = 21


class ExportError(HidenseekError):
    """A target cannot express the plan, or an artifact disagrees with torch autograd."""

    exit_code = 22


class RuntimeMissing(HidenseekError):
    """The package a runtime needs is not installed on this machine."""

    exit_code = 23


class FetchError(HidenseekError):
    """A data set could not be downloaded, or what came has the wrong hash."""

    exit_code = 24


class StateError(HidenseekError):
    """A state folder belongs to another run, is damaged, or is in use."""

    exit_code = 25


class RoundFailed(HidenseekError):
    """A federation could not go on: too few devices for a quorum."""

    exit_code = 26


class OverBudget(HidenseekError):
    """Devices spent more than their limits, or nobody measured it; or they would, by `hidenseek plan --strict`."""

    exit_code = 27


class ImageError(HidenseekError):
    """An SD card's image is damaged or of an unknown kind, or the card cannot be written or does not hold what was."""

    exit_code = 28


class NotEnoughMemory(HidenseekError):
    """What a device is to do takes more memory than it may have; said before it is tried."""

    exit_code = 29


class BoardFailed(HidenseekError):
    """A board cannot be reached over ssh, or what it was to do failed there."""

    exit_code = 30


class UpdateStopped(HidenseekError):
    """A new client failed on as many devices as were to stop its roll-out."""

    exit_code = 31


def all_errors(root: type[HidenseekError] = HidenseekError) -> Iterator[type[HidenseekError]]:
    """Yield every class of the tree, parents first (for docs and their test)."""
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)


def did_you_mean(name: str, known: list[str]) -> str:
    """One hint sentence for a misspelt name: the nearest known name, or the whole list."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    return f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(sorted(known))}"
