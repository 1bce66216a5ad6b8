"""What a device waits with: no numpy in its process, and no look at its data that were counted before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_client import apart, counts
from edge_client.apart import Apart
from edge_client.data import load
from edge_client.events import VotesTaken, VotesUnusable
from edge_client.runtimes import registry
from edge_client.work import Finished, Work
from edge_client.workshop import Workshop
from export.bundle import make_bundle
from tests.helpers import pooled_plan, random_ticket
from tests.integration.fleet import write_person
from wire import mask
from wire.errors import DataError, StateError
from wire.federation_messages import Federation, Round
from wire.settings import Training

TICKET = random_ticket(pooled_plan("har-cnn", 32, 3), 0.3, seed=1)
WAITS = """
import sys
from edge_client import agent, apart, cli, client, counts, releases, staging, store, updates
from edge_client.runtimes import registry
from wire import channel, mqtt

registry.pick("sparse" if registry._RUNTIMES["sparse"][2]() else "onnx")
sys.exit(" ".join({"numpy", "zipfile", "edge_client.workshop"} & set(sys.modules)) or 0)
"""


def test_a_waiting_client_has_no_numpy() -> None:
    """All that it imports before its first round, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", WAITS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def workshop(folder: Path) -> Workshop:
    """One that is not opened for any run."""
    return Workshop(device="pi-1", load=lambda: load(folder))


def test_the_process_that_trains_comes_and_goes(tmp_path: Path) -> None:
    """It is there when it is asked, has the memory of numpy that this one need not have, and ends after a rest."""
    write_person(tmp_path, seed=1, samples=40)
    work = Apart(lambda: workshop(tmp_path), linger_s=0.5)
    assert work.counts() == (30, 10)
    child = work._child
    assert child is not None
    work.rest(work._asked_s + 0.4)
    os.kill(child.pid, 0)
    work.rest(work._asked_s + 0.5)
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    assert work.counts() == (30, 10)
    work.close()
    assert work._child is None


def test_what_is_wrong_in_there_is_raised_here(tmp_path: Path) -> None:
    """With its words; and its death."""
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)))
    work = Apart(lambda: workshop(tmp_path))
    with pytest.raises(DataError, match="array y missing, found x"):
        work.counts()
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.zeros(3, dtype=np.int64))
    assert work.counts() == (3, 0)
    assert work._child is not None
    os.kill(work._child.pid, 9)
    with pytest.raises(StateError, match="ended with exit code -9"):
        work.counts()


def test_one_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog would see nothing of it, for the client goes on."""
    monkeypatch.setattr("edge_client.child.HUNG_S", 0.2)
    monkeypatch.setattr(apart, "LISTEN_S", 0.05)
    alive: list[int] = []
    work = Apart(lambda: Workshop(device="pi-1", load=lambda: time.sleep(60)), alive=lambda: alive.append(1))  # type: ignore[arg-type, return-value]
    with pytest.raises(StateError, match="training has hung"):
        work.counts()
    assert len(alive) > 1, "until then the service manager is told that all is well"
    assert work._child is not None
    with pytest.raises(ProcessLookupError):
        os.kill(work._child.pid, 0)


def test_samples_are_counted_once(tmp_path: Path) -> None:
    """While the files are the same; anew when one was written to, has come, or the record is damaged."""
    data, state = write_person(tmp_path / "data", seed=1, samples=40), tmp_path / "state"
    state.mkdir()
    asked: list[int] = []

    def count() -> tuple[int, int]:
        asked.append(1)
        return 30 + len(asked), 10

    for times in (1, 1):
        assert counts.of(data, state, count) == (31, 10)
        assert len(asked) == times
    known = (data / "train.npz").stat()
    os.utime(data / "train.npz", ns=(known.st_atime_ns, known.st_mtime_ns + 1))
    assert counts.of(data, state, count) == (32, 10)
    (data / "more.npz").write_bytes((data / "train.npz").read_bytes())
    assert counts.of(data, state, count) == (33, 10)
    assert counts.of(data / "train.npz", state, count) == (34, 10), "other data"
    for damaged in ("", "[]", json.dumps([[1, str(data / "train.npz"), []], 5, 5]), '{"a": 1}'):
        (state / counts.RECORD).write_text(damaged)
        before = len(asked)
        counts.of(data / "train.npz", state, count)
        assert len(asked) == before + 1, damaged


def test_data_that_are_refused_are_read_again(tmp_path: Path) -> None:
    """Nothing is remembered of them, and without any it is said at once."""

    def refuse() -> tuple[int, int]:
        raise DataError("no good")

    with pytest.raises(DataError, match="no such file"):
        counts.of(tmp_path / "none", tmp_path, refuse)
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)))
    for _ in range(2):
        with pytest.raises(DataError, match="no good"):
            counts.of(tmp_path, tmp_path, refuse)
    assert not (tmp_path / counts.RECORD).exists()


def announced(number: int, base: int, votes: mask.Votes, known: mask.Votes | None) -> Round:
    """A round that asks everybody."""
    coded = mask.encode_votes(votes, TICKET.ends, known)
    return Round(
        run=bytes(8), number=number, selected=("pi-1",), evaluate=True, final=False, votes=coded, base=base,
        digest=votes.digest,
    )  # fmt: skip


def two_rounds(work: Work, bundle: Path, pause: Callable[[], None]) -> list[Finished]:
    """Votes of a first round, a training, votes in the context of those, and another training."""
    federation = Federation(
        run=bytes(8), name="t", rounds=2, ticket=TICKET.id, bundles={}, training=Training(epochs=2), seed=5,
        key=bytes(32), issued=1, telemetry=True,
    )  # fmt: skip
    work.open(bundle, bytes.fromhex(bundle.stem), federation)
    first = mask.unanimous(TICKET.kept)
    second = mask.votes_of(np.arange(TICKET.kept, dtype=np.uint32) % 4, 3, first.signs)
    found = []
    for one in (announced(1, 0, first, None), announced(2, 1, second, first)):
        pause()
        assert isinstance(work.take_votes(one), VotesTaken)
        assert work.evaluate(one).test_samples == 10
        work.start(one)
        while (finished := work.step()) is None:
            time.sleep(work.pause_s)
        assert not work.training
        found.append(finished)
    assert isinstance(work.take_votes(announced(3, 1, second, first)), VotesUnusable), "it does not have those"
    return found


def test_training_apart_comes_to_the_same(tmp_path: Path) -> None:
    """Masks and personal network are those of a workshop in this process, also if the other had ended between."""
    rng, runtime = np.random.default_rng(1), registry.pick(None)
    y = np.arange(50) % 3
    np.savez(tmp_path / "a.npz", x=rng.normal(size=(50, *TICKET.plan.input_shape)).astype(np.float32), y=y)
    made = make_bundle(TICKET, runtime, Training(epochs=2))
    bundle = tmp_path / f"{made.id.hex()}.hnsb"
    bundle.write_bytes(made.encoded)
    away = Apart(lambda: workshop(tmp_path), linger_s=0.0)
    here = two_rounds(workshop(tmp_path), bundle, lambda: None)
    there = two_rounds(away, bundle, lambda: away.rest(time.monotonic()))
    away.close()
    for one, other in zip(here, there, strict=True):
        assert one.personal == other.personal
        assert (one.update.signs, one.update.loss, one.update.correct) == (
            other.update.signs, other.update.loss, other.update.correct,
        )  # fmt: skip
        assert one.spent is not None
        assert other.spent is not None
        assert one.spent.steps == other.spent.steps
    assert [one.spent.cold_start_ms is not None for one in there if one.spent] == [True, True], "opened for each"
