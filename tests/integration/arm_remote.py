"""A runtime inside an ARM system, used from here like one of this machine.

So `export.verify.check` and every other comparison runs where torch is, on the numbers of a process without it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np

from edge_client.runtimes.base import Floats, Labels, StepResult
from tests.integration import arm_worker
from tests.integration.arm_root import Root
from wire.bundle import Bundle
from wire.settings import Training


class Remote:
    """The runtime that was opened last, as `edge_client.runtimes.base.Runtime`.

    Args:
        process: an `arm_worker` with pipes.
        errors: where it writes what it says beside.
    """

    name = "remote"

    def __init__(self, process: subprocess.Popen[bytes], errors: BinaryIO) -> None:
        self._process, self._errors = process, errors

    def open(self, bundle: Bundle, training: Training, threads: int = 1) -> None:
        """Load a bundle there."""
        self._ask("open", bundle.encoded, asdict(training), threads)

    def facts(self) -> dict[str, Any]:
        """See `arm_worker.Worker.facts`."""
        found: dict[str, Any] = self._ask("facts")
        return found

    def set_scores(self, scores: Floats) -> None:
        """float32 (kept,)."""
        self._ask("set_scores", np.asarray(scores, dtype=np.float32))

    def set_log_prior(self, log_prior: Floats) -> None:
        """float32 (classes,)."""
        self._ask("set_log_prior", log_prior)

    def set_multipliers(self, multipliers: Floats) -> None:
        """float32 (kept,)."""
        self._ask("set_multipliers", multipliers)

    def scores(self) -> Floats:
        """float32 (kept,)."""
        found: Floats = self._ask("scores")
        return found

    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:
        """Takes x float32 (n, *input_shape), y int64 (n,), weights float32 (n,)."""
        loss, correct = self._ask("step", x, y, weights)
        return StepResult(loss=loss, correct=correct)

    def gradient(self, x: Floats, y: Labels, weights: Floats) -> tuple[StepResult, Floats]:
        """As `step`; the gradient is float32 (kept,)."""
        loss, correct, gradient = self._ask("gradient", x, y, weights)
        return StepResult(loss=loss, correct=correct), gradient

    def logits(self, x: Floats) -> Floats:
        """float32 (n, classes)."""
        found: Floats = self._ask("logits", x)
        return found

    def _ask(self, name: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            arm_worker.send(self._process.stdin, [name, list(arguments)])
            reply = arm_worker.receive(self._process.stdout)
        except BrokenPipeError:
            reply = None
        if reply is None:
            code = self._process.wait(10)
            self._errors.seek(0)
            raise AssertionError(f"{name}: the process ended with {code}: {self._errors.read()[-3000:].decode()}")
        status, value = reply
        assert status == "ok", f"{name}: {value}"
        return value


@contextmanager
def remote(root: Root) -> Iterator[Remote]:
    """A fresh process in the system."""
    script, pipe = Path(arm_worker.__file__), subprocess.PIPE
    with TemporaryFile() as errors, root.start(script, stdin=pipe, stdout=pipe, stderr=errors) as process:
        try:
            yield Remote(process, errors)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(60) == 0, "ends by itself and in order"
        finally:
            process.kill()
