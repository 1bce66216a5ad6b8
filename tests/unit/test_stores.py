"""What coordinator and device remember through a crash."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coordinator.store import Store as CoordinatorStore
from edge_client.store import KnownFederation
from edge_client.store import Store as DeviceStore
from tests.helpers import random_ticket
from tests.unit.test_agent import RUN, update
from tests.unit.test_fleet import hello
from wire import personal
from wire.bundle import Bundle
from wire.errors import StateError
from wire.layers import Linear
from wire.messages import Evaluation
from wire.personal import Personal
from wire.plan import Plan
from wire.state_folder import read_learned

KILLED_AFTER_COMMIT = """
import os, sys
from pathlib import Path
from coordinator.store import Store
from tests.unit.test_agent import RUN, update
store = Store(Path(sys.argv[1]))
store.start_run(run=RUN, name="t", ticket=b"t", settings="{}", bundle_bytes=1)
assert store.add_mask("pi", update(1), 100, 20)
os.kill(os.getpid(), 9)
"""


def opened(path: Path) -> CoordinatorStore:
    """A database with one run."""
    store = CoordinatorStore(path / "db")
    store.start_run(run=RUN, name="t", ticket=b"ticket", settings="{}", bundle_bytes=7)
    return store


def test_mask_of_a_device_counts_once_a_round(tmp_path: Path) -> None:
    """The first mask stays, a second one for the same round is not stored."""
    store = opened(tmp_path)
    assert store.add_mask("pi", update(1), 100, 20)
    assert not store.add_mask("pi", update(1), 999, 20)
    assert store.add_mask("pi", update(2), 100, 20)
    assert list(store.masks(RUN, 1)) == ["pi"]
    assert [row["payload_bytes"] for row in store.query("SELECT payload_bytes FROM mask WHERE number = 1")] == [100]


def test_committed_mask_survives_kill_9(tmp_path: Path) -> None:
    """A process that dies right after add_mask has not lost the mask."""
    died = subprocess.run([sys.executable, "-c", KILLED_AFTER_COMMIT, str(tmp_path / "db")], check=False)
    assert died.returncode == -9
    assert list(CoordinatorStore(tmp_path / "db").masks(RUN, 1)) == ["pi"]


def test_rounds_keep_their_votes_and_grow_their_selection(tmp_path: Path) -> None:
    """Announcing again with more devices changes who is selected, nothing else."""
    store = opened(tmp_path)
    store.open_round(RUN, 1, ("a",), b"votes")
    store.add_announced_bytes(RUN, 1, 10)
    store.open_round(RUN, 1, ("a", "b"), b"other")
    store.add_announced_bytes(RUN, 1, 15)
    (only,) = store.rounds(RUN)
    assert (only.selected, only.votes, only.announced_bytes, only.closed_s) == (("a", "b"), b"votes", 25, None)
    store.close_round(RUN, 1)
    assert store.rounds(RUN)[0].closed_s is not None


def test_final_announcement_selects_nobody(tmp_path: Path) -> None:
    """An empty selection is read back empty."""
    store = opened(tmp_path)
    store.open_round(RUN, 3, (), b"votes")
    assert store.rounds(RUN)[0].selected == ()


def test_unfinished_run_is_found_until_it_is_finished(tmp_path: Path) -> None:
    """What serve takes up after a restart."""
    store = opened(tmp_path)
    found = store.unfinished_run()
    assert found is not None
    assert (found.id, found.ticket, found.bundle_bytes) == (RUN, b"ticket", 7)
    store.finish_run(RUN)
    assert store.unfinished_run() is None
    assert store.newest_run() is not None


def test_devices_are_remembered_with_their_newest_instance(tmp_path: Path) -> None:
    """A restarted coordinator knows which process spoke last for an id."""
    store = opened(tmp_path)
    store.save_device("pi", hello("old"))
    store.save_device("pi", hello("new", connection=4, draws=True))
    assert store.devices() == {"pi": hello("new", connection=4, draws=True)}


def test_repeated_evaluation_replaces_the_first(tmp_path: Path) -> None:
    """At-least-once delivery does not count samples twice."""
    store = opened(tmp_path)
    for correct in (3, 4):
        store.add_evaluation("pi", Evaluation(run=RUN, number=1, correct=correct, test_samples=5), 30)
    assert [row["correct"] for row in store.query("SELECT correct FROM evaluation")] == [4]


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "db").write_text("this is not SQLite, not at all, not even a little bit of it" * 20)
    with pytest.raises(StateError, match="no usable database") as caught:
        CoordinatorStore(tmp_path / "db")
    assert caught.value.where.endswith("db")


def test_device_store_keeps_bundle_pending_mask_and_personal_network(tmp_path: Path) -> None:
    """Everything is there for the next process; a newer bundle replaces the older."""
    store = DeviceStore(tmp_path)
    store.save_bundle(b"\x01" * 32, b"one")
    store.save_bundle(b"\x02" * 32, b"two")
    store.save_pending(update(1))
    store.save_personal(learned(BUNDLES["a"], 4))
    store.close()
    again = DeviceStore(tmp_path)
    assert again.load_bundle(b"\x01" * 32) is None
    assert again.load_bundle(b"\x02" * 32) == b"two"
    assert again.load_pending() == update(1)
    assert personal.decode((tmp_path / "personal.hnsp").read_bytes(), KEPT, 4).number == 4
    again.drop_pending()
    assert again.load_pending() is None
    again.close()


KEPT = 12
PLAN = Plan(name="tiny", input_shape=(6,), layers=(Linear(out_features=4),))
BUNDLES = {
    name: Bundle(runtime=runtime, ticket=random_ticket(PLAN, 0.5, seed=seed))
    for name, runtime, seed in (("a", "sparse", 1), ("a, other runtime", "onnx", 1), ("b", "sparse", 2))
}


def learned(bundle: Bundle, number: int) -> Personal:
    """What a device has learned in a round of this bundle's run: every third sign is -1."""
    prior = np.zeros(4, dtype=np.float32)
    return Personal(
        ticket=bundle.ticket.id,
        run=RUN,
        number=number,
        log_prior=prior,
        signs=np.arange(KEPT) % 3 > 0,
    )


