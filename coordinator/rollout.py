"""An update for one share of the devices after the other, which stops by itself where too many of them fail.

No input or output here: what devices say they run goes in, what is to be announced comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wire import update as rules
from wire.errors import ConfigError, WireError
from wire.update import HUNDREDTHS, ON_TRIAL, Update

_SAID = re.compile(r"\S+ (?P<version>\S+)(?: \((?P<note>[^()]*)\))?")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the devices stand that an update is for.

    Attributes:
        done: run it, or a newer one.
        failed: have tried it and gone back.
        waiting: neither, as far as is known.
    """

    done: frozenset[str]
    failed: frozenset[str]
    waiting: frozenset[str]


def standing(update: Update, software: Mapping[str, str]) -> Standing:
    """Sort the devices of an update's share by what they say they run.

    Args:
        update: what is announced.
        software: by device, as in its last hello.
    """
    done, failed, waiting = set(), set(), set()
    for device, said in software.items():
        if not rules.is_meant(update, device):
            continue
        found = _SAID.fullmatch(said)
        if found and found["note"] == f"{update.version} failed":
            failed.add(device)
        elif found and found["note"] != ON_TRIAL and not _wanted(update, found["version"]):
            done.add(device)
        else:
            waiting.add(device)
    return Standing(done=frozenset(done), failed=frozenset(failed), waiting=frozenset(waiting))


def _wanted(update: Update, version: str) -> bool:
    try:
        return rules.is_wanted(update, version)
    except WireError:  # it calls itself something that is no version: whatever it is, it is not the new one
        return True


def stages(text: str) -> tuple[float, ...]:
    """Shares in percent, such as "5,25,100", each larger than the one before.

    Raises:
        ConfigError: if they are not.
    """
    try:
        found = tuple(float(one) for one in text.split(","))
    except ValueError:
        found = ()
    if not found or any(not 0 < one <= 100 for one in found) or sorted(set(found)) != list(found):
        raise ConfigError(
            f"'{text}' found, shares in percent expected, each larger than the one before, to 100 at most",
            where="--stages",
            hint="For example 5,25,100",
        )
    return found


@dataclass
class Rollout:
    """One update on its way through the fleet.

    Args:
        update: for the share of the first stage.
        stages: shares in percent.
        stop_after: so many failures end it.
        wait_s: a device that was there and has not come back with news in so many seconds has failed.
        began_s: when the first stage was announced, seconds of a monotonic clock.

    Attributes:
        stage: which of the shares is announced.
        lost: devices that have failed by not coming back.
    """

    update: Update
    stages: tuple[float, ...]
    stop_after: int
    wait_s: float
    began_s: float
    stage: int = 0
    lost: set[str] = field(default_factory=set)
    _there: set[str] = field(default_factory=set)  # of the devices meant, those that were online in this stage

    def look(self, software: Mapping[str, str], online: frozenset[str], now_s: float) -> Standing:
        """See how the stage stands; devices that have been waited for too long count as failed.

        Args:
            software: by device, as in its last hello; of devices that may take part.
            online: who is there now.
            now_s: of the same clock as `began_s`.
        """
        found = standing(self.update, software)
        self._there |= found.waiting & online
        self.lost &= found.waiting  # one that has come back after all
        if now_s - self.began_s > self.wait_s:
            self.lost |= found.waiting & self._there
        return Standing(
            done=found.done,
            failed=found.failed | self.lost,
            waiting=(found.waiting & self._there) - self.lost,
        )

    def is_to_stop(self, now: Standing) -> bool:
        """Whether too many have failed, or all that have tried."""
        none_works = bool(now.failed) and not now.done and not now.waiting
        return len(now.failed) >= self.stop_after or none_works

    def is_over(self, now: Standing) -> bool:
        """Whether every device of this stage that was there has shown what comes of it."""
        return not now.waiting

    def next_stage(self, issued: int, now_s: float) -> Update | None:
        """What to announce for the next stage; None if this was the last."""
        if self.stage + 1 == len(self.stages):
            return None
        self.stage, self.began_s = self.stage + 1, now_s
        self._there.clear()
        self.update = replace(self.update, share=share_of(self.stages[self.stage]), issued=issued)
        return self.update

    def stopped(self, issued: int) -> Update:
        """What to announce so that nobody begins any more."""
        return replace(self.update, share=0, issued=issued)


def share_of(percent: float) -> int:
    """A share as it is announced."""
    return round(percent / 100 * HUNDREDTHS)
