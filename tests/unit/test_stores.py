"""What coordinator and device remember through a crash."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_client.store import KnownFederation
from edge_client.store import Store as DeviceStore
from tests.helpers import random_ticket
from tests.unit.test_agent import RUN, update
from wire import personal
from wire.bundle import Bundle
from wire.errors import StateError
from wire.layers import Linear
from wire.personal import Personal
from wire.plan import Plan
from wire.state_folder import bundle_name, read_learned


def test_device_store_keeps_bundle_pending_mask_and_personal_network(tmp_path: Path) -> None:
    """Everything is there for the next process; a newer bundle replaces the older."""
    store = DeviceStore(tmp_path)
    store.save_bundle(b"\x01" * 32, b"one")
    store.save_bundle(b"\x02" * 32, b"two")
    store.save_pending(update(1))
    store.save_personal(personal.encode(learned(BUNDLES["a"], 4)))
    store.close()
    again = DeviceStore(tmp_path)
    assert again.bundle_file(b"\x01" * 32) is None
    assert (again.folder / bundle_name(b"\x02" * 32)).read_bytes() == b"two"
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
            store.save_personal(personal.encode(learned(old, number)))
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
        store.save_personal(personal.encode(learned(new, 1)))
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
        store.save_personal(personal.encode(learned(BUNDLES["a"], 1)))
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
    store.save_personal(personal.encode(learned(old, 9)))
    read = Path.read_bytes

    def read_then_replace(path: Path) -> bytes:
        data = read(path)
        if path.name == "personal.hnsp":
            monkeypatch.undo()
            store.save_bundle(new.id, new.encoded)
            store.save_personal(personal.encode(learned(new, 1)))
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


def test_a_device_remembers_which_mask_was_confirmed_last(tmp_path: Path) -> None:
    """Across starts; a damaged file is as good as none."""
    with closing(DeviceStore(tmp_path)) as store:
        assert store.load_confirmed() is None
        store.save_confirmed(RUN, 7)
    with closing(DeviceStore(tmp_path)) as store:
        assert store.load_confirmed() == (RUN, 7)
        (tmp_path / "confirmed").write_bytes(b"short")
        assert store.load_confirmed() is None