def short(bundle: Bundle) -> str:
    """A ticket's identity as messages show it."""
    return bundle.ticket.id.hex()[:16]


def files(folder: Path) -> list[Path]:
    """The bundles in a state folder."""
    return sorted(folder.glob("*.hnsb"))


def test_the_newest_personal_network_stays_with_its_bundle(tmp_path: Path) -> None:
    """Until the device trains in a new run, what it learned in the old one can be used; then the old bundle goes."""
    old, other, new = BUNDLES.values()
    with closing(DeviceStore(tmp_path)) as store:
        store.save_bundle(old.id, old.encoded)
        for number in (1, 2):
            store.save_personal(learned(old, number))
        found = read_learned(tmp_path)
        assert (found.bundle, found.personal.number) == (old, 2)
        assert np.array_equal(found.personal.signs, learned(old, 2).signs)
        store.save_bundle(new.id, new.encoded)
        store.save_bundle(b"\x07" * 32, b"what a stranger published")
        store.save_bundle(new.id, new.encoded)
        assert read_learned(tmp_path).bundle == old
        assert files(tmp_path) == sorted(tmp_path / f"{one.id.hex()}.hnsb" for one in (old, new))
        store.save_bundle(other.id, other.encoded)
        assert files(tmp_path) == [tmp_path / f"{other.id.hex()}.hnsb"], "the same ticket in another bundle will do"
        store.save_bundle(new.id, new.encoded)
        store.save_personal(learned(new, 1))
        assert read_learned(tmp_path).bundle == new
        assert files(tmp_path) == [tmp_path / f"{new.id.hex()}.hnsb"]


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda folder: shutil.rmtree(folder), "no such state folder"),
        (lambda folder: (folder / "personal.hnsp").unlink(), "no personal network here yet"),
        (lambda folder: (folder / "personal.hnsp").write_bytes(b""), r"personal network is damaged \(starts with"),
        (lambda folder: (folder / "personal.hnsp").write_bytes(GOOD[:-1]), r"damaged \(SHA-256 of"),
        (lambda folder: (folder / "personal.hnsp").write_bytes(TOO_LONG), r"damaged \(personal network of 12 signs"),
        (lambda folder: files(folder)[0].unlink(), "no .hnsb file has it: there is none"),
        (lambda folder: files(folder)[0].write_bytes(b"half"), "those here have damaged bytes"),
        (
            lambda folder: (folder / "personal.hnsp").write_bytes(personal.encode(learned(BUNDLES["b"], 1))),
            rf"belongs to ticket {short(BUNDLES['b'])}….*those here have {short(BUNDLES['a'])}",
        ),
    ],
)
def test_state_folder_that_cannot_be_read_says_why(
    tmp_path: Path, break_it: Callable[[Path], object], complaint: str
) -> None:
    """Nothing there, damaged, or of another ticket: each is told, with the place and the way out."""
    folder = tmp_path / "state"
    with closing(DeviceStore(folder)) as store:
        store.save_bundle(BUNDLES["a"].id, BUNDLES["a"].encoded)
        store.save_personal(learned(BUNDLES["a"], 1))
    break_it(folder)
    with pytest.raises(StateError, match=complaint) as caught:
        read_learned(folder)
    assert caught.value.where.startswith(str(folder))
    assert caught.value.hint


GOOD = personal.encode(learned(BUNDLES["a"], 1))
TOO_LONG = personal.encode(replace(learned(BUNDLES["a"], 1), signs=np.arange(100) % 2 == 0))


def test_reader_looks_again_when_the_device_replaces_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network read just before a new run's replaced it, bundle and all, gives the new pair and no error."""
    old, _, new = BUNDLES.values()
    store = DeviceStore(tmp_path)
    store.save_bundle(old.id, old.encoded)
    store.save_personal(learned(old, 9))
    read = Path.read_bytes

    def read_then_replace(path: Path) -> bytes:
        data = read(path)
        if path.name == "personal.hnsp":
            monkeypatch.undo()
            store.save_bundle(new.id, new.encoded)
            store.save_personal(learned(new, 1))
        return data

    monkeypatch.setattr(Path, "read_bytes", read_then_replace)
    assert read_learned(tmp_path).bundle == new
    store.close()


