"""The restricted unpickler: it reads data and arrays, and runs nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from coordinator.datasets.unpickle import Inert, PickledArray, loads
from wire.errors import DataError


class _RunsACommand:
    """Pickles to a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_calls_os_system_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    """A pickle with os.system in it raises DataError, and its command never runs."""
    witness = tmp_path / "witness"
    hostile = pickle.dumps([1, _RunsACommand(f"touch {witness}")], protocol=protocol)
    with pytest.raises(DataError) as caught:
        loads(hostile, where="evil.pkl")
    assert caught.value.where == "evil.pkl"
    assert not witness.exists()


def test_eval_by_its_python_2_name_is_refused() -> None:
    """The Python 2 spelling of eval is no way in either, and the error names it."""
    with pytest.raises(DataError, match=r"__builtin__'\.'eval'"):
        loads(b"c__builtin__\neval\n(S'1+1'\ntR.", where="evil.pkl")


@pytest.mark.parametrize("dtype", ["u1", "<i4", "<i8", "<f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back_as_it_was(dtype: str, order: str) -> None:
    """Arrays of every admitted type and order survive numpy's own protocol 2 pickle."""
    array = np.arange(12, dtype=dtype).reshape(3, 4).copy(order=order)  # type: ignore[call-overload]
    back = loads(pickle.dumps({"data": array}, protocol=2), where="x")["data"]
    assert isinstance(back, PickledArray)
    np.testing.assert_array_equal(back.to_numpy(where="x"), array)
    assert back.to_numpy(where="x").dtype == array.dtype


def test_plain_data_comes_back_as_it_was() -> None:
    """Dicts, lists, tuples, numbers and strings need no stand-ins."""
    data = {"a": [1, 2.5, None, True], "b": ("x", -7, 70_000)}
    assert loads(pickle.dumps(data, protocol=2), where="x") == data


def test_a_python_2_string_array_is_read() -> None:
    """The byte strings in which Python 2 stored array data (CIFAR) are read as bytes."""
    python_2 = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x01K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x03\x00\x80\xfftb."
    )
    np.testing.assert_array_equal(loads(python_2, where="x").to_numpy(where="x"), [[0, 128, 255]])


def test_array_data_shorter_than_its_shape_is_refused() -> None:
    """A shape that announces more than there is raises before anything is allocated for it."""
    array = PickledArray("a", ())
    dtype = Inert("numpy.dtype", ("f8", 0, 1))
    array.__setstate__((1, (1 << 31, 1 << 31), dtype, False, b"short"))
    with pytest.raises(DataError, match="5 bytes of array data found"):
        array.to_numpy(where="x")


def test_object_arrays_are_not_made_into_numbers() -> None:
    """An array of objects is refused where numbers are expected, and readable as names."""
    names = loads(pickle.dumps(np.array(["a", "b"], dtype=object), protocol=2), where="x")
    assert names.to_list(where="x") == ["a", "b"]
    with pytest.raises(DataError, match="numeric array expected"):
        names.to_numpy(where="x")


def test_a_huge_memo_number_is_refused() -> None:
    """Memo number 2^31 - 1, which would make the unpickler allocate gigabytes, is refused beforehand."""
    with pytest.raises(DataError, match="memo number 2147483647"):
        loads(b"Nr\xff\xff\xff\x7f.", where="x")


def test_state_cannot_be_forced_on_an_admitted_name() -> None:
    """BUILD on a global (which could replace its methods) is refused."""
    with pytest.raises(DataError, match="tries to change"):
        loads(b"cnumpy\ndtype\n(S'__call__'\nI1\ndb.", where="x")


def test_extension_codes_and_persistent_ids_are_not_admitted() -> None:
    """Opcodes that reach outside the pickle are refused by name."""
    for data, name in ((b"\x82\x01.", "EXT1"), (b"Pid\n.", "PERSID"), (b"\x80\x02(tQ.", "BINPERSID")):
        with pytest.raises(DataError, match=name):
            loads(data, where="x")
