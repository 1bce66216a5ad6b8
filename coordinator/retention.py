"""What finished runs leave in the database, and how to be rid of it while a coordinator is at work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.store import Store
from coordinator.store_runs import OF_RUN, StoredRun

AT_ONCE = 2_000  # rows of a transaction: a coordinator waits 2 s for the database, and then gives up


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept of a run.

    Attributes:
        run: which.
        rounds: how many were announced.
        masks: how many.
        signs_bytes: of the masks, as they were sent.
    """

    run: StoredRun
    rounds: int
    masks: int
    signs_bytes: int


def kept(store: Store) -> list[Kept]:
    """What is kept of every run, the newest first."""
    found = []
    for run in store.runs():
        (masks,) = store.query("SELECT count(*), coalesce(sum(length(signs)), 0) FROM mask WHERE run = ?", run.id)
        (rounds,) = store.query("SELECT count(*) FROM round WHERE run = ?", run.id)
        found.append(Kept(run=run, rounds=rounds[0], masks=masks[0], signs_bytes=masks[1]))
    return found


def superfluous(store: Store, keep: int) -> list[StoredRun]:
    """Finished runs older than the newest `keep` of all, the oldest first: an unfinished one always stays."""
    return [run for run in reversed(store.runs()[keep:]) if run.finished_s is not None]


def drop(store: Store, run: StoredRun) -> Iterator[int]:
    """Delete a run, some rows at a time, itself last: stopped half-way, it is there to be dropped again.

    The file stays as long as it is; what comes next is written where this was.

    Yields:
        rows deleted by a transaction.

    Raises:
        StateError: if the database cannot be written.
    """
    for table in OF_RUN:
        while deleted := store.delete_rows(table, run.id, AT_ONCE):
            yield deleted
    store.delete_run(run.id)