def test_device_store_ignores_a_half_written_mask(tmp_path: Path) -> None:
    """A damaged pending file is as good as none: the device trains again."""
    store = DeviceStore(tmp_path)
    store.save_pending(update(1))
    store.close()
    path = tmp_path / "pending.mask"
    path.write_bytes(path.read_bytes()[:-3])
    assert store.load_pending() is None


def test_state_folder_has_one_user(tmp_path: Path) -> None:
    """A second process on the same folder is told so."""
    first = DeviceStore(tmp_path)
    with pytest.raises(StateError, match="another hidenseek-edge"):
        DeviceStore(tmp_path)
    first.close()
    DeviceStore(tmp_path).close()


def test_a_device_has_one_key_for_its_owner_only(tmp_path: Path) -> None:
    """Made once, 0600; readable by others, damaged or cut, it is refused with what to do."""
    with closing(DeviceStore(tmp_path)) as store:
        key = store.key()
        assert store.key() == key
        path = tmp_path / "device.key"
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)
        with pytest.raises(StateError, match="chmod 600"):
            store.key()
        path.chmod(0o600)
        path.write_bytes(key[:31])
        with pytest.raises(StateError, match=r"31 bytes are no key.*fleet forget"):
            store.key()


def test_starts_are_counted_on_disk(tmp_path: Path) -> None:
    """One more every time; a damaged count is refused, for a lower one would be taken for a repetition."""
    with closing(DeviceStore(tmp_path)) as store:
        assert [store.count_start() for _ in range(3)] == [1, 2, 3]
    with closing(DeviceStore(tmp_path)) as store:
        assert store.count_start() == 4
        (tmp_path / "starts").write_text("four")
        with pytest.raises(StateError, match=r"no whole number.*fleet forget"):
            store.count_start()


def test_a_device_trusts_whom_it_was_told_to(tmp_path: Path) -> None:
    """Nobody at first; then one key, also from the next start on; another, or a damaged file, only when told."""
    first, second = bytes([1] * 32), bytes([2] * 32)
    with closing(DeviceStore(tmp_path)) as store:
        assert store.federation() is None
        store.save_federation(KnownFederation(key=first, issued=7))
    with closing(DeviceStore(tmp_path)) as store:
        store.trust(first)
        assert store.federation() == KnownFederation(key=first, issued=7), "what it knows of runs stays"
    (tmp_path / "federation.pub").write_bytes(b"short")
    with closing(DeviceStore(tmp_path)) as store:
        with pytest.raises(StateError, match=r"5 bytes.*--trust"):
            store.federation()
        store.trust(second)
        assert store.federation() == KnownFederation(key=second, issued=0)


def test_a_late_mask_is_a_vote_in_a_later_round_and_nobody_has_two_there(tmp_path: Path) -> None:
    """It is found by the round in which it counts; a second vote there would be a bug, and is not taken silently."""
    store = opened(tmp_path)
    assert store.add_mask("pi", update(1), 100, 20, counted=3)
    assert store.add_mask("pi", update(2), 100, 20, counted=4)
    assert store.add_mask("other", update(3), 100, 20)
    assert [(one.device, one.number, one.counted) for one in store.votes_in(RUN, 3)] == [("other", 3, 3), ("pi", 1, 3)]
    assert [one.counted for one in store.votes_in(RUN, 3, later=True)] == [3, 3, 4]
    assert [store.has_mask(RUN, number, "pi") for number in (1, 2, 3)] == [True, True, False]
    assert not store.add_mask("pi", update(1), 100, 20, counted=5), "the first one counts, where it did"
    with pytest.raises(sqlite3.IntegrityError):
        store.add_mask("other", update(2), 100, 20, counted=3)


def test_rounds_are_read_one_by_one(tmp_path: Path) -> None:
    """The newest, and any other."""
    store = opened(tmp_path)
    assert store.newest_round(RUN) is None
    for number in (1, 2):
        store.open_round(RUN, number, ("*",), b"votes")
    newest, first = store.newest_round(RUN), store.round(RUN, 1)
    assert newest is not None
    assert first is not None
    assert (newest.number, newest.selected, first.number, store.round(RUN, 3)) == (2, ("*",), 1, None)


def test_a_device_remembers_which_mask_was_confirmed_last(tmp_path: Path) -> None:
    """Across starts; a damaged file is as good as none."""
    with closing(DeviceStore(tmp_path)) as store:
        assert store.load_confirmed() is None
        store.save_confirmed(RUN, 7)
    with closing(DeviceStore(tmp_path)) as store:
        assert store.load_confirmed() == (RUN, 7)
        (tmp_path / "confirmed").write_bytes(b"short")
        assert store.load_confirmed() is None
