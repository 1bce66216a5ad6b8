"""An offer, of a client or of bundles, to one share of the devices after the other, which stops where too many fail.

No input or output here: what devices say they run goes in, what is to be announced comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from wire import update as rules
from wire.errors import ConfigError, WireError
from wire.update import HUNDREDTHS, ON_TRIAL, Offered, Staged, Update


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where the devices stand that an offer is for.

    Attributes:
        done: run the client, or a newer one; or have tried their bundle, and it works.
        failed: have tried it in vain.
        waiting: neither, as far as is known.
    """

    done: frozenset[str]
    failed: frozenset[str]
    waiting: frozenset[str]


def name_of(offered: Offered) -> str:
    """What is offered, for people."""
    return f"client {offered.version}" if isinstance(offered, Update) else f"ticket {rules.short(offered.ticket)}"


def standing(offered: Offered, software: Mapping[str, str]) -> Standing:
    """Sort the devices of an offer's share by what they say they run, and what came of what they were offered.

    Args:
        offered: what is announced.
        software: by device, as in its last hello.
    """
    found: dict[bool | None, set[str]] = {True: set(), False: set(), None: set()}
    for device, said in software.items():
        if rules.is_meant(offered, device):
            version, notes = rules.read_software(said)
            judge = _client if isinstance(offered, Update) else _bundle
            found[judge(offered, version, notes)].add(device)  # type: ignore[arg-type]
    return Standing(done=frozenset(found[True]), failed=frozenset(found[False]), waiting=frozenset(found[None]))


def _client(update: Update, version: str, notes: frozenset[str]) -> bool | None:
    """Whether a client works on a device; None if that is not known yet."""
    if rules.failure_note(update.version) in notes:
        return False
    try:
        return True if version and ON_TRIAL not in notes and not rules.is_wanted(update, version) else None
    except WireError:  # it calls itself something that is no version: whatever it is, it is not the new one
        return None


def _bundle(staged: Staged, version: str, notes: frozenset[str]) -> bool | None:
    """Whether one of the bundles works on a device, that of its runtime; None if that is not known yet."""
    for works in (False, True):
        if any(rules.bundle_note(digest, works=works) in notes for digest in staged.bundles.values()):
            return works
    return None


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
    """One offer on its way through the fleet.

    Args:
        offered: for the share of the first stage.
        stages: shares in percent.
        stop_after: so many failures end it.
        wait_s: a device that was there and has not come back with news in so many seconds has failed.
        began_s: when the first stage was announced, seconds of a monotonic clock.

    Attributes:
        stage: which of the shares is announced.
        lost: devices that have failed by not coming back.
    """

    offered: Offered
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
        found = standing(self.offered, software)
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

    def next_stage(self, issued: int, now_s: float) -> Offered | None:
        """What to announce for the next stage; None if this was the last."""
        if self.stage + 1 == len(self.stages):
            return None
        self.stage, self.began_s = self.stage + 1, now_s
        self._there.clear()
        self.offered = replace(self.offered, share=share_of(self.stages[self.stage]), issued=issued)
        return self.offered

    def stopped(self, issued: int) -> Offered:
        """What to announce so that nobody begins any more."""
        return replace(self.offered, share=0, issued=issued)


def share_of(percent: float) -> int:
    """A share as it is announced."""
    return round(percent / 100 * HUNDREDTHS)
