"""Fuzzing in `make test`: what was once found stays mended. In `make test-all` also for a few seconds each: new inputs.

`make fuzz` does more of it (`tests/fuzz`).
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from export import manifest
from tests.fuzz.hunt import FoundError, Tally, corpus, give, hunt
from tests.fuzz.targets import Target, targets
from tests.golden import make
from wire import adaptive_python, bits
from wire.errors import DataError, WireError
from wire.native.library import native

SECONDS_EACH = 5


@pytest.mark.parametrize("name", targets())
def test_kept_inputs_are_read_or_refused(name: str) -> None:
    """One input for every kind of answer that was met, and every one that was once a find."""
    target = targets()[name]
    assert "accepted" in {give(target, data) for data in target.seeds}
    for data in corpus(name):
        give(target, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", targets())
def test_altered_good_bytes_are_read_or_refused(name: str) -> None:
    """Any alteration is read, or refused with an error that its reader may raise, quickly and in little memory."""
    tally = Tally()
    try:
        for so_far in hunt(targets()[name], corpus(name), random.Random(name), SECONDS_EACH):
            tally = so_far
    except FoundError as error:
        pytest.fail(f"{error.what}: make fuzz ARGS='--replay {name} {error.data.hex()}'")
    assert tally.tried > 50


@pytest.mark.parametrize(
    ("read", "what"),
    [
        (lambda data: 1 // len(data), "ZeroDivisionError"),
        (lambda data: give(Target(read=lambda _: spin(), slowest_s=0.05), data), "more than 0.05 s"),
        (lambda data: refuse("x" * 3000), "a refusal of 3000 characters"),
        (lambda data: np.ones(300_000_000, dtype=np.uint8).sum(), "kB of memory"),
    ],
)
def test_what_must_not_be_is_found(read: object, what: str) -> None:
    """The fuzzer itself sees errors of other kinds, slowness, memory and endless words."""
    Path("/proc/self/clear_refs").write_text("5")  # growth shows in the peak, and an earlier test's may be higher
    with pytest.raises(FoundError, match=what):
        give(Target(read=read), b"")  # type: ignore[arg-type]


def spin() -> None:
    """For ever."""
    while True:
        pass


def refuse(text: str) -> None:
    """With these words."""
    raise WireError(text)


@pytest.mark.skipif(native() is None, reason="no native coder")
def test_bytes_beyond_every_interval_mean_the_same_in_c_and_python() -> None:
    """No encoder writes eight bytes of 255; both readers go on from them with 64 bits."""
    library = native()
    assert library is not None
    contexts, ends = (np.arange(400) % 16).astype(np.uint8), np.array([400])
    agreed = 0
    for size in range(8, 80):
        found = library.decode(b"\xff" * size, contexts, ends, 4)
        other = adaptive_python.decode(b"\xff" * size, contexts, ends, 4)
        assert (found is None) == (other is None), size
        assert np.array_equal(found, other)
        agreed += found is not None
    assert agreed


@pytest.mark.parametrize(
    "name", ["../x/train.onnx", "/dev/zero", "onnx/../ticket.hns", "onnx/\0", "onnx/.x", "onnx/a/b"]
)
def test_a_manifest_names_no_file_outside_its_folder(tmp_path: Path, name: str) -> None:
    """Whoever signs a manifest, reading it opens nothing else."""
    bundle, runtime = make.bundle(), name.rpartition("/")[0]
    whole = manifest.describe(
        [type(bundle)(runtime="sparse", ticket=bundle.ticket)], make.MESSAGES["federation"].training, {}, []
    )
    target = manifest.Target(files={name: whole.ticket}, made_with={})
    manifest.write(tmp_path / "it", whole.model_copy(update={"targets": {runtime: target}}), [bundle], key=make.KEY)
    with pytest.raises(DataError, match="is not a file of"):
        manifest.read(tmp_path / "it")


@pytest.mark.slow
def test_large_masks_of_every_density_come_back() -> None:
    """A million bits of any density survive, and never take more than a byte over raw."""
    rng = np.random.default_rng(0)
    for density in (0.0, 1e-6, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.999, 1.0):
        array = rng.random(1_000_003) < density
        coded = bits.encode(array)
        assert len(coded) <= 1 + 125_001
        assert np.array_equal(bits.decode(coded, array.size), array)
