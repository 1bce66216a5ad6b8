"""The ONNX runtime of the device, the registry of runtimes, bundles, and what `verify.check` can see."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_client.runtimes.base import Floats, Labels, StepResult
from edge_client.runtimes.onnx import OnnxRuntime
from edge_client.runtimes.registry import available, open_runtime
from export.bundle import RUNTIMES, make_bundle
from export.verify import check
from tests.helpers import TINY_TICKET, tiny_batch
from wire.bundle import decode_bundle
from wire.errors import RuntimeMissing, TicketError, UnknownName
from wire.settings import Training

torch.set_num_threads(1)

TRAINING = Training()
BUNDLE = make_bundle(TINY_TICKET, "onnx", TRAINING)


def test_bundle_survives_the_wire() -> None:
    """A bundle that was encoded and decoded trains to the same scores."""
    again = decode_bundle(BUNDLE.encoded, expected_id=BUNDLE.id)
    runtimes = [open_runtime(bundle, TRAINING) for bundle in (BUNDLE, again)]
    for runtime in runtimes:
        runtime.step(*tiny_batch(4))
    assert np.array_equal(runtimes[0].scores(), runtimes[1].scores())


def test_setting_scores_clears_the_optimiser() -> None:
    """After set_scores a runtime does what a fresh one does."""
    used, fresh = OnnxRuntime(BUNDLE, TRAINING), OnnxRuntime(BUNDLE, TRAINING)
    start = fresh.scores()
    used.step(*tiny_batch(4))
    used.set_scores(start)
    assert used.step(*tiny_batch(3)) == fresh.step(*tiny_batch(3))
    assert np.array_equal(used.scores(), fresh.scores())


def test_scores_are_copied_both_ways() -> None:
    """The caller's arrays and the runtime's never share memory."""
    runtime = OnnxRuntime(BUNDLE, TRAINING)
    mine = np.full(TINY_TICKET.kept, 0.5, dtype=np.float32)
    runtime.set_scores(mine)
    mine[:] = -1
    runtime.scores()[:] = -1
    assert (runtime.scores() == 0.5).all()


def test_scores_are_clipped() -> None:
    """No step carries a score past the clip."""
    training = Training(learning_rate=10, clip=0.25)
    runtime = OnnxRuntime(BUNDLE, training)
    runtime.step(*tiny_batch(4))
    assert np.abs(runtime.scores()).max() == np.float32(0.25)


def test_wrong_number_of_scores_is_refused() -> None:
    """Scores of another ticket do not fit."""
    with pytest.raises(ValueError, match=rf"\({TINY_TICKET.kept},\) expected"):
        OnnxRuntime(BUNDLE, TRAINING).set_scores(np.zeros(3, dtype=np.float32))


def test_another_optimiser_is_refused() -> None:
    """A graph made for Adam does not open with SGD's settings."""
    with pytest.raises(TicketError, match="another optimiser than sgd"):
        OnnxRuntime(BUNDLE, Training(optimiser="sgd"))


@pytest.mark.parametrize("files", [{}, {"train.onnx": b"not a graph"}])
def test_bundle_without_a_usable_graph_is_refused(files: dict[str, bytes]) -> None:
    """A missing or foreign file is a TicketError that names it."""
    with pytest.raises(TicketError, match=r"train\.onnx"):
        OnnxRuntime(replace(BUNDLE, files=files), TRAINING)


def test_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without onnxruntime the error carries the pip command."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeMissing, match="pip install onnxruntime"):
        OnnxRuntime(BUNDLE, TRAINING)


def test_unknown_runtime() -> None:
    """Neither side makes or opens a bundle for a runtime nobody has heard of."""
    with pytest.raises(UnknownName, match="Did you mean 'onnx'"):
        make_bundle(TINY_TICKET, "onxx", TRAINING)
    with pytest.raises(UnknownName, match="Did you mean 'onnx'"):
        open_runtime(replace(BUNDLE, runtime="onxx"), TRAINING)


def test_sparse_bundle_has_no_files() -> None:
    """The sparse runtime reads the ticket itself."""
    assert RUNTIMES == ("sparse", "onnx")
    assert make_bundle(TINY_TICKET, "sparse", TRAINING).files == {}


def test_available_imports_nothing_heavy() -> None:
    """Listing the runtimes finds onnxruntime without loading it."""
    assert "onnx" in available()
    code = (
        "import sys; from edge_client.runtimes.registry import available; names = available();"
        "sys.exit('onnx' not in names or 'onnxruntime' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class Faulty(OnnxRuntime):
    """A runtime with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__(BUNDLE, TRAINING)
        self.fault = fault
        self.calls = 0

    def gradient(self, x: Floats, y: Labels, weights: Floats) -> tuple[StepResult, Floats]:
        """The gradient, spoilt."""
        result, gradient = super().gradient(x, y, weights)
        self.calls += 1
        spoil: dict[str, Callable[[], Any]] = {
            "scaled": lambda: gradient[:5] * np.float32(1.001),
            "not a number": lambda: gradient[:5] * np.float32(np.nan),
            "second call": lambda: gradient[:5] * np.float32(1 + 2e-6 * (self.calls % 2)),
        }
        if self.fault in spoil:
            gradient[:5] = spoil[self.fault]()
        if self.fault == "padding":
            result = replace(result, loss=result.loss + 0.01 * int((weights == 0).sum()))
        return result, gradient

    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:
        """One step, spoilt."""
        if self.fault == "no bias correction":
            self._steps = 1000
        return super().step(x, y, weights)


@pytest.mark.parametrize(
    ("fault", "row"),
    [
        ("scaled", "gradient of conv0"),
        ("not a number", "gradient of conv0"),
        ("second call", "second call"),
        ("padding", "padded batch"),
        ("no bias correction", "given the same gradients"),
    ],
)
def test_check_sees_a_fault(fault: str, row: str) -> None:
    """Each kind of wrong runtime fails the row that is about it."""
    wrong = [found.what for found in check(BUNDLE, TRAINING, Faulty(fault)) if not found.ok]
    assert any(row in what for what in wrong), wrong


def test_check_passes_the_runtime_as_it_is() -> None:
    """The faults above, not the check, are what fails."""
    assert [row for row in check(BUNDLE, TRAINING, OnnxRuntime(BUNDLE, TRAINING)) if not row.ok] == []


def test_sparse_is_preferred_where_its_kernels_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled kernels decide whether the sparse runtime is offered, and it comes first."""
    monkeypatch.setattr("edge_client.kernels.library.library_path", lambda: Path("hs.so"))
    assert available()[:2] == ["sparse", "onnx"]
    monkeypatch.setattr("edge_client.kernels.library.library_path", lambda: None)
    assert "sparse" not in available()
