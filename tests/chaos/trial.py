"""One trial of a fleet: the network and the fleet, the verdict at the end, and all there is to know when it is bad."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.fleet import BROKER, COORDINATOR, Fleet, copy_database
from tests.chaos.ledger import Ledger, audit
from tests.chaos.network import Network

LINES = 15  # of a process's log, for a bad end


@contextmanager
def trial(
    name: str,
    kind: str,
    seed: int,
    devices: Sequence[str],
    *,
    rounds: int,
    per_round: int,
    hub: Path | None = None,
    cards: dict[str, Path] | None = None,
) -> Iterator[Fleet]:
    """A fleet at work in a folder that stays when the trial fails, with what was done told.

    Args:
        name: of the trial, for people.
        kind: of the broker.
        seed: of everything drawn.
        devices: ids.
        rounds: to run.
        per_round: devices selected for a round.
        hub: folder of the coordinator's and the broker's files.
        cards: state folders of single devices.
    """
    home = Path(tempfile.mkdtemp(prefix="hidenseek-chaos-"))
    tell(f"\n{name}, {kind}: seed {seed}, files in {home}; the same again: make test-chaos SEED={seed}")
    with Network([COORDINATOR, BROKER, *devices], seed) as network:
        fleet = Fleet(home, network, kind, list(devices), rounds, per_round, hub, cards or {})
        try:
            with fleet:
                yield fleet
        except BaseException as error:
            tell(account(fleet, seed, f"{type(error).__name__}: {error}"))
            raise
    shutil.rmtree(home)


def judge(fleet: Fleet) -> Ledger:
    """Audit a fleet whose run is over.

    Raises:
        AssertionError: naming every broken invariant.
    """
    ledger = records(fleet, fleet.database)
    tell(
        f"kills {fleet.kills}, {fleet.rounds} rounds, {len(ledger.confirmed)} masks acknowledged, {ledger.stored} "
        f"stored, {len(ledger.lost)} lost, {len(ledger.doubled)} counted twice, {fleet.timeline.seconds:.0f} s; "
        f"{fleet.network.counts}"
    )
    assert not ledger.broken + fleet.crashes, "\n".join(ledger.broken + fleet.crashes)
    return ledger


def records(fleet: Fleet, database: Path) -> Ledger:
    """Both sides' records, with this database as the coordinator's."""
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_database(database, Path(folder))
        logs = {device: fleet.log(device) for device in fleet.devices}
        states = {device: fleet.state(device) for device in fleet.devices}
        return audit(copy, logs, states, fleet.rounds, fleet.quorum)


def account(fleet: Fleet, seed: int, verdict: str) -> str:
    """What was done, how it ended, and the last that each process said."""
    said = [
        f"--- {name}\n" + "\n".join(fleet.log(name).splitlines()[-LINES:])
        for name, unit in fleet.units.items()
        if unit.process is not None or any(line.startswith(name) for line in fleet.crashes)
    ]
    head = f"seed {seed}, {fleet.kind}: {verdict}\nat round {fleet.round} of {fleet.rounds}; what happened:"
    return "\n".join([head, *fleet.timeline.lines, *fleet.crashes, *said, f"seed {seed}: {verdict}"])


def tell(text: str) -> None:
    """Say it now, with pytest -s; else pytest says it after a test that fails."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
