"""What an app does with `trainer.pte`, with ExecuTorch's official Python modules: for `hidenseek verify`.

They need torch, so this is for workstations; devices of ours run `train.pte` with `edge_client.runtimes.executorch`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edge_client.executorch.optimise import make_optimiser
from edge_client.runtimes.base import Floats, Labels, StepResult
from edge_client.runtimes.executorch import initial_weights, padded
from wire.bundle import Bundle
from wire.errors import RuntimeMissing
from wire.mask import as_multipliers
from wire.settings import Training

METHOD = "forward"


class ExecutorchApp:
    """`edge_client.runtimes.base.Runtime` on ExecuTorch's `TrainingModule`; the scores are its parameter.

    Args:
        bundle: with `trainer.pte` and `infer.pte`.
        training: optimiser and batch.

    Raises:
        RuntimeMissing: if executorch is not installed.
    """

    name = "executorch-trainer"

    def __init__(self, bundle: Bundle, training: Training) -> None:
        try:
            from executorch.extension.pybindings import portable_lib
            from executorch.extension.training import _load_for_executorch_for_training_from_buffer
        except ImportError as error:
            raise RuntimeMissing(
                f"the package executorch is not installed ({error})",
                where=self.name,
                hint="Install it: pip install --no-deps executorch==1.5.1 && pip install tabulate",
            ) from error
        self._training, self._kept = training, bundle.ticket.kept
        self._files = dict(bundle.files)  # the modules do not hold the bytes that they run
        self._module: Any = _load_for_executorch_for_training_from_buffer(self._files["trainer.pte"])
        self._infer: Any = portable_lib._load_for_executorch_from_buffer(self._files["infer.pte"])
        initial, indices = initial_weights(bundle.ticket, -(-bundle.ticket.kept // 64) * 64)
        self._weights = (torch.from_numpy(initial), torch.from_numpy(indices))
        self._prior = torch.zeros(bundle.ticket.plan.classes)
        # Parameters can be asked for after the first run only.
        sample = np.zeros((1, *bundle.ticket.plan.input_shape), dtype=np.float32)
        self._run(sample, np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.float32))
        self._scores: torch.Tensor = self._module.named_parameters()["scores"]  # shares the module's memory
        self.set_scores(np.full(self._kept, training.start, dtype=np.float32))

    def set_scores(self, scores: Floats) -> None:
        """Copy scores in, (kept,), and clear the optimiser's state."""
        self._scores[: self._kept].copy_(torch.from_numpy(scores))
        self._optimiser = make_optimiser(self._training, self._kept)

    def set_log_prior(self, log_prior: Floats) -> None:
        """Add log_prior (classes,) to the logits whose loss is trained."""
        self._prior = torch.from_numpy(np.array(log_prior, dtype=np.float32))

    def scores(self) -> Floats:
        """A copy of the scores, float32 (kept,)."""
        return self._scores[: self._kept].numpy().copy()

    def step(self, x: Floats, y: Labels, weights: Floats) -> StepResult:
        """One optimiser step."""
        result, gradient = self.gradient(x, y, weights)
        scores = self.scores()
        self._optimiser.step(scores, gradient)
        self._scores[: self._kept].copy_(torch.from_numpy(scores))
        return result

    def gradient(self, x: Floats, y: Labels, weights: Floats) -> tuple[StepResult, Floats]:
        """The gradient of every score, float32 (kept,), as the trainer gives it to its optimisers."""
        loss, correct = self._run(x, y, weights)
        gradient = self._module.named_gradients()["scores"].numpy()[: self._kept].copy()
        return StepResult(loss=float(loss), correct=float(correct)), gradient

    def set_multipliers(self, multipliers: Floats) -> None:
        """Not needed: an app infers with `infer.pte` as any other."""
        raise NotImplementedError

    def logits(self, x: Floats) -> Floats:
        """Inference with the scores' signs: float32 (n, classes), n at most the batch."""
        multipliers = torch.zeros_like(self._scores)
        multipliers[: self._kept] = torch.from_numpy(as_multipliers(self.scores() >= 0))
        samples = torch.from_numpy(padded(x, self._training.batch, np.float32))
        logits: Floats = self._infer.forward([multipliers, *self._weights, samples])[0].numpy()
        return logits[: len(x)].copy()

    def _run(self, x: Floats, y: Labels, weights: Floats) -> tuple[torch.Tensor, torch.Tensor]:
        batch = [
            torch.from_numpy(padded(values, self._training.batch, dtype))
            for values, dtype in ((x, np.float32), (y, np.int64), (weights, np.float32))
        ]
        loss, correct = self._module.forward_backward(METHOD, (*self._weights, self._prior, *batch))[:2]
        return loss, correct
