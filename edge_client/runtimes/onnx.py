"""The ONNX runtime: a bundle's two graphs on stock onnxruntime. The only importer of onnxruntime on the edge."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from edge_client import memory_limits
from edge_client.runtimes.base import Floats, Labels, Operator, StepResult
from edge_client.runtimes.registry import INSTALL
from edge_client.trainer import EVALUATION_BATCH
from wire.bundle import Bundle
from wire.errors import DataError, RuntimeMissing, TicketError
from wire.mask import as_multipliers
from wire.onnx_arena import HANDLES, region_bytes
from wire.settings import Training

# What onnxruntime 1.32 takes on x86-64 with a network of no size, and for a kept weight. With the region for tensors on
# top, the sum is 1.04 to 1.32 times what the ten networks were measured to take.
LIBRARY_BYTES, LIBRARY_VIRTUAL_BYTES, KEPT_BYTES = 36_000_000, 70_000_000, 60
_STATE = {"adam": ("m", "v"), "sgd": ("momentum",)}
_SETTINGS = {
    "adam": ("learning_rate", "beta1", "beta2", "epsilon", "clip"),
    "sgd": ("learning_rate", "beta1", "clip"),
}
_regions: list[int] = []  # bytes; of this process
_one_at_a_time = Lock()


class OnnxInference:
    """Infers with the file `infer.onnx` of a bundle; starts with every sign +1.

    Args:
        bundle: made for the runtime "onnx".
        threads: threads inside one operator.

    Raises:
        RuntimeMissing: if onnxruntime is not installed.
        TicketError: if the bundle lacks the graph, or onnxruntime refuses it.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        self._session = _open(bundle, "infer.onnx", threads, region_bytes(bundle.ticket.plan, 0, EVALUATION_BATCH))
        self._multipliers: Floats = np.ones(bundle.ticket.kept, dtype=np.float32)

    def set_multipliers(self, multipliers: Floats) -> None:
        """Copy multipliers in, float32 (kept,).

        Raises:
            DataError: if there are not as many as kept weights.
        """
        _same_shape("multipliers", multipliers, self._multipliers)
        self._multipliers = np.array(multipliers, dtype=np.float32)

    def logits(self, x: Floats) -> Floats:
        """Inference: float32 (n, classes)."""
        logits: Floats = self._session.run(["logits"], {"x": x, "multipliers": self._multipliers})[0].copy()
        return logits


class OnnxRuntime:
    """Trains and infers with the files `train.onnx` and `infer.onnx` of a bundle.

    The inference graph is loaded on the first call of `logits`: a device that only trains never pays for it.

    Args:
        bundle: made for the runtime "onnx" and for the optimiser of `training`.
        training: the optimiser and its settings.
        threads: threads inside one operator.
        timed: let `operators` know how long every node of the training graph takes.

    Raises:
        RuntimeMissing: if onnxruntime is not installed.
        TicketError: if the bundle lacks a graph, or onnxruntime refuses one.
    """

    name = "onnx"

    def __init__(self, bundle: Bundle, training: Training, threads: int = 1, *, timed: bool = False) -> None:
        _require_memory(bundle, training)
        self._bundle = bundle
        self._threads = threads
        self._kept = bundle.ticket.kept
        self._trace = tempfile.TemporaryDirectory(prefix="hidenseek-") if timed else None
        region = region_bytes(bundle.ticket.plan, training.batch, EVALUATION_BATCH)
        self._train = _open(bundle, "train.onnx", threads, region, self._trace.name if self._trace else "")
        self._infer: OnnxInference | None = None
        self._state_names = _STATE[training.optimiser]
        inputs = {value.name: value.shape for value in self._train.get_inputs()}
        for name in ("scores", *self._state_names):
            if inputs.get(name) != [self._kept]:
                raise TicketError(
                    f"train.onnx has input '{name}' of shape {inputs.get(name)}, [{self._kept}] expected",
                    hint=f"Was the bundle made for another ticket, or another optimiser than {training.optimiser}?",
                )
        self._log_prior: Floats = np.zeros(bundle.ticket.plan.classes, dtype=np.float32)
        self._settings = {
            name: np.array(getattr(training, name), dtype=np.float32) for name in _SETTINGS[training.optimiser]
        }
        self._scores: Floats
        self._state: dict[str, Floats]
        self._steps: int
        self.set_scores(np.full(self._kept, training.start, dtype=np.float32))

    def set_scores(self, scores: Floats) -> None:
        """Copy scores in, float32 (kept,), and clear the optimiser's state."""
        if scores.shape != (self._kept,):
            raise ValueError(f"scores have shape {scores.shape}, ({self._kept},) expected")
        self._scores = np.array(scores, dtype=np.float32)
        self._state = {name: np.zeros(self._kept, dtype=np.float32) for name in self._state_names}
        self._steps = 0
        self._multiplied = False

    def set_log_prior(self, log_prior: Floats) -> None:
        """Add log_prior, float32 (classes,), to the logits whose loss is trained; 0, as at first, changes nothing.

        Raises:
            DataError: if there are not as many as classes.
        """
        _same_shape("log prior", log_prior, self._log_prior)
        self._log_prior = np.array(log_prior, dtype=np.float32)

    def scores(self) -> Floats:
        """A copy of the scores, float32 (kept,)."""
        return self._scores.copy()

    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:
        """Forward, backward and one optimiser step; loss and correct are from before it."""
        outputs = ["new_scores", *(f"new_{name}" for name in self._state_names)]
        result, (self._scores, *state) = self._run(outputs, x, y, weights)
        self._state = dict(zip(self._state_names, state, strict=True))
        self._steps += 1
        self._multiplied = False
        return result

    def gradient(self, x: Floats, y: Labels, weights: Floats) -> tuple[StepResult, Floats]:
        """Forward and backward only; the gradient of every score, float32 (kept,)."""
        result, (gradient,) = self._run(["gradient"], x, y, weights)
        return result, gradient

    def logits(self, x: Floats) -> Floats:
        """Inference with the scores' signs, or the multipliers set: float32 (n, classes)."""
        inference = self._inference()
        if not self._multiplied:
            inference.set_multipliers(as_multipliers(self._scores >= 0))
        return inference.logits(x)

    def set_multipliers(self, multipliers: Floats) -> None:
        """Let `logits` use multipliers, float32 (kept,), until scores are set or trained."""
        self._inference().set_multipliers(multipliers)
        self._multiplied = True

    def operators(self) -> list[Operator]:
        """Times of the training graph's nodes, from onnxruntime's own profile of them; empty if not `timed`.

        They are known once: after it no step is timed any more.
        """
        if self._trace is None:
            return []
        trace = Path(self._train.end_profiling())
        found: dict[tuple[str, str], list[float]] = {}
        for event in json.loads(trace.read_text(encoding="utf-8")):
            kind = event.get("args", {}).get("op_name")
            if event.get("cat") == "Node" and kind and event["name"].endswith("_kernel_time"):
                name = event["name"].removesuffix("_kernel_time")
                found.setdefault((name, kind), []).append(event["dur"] * 1e-6)
        self._trace.cleanup()
        self._trace = None
        return [
            Operator(name=name, kind=kind, seconds=sum(times), calls=len(times), shortest=min(times))
            for (name, kind), times in found.items()
        ]

    def _inference(self) -> OnnxInference:
        if self._infer is None:
            self._infer = OnnxInference(self._bundle, self._threads)
        return self._infer

    def _run(self, outputs: Sequence[str], x: Floats, y: Labels, weights: Floats) -> tuple[StepResult, list[Floats]]:
        feeds: dict[str, Any] = {"x": x, "y": y, "weight": weights, "scores": self._scores}
        feeds["log_prior"] = self._log_prior
        feeds |= self._state | self._settings
        if "m" in self._state:
            feeds["t"] = np.array(self._steps + 1, dtype=np.float32)
        loss, correct, *values = self._train.run(["loss", "correct", *outputs], feeds)
        # Results lie in the arena: held until the next step, they would be in the way of its tensors.
        return StepResult(loss=float(loss), correct=float(correct)), [value.copy() for value in values]


def _require_memory(bundle: Bundle, training: Training) -> None:
    """Refuse to start with less memory than training may add to the process (docs/profiling.md#memory-limits).

    Raises:
        NotEnoughMemory: if there is less.
    """
    plan = bundle.ticket.plan
    region = region_bytes(plan, training.batch, EVALUATION_BATCH)
    tensors = int((1 + HANDLES) * region) + KEPT_BYTES * bundle.ticket.kept
    memory_limits.require(
        LIBRARY_BYTES + tensors,
        f"training '{plan.name}' in batches of {training.batch} with onnxruntime",
        virtual=LIBRARY_VIRTUAL_BYTES + tensors,
        hint="take the sparse runtime, or a smaller network",
    )


def _same_shape(name: str, found: Floats, expected: Floats) -> None:
    if found.shape != expected.shape:
        raise DataError(f"{name} of shape {found.shape}, {expected.shape} expected", where="onnx runtime")


def _set_aside(ort: Any, region: int) -> None:
    """Give all graphs of this process one region for their tensors; a later graph that takes more gets another.

    From the C library's heap the same step took up to 18 % more or less memory from one process to the next.
    """
    with _one_at_a_time:
        if _regions:
            return
        _regions.append(region)
    where = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    settings = {"max_mem": 0, "arena_extend_strategy": 0, "initial_chunk_size_bytes": region}
    # A tensor takes no more than its size, rounded up to 256 bytes: the rest of a gap stays free.
    ort.create_and_register_allocator(where, ort.OrtArenaCfg(settings | {"max_dead_bytes_per_chunk": 1}))


def _open(bundle: Bundle, file: str, threads: int, region: int, trace: str = "") -> Any:  # onnxruntime has no types
    """Load one graph of a bundle.

    Args:
        bundle: what it is in.
        file: its name there.
        threads: inside one operator.
        region: bytes to set aside for tensors, if nothing has been opened before.
        trace: folder in which onnxruntime shall write down the time of its nodes.

    Raises:
        RuntimeMissing: if onnxruntime is not installed.
        TicketError: if the bundle lacks the file, or onnxruntime refuses it.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise RuntimeMissing(
            f"the runtime 'onnx' needs the package onnxruntime ({error})", hint=f"Install it: {INSTALL['onnx']}"
        ) from error
    if file not in bundle.files:
        raise TicketError(f"the bundle for runtime '{bundle.runtime}' has no file {file}")
    _set_aside(ort, region)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.use_env_allocators", "1")
    # The arena places tensors better than a plan made beforehand, and as export.onnx_arena foretells.
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    # What goes beyond rearranges weights that never change; here all do.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if trace:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(trace) / "nodes")
    try:
        return ort.InferenceSession(bundle.files[file], options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes, which only share Exception
        raise TicketError(f"onnxruntime {ort.__version__} refuses {file}: {error}") from error
